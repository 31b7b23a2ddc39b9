"""Questions: experiments that produce a failure of training, measure its mechanism and compare single fixes."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fishnet.cli.compilation_cache import enable_cache, note_missing_cache
from fishnet.cli.main import use_cores
from fishnet.cli.parser import MOST_DEVICES, Parser, parse_whole, run_guarded
from fishnet.errors import UsageError, UserError
from fishnet.host.names import quote_command
from fishnet.lookup import unknown_name
from fishnet.study.looks import train_first_look, train_until_decided
from fishnet.study.plan import Plan, TrialPlan, reads_files
from fishnet.study.record import SIZES, check_answer
from fishnet.sweep.run.progress import display_for

if TYPE_CHECKING:
    from fishnet.report.figures.svg import Panel
    from fishnet.study.answer import Answer
    from fishnet.study.claims import Claim, Judgment
    from fishnet.study.contrasts import Contrast, Evidence
    from fishnet.study.trials import Trial

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


@dataclass(frozen=True)
class Figure:
    """Figure of the page; its caption may be `f(trials, evidence)`."""

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
    """Parsed command line of a question."""

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
    return run_guarded(lambda words: run(made, parse_args(made, words)), argv)


def names_a_size(argv: Sequence[str]) -> bool:
    """Whether a command line names one of the sizes of a question (--full, --quick, --smoke)."""
    return any(f"--{size}" in argv for size in SIZES)


def needs_files(question: Question, size: str) -> bool:
    """Whether a size of an experiment reads files of a data folder."""
    return any(isinstance(plan, Plan) and reads_files(plan, size) for plan in question.plans)


def parse_args(question: Question, argv: Sequence[str]) -> QuestionArgs:
    """Parses a command line into `QuestionArgs`.

    Raises:
        UsageError: anything mistyped, or two sizes at once.
    """
    flags = make_parser(question).parse(argv)
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
        devices=None if flags.devices is None else parse_whole("devices", flags.devices, most=MOST_DEVICES),
        quiet=flags.quiet,
        command=f"python -m experiments.{question.name} {quote_command(argv)}".rstrip(),
        data_dir=flags.data_dir,
    )


def make_parser(question: Question) -> Parser:
    """Makes the parser of an experiment with a question."""
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
    """Trains what is missing, evaluates the contrasts and writes the page and `answer.json`."""
    check_folder(question, asked.out)
    use_cores(asked.devices)
    enable_cache()
    from fishnet.study.answer import write_answer
    from fishnet.study.claims import judge
    from fishnet.study.contrasts import evaluate_contrast

    display = display_for(asked.quiet)
    note_missing_cache(display)
    verdicts = asked.size != "smoke"
    plans, trials = {}, {}
    for plan in question.plans:
        plans[plan.name] = settled = plan.settled(trials)
        trials[plan.name] = train_first_look(settled, asked, display)
    contrasts = select_contrasts(question, plans, asked.size)
    evidence = {of.name: evaluate_contrast(of, trials[of.trial], verdicts=verdicts) for of in contrasts}
    if asked.until_decided:
        evidence = train_until_decided(contrasts, plans, asked, trials, display)
    claims = select_claims(question, evidence, asked.size)
    answer = make_answer(question, asked, trials, evidence, [judge(claim, evidence) for claim in claims])
    page = write_answer(answer, asked.out)
    write_record(question, asked, answer)
    print(f"\n{answer.question}\n\n{answer.answer}\n\npage     {page}")
    return 0


def check_folder(question: Question, out: Path) -> None:
    """Refuses an output folder that holds files of another experiment.

    Raises:
        UserError: that.
    """
    begun = any((out / plan.name / "sweep.json").exists() for plan in question.plans)
    there = [name for name in ("answer.html", "answer.json", "figures", "report.html") if os.path.lexists(out / name)]
    if there and not begun:
        raise UserError(f"{out} holds {', '.join(there)}, which are not of {question.name}: choose another --out")


def select_contrasts(question: Question, plans: Mapping[str, TrialPlan], size: str) -> list["Contrast"]:
    """Selects the contrasts of a size: without arms that it does not train, or whose control it does not.

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
                raise unknown_name("arm", label, trained)
        arms = of.arms and tuple(label for label in of.arms if label in trained)
        if (of.control is None or of.control in trained) and arms != ():
            found.append(replace(of, arms=arms))
    return found


def select_claims(question: Question, evidence: Mapping[str, "Evidence"], size: str) -> list["Claim"]:
    """Selects the claims that a size has evidence for; in the full size all of them."""
    if size == "full":
        return list(question.claims)
    return [
        claim
        for claim in question.claims
        if all(name in evidence and set(arms) <= set(evidence[name].rows) for name, arms in claim.expectations.items())
    ]


def make_answer(
    question: Question,
    asked: QuestionArgs,
    trials: Mapping[str, "Trial"],
    evidence: Mapping[str, "Evidence"],
    judgments: Sequence["Judgment"],
) -> "Answer":
    """Makes the answer: the content of the page."""
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
        judgments=judgments,
        limits=question.limits,
        problems=[*question.problems(trials, evidence), *describe_left_out(question, judgments)],
        trials=trials,
        command=asked.command,
    )


def describe_left_out(question: Question, judgments: Sequence["Judgment"]) -> list[str]:
    """Describes how many claims a smaller size leaves out."""
    missing = len(question.claims) - len(judgments)
    return [f"{missing} of {len(question.claims)} claims need arms that this size leaves out."] if missing else []


def write_record(question: Question, asked: QuestionArgs, answer: "Answer") -> None:
    """Writes answer.json: the answer, the claims and the measured effects, for the ledger."""
    from fishnet.host.files import write_whole
    from fishnet.study.answer import describe_runs

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
                "measure": j.metric,
                "control": j.control,
                "effects": dict(j.effects),
            }
            for j in answer.judgments
        ],
        "made": dict(describe_runs(answer)),
    }
    check_answer(record, question.name)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(asked.out / "answer.json", text.encode())


def join_names(names: Sequence[str]) -> str:
    """Joins names as `a, b and c`; names with a comma or an `and` of their own are in quotation marks."""
    if not names:
        return "nothing"
    *most, last = (f"“{name}”" if "," in name or " and " in name else name for name in names)
    return f"{', '.join(most)} and {last}" if most else last
