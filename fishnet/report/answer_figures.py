"""The figures of answers: differences with their intervals, curves by arm, figures by arm with every seed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fishnet.report.canvas import GRID, MUTED, SERIES, Panel, shortened
from fishnet.report.curve_figures import Line, limits_of, line_panel
from fishnet.report.evidence import Evidence, Measure, Trial
from fishnet.stats import Comparison, t_interval

ROW, WIDTH = 22.0, 240.0  # CSS pixels: of an arm, and of the axes
COLOURS = {"better": SERIES[2], "worse": SERIES[1], "equivalent": SERIES[0]}


def label_width(labels: Sequence[str]) -> float:
    """Room for names beside the axes, CSS pixels."""
    return 16 + 5.6 * min(max(map(len, labels)), 30)


def forest(evidence: Evidence, title: str = "") -> Panel:
    """The difference of every arm to the control: thick its own 95 % interval, thin that of all arms at once.

    Args:
        evidence: with verdicts, which give the colours.
        title: of the panel; empty: that of the contrast.
    """
    control, *rows = evidence.rows.values()
    measure = evidence.contrast.measure
    labels = [row.arm for row in rows]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
        if measure.margin is not None:
            axes.axvspan(-measure.margin, measure.margin, color=GRID, alpha=0.6, linewidth=0, zorder=0)
        for place, row in enumerate(rows):
            draw_difference(axes, row, place, MUTED if evidence.problem else COLOURS.get(row.verdict, MUTED))
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=f"{measure.name}, difference to {shortened(control.arm, 24)}")
        axes.set_yticks(range(len(rows)), [shortened(label, 30) for label in labels])
        axes.set_title(shortened(title or evidence.contrast.title, 60), x=-label_width(labels) / WIDTH)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")

    told = "; ".join(f"{row.arm} {evidence.phrase(row.arm)}" for row in rows)
    alt = f"{measure.name}, difference to {control.arm}: {told}"
    return Panel(draw, alt, WIDTH, 14 + ROW * len(rows), left=label_width(labels))


def draw_difference(axes: Axes, row: Comparison, place: int, colour: str) -> None:
    """One arm of a forest plot; intervals that are open are cut at the edge of what is known."""
    low, high = row.simultaneous_interval
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [place, place], color=colour, linewidth=1, zorder=2)
    low, high = row.difference_interval
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [place, place], color=colour, linewidth=3.5, solid_capstyle="butt", zorder=3)
    axes.plot([row.difference], [place], "o", color=colour, markersize=5, zorder=4)


def arms_panel(trial: Trial, measure: Measure, title: str, labels: Sequence[str] | None = None) -> Panel:
    """Every run of every arm as a dot, with mean and 95 % interval.

    Args:
        trial: whose arms.
        measure: on the horizontal axis.
        title: of the panel.
        labels: of the arms shown; None: all.
    """
    values = trial.by_seed(measure)
    labels = list(labels or trial.labels)

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
                    f"{len(found) - len(fine)} diverged",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=7,
                    color=MUTED,
                )
        axes.set(ylim=(len(labels) - 0.4, -0.6), xlabel=measure.name)
        axes.set_yticks(range(len(labels)), [shortened(label, 30) for label in labels])
        axes.set_title(shortened(title, 60), x=-label_width(labels) / WIDTH)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")

    means = "; ".join(
        f"{label} {np.nanmean(values[label]):.3g}" for label in labels if np.isfinite(values[label]).any()
    )
    return Panel(
        draw,
        f"{title}: {measure.name} by arm. Means: {means}",
        WIDTH,
        14 + ROW * len(labels),
        left=label_width(labels),
        right=60,
    )


def curves_panel(trial: Trial, column: str, title: str, unit: str, labels: Sequence[str] | None = None) -> Panel | None:
    """A column of `curves.parquet` by epoch, a line an arm with its 95 % interval; None without any figure.

    Args:
        trial: whose first look is drawn.
        column: of the table.
        title: of the panel.
        unit: of the vertical axis, in words.
        labels: of the arms shown; None: all.
    """
    look = trial.looks[0]
    lines = [curve(look.results.curves, look.runs(label), column, label) for label in labels or trial.labels]
    limits = limits_of(lines)
    return None if limits is None else line_panel(lines, title, unit, limits)


def curve(curves: pd.DataFrame, runs: Sequence[int], column: str, name: str) -> Line:
    """Mean and half-width of a column over some runs, by epoch."""
    mine = curves[curves["run"].isin(runs)] if len(curves) else curves
    if not len(mine) or column not in mine:
        return Line(name, np.zeros(0), np.zeros(0), np.zeros(0))
    table = mine.pivot(index="run", columns="epoch", values=column).astype(float)
    mean, half, _ = t_interval(table.to_numpy(), axis=0)
    return Line(name, table.columns.to_numpy(), mean, half)
