"""A grid of recipes, or draws, and its runs: how an ablation is written down, and what identifies it."""

import dataclasses
import hashlib
import itertools
import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from fishnet.checks.arguments import check_type, find_repeated, is_list, is_whole, quote_value, without_numpy
from fishnet.errors import UsageError
from fishnet.host.numbers import format_count
from fishnet.lookup import unknown_name
from fishnet.sweep.spec.field_parsing import coerce, coerce_all, shown_value
from fishnet.sweep.spec.random_search import MOST_RUNS, Samples, check_count
from fishnet.sweep.spec.recipe import FIELDS, Recipe
from fishnet.sweep.spec.stopping import Stopping


@dataclass(frozen=True)
class Sweep:
    """A base recipe, what to vary and the seeds: the grid of all combinations, each with every draw and every seed.

    Args:
        recipe: what all runs share; its `seed` is not used.
        axes: recipe field -> the values to try, in the order of the table's rows.
        seeds: how many (seeds 0 to n - 1), or the seeds themselves.
        stopping: when arms end before their last epoch.
        samples: fields that are drawn from ranges and choices, beside the axes or in their place.

    Raises:
        UsageError: unknown field, a value of the wrong type, an empty or repeated value, `seed` as an axis, no seeds;
            a field that is an axis and sampled; arms that would be compared by different metrics; more runs than a
            sweep can hold.
    """

    recipe: Recipe = field(default_factory=Recipe)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: int | Sequence[int] = 3
    stopping: Stopping = field(default_factory=Stopping)
    samples: Samples = field(default_factory=Samples)

    def __post_init__(self) -> None:
        check_type("recipe", self.recipe, Recipe, "a Recipe")
        check_type("axes", self.axes, Mapping, "a dictionary from recipe fields to lists of values")
        check_type("stopping", self.stopping, Stopping, "a Stopping")
        check_type("samples", self.samples, Samples, "Samples")
        axes = {}
        for name, values in self.axes.items():
            if name == "seed":
                raise UsageError("axis 'seed' is refused: seeds are given with --seeds (seeds=...)")
            if name not in FIELDS:
                raise unknown_name("axis", name, [f for f in FIELDS if f != "seed"])
            axes[name] = coerce_all("axis", name, values)
        object.__setattr__(self, "axes", types.MappingProxyType(axes))
        object.__setattr__(self, "seeds", _seeds(self.seeds))
        runs = math.prod(map(len, axes.values())) * len(self.samples.points) * len(self.seed_list)
        if runs > MOST_RUNS:  # before any list of them is built
            made = f"axes, draws and seeds make {format_count(runs)} runs"
            raise UsageError(f"{made}, more than the {MOST_RUNS:,} that a sweep can hold")
        for name in axes:
            if name in self.samples.space:
                raise UsageError(f"{name} is given both as an axis and to be sampled")
        if (self.stopping.halving or self.stopping.median) and "select_by" in self.varied:
            raise UsageError("axis select_by with halving or median stopping: arms must be compared by one metric")

    def __reduce__(self):
        return Sweep, (self.recipe, dict(self.axes), self.seeds, self.stopping, self.samples)

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds themselves, also where their number was given."""
        return cast(tuple[int, ...], self.seeds)

    @property
    def varied(self) -> dict[str, tuple[Any, ...]]:
        """Field -> its different values in the arms: of the axes, then of the samples."""
        drawn = {name: tuple(dict.fromkeys(p[name] for p in self.samples.points)) for name in self.samples.space}
        return {name: tuple(values) for name, values in self.axes.items()} | drawn

    def values(self, name: str) -> tuple[Any, ...]:
        """Different values of a field in the arms."""
        return self.varied.get(name, (getattr(self.recipe, name),))

    def arms(self) -> list[dict[str, Any]]:
        """One dictionary of axis and sampled values an arm; the draws change fastest, then the last axis."""
        grid = (dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values()))
        return [combination | draw for combination, draw in itertools.product(grid, self.samples.points)]

    def runs(self) -> list["Run"]:
        """Every arm with every seed, arm by arm, numbered from 0."""
        pairs = itertools.product(self.arms(), self.seed_list)
        return [
            Run(i, arm_name(arm), arm, dataclasses.replace(self.recipe, **arm, seed=seed))
            for i, (arm, seed) in enumerate(pairs)
        ]

    def spec(self) -> dict[str, Any]:
        """The sweep as plain JSON values: recipe, axes, seeds, and where there are any, draws and what ends arms."""
        recipe = {name: value for name, value in vars(self.recipe).items() if name != "seed"}
        spec = {"recipe": recipe, "axes": dict(self.axes), "seeds": self.seeds}
        spec |= {name: part.spec() for name, part in (("samples", self.samples), ("stopping", self.stopping)) if part}
        return json.loads(json.dumps(spec))  # lists in place of tuples

    def hash(self, functions: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None) -> str:
        """sha256 of the specification, with digests of the user's own `functions` and `options` of reading data."""
        spec = self.spec() | {"functions": dict(functions or {}), "options": dict(options or {})}
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """An arm with a seed, and its number in the sweep."""

    index: int
    arm: str
    values: Mapping[str, Any]  # the axis and sampled values of its arm
    recipe: Recipe


def arm_name(values: Mapping[str, Any]) -> str:
    """`activation=relu norm=batch`; a sweep without axes has the one arm `base`."""
    return " ".join(f"{k}={shown_value(v)}" for k, v in values.items()) or "base"


def _seeds(seeds: Any) -> tuple[int, ...]:
    """The seeds themselves, of their number or a list of them."""
    seeds = without_numpy(seeds)
    if not is_whole(seeds) and not is_list(seeds):
        raise UsageError(f"seeds: {quote_value(seeds)} is neither a number of seeds nor a list of seeds")
    if isinstance(seeds, int):
        if seeds < 1:
            raise UsageError(f"seeds: {seeds} is not at least 1")
        check_count("seeds", seeds)
        return tuple(range(seeds))
    check_count("seeds", len(seeds))
    result = tuple(coerce("seed", seed) for seed in seeds)
    if not result:
        raise UsageError("seeds: the list is empty")
    for seed in result:
        if not 0 <= seed < 2**32:
            raise UsageError(f"seeds: {seed} is not between 0 and 4294967295")
    for seed in find_repeated(result):
        raise UsageError(f"seeds: {seed} is given twice")
    return result
