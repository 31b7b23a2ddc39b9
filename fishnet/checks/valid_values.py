"""Valid values of options, beyond their types: names of a table, ranges of numbers, lists of either.

Each kind has `check(name, value)`: it refuses a value of option `name` with a `UsageError` that lists the valid ones.
Nothing here imports jax: tables of components are looked up when a value is checked.
"""

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from fishnet.checks.value_types import format_value
from fishnet.errors import UsageError
from fishnet.lookup import unknown_name


@dataclass(frozen=True)
class Names:
    """Names of a table or list that is looked up when it is needed, and some beside it."""

    where: str = ""  # `package.module:NAME` of the table; empty: none
    beside: tuple[str, ...] = ()  # further names
    noun: str = ""  # what one of them is called; empty: as the option

    @property
    def table(self) -> Collection[str]:
        """Table or list itself."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(module), name) if module else ()

    def entry(self, name: str) -> Any:
        """Looks up the component that a name stands for."""
        return cast(Mapping[str, Any], self.table)[name]

    def __iter__(self):
        return iter((*self.beside, *self.table))

    def check(self, name: str, value: Any) -> None:
        """Refuses an unknown name as the value of option `name`."""
        if value not in tuple(self):
            raise unknown_name(self.noun or name, value, self)


def named(where: str, *beside: str, noun: str = "") -> Names:
    """Names of the table at `package.module:NAME`, and those given beside it."""
    return Names(where, beside, noun)


def one_of(*names: str) -> Names:
    """Names that are given."""
    return Names(beside=names)


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`; what is no number, such as auto, passes."""

    low: float
    high: float
    inclusive: Literal["both", "neither", "left", "right"] = "both"  # which ends are valid themselves

    def __contains__(self, number: float) -> bool:
        above = self.low <= number if self.inclusive in ("both", "left") else self.low < number
        below = number <= self.high if self.inclusive in ("both", "right") else number < self.high
        return above and below

    def __str__(self) -> str:
        lower = "at least" if self.inclusive in ("both", "left") else "above"
        upper = "at most" if self.inclusive in ("both", "right") else "below"
        return f"{lower} {self.low} and {upper} {self.high:g}"

    def check(self, name: str, value: Any) -> None:
        """Refuses a number outside, also one that float32 rounds to an end that is not valid."""
        if isinstance(value, str):
            return
        rounded = float(np.float32(value)) if isinstance(value, float) else value
        if value not in self:
            raise UsageError(f"{name}: {format_value(value)!r} is not {self}")
        # An end itself may have no exact float32, as 1e30 has none.
        if rounded not in self and value not in (self.low, self.high):
            raise UsageError(f"{name}: {format_value(value)!r} is not {self}: in float32 it is {rounded:g}")


between = Interval


@dataclass(frozen=True)
class Each:
    """Lists, or names joined with +, of which each entry is valid; what is no list, such as all, passes."""

    each: Names | Interval
    distinct: bool = False  # no entry may be there twice
    joined: bool = False  # the values are texts, names joined with +

    def check(self, name: str, value: Any) -> None:
        """Refuses an entry that is not valid, or is there twice."""
        if isinstance(value, str) and not self.joined:
            return
        entries = value.split("+") if self.joined else value
        for entry in entries:
            self.each.check(name, entry)
            if self.distinct and entries.count(entry) > 1:
                raise UsageError(f"{name}: {format_value(value)!r} has {entry} twice")
