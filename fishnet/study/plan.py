"""Plans: the sweeps of an experiment, whose labeled arms may depend on the sweeps before them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.field_parsing import coerce
from fishnet.sweep.spec.random_search import Samples
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.sweep import Sweep

if TYPE_CHECKING:
    from fishnet.study.question import QuestionArgs
    from fishnet.study.trials import Look, Trial

Arms = Mapping[str, Mapping[str, Any]]  # label -> what differs


class TrialPlan(Protocol):
    """Trains the arms of one trial: a `Plan`, or `CustomRuns` or `MonteCarloRuns`."""

    @property
    def name(self) -> str:
        """Name of the trial."""
        ...

    def settled(self, trials: Mapping[str, "Trial"]) -> "TrialPlan":
        """The same plan with its arms written out, once the plans before it are trained."""
        ...

    def labels(self, size: str) -> tuple[str, ...]:
        """Labels of the arms of a size."""
        ...

    def seeds_from(self, size: str, done: int = 0) -> range:
        """Seeds of a look, after the first `done` seeds."""
        ...

    def train(
        self, asked: "QuestionArgs", out: Path, display: Display, seeds: Sequence[int], labels: Sequence[str]
    ) -> "Look":
        """Trains what is missing of some arms and seeds, and reads the tables."""
        ...


def reads_files(plan: "Plan", size: str) -> bool:
    """Whether a size of a plan reads files of a data folder."""
    from fishnet.data.corruption_spec import split_name
    from fishnet.sweep.spec.validation import READS_FILES

    return READS_FILES in {split_name(task)[0] for task in plan.tasks(size)}


@dataclass(frozen=True)
class Plan:
    """One sweep of an experiment: arms that differ from a recipe in a few fields each.

    Args:
        name: of the trial.
        recipe: what all arms share.
        arms: label -> fields that differ; the first is the control. Or `f(trials) -> arms`, where they depend on the
            trials of the plans before this one, by name: rates that were tuned, trunks that were trained.
        seeds: in the full size.
        sizes: size -> what differs from the full one: `seeds`, `arms` (labels that stay) and fields of the recipe.
        first_seed: seeds count from here, so that a plan can have others than the one that it builds upon.
    """

    name: str
    recipe: Recipe
    arms: Arms | Callable[[Mapping[str, "Trial"]], Arms]
    seeds: int = 8
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    first_seed: int = 0

    def settled(self, trials: Mapping[str, "Trial"]) -> "Plan":
        """Plan with its arms resolved from the trials of the plans before it."""
        return replace(self, arms=self.arms(trials)) if callable(self.arms) else self

    @property
    def settled_arms(self) -> Arms:
        """Arms of a settled plan."""
        assert not callable(self.arms), f"the arms of {self.name} depend on trials: call `settled` first"
        return self.arms

    def labels(self, size: str) -> tuple[str, ...]:
        """Labels of the arms of a size, of a settled plan."""
        return tuple(self.sizes.get(size, {}).get("arms", self.settled_arms))

    def tasks(self, size: str) -> set[str]:
        """Tasks of a size, as far as they are known before earlier plans are trained."""
        arms = [] if callable(self.arms) else [self.settled_arms[label] for label in self.labels(size)]
        shared = self.shared(size).task
        return {arm.get("task", shared) for arm in arms} or {shared}

    def number(self, size: str) -> int:
        """Number of seeds of a size."""
        return self.sizes.get(size, {}).get("seeds", self.seeds)

    def train(
        self, asked: "QuestionArgs", out: Path, display: Display, seeds: Sequence[int], labels: Sequence[str]
    ) -> "Look":
        """Trains the arms over the seeds, unless that is done already, and reads the tables."""
        from fishnet.report.html import write_report
        from fishnet.report.results import load_results
        from fishnet.report.stamp import is_current
        from fishnet.study.trials import Look
        from fishnet.sweep import DataOptions, run_sweep

        data = DataOptions(data_dir=asked.data_dir if reads_files(self, asked.size) else None)
        sweep = self.sweep(asked.size, seeds, labels)
        run_sweep(sweep, out, devices=asked.devices, display=display, data=data, command=asked.command)
        if asked.size != "smoke" and not is_current(out):
            write_report(out, data_dir=data.data_dir)
        draws = self.draws(asked.size, labels)
        places = [list(sweep.samples.points).index(draw) for draw in draws] if sweep.samples else [0] * len(labels)
        return Look(load_results(out), tuple(labels), tuple(places))

    def sweep(self, size: str, seeds: Sequence[int] | None = None, labels: Sequence[str] | None = None) -> Sweep:
        """The sweep of a size; arms that are alike are trained once.

        Args:
            size: one of `SIZES`.
            seeds: other than those of the size.
            labels: only these arms, the control among them.
        """
        recipe, draws = self.shared(size), self.draws(size, labels or self.labels(size))
        space = {name: list(dict.fromkeys(draw[name] for draw in draws)) for name in draws[0]}
        different = [draw for place, draw in enumerate(draws) if draw not in draws[:place]]
        samples = Samples(space, different) if space else Samples()
        return Sweep(recipe, seeds=list(self.seeds_from(size) if seeds is None else seeds), samples=samples)

    def shared(self, size: str) -> Recipe:
        """Base recipe of all arms of a size."""
        own = {name: value for name, value in self.sizes.get(size, {}).items() if name not in ("seeds", "arms")}
        return replace(self.recipe, **own)

    def draws(self, size: str, labels: Sequence[str]) -> list[dict[str, Any]]:
        """Values of each arm in all fields in which some arm differs from the recipe."""
        recipe, arms = self.shared(size), [self.settled_arms[label] for label in labels]
        names = list(dict.fromkeys(name for arm in arms for name in arm))
        given = [{name: arm.get(name, getattr(recipe, name)) for name in names} for arm in arms]
        return [{name: coerce(name, value) for name, value in draw.items()} for draw in given]

    def seeds_from(self, size: str, done: int = 0) -> range:
        """Seeds of a look, after the first `done` seeds."""
        first = self.first_seed + done
        return range(first, first + self.number(size))
