"""Figures that compare arms by their test metrics: heat maps and dot plots."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from fishnet.report.figures.svg import GRID, MUTED, SERIES, Panel, shorten
from fishnet.report.results import Arm, Results
from fishnet.report.tables import interval_text, number_text

METRICS = {
    "test_accuracy": "Test accuracy",
    "test_balanced_accuracy": "Test balanced accuracy",
    "test_macro_auc": "Test macro AUC",
}
MOST_COMBINATIONS = 12  # of the third and later axes' values
MOST_DOTS = 40  # arms of a dot plot
LONGEST = 24  # characters of a value beside an axis, and
LONGEST_LABEL = 44  # of what arms that were listed are called


def overview(results: Results) -> list[Panel]:
    """Test figures of all arms: a dot plot for one axis or arms that were listed, heat maps for two axes, one a
    combination of the others."""
    if len(results.axes) == 0 or results.best is None:
        return []
    if len(results.axes) == 1 or results.listed:
        return [dot_plot(results, metric) for metric in METRICS]
    rest = list(results.axes)[2:]
    combinations = list(itertools.product(*(results.axes[name] for name in rest)))[:MOST_COMBINATIONS]
    metrics = METRICS if not rest else ("test_accuracy", "test_balanced_accuracy")
    return [
        heat_map(results, metric, dict(zip(rest, chosen, strict=True))) for chosen in combinations for metric in metrics
    ]


def heat_map(results: Results, metric: str, chosen: dict[str, str]) -> Panel:
    """Heat map with a cell an arm: first axis downwards, second across, the others fixed at `chosen`."""
    (row_axis, rows), (column_axis, columns) = list(results.axes.items())[:2]
    cells = {
        (arm.values[row_axis], arm.values[column_axis]): arm
        for arm in results.arms
        if all(arm.values[name] == value for name, value in chosen.items())
    }
    means = [arm.metrics[metric].mean for arm in results.arms]
    known = [mean for mean in means if not np.isnan(mean)]
    scale = Normalize(min(known, default=0), max(known, default=1) + 1e-9)
    others = ", ".join(f"{name} {value}" for name, value in chosen.items())
    width, left = 60 * len(columns), _label_width(rows)
    title = METRICS[metric] + (f"\n{shorten(others, int((width + left) / 6))}" if others else "")

    def draw(axes: Axes) -> None:
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            _cell(axes, j, i, cells[row, column], metric, scale, cells[row, column] is results.best)
        axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), xlabel=column_axis, ylabel=row_axis)
        axes.set_title(title, x=-left / width if others else 0.0)
        axes.set_xticks(
            np.arange(len(columns)) + 0.5, [shorten(c, 14) for c in columns], rotation=0 if _brief(columns) else 30
        )
        axes.set_yticks(np.arange(len(rows)) + 0.5, [shorten(r, LONGEST) for r in rows])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    alt = f"{METRICS[metric]} by {row_axis} and {column_axis}{', ' if others else ''}{others}. " + "; ".join(
        f"{row}, {column}: {interval_text(arm.metrics[metric])}" for (row, column), arm in cells.items()
    )
    bottom = 42 if _brief(columns) else 42 + 3 * max(len(shorten(c, 14)) for c in columns)
    return Panel(draw, alt, width, 42 * len(rows), left=left, top=38 if others else 24, bottom=bottom)


def dot_plot(results: Results, metric: str) -> Panel:
    """Mean and interval of every arm on one axis, or of those listed, and each run as a faint dot."""
    (axis,) = results.headings
    levels = [cell for arm in results.arms for cell in results.cells(arm)]
    most = LONGEST_LABEL if results.listed else LONGEST

    def draw(axes: Axes) -> None:
        for i, arm in enumerate(results.arms):
            value = arm.metrics[metric]
            runs = results.runs[results.runs["run"].isin(arm.runs)][metric]
            axes.plot(runs, np.full(len(runs), i), "o", color=MUTED, alpha=0.5, markersize=3, markeredgewidth=0)
            color = SERIES[1] if arm is results.best else SERIES[0]
            if value.n:
                half = value.half if value.n > 1 else 0.0
                axes.errorbar(value.mean, i, xerr=half, fmt="o", color=color, markersize=5, capsize=3, linewidth=1.4)
            else:
                axes.text(
                    0.5, i, "diverged", transform=axes.get_yaxis_transform(), ha="center", va="center", color=MUTED
                )
        axes.set_yticks(range(len(levels)), [shorten(level, most) for level in levels])
        axes.set(
            ylim=(len(levels) - 0.5, -0.5), xlabel=_sentence(METRICS[metric]), ylabel="" if results.listed else axis
        )
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)

    alt = f"{METRICS[metric]} by {axis}. " + "; ".join(
        f"{level}: {interval_text(arm.metrics[metric])}" for level, arm in zip(levels, results.arms, strict=True)
    )
    return Panel(draw, alt, 220, 26 * len(levels), left=_label_width(levels, most), top=10)


def _cell(axes: Axes, x: int, y: int, arm: Arm, metric: str, scale: Normalize, best: bool) -> None:
    value = arm.metrics[metric]
    if value.n == 0:
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor="none", edgecolor=GRID, hatch="////", linewidth=0))
        axes.text(x + 0.5, y + 0.5, "diverged" if arm.diverged else "-", ha="center", va="center", fontsize=7.5)
        return
    words = [f"±{number_text(value.half)}"] * (value.n > 1) + [f"{arm.diverged}/{arm.seeds} div."] * bool(arm.diverged)
    draw_cell(axes, x, y, float(scale(value.mean)), number_text(value.mean), words, best)


def draw_cell(
    axes: Axes, x: int, y: int, shade: float, number: str, words: Sequence[str] = (), framed: bool = False
) -> None:
    """Draws a cell of a heat map.

    Args:
        axes: a unit a cell, downwards.
        x: column.
        y: row.
        shade: between 0 and 1.
        number: in bold.
        words: a line each, below it.
        framed: whether it stands out.
    """
    color = colormaps["cividis"](shade)
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, linewidth=0))
    ink = "#ffffff" if np.dot(color[:3], (0.299, 0.587, 0.114)) < 0.5 else "#000000"
    top = 0.5 - 0.14 * len(words)
    axes.text(x + 0.5, y + top, number, ha="center", va="center", color=ink, fontweight="bold", fontsize=8)
    for i, word in enumerate(words):
        axes.text(x + 0.5, y + top + 0.28 * (i + 1), word, ha="center", va="center", color=ink, fontsize=7)
    if framed:
        axes.add_patch(Rectangle((x + 0.04, y + 0.05), 0.92, 0.9, facecolor="none", edgecolor=ink, linewidth=1.6))


def _label_width(texts: Sequence[str], most: int = LONGEST) -> float:
    return 34 + 6.6 * max(len(shorten(text, most)) for text in texts)


def _brief(texts: Sequence[str]) -> bool:
    return max(map(len, texts), default=0) <= 9


def _sentence(text: str) -> str:
    return text[0].lower() + text[1:]
