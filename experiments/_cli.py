"""What every experiment's command line shares: strict flags, errors in one line, the cores to use.

Nothing here imports jax, so that help and mistyped flags are answered at once.
"""

import argparse
import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fishnet.errors import UsageError, UserError


class Parser(argparse.ArgumentParser):
    """argparse, but flags take hyphens or underscores and every mistake is one `UsageError`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(re.sub(r"^argument (--[\w-]+): ", r"\1: ", message))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The flags in `argv`.

        Raises:
            UsageError: an unknown flag (the message names the nearest), a missing value, a stray word.
        """
        found, rest = self.parse_known_args(self._normalised(argv))
        for word in rest:
            if word.startswith("--"):
                name = word.partition("=")[0]
                near = difflib.get_close_matches(name, self._option_string_actions, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                typed = next(w for w in argv if self._normalised([w])[0] == word).partition("=")[0]
                raise UsageError(f"unknown flag {typed!r}{hint} (--help lists them all)")
            raise UsageError(f"unexpected argument {word!r}")
        return found

    def _normalised(self, argv: Sequence[str]) -> list[str]:
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


def whole(flag: str, text: str, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if not re.fullmatch(r"\+?\d+", text) or int(text) < least:
        raise UsageError(
            f"--{flag}: {text!r} is not a whole number of at least {least}"
            + (", all or auto" if flag == "lane-width" else "")
        )
    return int(text)


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity, and the quota of its container where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def guarded(job: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Runs `job` on the command line; an error becomes one line on standard error and an exit code.

    Returns:
        0, or what `job` returns; 2 for usage, 130 for Ctrl-C, 143 for SIGTERM, 1 for every other error.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        return job(argv)
    except BrokenPipeError:  # the reader of standard output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _say("stopped", "interrupted", debug)
        return 130
    except UserError as error:
        _say("stopped" if error.exit_code > 128 else "error", str(error), debug)
        return error.exit_code
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        _say("error", f"unexpected {type(error).__name__}: {lines[0]} (--debug shows where)", debug)
        return 1


def _say(kind: str, text: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    text = " ".join(text.split())
    print(text if text.startswith(kind) else f"{kind}: {text}", file=sys.stderr)
