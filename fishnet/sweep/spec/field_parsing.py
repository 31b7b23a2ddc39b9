"""Values of recipe fields: from text or Python to the type of the field, and back to text."""

import functools
import math
import re
import typing
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fishnet.checks.arguments import quote_value
from fishnet.errors import UsageError
from fishnet.host.names import printable
from fishnet.lookup import unknown
from fishnet.sweep.spec.fields import NOTHING, format_value
from fishnet.sweep.spec.recipe import FIELDS

PLAIN = frozenset((bool, int, float, str))
SMALLEST, LARGEST = (float(edge) for edge in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


def parse_value(name: str, text: str) -> Any:
    """The value of recipe field `name` written as `text`: numbers, names, lists joined with hyphens, auto, all.

    Raises:
        UsageError: unknown field, or a text that is not of the field's type; the message repeats it as typed.
    """
    if name not in FIELDS:
        raise unknown("recipe field", name, FIELDS)
    text = text.strip()
    kinds = FIELDS[name].alternatives
    for kind in kinds:
        try:
            return _parse_as(kind, text)
        except ValueError:
            continue
    raise UsageError(f"{name}: {text!r} is not {' or '.join(map(_describe, kinds))}")


def coerce(name: str, value: Any) -> Any:
    """`value` as the type of field `name`: lists become tuples, whole numbers floats where the field is a float.

    A path becomes the one text of its place, so that a sweep does not depend on how it was typed.

    Raises:
        UsageError: the value is of another type, or a number that float32 or int64 cannot hold.
        UserError: a path begins with the home folder of a user who has none.
    """
    if name not in FIELDS:
        raise unknown("recipe field", name, FIELDS)
    # Recipes are copied by the thousand. What a path means depends on the working folder, so that paths are not kept.
    kinds = tuple(map(type, value)) if type(value) is tuple else (type(value),)
    known = FIELDS[name].normalize is None and PLAIN.issuperset(kinds)
    return _coerce_kept(name, value, kinds) if known else _coerce(name, value)


@functools.lru_cache(maxsize=4096)
def _coerce_kept(name: str, value: Any, kinds: tuple[type, ...]) -> Any:
    """`_coerce`, once for each value; its types tell apart what is equal: 1, 1.0 and True."""
    return _coerce(name, value)


def _coerce(name: str, value: Any) -> Any:
    value = without_numpy(value)
    _check_size(name, value)
    kinds = FIELDS[name].alternatives
    for kind in kinds:
        if _is_of(kind, value):
            return _converted(name, kind, value)
    raise UsageError(f"{name}: {quote_value(value)} is not {' or '.join(map(_describe, kinds))}")


def _is_of(kind: Any, value: Any) -> bool:
    """Tells whether a value is of one of a field's types."""
    if typing.get_origin(kind) is Literal:
        return isinstance(value, str) and value in typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        entry = typing.get_args(kind)[0]
        full = entry is str or bool(value)
        return isinstance(value, list | tuple) and full and all(_is_of(entry, v) for v in value)
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _converted(name: str, kind: Any, value: Any) -> Any:
    """A value that `_is_of` a type, in exactly that type."""
    if typing.get_origin(kind) is tuple:
        return tuple(_converted(name, typing.get_args(kind)[0], v) for v in value)
    if kind is float:
        return _in_float32(name, value)
    normalize = FIELDS[name].normalize
    return normalize(value) if normalize else value


def without_numpy(value: Any) -> Any:
    """A value with NumPy's scalars and arrays, also those in a list or tuple, as Python's numbers and lists."""
    if isinstance(value, list | tuple):
        return type(value)(map(without_numpy, value)) if type(value) in (list, tuple) else value
    return value.tolist() if hasattr(value, "tolist") else value


def _check_size(name: str, value: Any) -> None:
    """Refuses whole numbers beyond 64 bits, which cannot even be written in a message."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, int) and number.bit_length() > 63:
            raise UsageError(f"{name}: a whole number of {number.bit_length()} bits is too large for any field")


def _in_float32(name: str, value: float) -> float:
    """`value`, which is one that a network can be trained with.

    Raises:
        UsageError: in float32 it would be 0 or infinite.
    """
    if not math.isfinite(value):
        raise UsageError(f"{name}: {value} is not a finite number")
    if value != 0 and not SMALLEST <= abs(value) <= LARGEST:
        raise UsageError(
            f"{name}: {format_value(float(value))!r} is outside float32, in which networks are trained: 0, or "
            f"{SMALLEST:.1g} to {LARGEST:.1g}"
        )
    return float(value) + 0.0  # -0.0 is 0.0, which it is equal to


def coerce_all(what: str, name: str, values: Any) -> tuple[Any, ...]:
    """A list of different values as the type of field `name`.

    Args:
        what: they are, for the message: "axis".
        name: of the field.
        values: a list, a tuple or a NumPy array.

    Raises:
        UsageError: no list, an empty one, a value of another type or one that is there twice.
    """
    values = without_numpy(values)
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise UsageError(f"{what} {name}: {quote_value(values)} is not a list of values")
    result = tuple(coerce(name, value) for value in values)
    if not result:
        raise UsageError(f"{what} {name} has no values")
    for value in find_repeated(result):
        raise UsageError(f"{what} {name} has the value {format_value(value)!r} twice")
    return result


def find_repeated(values: Sequence[Any]) -> list[Any]:
    """Values that occur for the second time or more often."""
    seen = set()
    return [value for value in values if value in seen or seen.add(value)]


def is_number(name: str) -> bool:
    """Tells whether field `name` takes numbers, possibly among other values."""
    return not {int, float}.isdisjoint(FIELDS[name].alternatives)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _parse_as(kind: Any, text: str) -> Any:
    if typing.get_origin(kind) is Literal:
        if text in typing.get_args(kind):
            return text
        raise ValueError
    if typing.get_origin(kind) is tuple:
        entry = typing.get_args(kind)[0]
        if entry is str:
            return () if text == NOTHING else tuple(text.split("+"))
        return tuple(_parse_as(entry, part) for part in re.split(r"(?<!e)-", text))
    if kind is float:
        return number_of(text)
    if kind is int and not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError
    return kind(text)


def number_of(text: str) -> float:
    """The finite number that `text` writes in plain digits.

    Raises:
        ValueError: it is none; Python would also read other digits than 0 to 9, and underscores between them.
    """
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text.strip()):
        raise ValueError
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        if typing.get_args(kind)[0] is str:
            return f"names joined with + (gradients+updates), or {NOTHING}"
        if typing.get_args(kind)[0] is float:
            return "numbers joined with hyphens (1-0.3-0.1)"
        return "whole numbers joined with hyphens (16-32-64)"
    return {int: "a whole number", float: "a number", str: "a name"}[kind]


def shown_value(value: Any) -> str:
    """A recipe value as it is written on the command line, in a form that tables and pages can hold: a path may be no
    text."""
    return printable(format_value(value))
