"""Values of recipe fields: from text or Python to the type of the field, and back to text."""

import functools
from typing import Any

from fishnet.checks.arguments import find_repeated, is_list, quote_value, without_numpy
from fishnet.checks.value_types import convert_to, describe_type, format_value, parse_as
from fishnet.errors import UsageError
from fishnet.host.names import escape_name
from fishnet.lookup import unknown_name
from fishnet.sweep.spec.fields import Field
from fishnet.sweep.spec.recipe import FIELDS

PLAIN = frozenset((bool, int, float, str))


def parse_value(name: str, text: str) -> Any:
    """The value of recipe field `name` written as `text`: numbers, names, lists joined with hyphens, auto, all.

    Raises:
        UsageError: unknown field, or a text that is not of the field's type; the message repeats it as typed.
    """
    kind, text = _field(name).type, text.strip()
    try:
        return parse_as(kind, text)
    except ValueError:
        raise UsageError(f"{name}: {text!r} is not {describe_type(kind)}") from None


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
    field = _field(name)
    try:
        value = convert_to(field.type, name, value)
    except TypeError:
        raise UsageError(f"{name}: {quote_value(value)} is not {describe_type(field.type)}") from None
    return field.normalize(value) if field.normalize else value


def coerce_all(what: str, name: str, values: Any) -> tuple[Any, ...]:
    """A list of different values as the type of field `name`; `what` they are, for the message: "axis".

    Raises:
        UsageError: no list, an empty one, a value of another type or one that is there twice.
    """
    values = without_numpy(values)
    if not is_list(values):
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


def shown_value(value: Any) -> str:
    """A recipe value as it is written on the command line, escaped for tables and pages: a path may be no text."""
    return escape_name(format_value(value))


def _field(name: str) -> Field:
    if name not in FIELDS:
        raise unknown_name("recipe field", name, FIELDS)
    return FIELDS[name]
