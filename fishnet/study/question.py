"""Experiments that answer a question: a pathology produced, its mechanism measured, single changes compared."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fishnet.cli.compilation_cache import keep_programs, tell_what_is_not_kept
from fishnet.cli.main import use_cores
from fishnet.cli.parser import MOST_DEVICES, Parser, guarded, whole
from fishnet.errors import UsageError, UserError
from fishnet.host.names import shell_command
from fishnet.lookup import unknown
from fishnet.study.plan import Plan, TrialPlan, reads_files
from fishnet.study.record import SIZES, check_answer
from fishnet.sweep.run.progress import Display, display_for

if TYPE_CHECKING:
    from fishnet.report.figures.svg import Panel
    from fishnet.study.answer import Answer
    from fishnet.study.claims import Claim, Judgement
    from fishnet.study.contrasts import Contrast, Evidence, Look, Trial

QUESTIONS = (
    "ablation",
    "vanishing_gradient",
    "batch_norm",
    "dying_relu",
    "stagnation",
    "optimizers",
    "from_scratch",
    "mnist_speed",
    "transfer",
    "stuck_class",
    "capacity",
    "regularization",
)  # the modules, in the order of the ledger
LOOKS = 3  # at most, with --until-decided


@dataclass(frozen=True)
class Figure:
    """A figure of the page; its caption may be `f(trials, evidence)`, where it tells what was found."""

    title: str
    panels: Callable[[Mapping[str, "Trial"], Mapping[str, "Evidence"]], Sequence["Panel"]]
    caption: str | Callable[[Mapping[str, "Trial"], Mapping[str, "Evidence"]], str]
    columns: int = 2


@dataclass(frozen=True)
class Question:
    """A question that `python -m experiments.<name>` asks, with its sweeps, comparisons and page.

    Args:
        name: of the module.
        about: its docstring: question, hypothesis, arms, what would refute it, cost.
        title: of the page.
        question: in one sentence.
        plans: the sweeps, in the order in which they are trained; or runs that an experiment trains itself.
        contrasts: what is compared.
        answer: `f(evidence) -> text`, in words that follow from the verdicts: the first line is the answer in one
            sentence with its interval, the second what else was found.
        evidence: the figure that shows the answer.
        mechanism: the figure of the probes that explains it.
        claims: for the ledger.
        limits: what this cannot tell, a sentence each.
        problems: `f(trials, evidence) -> sentences`: what went otherwise than planned, such as a rate that was tuned to
            the end of its grid.
    """

    name: str
    about: str | None
    title: str
    question: str
    plans: Sequence[TrialPlan]
    contrasts: Sequence["Contrast"]
    answer: Callable[[Mapping[str, "Evidence"]], str]
    evidence: Figure
    mechanism: Figure
    claims: Sequence["Claim"] = ()
    limits: Sequence[str] = ()
    problems: Callable[[Mapping[str, "Trial"], Mapping[str, "Evidence"]], Sequence[str]] = lambda trials, evidence: ()


@dataclass(frozen=True)
class QuestionArgs:
    """A command line, understood."""

    size: str
    out: Path
    until_decided: bool
    devices: int | None
    quiet: bool
    command: str
    data_dir: str | None = None


def main(question: Callable[[], Question] | Question, argv: Sequence[str] | None = None) -> int:
    """Runs an experiment from its command line; exit codes as for every experiment.

    Args:
        question: or what makes it, so that --help does not wait for imports.
    """
    made = question() if callable(question) else question
    return guarded(lambda words: run(made, asked(made, words)), argv)


def names_a_size(argv: Sequence[str]) -> bool:
    """Whether a command line names one of the sizes of a question (--full, --quick, --smoke)."""
    return any(f"--{size}" in argv for size in SIZES)


def needs_files(question: Question, size: str) -> bool:
    """Whether a size of an experiment reads files of a data folder."""
    return any(isinstance(plan, Plan) and reads_files(plan, size) for plan in question.plans)


def asked(question: Question, argv: Sequence[str]) -> QuestionArgs:
    """The command line as `QuestionArgs`.

    Raises:
        UsageError: anything mistyped, or two sizes at once.
    """
    flags = parser(question).parse(argv)
    sizes = [size for size in SIZES if getattr(flags, size)]
    if len(sizes) > 1:
        raise UsageError(f"--{sizes[0]} and --{sizes[1]} are both given")
    size = sizes[0] if sizes else "full"
    if flags.until_decided and size == "smoke":
        raise UsageError("--until-decided with --smoke: a smoke test has no verdicts")
    if flags.data_dir is not None and not needs_files(question, size):
        raise UsageError(f"--data-dir {flags.data_dir} would have no effect: {question.name} --{size} reads no files")
    return QuestionArgs(
        size=size,
        out=Path(flags.out or Path("runs") / f"{question.name}-{size}"),
        until_decided=flags.until_decided,
        devices=None if flags.devices is None else whole("devices", flags.devices, most=MOST_DEVICES),
        quiet=flags.quiet,
        command=f"python -m experiments.{question.name} {shell_command(argv)}".rstrip(),
        data_dir=flags.data_dir,
    )


def parser(question: Question) -> Parser:
    """The flags of an experiment with a question."""
    module = f"python -m experiments.{question.name}"
    flags = Parser(prog=module, usage=f"{module} [--FLAG VALUE ...]", description=question.about)
    flags.add_argument("--smoke", action="store_true", help="a minute's test that everything works; no verdicts")
    flags.add_argument("--quick", action="store_true", help="four minutes on two cores; few seeds")
    flags.add_argument("--full", action="store_true", help="as many seeds as verdicts need: the default")
    flags.add_argument("--until-decided", action="store_true", help="add seeds to undecided arms, in up to three looks")
    flags.add_argument("--out", metavar="DIR", help=f"output folder; default runs/{question.name}-SIZE")
    flags.add_argument("--devices", metavar="N", help="devices to spread the runs over; default all")
    flags.add_argument("--data-dir", metavar="DIR", help="folder with the files of mnist, where a question needs them")
    flags.add_argument("--quiet", action="store_true", help="log lines instead of a live progress bar")
    flags.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return flags


def run(question: Question, asked: QuestionArgs) -> int:
    """Trains what is missing, weighs the evidence and writes the page and what `experiments.claims` gathers."""
    check_folder(question, asked.out)
    use_cores(asked.devices)
    keep_programs()
    from fishnet.study.answer import write_answer
    from fishnet.study.claims import judge
    from fishnet.study.contrasts import weigh

    display = display_for(asked.quiet)
    tell_what_is_not_kept(display)
    verdicts = asked.size != "smoke"
    plans, trials = {}, {}
    for plan in question.plans:
        plans[plan.name] = settled = plan.settled(trials)
        trials[plan.name] = first_look(settled, asked, display)
    contrasts = contrasts_of(question, plans, asked.size)
    evidence = {of.name: weigh(of, trials[of.trial], verdicts=verdicts) for of in contrasts}
    if asked.until_decided:
        evidence = decided(contrasts, plans, asked, trials, display)
    claims = claims_of(question, evidence, asked.size)
    answer = answer_of(question, asked, trials, evidence, [judge(claim, evidence) for claim in claims])
    page = write_answer(answer, asked.out)
    write_record(question, asked, answer)
    print(f"\n{answer.question}\n\n{answer.answer}\n\npage     {page}")
    return 0


def check_folder(question: Question, out: Path) -> None:
    """Refuses an output folder with the answer of another experiment, or pages and figures that are of none.

    Raises:
        UserError: that.
    """
    begun = any((out / plan.name / "sweep.json").exists() for plan in question.plans)
    there = [name for name in ("answer.html", "answer.json", "figures", "report.html") if os.path.lexists(out / name)]
    if there and not begun:
        raise UserError(f"{out} holds {', '.join(there)}, which are not of {question.name}: choose another --out")


def contrasts_of(question: Question, plans: Mapping[str, TrialPlan], size: str) -> list["Contrast"]:
    """The contrasts of a size: without arms that it does not train, and none whose control is one of these.

    Args:
        question: with the contrasts.
        plans: the settled ones by name.
        size: one of `SIZES`.

    Raises:
        UsageError: in the full size, an arm that its plan does not have.
    """
    found = []
    for of in question.contrasts:
        plan = plans[of.trial]
        trained = plan.labels(size)
        for label in (*([of.control] if of.control else ()), *(of.arms or ())):
            if size == "full" and label not in trained:
                raise unknown("arm", label, trained)
        arms = of.arms and tuple(label for label in of.arms if label in trained)
        if (of.control is None or of.control in trained) and arms != ():
            found.append(replace(of, arms=arms))
    return found


def claims_of(question: Question, evidence: Mapping[str, "Evidence"], size: str) -> list["Claim"]:
    """The claims that the evidence of a size bears on: in the full size all of them, right or mistyped."""
    if size == "full":
        return list(question.claims)
    return [
        claim
        for claim in question.claims
        if all(name in evidence and set(arms) <= set(evidence[name].rows) for name, arms in claim.expectations.items())
    ]


def first_look(plan: TrialPlan, asked: QuestionArgs, display: Display) -> "Trial":
    """The trial of a settled plan at the size that is asked for."""
    from fishnet.study.contrasts import Trial

    seeds, labels = plan.seeds_from(asked.size), plan.labels(asked.size)
    return Trial(plan.name, (train_look(plan, asked, asked.out / plan.name, display, seeds, labels),))


def train_look(
    plan: TrialPlan,
    asked: QuestionArgs,
    out: Path,
    display: Display,
    seeds: Sequence[int],
    labels: Sequence[str],
) -> "Look":
    """Trains some arms of a plan over some seeds, or finds that done, and reads its tables."""
    try:
        return plan.train(asked, out, display, seeds, labels)
    finally:
        display.finish()


def decided(
    contrasts: Sequence["Contrast"],
    plans: Mapping[str, TrialPlan],
    asked: QuestionArgs,
    trials: dict[str, "Trial"],
    display: Display,
) -> dict[str, "Evidence"]:
    """The evidence after up to `LOOKS` looks, each with further seeds of the arms that are not decided yet.

    Every look spends its share of the error, so that looking repeatedly does not raise it. `trials` gets the looks.
    Arms that depend on other trials stay as they were settled at first.
    """
    from fishnet.stats import alpha_at_look, keep_decided
    from fishnet.study.contrasts import Trial, weigh

    evidence: dict[str, Evidence] = {}
    for number in range(1, LOOKS + 1):
        alpha = alpha_at_look(number, LOOKS, 0.05)
        for of in contrasts:
            found = weigh(of, trials[of.trial], alpha=alpha)
            if of.name in evidence:
                found = replace(found, rows=keep_decided(evidence[of.name].rows, found.rows))
            evidence[of.name] = found
        if number == LOOKS:
            break
        for name, trial in trials.items():
            of_trial = [found for found in evidence.values() if found.contrast.trial == name]
            labels = still_open(of_trial, trial.looks[-1].labels)
            if not labels:
                continue
            done = sum(look.seeds for look in trial.looks)
            seeds = plans[name].seeds_from(asked.size, done)
            more = train_look(plans[name], asked, asked.out / f"{name}-look{number + 1}", display, seeds, labels)
            trials[name] = Trial(name, (*trial.looks, more))
    return evidence


def still_open(found: Sequence["Evidence"], labels: Sequence[str]) -> list[str]:
    """The arms of a trial that a further look trains: those that are undecided, and what they are weighed with.

    Args:
        found: the evidence of the trial's contrasts.
        labels: of the last look.

    Returns:
        Some of `labels`: none where all are decided.
    """
    found = [of for of in found if not of.problem]  # what more seeds could decide
    open_ones = {row.arm for of in found for row in of.rows.values() if row.verdict == "undecided"}
    if not open_ones.intersection(labels):
        return []
    wanted = open_ones | {next(iter(of.rows)) for of in found}
    wanted |= {other for of in found for label in wanted for other in of.contrast.beside.get(label, ())}
    return [label for label in labels if label in wanted]


def answer_of(
    question: Question,
    asked: QuestionArgs,
    trials: Mapping[str, "Trial"],
    evidence: Mapping[str, "Evidence"],
    judgements: Sequence["Judgement"],
) -> "Answer":
    """The page's content."""
    from fishnet.study.answer import Answer, DrawnFigure

    def figure(name: str, of: Figure) -> DrawnFigure:
        caption = of.caption(trials, evidence) if callable(of.caption) else of.caption
        return DrawnFigure(name, of.title, caption, of.panels(trials, evidence), of.columns)

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
        problems=[*question.problems(trials, evidence), *left_out(question, judgements)],
        trials=trials,
        command=asked.command,
    )


def left_out(question: Question, judgements: Sequence["Judgement"]) -> list[str]:
    """What a smaller size does not say."""
    missing = len(question.claims) - len(judgements)
    return [f"{missing} of {len(question.claims)} claims need arms that this size leaves out."] if missing else []


def write_record(question: Question, asked: QuestionArgs, answer: "Answer") -> None:
    """answer.json: the answer, the claims and what was measured, for the ledger."""
    from fishnet.host.files import write_whole
    from fishnet.study.answer import made

    record = {
        "experiment": question.name,
        "size": asked.size,
        "question": answer.question,
        "answer": answer.answer,
        "claims": [
            {
                "text": j.claim.text,
                "source": j.claim.source,
                "verdict": j.verdict,
                "measure": j.measure,
                "control": j.control,
                "effects": dict(j.effects),
            }
            for j in answer.judgements
        ],
        "made": dict(made(answer)),
    }
    check_answer(record, question.name)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(asked.out / "answer.json", text.encode())


def listed(names: Sequence[str]) -> str:
    """`a, b and c`, or nothing; names with a comma or an `and` of their own are in quotation marks."""
    if not names:
        return "nothing"
    *most, last = (f"“{name}”" if "," in name or " and " in name else name for name in names)
    return f"{', '.join(most)} and {last}" if most else last
