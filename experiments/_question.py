"""Experiments that answer a question: a pathology produced, its mechanism measured, single changes compared."""

import argparse
import json
import shlex
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
    from fishnet.report.answer import Answer
    from fishnet.report.canvas import Panel
    from fishnet.report.evidence import Claim, Contrast, Evidence, Judgement, Look, Trial

SIZES = ("smoke", "quick", "full")
QUESTIONS = ("vanishing_gradient", "batch_norm", "dying_relu")  # the modules, in the order of the ledger
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


def run(question: Question, asked: Asked) -> int:
    """Trains what is missing, weighs the evidence and writes the page and what `experiments.claims` gathers."""
    use_cores(asked.devices)
    keep_programs()
    from fishnet.report.answer import write_answer
    from fishnet.report.evidence import judge, weigh

    display = display_for(asked.quiet)
    verdicts = asked.size != "smoke"
    trials = {plan.name: first_look(plan, asked, display) for plan in question.plans}
    evidence = {of.name: weigh(of, trials[of.trial], verdicts=verdicts) for of in question.contrasts}
    if asked.until_decided:
        evidence = decided(question, asked, trials, display)
    answer = answer_of(question, asked, trials, evidence, [judge(claim, evidence) for claim in question.claims])
    page = write_answer(answer, asked.out)
    write_record(question, asked, answer)
    print(f"\n{answer.question}\n\n{answer.answer}\n\npage     {page}")
    return 0


def first_look(plan: Plan, asked: Asked, display: Display) -> "Trial":
    """The trial of a plan at the size that is asked for."""
    from fishnet.report.evidence import Trial

    return Trial(
        plan.name, (train_look(plan.sweep(asked.size), asked.out / plan.name, plan.labels(asked.size), asked, display),)
    )


def train_look(sweep: Sweep, out: Path, labels: Sequence[str], asked: Asked, display: Display) -> "Look":
    """Trains one sweep, or finds it finished, and reads its tables."""
    from fishnet.report.evidence import Look
    from fishnet.report.html import write_report
    from fishnet.report.results import load_results
    from fishnet.sweep import run_sweep

    try:
        run_sweep(sweep, out, devices=asked.devices, display=display, command=asked.command)
        if not (out / "report.html").exists():
            write_report(out)
    finally:
        display.finish()
    return Look(load_results(out), tuple(labels))


def decided(question: Question, asked: Asked, trials: dict[str, "Trial"], display: Display) -> dict[str, "Evidence"]:
    """The evidence after up to `LOOKS` looks, each with further seeds of the arms that are not decided yet.

    Every look spends its share of the error, so that looking repeatedly does not raise it. `trials` gets the looks.
    """
    from fishnet.report.evidence import Trial, weigh
    from fishnet.stats import alpha_at_look, keep_decided

    plans = {plan.name: plan for plan in question.plans}
    evidence: dict[str, Evidence] = {}
    for number in range(1, LOOKS + 1):
        alpha = alpha_at_look(number, LOOKS, 0.05)
        for of in question.contrasts:
            found = weigh(of, trials[of.trial], alpha=alpha)
            if of.name in evidence:
                found = replace(found, rows=keep_decided(evidence[of.name].rows, found.rows))
            evidence[of.name] = found
        if number == LOOKS:
            break
        for name, trial in trials.items():
            of_trial = [found for found in evidence.values() if found.contrast.trial == name]
            open_ones = {row.arm for found in of_trial for row in found.rows.values() if row.verdict == "undecided"}
            controls = {next(iter(found.rows)) for found in of_trial}
            labels = [label for label in trial.looks[-1].labels if label in open_ones | controls]
            if not open_ones.intersection(labels):
                continue
            done = sum(look.seeds for look in trial.looks)
            sweep = plans[name].sweep(asked.size, range(done, done + trial.looks[0].seeds), labels)
            more = train_look(sweep, asked.out / f"{name}-look{number + 1}", labels, asked, display)
            trials[name] = Trial(name, (*trial.looks, more))
    return evidence


def answer_of(
    question: Question,
    asked: Asked,
    trials: Mapping[str, "Trial"],
    evidence: Mapping[str, "Evidence"],
    judgements: Sequence["Judgement"],
) -> "Answer":
    """The page's content."""
    from fishnet.report.answer import Answer, DrawnFigure

    def figure(name: str, of: Figure) -> DrawnFigure:
        return DrawnFigure(name, of.title, of.caption, of.panels(trials, evidence), of.columns)

    smoke = asked.size == "smoke"
    return Answer(
        title=question.title,
        question=question.question,
        answer="A smoke test: everything ran, nothing is concluded." if smoke else question.answer(evidence),
        evidence=list(evidence.values()),
        evidence_figure=figure("evidence", question.evidence),
        mechanism_figure=figure("mechanism", question.mechanism),
        judgements=judgements,
        limits=question.limits,
        problems=[],
        trials=trials,
        command=asked.command,
    )


def write_record(question: Question, asked: Asked, answer: "Answer") -> None:
    """answer.json: the answer, the claims and what was measured, for the ledger."""
    from fishnet.report.answer import made
    from fishnet.sweep.records import write_whole

    record = {
        "experiment": question.name,
        "size": asked.size,
        "question": answer.question,
        "answer": answer.answer,
        "claims": [
            {"text": j.claim.text, "source": j.claim.source, "verdict": j.verdict, "effects": dict(j.effects)}
            for j in answer.judgements
        ],
        "made": dict(made(answer)),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_whole(asked.out / "answer.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))
