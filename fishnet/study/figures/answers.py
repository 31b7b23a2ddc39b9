"""The figures of answers: differences with their intervals, curves by arm, figures by arm with every seed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fishnet.report.figures.curves import Line, draw_line, limits_of, line_panel
from fishnet.report.figures.svg import GRID, MUTED, SERIES, Panel, shorten
from fishnet.stats import Comparison, interquartile_mean, t_interval
from fishnet.study.contrasts import Evidence
from fishnet.study.metrics import Metric
from fishnet.study.trials import Trial

ROW, WIDTH = 22.0, 240.0  # CSS pixels: of an arm, and of the axes
LINE, LONGEST = 12.0, 48  # CSS pixels of a line of an axis label, and letters that fit below the axes
LETTERS = 24  # of an arm beside its curve
COLORS = {"better": SERIES[2], "worse": SERIES[1], "equivalent": SERIES[0]}


def label_width(labels: Sequence[str]) -> float:
    """Width of arm names next to the axes, CSS pixels."""
    return 16 + 6.1 * min(max(map(len, labels)), 30)


def wrap_label(*parts: str) -> str:
    """Joins the parts of an axis label on one line if they fit, else a line each."""
    whole = ", ".join(parts)
    return whole if len(whole) <= LONGEST - 8 else ",\n".join(fill(part, LONGEST) for part in parts)


def label_rows(axes: Axes, labels: Sequence[str], words: str, title: str) -> None:
    """Sets up axes with a row for each arm, the first on top: names, grid, horizontal label, title."""
    axes.set(ylim=(len(labels) - 0.4, -0.6), xlabel=words)
    axes.set_yticks(range(len(labels)), [shorten(label, 30) for label in labels])
    axes.set_title(shorten(title, 60), x=-label_width(labels) / WIDTH)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def forest_panel(evidence: Evidence, title: str = "") -> Panel:
    """Forest plot: difference of every arm to the control; thick its own 95 % interval, thin the simultaneous one.

    Args:
        evidence: with verdicts, which give the colors.
        title: of the panel; empty: that of the contrast.
    """
    control, *rows = evidence.rows.values()
    metric = evidence.contrast.metric
    labels = [row.arm for row in rows]
    words = wrap_label(metric.name, f"difference to {shorten(control.arm, 24)}")

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
        if metric.margin is not None:
            axes.axvspan(-metric.margin, metric.margin, color=GRID, alpha=0.6, linewidth=0, zorder=0)
        for place, row in enumerate(rows):
            draw_difference(axes, row, place, MUTED if evidence.problem else COLORS.get(row.verdict, MUTED))
        label_rows(axes, labels, words, title or evidence.contrast.title)

    told = "; ".join(f"{row.arm} {evidence.difference_text(row.arm)}" for row in rows)
    alt = f"{metric.name}, difference to {control.arm}: {told}"
    bottom = Panel.bottom + LINE * words.count("\n")
    return Panel(draw, alt, WIDTH, 14 + ROW * len(rows), left=label_width(labels), bottom=bottom)


def draw_difference(axes: Axes, row: Comparison, place: int, color: str) -> None:
    """Draws one arm of a forest plot."""
    low, high = row.simultaneous_interval
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [place, place], color=color, linewidth=1, zorder=2)
    low, high = row.difference_interval
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [place, place], color=color, linewidth=3.5, solid_capstyle="butt", zorder=3)
    axes.plot([row.difference], [place], "o", color=color, markersize=5, zorder=4)


def arms_panel(trial: Trial, metric: Metric, title: str, labels: Sequence[str] | None = None) -> Panel:
    """Panel with every run of every arm as a dot, with mean and 95 % interval.

    Args:
        trial: whose arms.
        metric: on the horizontal axis.
        title: of the panel.
        labels: of the arms shown; None: all.
    """
    values = trial.by_seed(metric)
    labels, words = list(labels or trial.labels), wrap_label(metric.name)

    def draw(axes: Axes) -> None:
        for place, label in enumerate(labels):
            found = np.asarray(values[label], np.float64)
            fine = found[np.isfinite(found)]
            axes.plot(fine, np.full(len(fine), place), "o", color=MUTED, alpha=0.45, markersize=3, zorder=2)
            mean, half, _ = t_interval(fine)
            if np.isfinite(mean):
                axes.errorbar(
                    mean,
                    place,
                    xerr=half if np.isfinite(half) else None,
                    fmt="o",
                    color=SERIES[0],
                    markersize=4,
                    zorder=3,
                )
            if len(fine) < len(found):
                axes.text(
                    1.02,
                    place,
                    f"{len(found) - len(fine)} without",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=7,
                    color=MUTED,
                )
        label_rows(axes, labels, words, title)

    means = "; ".join(
        f"{label} {np.nanmean(values[label]):.3g}" for label in labels if np.isfinite(values[label]).any()
    )
    return Panel(
        draw,
        f"{title}: {metric.name} by arm. Means: {means}",
        WIDTH,
        14 + ROW * len(labels),
        left=label_width(labels),
        right=60,
        bottom=Panel.bottom + LINE * words.count("\n"),
    )


def aggregate_panel(scores: Mapping[str, Sequence[Sequence[float]]], title: str, words: str) -> Panel:
    """Draws one score an arm over several tasks: the interquartile mean with its interval, the best arm first.

    Args:
        scores: arm -> task -> score of every run, on one scale.
        title: of the panel.
        words: under the axis.
    """
    found = {label: interquartile_mean(of) for label, of in scores.items()}
    labels = sorted(found, key=lambda label: -found[label][0])

    def draw(axes: Axes) -> None:
        for place, label in enumerate(labels):
            estimate, bounds = found[label]
            if np.isfinite(bounds).all():
                axes.plot(bounds, [place, place], color=SERIES[0], linewidth=3.5, solid_capstyle="butt", zorder=2)
            axes.plot([estimate], [place], "o", color=SERIES[0], markersize=5, zorder=3)
        label_rows(axes, labels, words, title)

    told = "; ".join(f"{label} {found[label][0]:.3f}" for label in labels)
    return Panel(draw, f"{title}: {words}. {told}", WIDTH, 14 + ROW * len(labels), left=label_width(labels))


def curves_panel(
    trial: Trial,
    column: str,
    title: str,
    unit: str,
    labels: Sequence[str] | None = None,
    most: float | None = None,
) -> Panel | None:
    """Draws a column of `curves.parquet` by epoch, a line an arm with its 95 % interval; None without values.

    Args:
        trial: whose first look is drawn.
        column: of the table.
        title: of the panel.
        unit: of the vertical axis, in words.
        labels: of the arms shown; None: all.
        most: the largest value shown: one far above would press all others flat.
    """
    look = trial.looks[0]
    lines = [curve(look.results.curves, look.runs(label), column, label) for label in labels or trial.labels]
    limits = limits_of(lines if most is None else [replace(line, mean=line.mean.clip(max=most)) for line in lines])
    return None if limits is None else line_panel(lines, title, unit, limits, letters=LETTERS)


def curve(curves: pd.DataFrame, runs: Sequence[int], column: str, name: str) -> Line:
    """Mean and half-width of a column over some runs, by epoch."""
    mine = curves[curves["run"].isin(runs)] if len(curves) else curves
    if not len(mine) or column not in mine:
        return Line(name, np.zeros(0), np.zeros(0), np.zeros(0))
    table = mine.pivot(index="run", columns="epoch", values=column).astype(float)
    mean, half, _ = t_interval(table.to_numpy(), axis=0)
    return Line(name, table.columns.to_numpy(), mean, half)


def layers_panel(
    trial: Trial,
    probe: str,
    title: str,
    unit: str,
    labels: Sequence[str] | None = None,
    when: str = "first",
    logarithmic: bool = True,
    expected: Mapping[str, np.ndarray] | None = None,
    only: str = "",
) -> Panel | None:
    """Draws a probe layer by layer, a line an arm: the mean over seeds with its 95 % interval.

    Args:
        trial: whose first look is drawn.
        probe: its name in `probes.parquet`, over layers, kernels or sites.
        title: of the panel.
        unit: of the vertical axis, in words.
        labels: of the arms shown; None: all.
        when: "first" or "last" measurement of each run.
        logarithmic: whether the vertical axis is; means and intervals are then those of the logarithms.
        expected: label -> what a theory says, [layer], drawn as crosses.
        only: how the names of the layers shown begin, such as "conv": norms' shifts would stand between them.

    Returns:
        None where nothing was measured.
    """
    look = trial.looks[0]
    lines = [
        line
        for label in labels or trial.labels
        if len(
            (line := layer_line(look.results.probes, look.runs(label), probe, label, when, logarithmic, only)).epochs
        )
    ]
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for place, line in enumerate(lines):
            draw_line(axes, line, place, True)
            axes.lines[-1].set_label(line.name)
            if expected and line.name in expected:
                theory = np.asarray(expected[line.name], float)
                axes.plot(np.arange(1, len(theory) + 1), theory, "x", color=SERIES[place % len(SERIES)], markersize=5)
        axes.set(xlabel="layer, from the input on", ylabel=unit, title=shorten(title, 44))
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=6))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.02), borderaxespad=0.2)

    ends = "; ".join(f"{line.name} {line.mean[0]:.2g} to {line.mean[-1]:.2g}" for line in lines)
    return Panel(draw, f"{title}: {unit} by layer, first to last. {ends}", 200, 170, left=64, right=160)


def layer_line(
    probes: pd.DataFrame, runs: Sequence[int], probe: str, name: str, when: str, logarithmic: bool, only: str = ""
) -> Line:
    """Mean and half-width of a probe over some runs, by the number of the layer from 1; arguments as above."""
    table = probes[(probes["probe"] == probe) & probes["run"].isin(runs)] if len(probes) else probes
    table = table[table["layer"].str.startswith(only)] if only and len(table) else table
    if not len(table):
        return Line(name, np.zeros(0), np.zeros(0), np.zeros(0))
    chosen = table.groupby("run")["step"].transform("max" if when == "last" else "min")
    values = table[table["step"] == chosen].pivot(index="run", columns="index", values="value").astype(float)
    found, places = values.to_numpy(), np.arange(1, len(values.columns) + 1)
    if not logarithmic:
        mean, half, _ = t_interval(found, axis=0)
        return Line(name, places, mean, half)
    mean, half, _ = t_interval(np.log(np.maximum(found, np.finfo(np.float32).tiny)), axis=0)
    # A band that is even on the logarithmic axis: drawn by its lower half, the smaller one.
    return Line(name, places, np.exp(mean), np.exp(mean) * (1 - np.exp(-half)))


def steps_panel(
    trial: Trial, probe: str, title: str, unit: str, labels: Sequence[str] | None = None, layer: str | None = None
) -> Panel | None:
    """Draws a probe over the steps of training, a line an arm: the mean over seeds with its 95 % interval.

    Args:
        trial: whose first look is drawn.
        probe: its name in `probes.parquet`.
        title: of the panel.
        unit: of the vertical axis, in words.
        labels: of the arms shown; None: all.
        layer: the layer, site or class; None: the mean over all of them.

    Returns:
        None where nothing was measured.
    """
    look = trial.looks[0]
    lines = [step_line(look.results.probes, look.runs(label), probe, label, layer) for label in labels or trial.labels]
    limits = limits_of(lines)
    return None if limits is None else line_panel(lines, title, unit, limits, across="step", letters=LETTERS, left=70)


def step_line(probes: pd.DataFrame, runs: Sequence[int], probe: str, name: str, layer: str | None) -> Line:
    """Mean and half-width of a probe over some runs, by the step."""
    table = probes[(probes["probe"] == probe) & probes["run"].isin(runs)] if len(probes) else probes
    if layer is not None and len(table):
        table = table[(table["layer"] == layer) | (table["class"] == layer)]
    if not len(table):
        return Line(name, np.zeros(0), np.zeros(0), np.zeros(0))
    by_run = table.assign(value=table["value"].astype(float)).groupby(["run", "step"])["value"].mean().unstack()
    mean, half, _ = t_interval(by_run.to_numpy(), axis=0)
    return Line(name, by_run.columns.to_numpy(), mean, half)
