"""Values of recipe fields: from text or Python to the type of the field, and back to text."""

import functools
import math
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from fishnet.checks.arguments import find_repeated, quote_value, without_numpy
from fishnet.errors import UsageError
from fishnet.host.names import printable
from fishnet.host.numbers import parse_number
from fishnet.lookup import unknown
from fishnet.sweep.spec.fields import NOTHING, Field, format_value
from fishnet.sweep.spec.recipe import FIELDS

PLAIN = frozenset((bool, int, float, str))
SMALLEST, LARGEST = (float(edge) for edge in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


# How messages name what is of a type; an alternative such as "auto" is named by itself.
WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a name",
    tuple[int, ...]: "whole numbers joined with hyphens (16-32-64)",
    tuple[float, ...]: "numbers joined with hyphens (1-0.3-0.1)",
    tuple[str, ...]: f"names joined with + (gradients+updates), or {NOTHING}",
}


def parse_value(name: str, text: str) -> Any:
    """The value of recipe field `name` written as `text`: numbers, names, lists joined with hyphens, auto, all.

    Raises:
        UsageError: unknown field, or a text that is not of the field's type; the message repeats it as typed.
    """
    text = text.strip()
    return _first_fitting(name, lambda kind: _parse(kind, text), lambda: repr(text))


def coerce(name: str, value: Any) -> Any:
    """`value` as the type of field `name`: lists become tuples, whole numbers floats where the field is a float.

    A path becomes the one text of its place, so that a sweep does not depend on how it was typed.

    Raises:
        UsageError: the value is of another type, or a number that float32 or int64 cannot hold.
        UserError: a path begins with the home folder of a user who has none.
    """
    # Recipes are copied by the thousand. What a path means depends on the working folder, so that paths are not kept.
    kinds = tuple(map(type, value)) if type(value) is tuple else (type(value),)
    known = _field(name).normalize is None and PLAIN.issuperset(kinds)
    return _coerce_kept(name, value, kinds) if known else _coerce(name, value)


@functools.lru_cache(maxsize=4096)
def _coerce_kept(name: str, value: Any, kinds: tuple[type, ...]) -> Any:
    """`_coerce`, once for each value; its types tell apart what is equal: 1, 1.0 and True."""
    return _coerce(name, value)


def _coerce(name: str, value: Any) -> Any:
    value = without_numpy(value)
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, int) and number.bit_length() > 63:  # too long even to be written in a message
            raise UsageError(f"{name}: a whole number of {number.bit_length()} bits is too large for any field")
    value = _first_fitting(name, lambda kind: _convert(name, kind, value), lambda: quote_value(value))
    normalize = _field(name).normalize
    return normalize(value) if normalize else value


def coerce_all(what: str, name: str, values: Any) -> tuple[Any, ...]:
    """A list of different values as the type of field `name`; `what` they are, for the message: "axis".

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


def is_number(name: str) -> bool:
    """Tells whether field `name` takes numbers, possibly among other values."""
    return not {int, float}.isdisjoint(FIELDS[name].alternatives)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def shown_value(value: Any) -> str:
    """A recipe value as it is written on the command line, in a form that tables and pages can hold: a path may be no
    text."""
    return printable(format_value(value))


def _field(name: str) -> Field:
    if name not in FIELDS:
        raise unknown("recipe field", name, FIELDS)
    return FIELDS[name]


def _first_fitting(name: str, read: Callable[[Any], Any], shown: Callable[[], str]) -> Any:
    """What `read` gives for the first type of a field that does not refuse the value; messages name it as `shown`."""
    kinds = _field(name).alternatives
    for kind in kinds:
        try:
            return read(kind)
        except UsageError:
            raise
        except ValueError:  # of another type
            continue
    words = [WORDS.get(kind) or " or ".join(map(repr, typing.get_args(kind))) for kind in kinds]
    raise UsageError(f"{name}: {shown()} is not {' or '.join(words)}")


def _parse(kind: Any, text: str) -> Any:
    """The value of a type that is written as `text`; ValueError where there is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and arguments[0] is str:
        return () if text == NOTHING else tuple(text.split("+"))
    if origin is tuple:
        return tuple(_parse(arguments[0], part) for part in re.split(r"(?<!e)-", text))  # 1e-3 is one number
    if kind is float:
        return parse_number(text)
    if (origin is Literal and text not in arguments) or (kind is int and not re.fullmatch(r"[+-]?[0-9]+", text)):
        raise ValueError
    return int(text) if kind is int else text


def _convert(name: str, kind: Any, value: Any) -> Any:
    """A value of Python in exactly a type of field `name`; ValueError where it is of another."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list | tuple) and (value or arguments[0] is str):
        return tuple(_convert(name, arguments[0], entry) for entry in value)
    wanted = {float: (int, float), int: int}.get(kind, str)
    if origin is tuple or isinstance(value, bool) or not isinstance(value, wanted):
        raise ValueError
    if origin is Literal and value not in arguments:
        raise ValueError
    return _in_float32(name, typing.cast(float, value)) if kind is float else value


def _in_float32(name: str, value: float) -> float:
    """A number with which a network can be trained: UsageError where in float32 it would be 0 or infinite."""
    if not math.isfinite(value):
        raise UsageError(f"{name}: {value} is not a finite number")
    if value != 0 and not SMALLEST <= abs(value) <= LARGEST:
        raise UsageError(
            f"{name}: {format_value(float(value))!r} is outside float32, in which networks are trained: 0, or "
            f"{SMALLEST:.1g} to {LARGEST:.1g}"
        )
    return float(value) + 0.0  # -0.0 is 0.0, which it is equal to
