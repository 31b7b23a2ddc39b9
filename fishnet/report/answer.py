"""The page of an experiment that answers a question: one self-contained HTML file beside its sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fishnet.errors import UserError
from fishnet.report.canvas import Panel, draw_svg, follow_scheme, save
from fishnet.report.evidence import Evidence, Judgement, Trial
from fishnet.report.html import Picture, template
from fishnet.report.results import Results
from fishnet.stats import Bounds, Comparison
from fishnet.sweep.records import write_whole
from fishnet.sweep.wording import counted, seconds_text

PAGE = "answer.html"


@dataclass(frozen=True)
class DrawnFigure:
    """A figure with its words."""

    name: str  # stem under figures/
    title: str
    caption: str
    panels: Sequence[Panel]
    columns: int = 2


@dataclass(frozen=True)
class Answer:
    """Everything that the page shows; the answer's first line is its headline."""

    title: str
    question: str
    answer: str
    evidence: Sequence[Evidence]
    evidence_figure: DrawnFigure
    mechanism_figure: DrawnFigure
    judgements: Sequence[Judgement]
    limits: Sequence[str]
    problems: Sequence[str]
    trials: Mapping[str, Trial]
    command: str


def write_answer(answer: Answer, out: Path) -> Path:
    """Writes the page and its figures.

    Args:
        answer: what they show.
        out: the experiment's folder; its sweeps are in the folders named like its trials.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder cannot be written.
    """
    page = out / PAGE
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        text = template(PAGE).render(**contents(answer, out))
        write_whole(page, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot write {page}: {error.strerror or error}") from error
    return page


def contents(answer: Answer, out: Path) -> dict[str, Any]:
    """What the template is told."""
    return {
        "title": answer.title,
        "question": answer.question,
        "answer": answer.answer.splitlines(),
        "problems": answer.problems,
        "evidence_figure": drawn(answer.evidence_figure, out),
        "mechanism_figure": drawn(answer.mechanism_figure, out),
        "tables": [table(evidence) for evidence in answer.evidence],
        "judgements": answer.judgements,
        "limits": answer.limits,
        "made": made(answer),
        "sweeps": [
            (name + f", look {i + 1}" * bool(i), f"{look.results.out.relative_to(out)}/{shown(look.results.out)}")
            for name, trial in answer.trials.items()
            for i, look in enumerate(trial.looks)
        ],
    }


def shown(folder: Path) -> str:
    """What a link to the runs of a folder leads to: runs that an experiment has trained itself have no report."""
    return "report.html" if (folder / "report.html").exists() else "runs.parquet"


def drawn(figure: DrawnFigure, out: Path) -> dict[str, Any]:
    """A figure for the template; its files are written."""
    svgs = [draw_svg(panel) for panel in figure.panels]
    save(figure.panels, svgs, out / "figures" / figure.name, figure.columns)
    picture = Picture(tuple(Markup(follow_scheme(svg)) for svg in svgs), figure.name, grid=False)
    return {"title": figure.title, "caption": figure.caption, "picture": picture}


def table(evidence: Evidence) -> dict[str, Any]:
    """The rows of a contrast in words."""
    contrast, measure = evidence.contrast, evidence.contrast.measure
    control = next(iter(evidence.rows))
    words = f"{measure.name}, {'more' if measure.larger_is_better else 'less'} is better"
    if measure.margin is not None:
        words += f"; differences within {measure.margin:g} do not matter"
    words += (
        "; mean over seeds with its 95 % interval, differences paired by seed; the verdict is read from the interval "
        "that holds for all arms at once; seeds that would decide are for an effect that stays as it is"
    )
    return {
        "title": contrast.title,
        "words": words,
        "measure": measure.name,
        "control": control,
        "rows": [cells(row, measure.digits, evidence.problem) for row in evidence.rows.values()],
    }


def cells(row: Comparison, digits: int, problem: str) -> dict[str, str]:
    """One row of a table of evidence."""
    control = row.verdict == "control"
    return {
        "arm": row.arm,
        "n": str(row.n),
        "diverged": f" ({row.diverged:,} diverged)" if row.diverged else "",
        "mean": f"{row.mean:.{digits}f} {bounds_text(row.interval, digits, signed=False)}",
        "difference": "" if control else f"{row.difference:+.{digits}f} {bounds_text(row.difference_interval, digits)}",
        "together": "" if control else bounds_text(row.simultaneous_interval, digits),
        "p": "" if control else p_text(row.p_holm),
        "wins": "" if control else f"{100 * row.probability_of_improvement:.0f}\u00a0%",
        "verdict": problem or row.verdict,
        "reason": "" if control or problem else f": {row.reason}",
    }


def bounds_text(bounds: Bounds, digits: int, signed: bool = True) -> str:
    """`[+.031, +.073]`; empty where there is no interval."""
    if bounds.low != bounds.low:
        return ""
    sign = "+" if signed else ""
    return f"[{bounds.low:{sign}.{digits}f}, {bounds.high:{sign}.{digits}f}]"


def p_text(p: float) -> str:
    """`.031`, or `< .001`."""
    return "" if p != p else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def made(answer: Answer) -> list[tuple[str, str]]:
    """How the answer came about, as (name, text)."""
    looks = [look for trial in answer.trials.values() for look in trial.looks]
    first = looks[0].results.sweep
    runs = sum(len(look.results.runs) for look in looks)
    return [
        ("command", answer.command),
        ("runs", f"{runs}, in {counted(len(looks), 'sweep')}"),
        ("time", seconds_text(sum(seconds_of(look.results) for look in looks))),
        ("device", str(first.get("device", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in first.get("versions", {}).items())),
        ("finished", max(str(look.results.sweep.get("finished") or "") for look in looks)),
    ]


def seconds_of(results: Results) -> float:
    """From a sweep's start to its end but for the pauses; what its runs took where it does not say when it began."""
    began, ended = results.sweep.get("started"), results.sweep.get("finished")
    if not (began and ended):
        return float(results.runs["train_seconds"].fillna(0).sum())
    whole = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    return whole - results.sweep.get("paused", 0.0)
