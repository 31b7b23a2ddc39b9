"""The page of an experiment that answers a question: one self-contained HTML file beside its sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from fishnet.host.files import write_whole, writing
from fishnet.report.figures.svg import Panel, draw_svg, follow_scheme, save
from fishnet.report.html import Picture, template
from fishnet.report.results import Results
from fishnet.stats import Bounds, Comparison, accuracy_noise
from fishnet.study.claims import Judgement
from fishnet.study.contrasts import FEWEST_IMAGES, Evidence, Trial
from fishnet.study.derived_metrics import answers
from fishnet.sweep.spec.text import counted, seconds_text

PAGE = "answer.html"
ACCURACY, BALANCED = "test_accuracy", "test_balanced_accuracy"


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
    with writing(page):
        (out / "figures").mkdir(parents=True, exist_ok=True)
        text = template(PAGE).render(**contents(answer, out))
        write_whole(page, text.encode())
    return page


def contents(answer: Answer, out: Path) -> dict[str, Any]:
    """What the template is told."""
    wanted = {of.contrast.trial for of in answer.evidence if of.contrast.measure.column in (ACCURACY, BALANCED)}
    predicted = {name: answers_by_arm(answer.trials[name]) for name in wanted if name in answer.trials}
    return {
        "title": answer.title,
        "question": answer.question,
        "answer": answer.answer.splitlines(),
        "problems": answer.problems,
        "evidence_figure": drawn(answer.evidence_figure, out),
        "mechanism_figure": drawn(answer.mechanism_figure, out),
        "smallest_p": smallest_p(answer.evidence),
        "tables": [table(evidence, noise(evidence, predicted)) for evidence in answer.evidence],
        "judgements": answer.judgements,
        "limits": [*answer.limits, *small_classes(answer)],
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


def answers_by_arm(trial: Trial) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Arm -> labels [n] and probabilities [n, k] on the test images, of those of its runs that keep predictions."""
    look = trial.looks[0]
    found = answers(look.results, "test")
    return {label: [found[run] for run in look.runs(label) if run in found] for label in trial.labels}


def noise(evidence: Evidence, predicted: Mapping[str, Mapping[str, Sequence]]) -> str:
    """How uncertain the number of test images leaves an accuracy, in words; empty where that cannot be said.

    Args:
        evidence: of a test accuracy, plain or balanced.
        predicted: trial -> arm -> what `answers_by_arm` has.
    """
    contrast = evidence.contrast
    if contrast.measure.column not in (ACCURACY, BALANCED):
        return ""
    found = [run for label in evidence.rows for run in predicted.get(contrast.trial, {}).get(label, ())]
    if not found:
        return ""
    balanced = contrast.measure.column == BALANCED
    floors = [accuracy_noise(p.argmax(-1) == labels, labels if balanced else None) for labels, p in found]
    noise = float(np.median(np.array(floors)))
    return (
        f"; {len(found[0][0]):,} test images leave the accuracy of one network uncertain by "
        f"\u00b1{noise:.{contrast.measure.digits}f} (95 %), which is no part of these intervals"
    )


def small_classes(answer: Answer) -> list[str]:
    """A limit for every set of classes with few test images that balanced accuracy counts as much as the others."""
    found: dict[str, int] = {}
    for evidence in answer.evidence:
        if evidence.contrast.measure.column == BALANCED and evidence.contrast.trial in answer.trials:
            classes = answer.trials[evidence.contrast.trial].looks[0].results.per_class
            for name, rows in classes.groupby("class") if len(classes) else ():
                found[str(name)] = int(rows["support"].min())
    few = [f"{name} ({number})" for name, number in found.items() if 0 < number < FEWEST_IMAGES]
    if not few:
        return []
    return [
        f"Balanced accuracy counts every class alike, also those with fewer than {FEWEST_IMAGES} test images: "
        f"{', '.join(few)} of {len(found)} classes."
    ]


def table(evidence: Evidence, remark: str = "") -> dict[str, Any]:
    """The rows of a contrast in words; a remark is added to what is said of its measure."""
    contrast, measure = evidence.contrast, evidence.contrast.measure
    words = f"{measure.name}, {'more' if measure.larger_is_better else 'less'} is better"
    if measure.margin is not None:
        words += f"; differences within {measure.margin:g} do not matter"
    return {
        "title": contrast.title,
        "words": words + remark,
        "measure": measure.name,
        "control": next(iter(evidence.rows)),
        "rows": [cells(evidence, label) for label in evidence.rows],
    }


def cells(evidence: Evidence, label: str) -> dict[str, str]:
    """One row of a table of evidence."""
    row, digits = evidence.row(label), evidence.contrast.measure.digits
    words = {
        "arm": row.arm,
        "n": str(row.n),
        "diverged": f"({evidence.missing(label)})" if row.diverged else "",
        "mean": f"{row.mean:.{digits}f} {bounds_text(row.interval, digits, signed=False)}",
    }
    if row.verdict == "control":
        empty = ("difference", "together", "effect", "p", "wins", "wins_interval", "reason")
        return words | dict.fromkeys(empty, "") | {"verdict": "control"}
    why = "" if evidence.problem else reason(row)
    return words | {
        "difference": f"{row.difference:+.{digits}f} {bounds_text(row.difference_interval, digits)}",
        "together": bounds_text(row.simultaneous_interval, digits),
        "effect": "" if row.effect_size != row.effect_size else f"{row.effect_size:+.1f}",
        "p": p_text(row.p) + (f" ({p_text(row.p_holm)})" if row.p_holm == row.p_holm else ""),
        "wins": f"{100 * row.probability_of_improvement:.0f}\u00a0%",
        "wins_interval": percent(row.improvement_interval),
        "verdict": evidence.problem or row.verdict,
        "reason": f": {why}" if why else "",
    }


def reason(row: Comparison) -> str:
    """What a table says of a verdict beyond the word: the seeds that would decide, and runs that have no value."""
    said = "" if row.decided else row.reason
    if row.further_seeds:
        said = f"{row.further_seeds:,} more seed{'s' * (row.further_seeds > 1)} would decide"
    return "; ".join(part for part in (said, row.counted) if part)


def smallest_p(evidence: Sequence[Evidence]) -> str:
    """`.002 with 10 seeds`: the smallest p-value that the sign-flip test can have, for every number of seeds."""
    found = {row.n: row.smallest_p for of in evidence for row in of.rows.values() if row.smallest_p == row.smallest_p}
    return ", ".join(f"{p_text(found[n])} with {n} seeds" for n in sorted(found))


def percent(bounds: Bounds[float]) -> str:
    """`[60, 98]`, of shares between 0 and 1."""
    return "" if bounds.low != bounds.low else f"[{100 * bounds.low:.0f}, {100 * bounds.high:.0f}]"


def bounds_text(bounds: Bounds[float], digits: int, signed: bool = True) -> str:
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
