"""Domains of sampled fields: a range of numbers, or a list of values."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fishnet.checks.arguments import check_flag, without_numpy
from fishnet.checks.value_types import format_value
from fishnet.errors import UsageError
from fishnet.lookup import unknown_name
from fishnet.sweep.spec.field_parsing import coerce, coerce_all, is_number
from fishnet.sweep.spec.recipe import FIELDS

DIGITS = 4  # significant ones of a sampled number, so that an arm's name says all of it


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: whole ones for a field of whole numbers.

    Raises:
        UsageError: `log` is neither True nor False. `domain_of` checks the ends, as those of a field.
    """

    low: float
    high: float
    log: bool = False  # uniform in the logarithm instead of in the number

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", without_numpy(self.low))
        object.__setattr__(self, "high", without_numpy(self.high))
        check_flag("range: log", self.log)

    def __str__(self) -> str:
        """Text as on the command line: `0.001..0.3:log`."""
        return f"{format_value(self.low)}..{format_value(self.high)}" + ":log" * self.log

    def __contains__(self, value: Any) -> bool:
        return self.low <= value <= self.high

    def spec(self) -> dict[str, Any]:
        """What JSON keeps."""
        return asdict(self)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that a field must allow for, if it is to allow for all of them."""
        return self.low, self.high

    @property
    def size(self) -> float:
        """Number of different values; infinite where they are not whole."""
        return self.high - self.low + 1 if isinstance(self.low, int) else math.inf

    def at(self, points: np.ndarray) -> list[Any]:
        """The values at points [n] of the unit interval: `low + u (high - low)`, or the same in logarithms.

        Whole numbers n share the interval from n to n + 1. Other numbers are rounded to four significant digits: of the
        number where the scale is logarithmic, else of the range.
        """
        whole = isinstance(self.low, int)
        low, high = float(self.low), float(self.high) + whole
        values = np.exp(math.log(low) + points * math.log(high / low)) if self.log else low + points * (high - low)
        if whole:
            return np.clip(np.floor(values), self.low, self.high).astype(int).tolist()
        return [min(max(self._rounded(value), self.low), self.high) for value in values.tolist()]

    def _rounded(self, value: float) -> float:
        width = self.high - self.low
        finest = min(width, abs(value)) if self.log else width
        return round(value, DIGITS - 1 - math.floor(math.log10(finest)))


@dataclass(frozen=True)
class Choices:
    """Values of which each is as likely as the others; methods as of `Range`."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(map(format_value, self.values))

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def spec(self) -> list[Any]:
        return list(self.values)

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.values

    @property
    def size(self) -> int:
        return len(self.values)

    def at(self, points: np.ndarray) -> list[Any]:
        return [self.values[min(int(u * self.size), self.size - 1)] for u in points]


def domain_of(name: str, given: Any) -> Range | Choices:
    """Domain of a field, in the type of the field; a `UsageError` where it is none."""
    if name == "seed":
        raise UsageError("seed cannot be sampled: seeds are given with --seeds (seeds=...)")
    if name not in FIELDS:
        raise unknown_name("sampled field", name, [f for f in FIELDS if f != "seed"])
    if not isinstance(given, Range):
        return Choices(coerce_all("sample", name, given.values if isinstance(given, Choices) else given))
    if not is_number(name):
        raise UsageError(f"{name}: {str(given)!r} is a range, but the field is no number: list the values to draw from")
    low, high = coerce(name, given.low), coerce(name, given.high)
    if isinstance(low, str) or isinstance(high, str):
        raise UsageError(f"{name}: {str(given)!r} is not a range from a number to a number")
    if not low < high:
        raise UsageError(f"{name}: {str(given)!r} is no range: its first end is not below its second")
    if given.log and low <= 0:
        raise UsageError(f"{name}: {str(given)!r} is logarithmic, but does not begin above 0")
    return Range(low, high, bool(given.log))


def domain_from(name: str, spec: Any) -> Range | Choices:
    """Domain of a field from what its `spec` gave, its values spelled as they are there."""
    return domain_of(name, Range(**spec) if isinstance(spec, Mapping) else spec)
