"""C++ compiler of this machine: found, and run with a limit of time."""

import errno
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FULL = re.compile(r"No space left on device|Disk quota exceeded")


@dataclass(frozen=True)
class Compiler:
    """C++ compiler: the words that call it, and its version."""

    command: tuple[str, ...]
    version: str

    @property
    def is_zig(self) -> bool:
        """Whether it is Zig's, which spells processors its own way."""
        return "ziglang" in self.command or Path(self.command[0]).name == "zig"


class Unavailable(Exception):
    """Reason, in a line, why the kernels cannot be had."""


def find_compiler() -> Compiler:
    """C++ compiler: `$CXX`, else the first of c++, g++ and clang++ on the path, else the package `ziglang`.

    Raises:
        Unavailable: there is none, or it does not say its version.
    """
    try:
        own = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise Unavailable(f"CXX is no command: {error}") from error
    found = [path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))]
    if own:
        command = tuple(own)
    elif found:
        command = (found[0],)
    elif importlib.util.find_spec("ziglang") is not None:
        command = (sys.executable, "-m", "ziglang", "c++")
    else:
        raise Unavailable("there is no C++ compiler here; install g++ or clang, or: pip install ziglang")
    said = run_compiler(Compiler(command, ""), ["--version"], 60.0).splitlines()
    return Compiler(command, said[0].strip() if said else "")


def run_compiler(compiler: Compiler, arguments: Iterable[str], seconds: float) -> str:
    """Runs a compiler; returns what it printed.

    Raises:
        Unavailable: it cannot be started, fails or takes too long.
        OSError: it had no space to write to.
    """
    name = compiler.command[0]
    try:
        process = subprocess.Popen(
            [*compiler.command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", env=os.environ | {"LC_ALL": "C"}, process_group=0,
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(f"{name} cannot be started: {error.strerror or error}") from error
    with process:
        try:
            output, complaints = process.communicate(timeout=seconds)
        except BaseException as error:
            with suppress(ProcessLookupError):  # with the programs that it called, which would go on
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Unavailable(f"{name} did not end within {seconds:g} s") from error
            raise
    if process.returncode:
        if full := FULL.search(complaints):
            raise OSError(errno.ENOSPC, full[0])
        lines = complaints.splitlines()
        first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
        raise Unavailable(f"{name} failed: {first.strip() or f'exit code {process.returncode}'}")
    return output
