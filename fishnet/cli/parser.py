"""Shared parts of all command lines: strict flags, one-line errors, number of cores.

Nothing here imports jax, so that help and mistyped flags are answered at once.
"""

import argparse
import difflib
import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from fishnet.cli.output import guard_output, settle_environment
from fishnet.errors import UsageError, UserError, first_line
from fishnet.host.names import escape_text

MOST_DEVICES = 1024  # more than a machine has; each is made, with its threads, before it is known whether it is used
# A full disk, a folder without permission, too many open files: errors of the machine, not of the program.
OF_THE_MACHINE = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ESTALE,
        errno.ENODEV,
        errno.ENXIO,
    ),
    *(errno.EPIPE, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH),
}
LONGEST_WORD = 1000  # characters of a word that a message repeats; paths are shorter


class Parser(argparse.ArgumentParser):
    """argparse, but flags take hyphens or underscores and every mistake is one `UsageError`.

    A flag is given once, unless it is one that collects (`append`, `extend`), and never with an empty value.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(re.sub(r"^argument (--[\w-]+): ", r"\1: ", message))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The flags in `argv`.

        Raises:
            UsageError: an unknown flag (the message names the nearest), a missing or empty value, a flag that is given
                twice, a stray word.
        """
        words = self._normalized(argv)
        self._check_once(words)
        found, rest = self.parse_known_args(words)
        for word in rest:
            if word.startswith("--"):
                name = word.partition("=")[0]
                near = difflib.get_close_matches(name, self._option_string_actions, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                typed = next(w for w in argv if self._normalized([w])[0] == word).partition("=")[0]
                raise UsageError(f"unknown flag {typed!r}{hint} (--help lists them all)")
            raise UsageError(f"{word!r} belongs to no flag (--help lists them all)")
        return found

    def _check_once(self, words: Sequence[str]) -> None:
        """Refuses empty values, and repeated flags of which only the last would count.

        Raises:
            UsageError: with the flag and what was given.
        """
        earlier: dict[str, tuple[str, list[str]]] = {}
        for flag, values in split_flags(words):
            action = self._option_string_actions.get(flag)
            if action is None:
                continue
            if not all(value.strip() for value in values):
                raise UsageError(f"{flag}: {next(v for v in values if not v.strip())!r} is empty: give it a value")
            if isinstance(action, argparse._AppendAction):
                continue
            if action.dest in earlier:
                other, given = earlier[action.dest]
                if other != flag:
                    raise UsageError(f"{other} and {flag} are both given")
                both = f": {' '.join(given)!r} and {' '.join(values)!r}" if values else ""
                raise UsageError(f"{flag} is given twice{both}")
            earlier[action.dest] = flag, values

    def _normalized(self, argv: Sequence[str]) -> list[str]:
        words = []
        for word in argv:
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                word = name.replace("_", "-") + equals + value
            elif words and re.match(r"-[\d.]", word) and self._takes_value(words[-1]):
                word = f"{words.pop()}={word}"  # argparse takes -1e-3 for a flag
            words.append(word)
        return words

    def _takes_value(self, word: str) -> bool:
        action = self._option_string_actions.get(word)
        return action is not None and action.nargs is None


def split_flags(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Flags of a command line, each with its values: the words up to the next flag, or after `=`."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            found.append((flag, [value] if equals else []))
        elif found:
            found[-1][1].append(word)
    return found


def parse_whole(flag: str, text: str, least: int = 1, most: int | None = None) -> int:
    """Parses a whole number from `least` to `most`.

    Raises:
        UsageError: the text is none, in plain digits.
    """
    try:
        number = int(text) if re.fullmatch(r"\+?[0-9]+", text) else None
    except ValueError:  # of more digits than Python reads
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise UsageError(
            f"--{flag}: {text!r} is not a whole number of at least {least}"
            + (f" and at most {most}" if most is not None else "")
            + (", all or auto" if flag == "lane-width" else "")
        )
    return number


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity, and the quota of its container where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def run_guarded(job: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Runs `job` on the command line; an error becomes one line on standard error and an exit code.

    Returns:
        0, or what `job` returns; 2 for usage, 130 for Ctrl-C, 143 for SIGTERM, 1 for every other error.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    with settle_environment(), guard_output() as output, plain_warnings():
        code = _outcome(job, argv)
        if problem := output.failure():
            _say("error", f"standard output cannot be written ({problem}): nothing else is lost", debug=False)
            return code or 1
        return code


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Context that shows warnings for the user as one line, without their place in the source."""
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **line: Any) -> str:
        if not issubclass(category, UserWarning):
            return usual(message, category, *place, **line)
        return f"warning: {escape_text(str(message))}\n"

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _outcome(job: Callable[[list[str]], int], argv: list[str]) -> int:
    """Runs `job` and returns its exit code; prints what went wrong."""
    debug = "--debug" in argv
    try:
        return job(argv)
    except SystemExit as end:  # --help, or a text that says why
        if isinstance(end.code, str):
            _say("error", end.code, debug)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        _say("stopped", "interrupted", debug)
        return 130
    except UserError as error:
        _say("stopped" if error.exit_code > 128 else "error", str(error), debug)
        return error.exit_code
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            return _unexpected(error, debug)
        where = f"{error.filename}: " if error.filename else ""
        _say("error", f"{where}{error.strerror or error}", debug)
        return 1
    except MemoryError as error:
        _say("error", f"out of memory{f': {error}' * bool(str(error))}", debug)
        return 1
    except Exception as error:
        if variable := _refused_variable(error):
            _say("error", f"{variable}: JAX does not know this value ({first_line(error)})", debug)
            return 1
        return _unexpected(error, debug)


def _unexpected(error: Exception, debug: bool) -> int:
    """Reports an error that is a bug of the program, and returns its exit code."""
    _say("error", f"unexpected {type(error).__name__}: {first_line(error)} (--debug shows where)", debug)
    return 1


def _refused_variable(error: Exception) -> str | None:
    """`NAME=value` of the JAX variable that an error reports as unreadable; empty for other errors."""
    if not isinstance(error, ValueError):
        return None
    mentioned = {word.strip("'\"") for word in str(error).lower().replace("jax.", "jax_").split()}
    named = (name for name in os.environ if name.startswith("JAX_") and name.lower() in mentioned)
    return next((f"{name}={os.environ[name]}" for name in named), None)


def _say(kind: str, text: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    text = escape_text(" ".join(f"{word[:60]}..." if len(word) > LONGEST_WORD else word for word in text.split()))
    print(text if text.startswith(kind) else f"{kind}: {text}", file=sys.stderr)
