"""report.html: one page that holds everything, figures included, and needs neither network nor scripts."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from fishnet.checks.arguments import check_type
from fishnet.checks.value_types import format_value
from fishnet.errors import UserError
from fishnet.host.files import name_unwritable, write_whole
from fishnet.host.names import escape_text
from fishnet.host.numbers import counted, seconds_text
from fishnet.report.figures import classes as class_figures
from fishnet.report.figures import curves as curve_figures
from fishnet.report.figures import overview as figures
from fishnet.report.figures import random_search as sample_figures
from fishnet.report.figures.photographs import find_mistakes, load_run_task
from fishnet.report.figures.svg import Panel, draw_svg, follow_scheme, save
from fishnet.report.results import Results, load_results
from fishnet.report.stamp import PAGE, stamp
from fishnet.report.tables import COLUMNS, METRIC_NAMES, caption, interval_text, number_text
from fishnet.sweep.spec.text import cohort_text
from fishnet.sweep.store.folder import check_recipes

CURVES = {"val_accuracy": "validation accuracy", "train_loss": "training loss, nats"}
MOST_ARMS = 200  # rows of the table of arms
LONGEST_TASK = 60  # characters; of a longer one the title has the name alone


@dataclass(frozen=True)
class Picture:
    """A figure of the page: panels, and the file that holds them."""

    panels: tuple[Markup, ...]
    file: str  # stem under figures/
    grid: bool  # small panels of one size, in as many columns as fit


def write_report(
    out: str | Path, command: str | None = None, data_dir: str | os.PathLike | None = None, more: Sequence[str] = ()
) -> Path:
    """Writes `report.html` and `figures/` from the tables in an output folder.

    Args:
        out: the folder of a finished or interrupted sweep.
        command: shown as how the run was made; None: the one in `sweep.json`.
        data_dir: where the task's files are, if not where they are found by themselves.
        more: stems of further figures in figures/ without which the report is not whole.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder holds no sweep, a table cannot be read, or the folder cannot be written.
    """
    check_type("command", command, (str, type(None)), "a text, or None")
    results = load_results(out)
    check_recipes(results.out, results.sweep)
    page = results.out / PAGE
    with name_unwritable(page):
        (results.out / "figures").mkdir(exist_ok=True)
        shown = collect_contents(results, command, data_dir)
        # A path may hold bytes that are no UTF-8: these are written as \\udcff.
        text = load_template(PAGE).render(**shown).encode("utf-8", "backslashreplace")
        drawn = [picture.file for picture in find_pictures(shown)]
        whole = text + stamp(results.out, results.sweep, text, [*drawn, *more])
        write_whole(page, whole)
    return page


def find_pictures(shown: Mapping[str, Any]) -> list[Picture]:
    """Pictures among the contents of a template."""
    found = [shown["overview"], shown["roc"], shown["confusion"], *(drawn for drawn, _ in shown["curves"])]
    return [drawn for drawn in found if drawn is not None]


def load_template(name: str) -> jinja2.Template:
    """Loads a page's template by file name; every value put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fishnet.report", "templates"),
        autoescape=True,
        finalize=lambda value: escape_text(value) if type(value) is str else value,  # a Markup is a picture
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval_text, "number": number_text, "counted": counted}
    environment.filters["auc"] = class_figures.auc_text
    environment.filters["percent"] = lambda value: f"{100 * value:.0f}\u00a0%"
    return environment.get_template(name)


def collect_contents(results: Results, command: str | None, data_dir: str | os.PathLike | None) -> dict[str, Any]:
    """Collects everything that the template shows."""
    run = results.best_run if results.shown_run is None else results.shown_run
    wrong, credit, photo_problem = [], "", ""
    notes: Sequence[str] = ()
    if run is not None:
        try:
            task = load_run_task(results, run, data_dir)
            wrong, credit, notes = find_mistakes(results, run, task), task.credit, task.notes
        except (UserError, OSError) as error:
            photo_problem = str(error)
    counts = results.confusion(run) if run is not None else None
    classes = [] if run is None else results.classes_of(run)
    confusion = [] if counts is None else [class_figures.confusion_panel(counts, classes)]
    by_value = bool(results.sampled) and not (results.listed and len(results.arms) <= figures.MOST_DOTS)
    overview = sample_figures.value_panels(results) if by_value else figures.overview(results)
    return {
        "results": results,
        "run": run,
        "title": make_title(results),
        "columns": [heading.replace("\n", " ").replace("bal.", "balanced") for heading in COLUMNS.values()],
        "column_names": list(COLUMNS),
        "caption": caption(results),
        "overview": draw_picture(results, "overview", overview, columns=3),
        "by_value": by_value,
        "curves": curves_pictures(results),
        "roc": draw_picture(results, "roc", class_figures.roc_panels(results), columns=5, grid=True),
        "confusion": draw_picture(results, "confusion", confusion, columns=1),
        "mix_ups": [] if counts is None else find_confusions(counts, classes),
        "classes": make_class_rows(results),
        "mistakes": wrong,
        "photo_problem": photo_problem,
        "credit": credit,
        "notes": notes,
        "made": describe_sweep(results, command),
        "recipe": recipe_rows(results),
        "diverged": results.runs[results.runs["status"] == "diverged"],
        "combinations": math.prod(len(values) for values in list(results.axes.values())[2:]),
        "most_combinations": figures.MOST_COMBINATIONS,
        "most_classes": class_figures.MOST_CLASSES,
        "most_arms": MOST_ARMS,
        "metrics": METRIC_NAMES,
        "unfinished": int((results.runs["status"] == "running").sum()),
    }


def curves_pictures(results: Results) -> list[tuple[Picture, str]]:
    """The learning curves, each figure with its caption."""
    band = "mean over the seeds still training, band: its 95 % interval"
    if results.sampled:
        panels = [p for column, label in CURVES.items() for p in sample_figures.best_curves(results, column, label)]
        best = enumerate(sample_figures.best_arms(results), start=1)
        ranked = "; ".join(f"{i}: {results.label(arm.name)}" for i, arm in best)
        found = [(draw_picture(results, "learning_curves", panels, columns=2), f"The best arms, {band}. {ranked}.")]
    elif len(results.axes) < 2:
        if results.axes:
            panels = [p for column, label in CURVES.items() for p in curve_figures.curve_panels(results, column, label)]
        else:
            panels = curve_figures.training_panels(results)
        found = [(draw_picture(results, "learning_curves", panels, columns=2, grid=True), f"By epoch: {band}.")]
    else:
        found = []
        for column, label in CURVES.items():
            panels = curve_figures.curve_panels(results, column, label)
            words = f"{label[0].upper()}{label[1:]}: {band}."
            if (number := math.prod(len(values) for values in list(results.axes.values())[1:])) > len(panels):
                words += f" The first {len(panels)} of {number} panels."
            found.append((draw_picture(results, column, panels, columns=4, grid=True), words))
    return [(drawn, words) for drawn, words in found if drawn is not None]


def draw_picture(
    results: Results, file: str, panels: Sequence[Panel], columns: int, grid: bool = False
) -> Picture | None:
    """Draws panels for the page and saves them under figures/; None without panels."""
    if not panels:
        return None
    svgs = [draw_svg(panel) for panel in panels]
    save(panels, svgs, results.out / "figures" / file, columns)
    return Picture(tuple(Markup(follow_scheme(svg)) for svg in svgs), file, grid)


def make_title(results: Results) -> str:
    """`activation × norm on reef`, `norm × 32 draws of lr, dropout on reef`, `loss, dropout on reef, changed`."""
    tasks = results.axes.get("task", [results.sweep["recipe"]["task"]])
    task = " and ".join(tasks)
    if len(task) > LONGEST_TASK:
        task = " and ".join(dict.fromkeys(name.partition("?")[0] for name in tasks)) + ", changed" * ("?" in task)
    asked = [name for name in results.axes if name != "task"]
    if results.sampled and not results.listed:
        drawn = f"{counted(len(results.draws), 'draw')} of {', '.join(results.sampled)}"
        asked = [*(name for name in asked if name not in results.sampled), drawn]
    asked = (", " if results.listed else " × ").join(asked)
    return f"{asked or results.sweep['recipe']['model']} on {task}"


def make_class_rows(results: Results) -> list[dict[str, Any]]:
    """Table rows by class: test images, and metrics of the best runs of the best and the worst arm."""
    arms = [results.best] if results.best is results.worst else [results.best, results.worst]
    arms = [arm for arm in arms if arm is not None]
    if results.per_class.empty or not arms:
        return []
    tables = [results.per_class[results.per_class["run"] == arm.runs[0]].set_index("class") for arm in arms]
    rows = []
    for name in results.classes_of(arms[0].runs[0]):
        cells: list[Any] = [table.loc[name] for table in tables if name in table.index]
        if cells:
            rows.append({"class": name, "support": int(cells[0]["support"]), "cells": cells})
    return rows


def find_confusions(counts: np.ndarray, classes: Sequence[str], most: int = 12) -> list[tuple[str, str, int, float]]:
    """Finds the most frequent confusions: true class, predicted class, images, fraction of the true class."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = [np.unravel_index(flat, wrong.shape) for flat in order]
    found = [(int(i), int(j)) for i, j in cells if wrong[i, j]]
    return [(classes[i], classes[j], int(wrong[i, j]), float(wrong[i, j] / counts[i].sum())) for i, j in found]


def describe_sweep(results: Results, command: str | None) -> list[tuple[str, str]]:
    """Describes how a sweep was run, as (name, text)."""
    sweep, runs = results.sweep, results.runs
    seconds = float(runs["train_seconds"].fillna(0).sum())
    plan = sweep.get("plan") or []
    rows = [
        ("command", command or sweep.get("command") or ""),
        ("device", str(sweep.get("device", ""))),
        ("training time", f"{seconds_text(seconds)} for {counted(len(runs), 'run')}, compilation not counted"),
        ("started", str(sweep.get("started") or "")),
        ("finished", str(sweep.get("finished") or "")),
        ("seeds", ", ".join(map(str, sweep["seeds"]))),
        ("draws", draws_text(results)),
        ("lane-steps", steps_text(sweep.get("steps") or {})),
        ("compiled programs", str(sweep.get("programs", ""))),
        *[(f"program {i + 1}", cohort_text(cohort)) for i, cohort in enumerate(plan)],
        ("versions", ", ".join(f"{name} {version}" for name, version in sweep.get("versions", {}).items())),
        ("machine", platform.platform() if not sweep.get("versions") else ""),
        ("data", ", ".join(f"{name}: {str(digest)[:12]}" for name, digest in sweep.get("data", {}).items())),
        ("specification", str(sweep.get("spec_hash", ""))[:10]),
    ]
    return [(name, text) for name, text in rows if text]


def draws_text(results: Results) -> str:
    """Describes in words how the draws were made; empty without any."""
    samples = results.sweep.get("samples") or {}
    if "method" in samples:
        return f"{counted(len(results.draws), 'draw')}, {samples['method']}, seed {samples['seed']}"
    return f"{counted(len(results.draws), 'draw')}, given one by one" if samples and not results.listed else ""


def steps_text(steps: Mapping[str, int]) -> str:
    """Describes in words how much of the computation was needed; empty where nothing was counted."""
    if not steps.get("executed"):
        return ""
    share = steps["useful"] / steps["executed"]
    return f"{steps['executed']:,} executed, {100 * share:.1f} % of them useful (no padding, not after divergence)"


def recipe_rows(results: Results) -> list[tuple[str, str]]:
    """The recipe that all runs share; an axis shows its values, a sampled field what it was drawn from.

    Of arms that were listed, it is the recipe from which they differ.
    """
    shared = {name: format_value(value) for name, value in results.sweep["recipe"].items() if name != "seed"}
    if results.listed:
        return list(shared.items())
    axes = {name: ", ".join(values) for name, values in results.axes.items()}
    return list((shared | axes | {name: f"drawn from {domain}" for name, domain in results.sampled.items()}).items())
