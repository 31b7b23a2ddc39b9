"""Compiled library of the kernels: built at first use, kept in the user's cache, registered with XLA.

Its file is named by what it was made of and by its own hash: one of another processor, compiler, version of jaxlib or
source is not found, and a damaged one is seen before it is loaded. `FISHNET_CPU_KERNELS` forces a variant or turns it
off.
"""

import ctypes
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.errors import UserError
from fishnet.host.cache import cache_dir
from fishnet.host.folder_lock import InUse, wait_for_lock
from fishnet.lookup import unknown_name

SOURCES = Path(__file__).parent / "kernels"
VARIABLE = "FISHNET_CPU_KERNELS"
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden")
SECONDS = 600.0  # of compilation, and of waiting for another process that compiles; it takes 10 to 30
KEPT = 4  # libraries in the cache
HANDLER = re.compile(r"^XLA_FFI_DEFINE_HANDLER_SYMBOL\((\w+),", re.MULTILINE)


@dataclass(frozen=True)
class Variant:
    """Instruction set that the kernels can be compiled for.

    Args:
        machines: names that `platform.machine` has for processors that may have it.
        features: what `/proc/cpuinfo` must list; nothing where all such machines have it.
        flags: of GCC and Clang.
        zig_flags: of Zig's C++ compiler.
    """

    machines: tuple[str, ...]
    features: frozenset[str]
    flags: tuple[str, ...]
    zig_flags: tuple[str, ...]


X86, ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")
AVX2 = frozenset(["avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"])
VARIANTS = {  # the first that the processor has is taken
    "avx512": Variant(
        X86, AVX2 | frozenset(["avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512cd"]), ("-march=x86-64-v4",),
        ("-mcpu=x86_64_v4",),
    ),
    "avx2": Variant(X86, AVX2, ("-march=x86-64-v3",), ("-mcpu=x86_64_v3",)),
    "neon": Variant(ARM, frozenset(), (), ()),
}  # fmt: skip
CHOICES = ("auto", "off", *VARIANTS)


@dataclass(frozen=True)
class Compiler:
    """C++ compiler: the words that call it, and its version."""

    command: tuple[str, ...]
    version: str

    @property
    def is_zig(self) -> bool:
        """Whether it is Zig's, which spells processors its own way."""
        return "ziglang" in self.command


class Unavailable(Exception):
    """Reason, in a line, why the kernels cannot be had."""


_LOCK = threading.Lock()
_OUTCOMES: dict[str, str] = {}  # by the value of VARIABLE: why the kernels cannot be had, "" if they can
_KEEP = ExitStack()  # temporary folders, for as long as the process lives


def missing_kernels(note: Callable[[str], object] = lambda _: None) -> str:
    """Loads the kernels and registers them with XLA as `fishnet_<handler>`, compiled first if need be.

    Once a process: later calls return what the first one found.

    Args:
        note: is told when a compiler is called, which takes 10 to 30 seconds.

    Returns:
        Why they cannot be had, in a line; "" if they can.

    Raises:
        UsageError: `FISHNET_CPU_KERNELS` has another value than auto, off or the name of a variant.
    """
    wanted = os.environ.get(VARIABLE, "") or "auto"
    if wanted not in CHOICES:
        raise unknown_name(VARIABLE, wanted, CHOICES)
    with _LOCK:
        if wanted not in _OUTCOMES:
            try:
                _load(choose_variant(wanted), note)
                _OUTCOMES[wanted] = ""
            except Unavailable as reason:
                _OUTCOMES[wanted] = str(reason)
        return _OUTCOMES[wanted]


def require_kernels(note: Callable[[str], object] = lambda _: None) -> None:
    """Loads the kernels as `missing_kernels` does.

    Raises:
        UserError: they cannot be had here.
        UsageError: see `missing_kernels`.
    """
    if reason := missing_kernels(note):
        raise UserError(f"the lowering cpu_kernels cannot be used: {reason}")


def _load(variant: str, note: Callable[[str], object]) -> None:
    """Loads a variant and registers it, unless one is registered already.

    Raises:
        Unavailable: it cannot be built or loaded, or computes wrongly.
    """
    if "" in _OUTCOMES.values():
        return
    path = find_library(SOURCES, variant, note)
    register(path, handler_names(SOURCES), "fishnet_")
    check_answers("fishnet_")


def choose_variant(wanted: str) -> str:
    """Name of the variant for this processor.

    Args:
        wanted: one of `CHOICES`.

    Raises:
        Unavailable: the processor has none of them, or not the one that is wanted; or they are turned off.
    """
    if wanted == "off":
        raise Unavailable(f"{VARIABLE} is off")
    machine = platform.machine()
    features = processor_features()
    fitting = [name for name, v in VARIANTS.items() if machine in v.machines and v.features <= features]
    if wanted != "auto" and wanted not in fitting:
        raise Unavailable(f"{VARIABLE} is {wanted}, which this processor ({machine}) does not have")
    if not fitting:
        raise Unavailable(f"this processor ({machine}) has neither AVX2 with FMA nor NEON")
    return fitting[0] if wanted == "auto" else wanted


def processor_features() -> frozenset[str]:
    """Instruction sets that the operating system lists, in Linux's spelling; empty if it lists none."""
    with suppress(OSError):
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return frozenset(found[1].split()) if found else frozenset()
    words: list[str] = []
    for name in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        with suppress(OSError, subprocess.SubprocessError):
            words += subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10).stdout.split()
    return frozenset(word.lower().replace(".", "") for word in words)


def find_compiler() -> Compiler:
    """C++ compiler: `$CXX`, else the first of c++, g++ and clang++ on the path, else the package `ziglang`.

    Raises:
        Unavailable: there is none, or it does not say its version.
    """
    own = shlex.split(os.environ.get("CXX", ""))
    found = [path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))]
    if own:
        command = tuple(own)
    elif found:
        command = (found[0],)
    elif importlib.util.find_spec("ziglang") is not None:
        command = (sys.executable, "-m", "ziglang", "c++")
    else:
        raise Unavailable("there is no C++ compiler here (c++, g++, clang++ or the package ziglang)")
    said = run_compiler(Compiler(command, ""), ["--version"], 60.0).splitlines()
    return Compiler(command, said[0].strip() if said else "")


def run_compiler(compiler: Compiler, arguments: Iterable[str], seconds: float) -> str:
    """Runs a compiler; returns what it printed.

    Raises:
        Unavailable: it cannot be started, fails or takes too long.
    """
    try:
        done = subprocess.run(
            [*compiler.command, *arguments], capture_output=True, text=True, errors="replace", timeout=seconds,
            stdin=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{compiler.command[0]} did not end within {seconds:g} s") from error
    except OSError as error:
        raise Unavailable(f"{compiler.command[0]} cannot be started: {error.strerror or error}") from error
    if done.returncode:
        lines = done.stderr.splitlines()
        first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
        raise Unavailable(f"{compiler.command[0]} failed: {first.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def find_library(sources: Path, variant: str, note: Callable[[str], object] = lambda _: None) -> Path:
    """Path of the compiled library, sound and of these sources; it is compiled if need be.

    Args:
        sources: folder with `handlers.cc` and what it includes.
        variant: a key of `VARIANTS`.
        note: is told when it is compiled.

    Raises:
        Unavailable: there is no compiler, or it fails.
    """
    compiler = find_compiler()
    key = library_key(sources, variant, compiler)
    cache = cache_dir()
    if cache is not None:
        folder = cache / "kernels"
        if found := _kept(folder, key):
            return found
        try:
            with ExitStack() as stack:
                with suppress(InUse):  # then both compile; each moves a whole file into its place
                    stack.enter_context(wait_for_lock(folder, "", SECONDS, lambda: None))
                return _kept(folder, key) or compile_library(sources, variant, compiler, folder, key, note)
        except (UserError, OSError):
            pass  # a cache that cannot be written: compiled for this process alone
    folder = Path(_KEEP.enter_context(tempfile.TemporaryDirectory(prefix="fishnet-kernels-")))
    try:
        return compile_library(sources, variant, compiler, folder, key, note)
    except OSError as error:
        raise Unavailable(f"the kernels cannot be written to {folder}: {error.strerror or error}") from error


def library_key(sources: Path, variant: str, compiler: Compiler) -> str:
    """Name for all that a compiled library depends on."""
    digest = hashlib.sha256()
    for path in sorted(sources.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for word in (*compiler.command, compiler.version, *FLAGS, version("jaxlib"), sys.platform, platform.machine()):
        digest.update(word.encode() + b"\0")
    return f"{variant}-{digest.hexdigest()[:24]}"


def _kept(folder: Path, key: str) -> Path | None:
    """Library of this key in a folder, if its bytes are those that were written."""
    with suppress(OSError):
        for path in folder.glob(f"{key}-*.so"):
            if path.stem.removeprefix(f"{key}-") == _content_hash(path):
                return path
    return None


def _content_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24]


def compile_library(
    sources: Path, variant: str, compiler: Compiler, folder: Path, key: str, note: Callable[[str], object]
) -> Path:
    """Compiles a library into a folder, whole or not at all, and removes old ones; returns its path.

    Raises:
        Unavailable: the compiler fails.
        OSError: the folder cannot be written to.
    """
    note(f"compiling the CPU kernels, once, with {compiler.version or compiler.command[0]}")
    chosen = VARIANTS[variant]
    target = chosen.zig_flags if compiler.is_zig else chosen.flags
    number, scratch = tempfile.mkstemp(dir=folder, prefix=".", suffix=".so")
    os.close(number)
    try:
        includes = ["-isystem", jax.ffi.include_dir()]
        run_compiler(compiler, [*FLAGS, *target, *includes, "-o", scratch, str(sources / "handlers.cc")], SECONDS)
        path = folder / f"{key}-{_content_hash(Path(scratch))}.so"
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)
    with suppress(OSError):
        libraries = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime)
        damaged = [old for old in libraries if old.name.startswith(f"{key}-") and old != path]
        for old in [*damaged, *libraries[:-KEPT]]:
            old.unlink(missing_ok=True)
    return path


def handler_names(sources: Path) -> list[str]:
    """Names of the handlers that the sources define."""
    return HANDLER.findall((sources / "handlers.cc").read_text())


def register(path: Path, names: Iterable[str], prefix: str) -> None:
    """Loads a library and registers its handlers with XLA for CPU.

    Raises:
        Unavailable: the operating system cannot load it, or it lacks a handler.
    """
    try:
        library = ctypes.CDLL(str(path))
        for name in names:
            jax.ffi.register_ffi_target(prefix + name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except (OSError, AttributeError) as error:
        raise Unavailable(f"the compiled kernels cannot be loaded: {error}") from error


def check_answers(prefix: str) -> None:
    """Convolves small whole numbers, whose result is exact: a compiler's mistake is no reason for wrong networks.

    Raises:
        Unavailable: a result is wrong.
    """
    x = np.arange(2 * 5 * 4 * 17, dtype=np.float32).reshape(2, 5, 4, 17) % 7 - 3
    k = np.arange(3 * 3 * 17 * 18, dtype=np.float32).reshape(3, 3, 17, 18) % 5 - 2
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.sum([around[:, i : i + 5, j : j + 4] @ k[i, j] for i in range(3) for j in range(3)], axis=0)
    for winograd_from in (0, 1):
        with jax.default_device(jax.devices("cpu")[0]):
            call = jax.ffi.ffi_call(f"{prefix}convolution", jax.ShapeDtypeStruct(expected.shape, jnp.float32))
            window = np.array([1, 1, 1, 1, 1, 1], np.int64)
            found = call(x, k, window=window, depthwise=False, winograd_from=np.int64(winograd_from))
        if not np.array_equal(np.asarray(found), expected):
            raise Unavailable("the compiled kernels give wrong results")
