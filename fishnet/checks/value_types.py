"""Values of options: from text or Python to the type of an option, and back to the text of a command line."""

import math
import re
import types
import typing
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from fishnet.errors import UsageError

UNIONS = (typing.Union, types.UnionType)
NOTHING = "none"  # how an empty list of names is written
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


def format_value(value: Any) -> str:
    """Formats a value as it is written on the command line: (16, 32) as 16-32, names with +, 0.001 as 0.001."""
    if isinstance(value, tuple | list):
        names = all(isinstance(v, str) for v in value)
        return ("+" if names else "-").join(map(format_value, value)) or NOTHING
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def parse_as(kind: Any, text: str) -> Any:
    """Parses the value of a type that is written as `text`.

    Args:
        kind: int, float, str, a Literal of strings, a tuple of any number of one of the first three, or a union of
            these, of which the first that fits is taken.
        text: as `format_value` writes it.

    Raises:
        ValueError: it is not of the type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in UNIONS:
        for one in arguments:
            with suppress(ValueError):
                return parse_as(one, text)
        raise ValueError
    if origin is tuple and arguments[0] is str:
        return () if text == NOTHING else tuple(text.split("+"))
    if origin is tuple:
        return tuple(parse_as(arguments[0], part) for part in re.split(r"(?<!e)-", text))  # 1e-3 is one number
    if kind is float:
        return parse_number(text)
    if (origin is Literal and text not in arguments) or (kind is int and not re.fullmatch(r"[+-]?[0-9]+", text)):
        raise ValueError
    return int(text) if kind is int else text


def parse_number(text: str) -> float:
    """Parses a finite number in plain digits.

    Raises:
        ValueError: it is none; Python would also read other digits than 0 to 9, and underscores between them.
    """
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text.strip()):
        raise ValueError
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def convert_to(kind: Any, name: str, value: Any) -> Any:
    """Converts a value of Python to exactly a type, as of `parse_as`: lists to tuples, whole numbers to floats.

    Args:
        kind: the type.
        name: of the option, for messages.
        value: without NumPy's types.

    Raises:
        TypeError: it is of another type.
        UsageError: a number with which no network can be trained.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in UNIONS:
        for one in arguments:
            with suppress(TypeError):
                return convert_to(one, name, value)
        raise TypeError
    if origin is tuple and isinstance(value, list | tuple) and (value or arguments[0] is str):
        return tuple(convert_to(arguments[0], name, entry) for entry in value)
    wanted = {float: (int, float), int: int}.get(kind, str)
    if origin is tuple or isinstance(value, bool) or not isinstance(value, wanted):
        raise TypeError
    if origin is Literal and value not in arguments:
        raise TypeError
    return to_float32(name, typing.cast(float, value)) if kind is float else value


def to_float32(name: str, value: float) -> float:
    """Converts a number to a float that is finite, and 0 only if it was, in float32 too.

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


def describe_type(kind: Any) -> str:
    """Describes a type in words: "a whole number"."""
    words = repr if typing.get_origin(kind) is Literal else describe_type
    return WORDS.get(kind) or " or ".join(map(words, typing.get_args(kind)))
