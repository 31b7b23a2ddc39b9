"""The page of an experiment that answers a question: one self-contained HTML file beside its sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from fishnet.host.files import name_unwritable, write_whole
from fishnet.host.numbers import counted, seconds_text
from fishnet.report.figures.svg import Panel, draw_svg, follow_scheme, save
from fishnet.report.html import Picture, load_template
from fishnet.report.results import Results
from fishnet.stats import Bounds, Comparison, accuracy_noise
from fishnet.study.claims import Judgment
from fishnet.study.contrasts import FEWEST_IMAGES, Evidence
from fishnet.study.derived_metrics import predictions_by_run
from fishnet.study.trials import Trial

PAGE = "answer.html"
ACCURACY, BALANCED = "test_accuracy", "test_balanced_accuracy"


@dataclass(frozen=True)
class DrawnFigure:
    """Figure of an answer: panels, title and caption."""

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
    judgments: Sequence[Judgment]
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
    with name_unwritable(page):
        (out / "figures").mkdir(parents=True, exist_ok=True)
        text = load_template(PAGE).render(**collect_contents(answer, out))
        write_whole(page, text.encode())
    return page


def collect_contents(answer: Answer, out: Path) -> dict[str, Any]:
    """Collects everything that the template shows."""
    wanted = {of.contrast.trial for of in answer.evidence if of.contrast.metric.column in (ACCURACY, BALANCED)}
    predicted = {name: predictions_by_arm(answer.trials[name]) for name in wanted if name in answer.trials}
    return {
        "title": answer.title,
        "question": answer.question,
        "answer": answer.answer.splitlines(),
        "problems": answer.problems,
        "evidence_figure": draw_figure(answer.evidence_figure, out),
        "mechanism_figure": draw_figure(answer.mechanism_figure, out),
        "smallest_p": smallest_p_text(answer.evidence),
        "tables": [make_table(evidence, noise_text(evidence, predicted)) for evidence in answer.evidence],
        "judgments": answer.judgments,
        "limits": [*answer.limits, *warn_of_small_classes(answer)],
        "made": describe_runs(answer),
        "sweeps": [
            (name + f", look {i + 1}" * bool(i), f"{look.results.out.relative_to(out)}/{link_target(look.results.out)}")
            for name, trial in answer.trials.items()
            for i, look in enumerate(trial.looks)
        ],
    }


def link_target(folder: Path) -> str:
    """File that a link to a folder's runs opens: its report, or `runs.parquet` of custom runs."""
    return "report.html" if (folder / "report.html").exists() else "runs.parquet"


def draw_figure(figure: DrawnFigure, out: Path) -> dict[str, Any]:
    """Draws a figure for the template and writes its files."""
    svgs = [draw_svg(panel) for panel in figure.panels]
    save(figure.panels, svgs, out / "figures" / figure.name, figure.columns)
    picture = Picture(tuple(Markup(follow_scheme(svg)) for svg in svgs), figure.name, grid=False)
    return {"title": figure.title, "caption": figure.caption, "picture": picture}


def predictions_by_arm(trial: Trial) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Arm -> labels [n] and probabilities [n, k] on the test images, of those of its runs that keep predictions."""
    look = trial.looks[0]
    found = predictions_by_run(look.results, "test")
    return {label: [found[run] for run in look.runs(label) if run in found] for label in trial.labels}


def noise_text(evidence: Evidence, predicted: Mapping[str, Mapping[str, Sequence]]) -> str:
    """Describes the uncertainty of an accuracy from the number of test images; empty where it is unknown.

    Args:
        evidence: of a test accuracy, plain or balanced.
        predicted: trial -> arm -> what `predictions_by_arm` has.
    """
    contrast = evidence.contrast
    if contrast.metric.column not in (ACCURACY, BALANCED):
        return ""
    found = [run for label in evidence.rows for run in predicted.get(contrast.trial, {}).get(label, ())]
    if not found:
        return ""
    balanced = contrast.metric.column == BALANCED
    floors = [accuracy_noise(p.argmax(-1) == labels, labels if balanced else None) for labels, p in found]
    noise = float(np.median(np.array(floors)))
    return (
        f"; {len(found[0][0]):,} test images leave the accuracy of one network uncertain by "
        f"\u00b1{noise:.{contrast.metric.digits}f} (95 %), which is no part of these intervals"
    )


def warn_of_small_classes(answer: Answer) -> list[str]:
    """Warns of classes with few test images, which balanced accuracy weights like the others."""
    found: dict[str, int] = {}
    for evidence in answer.evidence:
        if evidence.contrast.metric.column == BALANCED and evidence.contrast.trial in answer.trials:
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


def make_table(evidence: Evidence, remark: str = "") -> dict[str, Any]:
    """Makes the table of a contrast for the template; `remark` is added to the description of its metric."""
    contrast, metric = evidence.contrast, evidence.contrast.metric
    words = f"{metric.name}, {'more' if metric.larger_is_better else 'less'} is better"
    if metric.margin is not None:
        words += f"; differences within {metric.margin:g} do not matter"
    return {
        "title": contrast.title,
        "words": words + remark,
        "measure": metric.name,
        "control": next(iter(evidence.rows)),
        "rows": [cells(evidence, label) for label in evidence.rows],
    }


def cells(evidence: Evidence, label: str) -> dict[str, str]:
    """One row of a table of evidence."""
    row, digits = evidence.row(label), evidence.contrast.metric.digits
    words = {
        "arm": row.arm,
        "n": str(row.n),
        "diverged": f"({evidence.missing_text(label)})" if row.diverged else "",
        "mean": f"{row.mean:.{digits}f} {bounds_text(row.interval, digits, signed=False)}",
    }
    if row.verdict == "control":
        empty = ("difference", "together", "effect", "p", "wins", "wins_interval", "reason")
        return words | dict.fromkeys(empty, "") | {"verdict": "control"}
    why = "" if evidence.problem else reason_text(row)
    return words | {
        "difference": f"{row.difference:+.{digits}f} {bounds_text(row.difference_interval, digits)}",
        "together": bounds_text(row.simultaneous_interval, digits),
        "effect": "" if row.effect_size != row.effect_size else f"{row.effect_size:+.1f}",
        "p": p_text(row.p) + (f" ({p_text(row.p_holm)})" if row.p_holm == row.p_holm else ""),
        "wins": f"{100 * row.probability_of_improvement:.0f}\u00a0%",
        "wins_interval": percent_text(row.improvement_interval),
        "verdict": evidence.problem or row.verdict,
        "reason": f": {why}" if why else "",
    }


def reason_text(row: Comparison) -> str:
    """Explains a verdict: how many more seeds would decide, and which runs have no value."""
    said = "" if row.decided else row.reason
    if row.further_seeds:
        said = f"{row.further_seeds:,} more seed{'s' * (row.further_seeds > 1)} would decide"
    return "; ".join(part for part in (said, row.counted) if part)


def smallest_p_text(evidence: Sequence[Evidence]) -> str:
    """`.002 with 10 seeds`: the smallest p-value that the sign-flip test can have, for every number of seeds."""
    found = {row.n: row.smallest_p for of in evidence for row in of.rows.values() if row.smallest_p == row.smallest_p}
    return ", ".join(f"{p_text(found[n])} with {n} seeds" for n in sorted(found))


def percent_text(bounds: Bounds[float]) -> str:
    """Formats bounds between 0 and 1 as percent: `[60, 98]`."""
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


def describe_runs(answer: Answer) -> list[tuple[str, str]]:
    """Describes the runs behind an answer, as (name, text)."""
    looks = [look for trial in answer.trials.values() for look in trial.looks]
    first = looks[0].results.sweep
    runs = sum(len(look.results.runs) for look in looks)
    return [
        ("command", answer.command),
        ("runs", f"{runs}, in {counted(len(looks), 'sweep')}"),
        ("time", seconds_text(sum(count_seconds(look.results) for look in looks))),
        ("device", str(first.get("device", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in first.get("versions", {}).items())),
        ("finished", max(str(look.results.sweep.get("finished") or "") for look in looks)),
    ]


def count_seconds(results: Results) -> float:
    """Seconds from a sweep's start to its end without pauses; the sum over its runs where the start is unknown."""
    began, ended = results.sweep.get("started"), results.sweep.get("finished")
    if not (began and ended):
        return float(results.runs["train_seconds"].fillna(0).sum())
    whole = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    return whole - results.sweep.get("paused", 0.0)
