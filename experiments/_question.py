"""Experiments that answer a question: a pathology produced, its mechanism measured, single changes compared."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments._cli import Parser, guarded, whole
from experiments._programs import keep_programs
from experiments._sweep import use_cores
from fishnet.errors import UsageError
from fishnet.sweep.grid import Sweep
from fishnet.sweep.progress import Display, display_for
from fishnet.sweep.recipe import Recipe
from fishnet.sweep.samples import Samples

if TYPE_CHECKING:
    from fishnet.report.canvas import Panel
    from fishnet.report.evidence import Claim, Contrast, Evidence, Trial

SIZES = ("smoke", "quick", "full")
LOOKS = 3  # at most, with --until-decided


@dataclass(frozen=True)
class Plan:
    """One sweep of an experiment: arms that differ from a recipe in a few fields each.

    Args:
        name: of the trial.
        recipe: what all arms share.
        arms: label -> fields that differ; the first is the control.
        seeds: in the full size.
        sizes: size -> what differs from the full one: `seeds`, `arms` (labels that stay) and fields of the recipe.
    """

    name: str
    recipe: Recipe
    arms: Mapping[str, Mapping[str, Any]]
    seeds: int = 8
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def labels(self, size: str) -> tuple[str, ...]:
        """The arms of a size."""
        return tuple(self.sizes.get(size, {}).get("arms", self.arms))

    def sweep(self, size: str, seeds: Sequence[int] | None = None, labels: Sequence[str] | None = None) -> Sweep:
        """The sweep of a size.

        Args:
            size: one of `SIZES`.
            seeds: other than those of the size.
            labels: only these arms, the control among them.
        """
        own = dict(self.sizes.get(size, {}))
        number = own.pop("seeds", self.seeds)
        own.pop("arms", None)
        recipe = replace(self.recipe, **own)
        arms = [dict(self.arms[label]) for label in labels or self.labels(size)]
        names = list(dict.fromkeys(name for arm in arms for name in arm))
        draws = [{name: arm.get(name, getattr(recipe, name)) for name in names} for arm in arms]
        space = {name: list(dict.fromkeys(draw[name] for draw in draws)) for name in names}
        samples = Samples(space, draws) if names else Samples()
        return Sweep(recipe, seeds=number if seeds is None else list(seeds), samples=samples)


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    title: str
    panels: Callable[[Mapping[str, "Trial"], Mapping[str, "Evidence"]], Sequence["Panel"]]
    caption: str
    columns: int = 2


@dataclass(frozen=True)
class Question:
    """What `python -m experiments.<name>` asks, how it finds out and what it shows.

    Args:
        name: of the module.
        about: its docstring: question, hypothesis, arms, what would refute it, cost.
        title: of the page.
        question: in one sentence.
        plans: the sweeps.
        contrasts: what is compared.
        answer: `f(evidence) -> sentence`, in words that follow from the verdicts.
        evidence: the figure that shows the answer.
        mechanism: the figure of the probes that explains it.
        claims: for the ledger.
        limits: what this cannot tell, a sentence each.
    """

    name: str
    about: str
    title: str
    question: str
    plans: Sequence[Plan]
    contrasts: Sequence["Contrast"]
    answer: Callable[[Mapping[str, "Evidence"]], str]
    evidence: Figure
    mechanism: Figure
    claims: Sequence["Claim"] = ()
    limits: Sequence[str] = ()


@dataclass(frozen=True)
class Asked:
    """A command line, understood."""

    size: str
    out: Path
    until_decided: bool
    devices: int | None
    quiet: bool
    command: str


def main(question: Callable[[], Question] | Question, argv: Sequence[str] | None = None) -> int:
    """Runs an experiment from its command line; exit codes as for every experiment.

    Args:
        question: or what makes it, so that --help does not wait for imports.
    """
    made = question() if callable(question) else question
    return guarded(lambda words: run(made, asked(made, words)), argv)


def asked(question: Question, argv: Sequence[str]) -> Asked:
    """The command line as `Asked`.

    Raises:
        UsageError: anything mistyped, or two sizes at once.
    """
    flags = parser(question).parse(argv)
    sizes = [size for size in ("smoke", "quick") if getattr(flags, size)]
    if len(sizes) > 1:
        raise UsageError("--smoke and --quick are both given")
    size = sizes[0] if sizes else "full"
    if flags.until_decided and size == "smoke":
        raise UsageError("--until-decided with --smoke: a smoke test has no verdicts")
    return Asked(
        size=size,
        out=Path(flags.out or Path("runs") / f"{question.name}-{size}"),
        until_decided=flags.until_decided,
        devices=None if flags.devices is None else whole("devices", flags.devices),
        quiet=flags.quiet,
        command=" ".join([f"python -m experiments.{question.name}", *map(shlex.quote, argv)]),
    )


def parser(question: Question) -> Parser:
    """The flags of an experiment with a question."""
    module = f"python -m experiments.{question.name}"
    flags = Parser(prog=module, usage=f"{module} [--FLAG VALUE ...]", description=question.about)
    flags.add_argument("--smoke", action="store_true", help="a minute's test that everything works; no verdicts")
    flags.add_argument("--quick", action="store_true", help="four minutes on two cores; few seeds")
    flags.add_argument("--until-decided", action="store_true", help="add seeds to undecided arms, in up to three looks")
    flags.add_argument("--out", metavar="DIR", help=f"output folder; default runs/{question.name}-SIZE")
    flags.add_argument("--devices", metavar="N", help="devices to spread the runs over; default all")
    flags.add_argument("--quiet", action="store_true", help="log lines instead of a live progress bar")
    flags.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return flags
