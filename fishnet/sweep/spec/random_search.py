"""Fields of a recipe that are sampled: values drawn from ranges and choices, at random or along a Sobol sequence."""

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from fishnet.checks.arguments import check_mapping, check_text, is_list, is_whole, quote_value
from fishnet.checks.value_types import format_value
from fishnet.errors import UsageError
from fishnet.host.numbers import format_count
from fishnet.lookup import unknown_name
from fishnet.sweep.spec.field_parsing import coerce
from fishnet.sweep.spec.recipe import current_spelling
from fishnet.sweep.spec.search_space import domain_from, domain_of
from fishnet.sweep.spec.unit_cube import METHODS

MOST_RUNS = 2**15  # of a sweep: three times what is planned within seconds
MOST_POINTS = 2**16  # looked at, or eight a draw if that is more, until enough of them are different


@dataclass(frozen=True)
class Samples:
    """Draws of some fields together, each of which is an arm (beside a grid: an arm of every combination of its axes).

    The first n of more draws are the same n draws. A draw that repeats an earlier one is passed over.

    Args:
        space: recipe field -> a `Range`, or a list of values that are equally likely.
        draws: how many, or the draws themselves: a value of each field.
        method: sobol (scrambled: spread more evenly than by chance in all fields together, and best balanced where the
            number of draws is a power of two), or random.
        seed: of the draws; it has nothing to do with the seeds of the runs.

    Raises:
        UsageError: an unknown field, a range of a field whose values are no numbers, a reversed range, a logarithmic
            one that does not begin above 0, no draws or more than there are different ones, an unknown method.

    Source: Bergstra and Bengio 2012 (random search), https://jmlr.org/papers/v13/bergstra12a.html; Sobol 1967,
    https://doi.org/10.1016/0041-5553(67)90144-9; Owen 1998 (scrambling), https://doi.org/10.1006/jcom.1998.0487
    """

    space: Mapping[str, Any] = field(default_factory=dict)
    draws: int | Sequence[Mapping[str, Any]] = 16
    method: str = "sobol"
    seed: int = 0
    points: tuple[dict[str, Any], ...] = field(init=False, compare=False)  # the draws: field -> value

    def __post_init__(self) -> None:
        check_mapping("samples", self.space, "a dictionary from recipe fields to ranges and lists of values")
        check_text("sampler", self.method, f"one of {', '.join(METHODS)}")
        space = {name: domain_of(name, given) for name, given in self.space.items()}
        object.__setattr__(self, "space", types.MappingProxyType(space))
        if self.method not in METHODS:
            raise unknown_name("sampler", self.method, METHODS)
        if not is_whole(self.seed) or not 0 <= self.seed < 2**32:
            raise UsageError(f"draw seed: {quote_value(self.seed)} is not a whole number from 0 to 4294967295")
        if is_whole(self.draws):
            points = self._drawn(cast(int, self.draws))
        elif is_list(self.draws):
            points = self._given(cast(Sequence, self.draws))
            object.__setattr__(self, "draws", points)
        else:
            raise UsageError(f"draws: {quote_value(self.draws)} is neither a number of draws nor a list of draws")
        object.__setattr__(self, "points", points)

    def __bool__(self) -> bool:
        return bool(self.space)

    def __reduce__(self):
        return Samples, (dict(self.space), self.draws, self.method, self.seed)

    @property
    def notes(self) -> list[str]:
        """Notes on the draws for the user."""
        count = len(self.points)
        if not self or self.method != "sobol" or not is_whole(self.draws) or not count & (count - 1):
            return []
        above = 1 << count.bit_length()
        return [f"{count} draws: a Sobol sequence is best balanced at powers of two, such as {above // 2} or {above}"]

    def spec(self) -> dict[str, Any]:
        """Plain JSON values, the draws written out."""
        how = {"method": self.method, "seed": self.seed} if is_whole(self.draws) else {}
        spec = {"space": {name: domain.spec() for name, domain in self.space.items()}, **how, "draws": self.points}
        return json.loads(json.dumps(spec))  # lists in place of tuples

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Samples":
        """The same draws from what `spec` gave, in today's spelling; none from nothing."""
        if not spec:
            return cls()
        space = {
            name: domain_from(name, given if isinstance(given, Mapping) else [current_spelling(name, v) for v in given])
            for name, given in spec["space"].items()
        }
        return cls(space, [{name: current_spelling(name, v) for name, v in draw.items()} for draw in spec["draws"]])

    def _drawn(self, wanted: int) -> tuple[dict[str, Any], ...]:
        """Draws `wanted` different points."""
        if wanted < 1:
            raise UsageError(f"draws: {wanted} is not at least 1")
        check_count("draws", wanted)
        if not self.space:
            return ({},)
        different: float = 1
        for domain in self.space.values():  # as far as it matters: the product of all may be beyond any number
            different = min(different * domain.size, MOST_RUNS)
        if wanted > different:
            raise UsageError(f"draws: {wanted} is more than there are different ones, {different}: --axis takes all")
        count = wanted
        while True:
            points = METHODS[self.method](count, len(self.space), self.seed)
            columns = [domain.at(u) for domain, u in zip(self.space.values(), points.T, strict=True)]
            found = list(dict.fromkeys(zip(*columns, strict=True)))
            if len(found) >= wanted:
                return tuple(dict(zip(self.space, values, strict=True)) for values in found[:wanted])
            if count >= max(MOST_POINTS, 8 * wanted):
                raise UsageError(f"draws: {wanted} different ones were not found: {count} points gave {len(found)}")
            count *= 2

    def _given(self, draws: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
        """Checks the draws that the user lists."""
        check_count("draws", len(draws))
        points: list[dict[str, Any]] = []
        seen = set()
        for number, draw in enumerate(draws, start=1):
            check_mapping(f"draw {number}", draw, "a dictionary from recipe fields to values")
            if set(draw) != set(self.space):
                names = [", ".join(map(str, fields)) for fields in (draw, self.space)]
                raise UsageError(f"draw {number} has the fields {names[0]}, not {names[1]}")
            points.append({name: coerce(name, draw[name]) for name in self.space})
            for name, value in points[-1].items():
                if value not in self.space[name]:
                    raise UsageError(f"draw {number}: {name} {format_value(value)!r} is not in {self.space[name]}")
            values = tuple(points[-1].values())
            if values in seen:
                raise UsageError(f"draw {number} is given twice")
            seen.add(values)
        if not points:
            raise UsageError("draws: the list is empty")
        return tuple(points)


def check_count(what: str, number: int) -> None:
    """Refuses a number of seeds or draws that is beyond any sweep."""
    if number > MOST_RUNS:
        raise UsageError(f"{what}: {format_count(number)} is more than the {MOST_RUNS:,} runs that a sweep can hold")


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Differences between the draws of the sweep there and here, in words; of each its `Samples.spec`, or nothing."""
    old, new = _words(found), _words(wanted)
    names = [name for name in dict.fromkeys([*new, *old]) if old.get(name) != new.get(name)]
    if names:
        return [f"{name} {old.get(name, 'absent')} there, {new.get(name, 'absent')} here" for name in names]
    pairs = zip(found.get("draws", ()), wanted.get("draws", ()), strict=True)
    for number, draws in enumerate(pairs, start=1):
        if draws[0] != draws[1]:
            there, here = (" ".join(f"{name}={format_value(value)}" for name, value in draw.items()) for draw in draws)
            return [f"draw {number} {there} there, {here} here"]
    return []


def _words(spec: Mapping[str, Any]) -> dict[str, str]:
    """Properties of draws by name, without the draws themselves."""
    if not spec:
        return {}
    space = {f"sample {name}": domain_from(name, domain) for name, domain in spec["space"].items()}
    rest = {"draws": len(spec["draws"]), "sampler": spec.get("method"), "draw seed": spec.get("seed")}
    return {name: str(text) for name, text in (space | rest).items() if text is not None}
