"""Checks of the arguments of public functions, with one clear message before any work."""

import math
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fishnet.errors import UsageError

LONGEST = 60  # most characters of a value in a message


def quote_value(value: object) -> str:
    """Quotes a value for an error message: one line, shortened."""
    text = " ".join(repr(value).split())
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return text if isinstance(value, str | int | float | None) else f"{text} (a {type(value).__name__})"


def check_type(name: str, value: object, kind: type | tuple[type, ...], valid: str) -> None:
    """Refuses a value of another type; a bool is no number.

    Args:
        name: of the argument.
        value: that was given.
        kind: what it has to be an instance of.
        valid: what it has to be, in words, such as "a Sweep".

    Raises:
        UsageError: with all of these.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UsageError(f"{name}: {quote_value(value)} is not {valid}")


def check_flag(name: str, value: object) -> None:
    """Refuses a value that is neither True nor False."""
    check_type(name, value, bool, "True or False")


def check_text(name: str, value: object, valid: str = "a text") -> None:
    """Refuses a value that is not a string."""
    check_type(name, value, str, valid)


def check_whole_number(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Checks a whole number of any integer type, NumPy's included; returns it as an int.

    Args:
        name: of the argument.
        value: that was given.
        least, most: bounds, both allowed; None: no bound.

    Raises:
        UsageError: it is none, or out of range.
    """
    limits = f" of at least {least}" if least is not None else ""
    limits += f"{' and' if limits else ' of'} at most {most}" if most is not None else ""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name}: {quote_value(value)} is not a whole number{limits}") from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise UsageError(f"{name}: {quote_value(number)} is not a whole number{limits}")
    return number


def is_whole(value: object) -> bool:
    """Tells whether a value is a Python int and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_list(value: object) -> bool:
    """Tells whether a value is a sequence other than text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def check_finite(name: str, value: Any, least: float = -math.inf) -> None:
    """Refuses a value that is not a finite number, or is too small."""
    valid = "a finite number" + (f" of at least {least:g}" if least > -math.inf else "")
    check_type(name, value, (int, float), valid)
    if not math.isfinite(value) or value < least:
        raise UsageError(f"{name}: {quote_value(value)} is not {valid}")


def check_mapping(name: str, value: object, valid: str) -> None:
    """Refuses a value that is not a mapping."""
    check_type(name, value, Mapping, valid)


def as_folder(name: str, value: Any) -> Path:
    """Converts a string or path to the path of a folder.

    Raises:
        UsageError: it is neither, or empty, or holds a NUL.
    """
    check_type(name, value, (str, os.PathLike), "the path of a folder")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{name}: {quote_value(value)} is not the path of a folder")
    return Path(value)


def without_numpy(value: Any) -> Any:
    """Converts NumPy's scalars and arrays, also those in a list or tuple, to Python's numbers and lists."""
    if isinstance(value, list | tuple):
        return type(value)(map(without_numpy, value)) if type(value) in (list, tuple) else value
    return value.tolist() if hasattr(value, "tolist") else value


def find_repeated(values: Sequence[Any]) -> list[Any]:
    """Finds the values that occur for the second time or more often."""
    seen = set()
    return [value for value in values if value in seen or seen.add(value)]
