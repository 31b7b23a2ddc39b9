"""Learning curves: small panels of lines with bands, each line named at its end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fishnet.report.figures.svg import GRID, MARKERS, SERIES, Panel, shorten
from fishnet.report.results import Arm, Results
from fishnet.report.tables import number_text

MOST_PANELS = 12
MOST_LINES = 12  # colored and named in one panel; of more, the best eight and the worst four
WIDE, HEIGHT, NAME_HEIGHT = 122, 150, 12.5  # CSS pixels, of the axes and of a name beside them


@dataclass(frozen=True)
class Line:
    """A mean by epoch with its interval; empty where every run diverged."""

    name: str
    epochs: np.ndarray  # [e]
    mean: np.ndarray  # [e]
    half: np.ndarray  # [e], half-width; NaN for fewer than two runs

    @property
    def last(self) -> float:
        """Last finite mean; NaN without any."""
        known = self.mean[np.isfinite(self.mean)]
        return float(known[-1]) if len(known) else np.nan


def curve_panels(results: Results, column: str, label: str) -> list[Panel]:
    """A line a value of the first axis, a panel a combination of the others'; on one scale.

    Args:
        results: of a sweep with axes.
        column: of `curves`.
        label: what it is, with its unit.
    """
    first, *rest = results.axes
    facets: dict[tuple[str, ...], list[Line]] = {}
    for arm in results.arms:
        facets.setdefault(tuple(arm.values[name] for name in rest), []).append(line_of(results, arm, column, first))
    limits = limits_of([line for lines in facets.values() for line in lines])
    if limits is None:
        return []
    panels = []
    for values, lines in list(facets.items())[:MOST_PANELS]:
        title = ", ".join(f"{name} {value}" for name, value in zip(rest, values, strict=True)) or label
        panels.append(line_panel(lines, title, label, limits))
    return panels


def training_panels(results: Results) -> list[Panel]:
    """Panels for a sweep without axes: accuracy and loss, validation against training."""
    (arm,) = results.arms
    panels = []
    for name, unit in (("accuracy", ""), ("loss", ", nats")):
        curves = {split: results.curve(arm, f"{split}_{name}") for split in ("val", "train")}
        lines = [Line(word, *curves[split]) for split, word in (("val", "validation"), ("train", "training"))]
        limits = limits_of(lines)
        if limits is not None:
            panels.append(line_panel(lines, name, name + unit, limits))
    return panels


def line_of(results: Results, arm: Arm, column: str, axis: str) -> Line:
    """The curve of one arm, named by its value of `axis`."""
    return Line(arm.values[axis], *results.curve(arm, column))


def limits_of(lines: Sequence[Line]) -> tuple[float, float] | None:
    """Common axis limits of lines: the range of all means with a margin; None without any."""
    values = np.concatenate([line.mean for line in lines]) if lines else np.zeros(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    room = 0.06 * (np.ptp(values) or abs(values[0]) or 1.0)
    return float(values.min() - room), float(values.max() + room)


def line_panel(
    lines: Sequence[Line],
    title: str,
    label: str,
    limits: tuple[float, float],
    across: str = "epoch",
    letters: int = 11,
    left: float = 56,
) -> Panel:
    """Panel of lines with bands by epoch; a line looks the same in every panel, also where others are missing.

    Args:
        lines: those without a known mean are named as diverged.
        title: of the panel.
        label: of the vertical axis.
        limits: of the vertical axis.
        across: of the horizontal axis.
        letters: of a line's name that are written beside the axes.
        left: of the axes, CSS pixels for their numbers and label.
    """
    drawn = [i for i, line in enumerate(lines) if np.isfinite(line.last)]
    missing = [line.name for i, line in enumerate(lines) if i not in drawn]
    best_first = sorted(drawn, key=lambda i: -lines[i].last)
    named = sorted(best_first if len(drawn) <= MOST_LINES else best_first[:8] + best_first[-4:])

    def draw(axes: Axes) -> None:
        for i in drawn:
            draw_line(axes, lines[i], i, i in named)
        epochs = [epoch for i in drawn for epoch in lines[i].epochs] or [1]
        axes.set(xlabel=across, ylabel=label, title=shorten(title, 44), ylim=limits)
        if min(epochs) == max(epochs):
            axes.set(xlim=(epochs[0] - 1, epochs[0] + 1), xticks=[epochs[0]])
        numbers = min(6, WIDE // (6 * len(str(max(epochs))) + 8))  # that stand beside each other
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=numbers, min_n_ticks=1))
        axes.grid(axis="y")
        gap = (limits[1] - limits[0]) * NAME_HEIGHT / HEIGHT
        for i, place in zip(named, spread_apart([lines[i].last for i in named], gap, limits), strict=True):
            write_name(axes, lines[i], place, SERIES[i % len(SERIES)], letters)
        if missing:
            gone = shorten(", ".join(missing), 28)
            axes.set_title(f"{shorten(title, 44)}\n(diverged: {gone})", fontsize=7.5)

    ends = "; ".join(f"{lines[i].name} {number_text(lines[i].last)}" for i in best_first)
    alt = f"{label} by {across}, {title}. At the end: {ends}" + (f". Diverged: {', '.join(missing)}" if missing else "")
    return Panel(draw, alt, WIDE, HEIGHT, left=left, right=18 + 6 * letters, top=38 if missing else 24)


def draw_line(axes: Axes, line: Line, place: int, named: bool) -> None:
    """Draws a line with its band; a line without a name is gray and in the background."""
    if not named:
        axes.plot(line.epochs, line.mean, color=GRID, zorder=1)
        return
    color, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
    style = ("-", "--", ":")[place // len(SERIES) % 3]
    every = max(1, len(line.epochs) // 8)
    axes.plot(line.epochs, line.mean, style, color=color, marker=marker, markersize=3, markevery=every, zorder=3)
    if np.isfinite(line.half).any():
        low, high = line.mean - line.half, line.mean + line.half
        axes.fill_between(line.epochs, low, high, color=color, alpha=0.15, linewidth=0)


def write_name(axes: Axes, line: Line, place: float, color: str, letters: int) -> None:
    """Writes the line's name to the right of the axes at height `place`, connected to the line's end."""
    axes.annotate(
        shorten(line.name, letters),
        (line.epochs[np.isfinite(line.mean)][-1], line.last),
        (1.1, place),
        va="center",
        fontsize=7.5,
        textcoords=axes.get_yaxis_transform(),
        annotation_clip=False,
        arrowprops={
            "arrowstyle": "-",
            "color": color,
            "linewidth": 1.0,
            "shrinkA": 0,
            "shrinkB": 2,
            "relpos": (0, 0.5),
        },
    )


def spread_apart(places: Sequence[float], gap: float, limits: tuple[float, float]) -> list[float]:
    """Moves `places` apart until neighbors are `gap` apart, in the same order, none above the upper limit."""
    order = np.argsort(places, kind="stable")
    moved = np.array(places, float)[order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], moved[i + 1] - gap if i + 1 < len(moved) else limits[1])
    result = np.empty(len(moved))
    result[order] = moved
    return result.tolist()
