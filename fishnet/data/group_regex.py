"""Groups of photographs by file name, which stay in one split."""

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fishnet.errors import UsageError, UserError

SECONDS = 5.0  # limit for all file names; some expressions take exponential time


def parse_group_regex(text: str | None) -> re.Pattern | None:
    """Compiles a group expression.

    Raises:
        UsageError: it is no regular expression, or matches without any text.
    """
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise UsageError(f"group regex {text!r} is not a regular expression: {error}") from error
    if pattern.search("") is not None:
        raise UsageError(f"group regex {text!r} matches an empty text, so that it would put all files into one group")
    return pattern


def file_groups(pattern: re.Pattern, files: Sequence[str]) -> list[str]:
    """Groups of files: the match of the first pair of parentheses in each name, or of the whole expression.

    Args:
        pattern: from `parse_group_regex`.
        files: paths with slashes; their folders do not count.

    Raises:
        UserError: a file name does not match, or with an empty group; the message names it.
        UsageError: the expression takes longer than `SECONDS` (in the main thread only, and not on Windows).
    """
    with _no_longer_than(SECONDS, pattern):
        return [_group(pattern, file) for file in files]


def _group(pattern: re.Pattern, file: str) -> str:
    match = pattern.search(file.rsplit("/", 1)[-1])
    if match is None:
        raise UserError(f"{file}: the file name does not match the group regex {pattern.pattern!r}")
    group = match.group(1 if pattern.groups else 0)
    if not group:
        raise UserError(f"{file}: the group regex {pattern.pattern!r} finds an empty group in the file name")
    return group


@contextmanager
def _no_longer_than(seconds: float, pattern: re.Pattern) -> Iterator[None]:
    # Python's matching looks at signals now and then, so that an alarm ends it; threads and Windows cannot have one.
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
        or signal.getitimer(signal.ITIMER_REAL)[0]
    ):
        yield
        return

    def ring(*_: object) -> None:
        raise UsageError(
            f"group regex {pattern.pattern!r} takes more than {seconds:g} s: repetitions within repetitions, as in "
            "(a+)+, may take for ever"
        )

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)  # None: not set from Python
