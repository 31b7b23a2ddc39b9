"""Standard output and error of a command: a failure to write them never loses a computed result."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

SIZES = ("COLUMNS", "LINES")  # of the terminal, as the environment tells them
WITHOUT_WIDTH = 1000  # columns: in a pipe or a file nothing is folded


class Output:
    """A standard stream that goes silent when it cannot be written: closed, on a full disk, or its reader gone.

    Args:
        stream: None: it was closed before the process began.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._closed = stream is None
        self._stream: Any = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115
        self._problem = ""
        if getattr(self._stream, "errors", "") == "strict" and hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")  # a terminal of ASCII is no reason to fail

    def write(self, text: str) -> int:
        """Writes, if that is possible; returns the length of the text."""
        if self._closed and text:
            self._problem = "it is closed"
        try:
            if not self._problem:
                self._stream.write(text)
        except (OSError, ValueError) as error:
            self._problem = _reason(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes a list of texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes, if that is possible."""
        try:
            if not self._problem:
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._problem = _reason(error)

    def failure(self) -> str:
        """Reason why output could not be written; empty if all was."""
        self.flush()
        return self._problem

    def release(self) -> None:
        """Flushes; what could not be written is dropped, so that Python does not try again when it ends."""
        if self.failure() and not self._closed:
            with suppress(OSError, ValueError):
                number = self._stream.fileno()
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def guard_output() -> Iterator[Output]:
    """Context in which nothing fails because standard output or standard error cannot be written.

    Yields:
        Standard output, which knows what became of it.
    """
    hold_standard_files()
    streams = sys.stdout, sys.stderr
    output, errors = map(Output, streams)
    sys.stdout, sys.stderr = output, errors
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = streams
        output.release()
        errors.release()


def hold_standard_files() -> None:
    """Opens closed standard files on the null device; otherwise the next file opened would take their number."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)


@contextmanager
def settle_environment() -> Iterator[None]:
    """Context without environment variables that could stop a command after training.

    These are sizes of a terminal that are no numbers, and the plotting backend: figures are files here, but matplotlib
    cannot be imported while a backend is named that does not exist.
    """
    wrong = [name for name in SIZES if not re.fullmatch(r"[1-9][0-9]{0,3}", os.environ.get(name, "1"))]
    removed = {name: os.environ.pop(name) for name in [*wrong, "MPLBACKEND"] if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)


def output_width() -> int | None:
    """Width of printed output in columns: COLUMNS, the terminal's width, or wide where output is no terminal.

    Returns:
        None where the terminal knows.
    """
    return None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or WITHOUT_WIDTH)
