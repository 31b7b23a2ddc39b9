"""Figures of a metric over what the arms differ in: a number, two choices, or another metric."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes

from fishnet.report.figures.curves import Line, draw_line
from fishnet.report.figures.overview import draw_cell
from fishnet.report.figures.svg import MARKERS, MUTED, SERIES, Panel, plain_ticks, shorten
from fishnet.stats import t_interval
from fishnet.study.metrics import Metric
from fishnet.study.trials import Trial

WIDTH, HEIGHT = 220, 170  # CSS pixels, of the axes


def numbers_panel(
    values: Mapping[str, Sequence[float]],
    metric: Metric,
    lines: Mapping[str, Mapping[float, str]],
    title: str,
    across: str,
    logarithmic: bool = True,
    most: float | None = None,
    logarithmic_values: bool = False,
) -> Panel | None:
    """A metric over a number, a line a family of arms: the mean over seeds with its 95 % interval.

    Args:
        values: arm -> the metric by seed, as of `Trial.by_seed`, of one trial or put together from several.
        metric: on the vertical axis.
        lines: name -> {number: arm}; arms without values are left out, and so are points at which a run diverged: a
            mean over the others would flatter them.
        title: of the panel.
        across: what the number is.
        logarithmic: whether the horizontal axis is.
        most: the largest value shown: single ones far above would press all others flat.
        logarithmic_values: whether the vertical axis is; the metric is then above 0.

    Returns:
        None where nothing was measured.
    """
    drawn = [line for name, points in lines.items() if len((line := number_line(name, points, values)).mean)]
    if not drawn:
        return None

    def draw(axes: Axes) -> None:
        for place, line in enumerate(drawn):
            draw_line(axes, line, place, True)
            axes.get_lines()[-1].set_label(shorten(line.name, 24))
        if logarithmic:
            axes.set_xscale("log")
            plain_ticks(axes.xaxis)
        if most is not None:
            lowest = min(float(line.mean.min()) for line in drawn)
            axes.set_ylim(lowest - 0.06 * (most - lowest), most)
        if logarithmic_values:
            axes.set_yscale("log", nonpositive="clip")
            axes.set_ylim(bottom=min(float(line.mean.min()) for line in drawn) / 3)  # a band may reach below 0
            plain_ticks(axes.yaxis)
        axes.set(xlabel=across, ylabel=fill(metric.name, 32), title=shorten(title, 44))
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.02), borderaxespad=0.2)

    def best(line: Line) -> str:
        place = int(line.mean.argmax() if metric.larger_is_better else line.mean.argmin())
        return f"{line.name} {line.mean[place]:.3g} at {line.epochs[place]:g}"

    alt = f"{title}: {metric.name} by {across}. Best: " + "; ".join(map(best, drawn))
    return Panel(draw, alt, WIDTH, HEIGHT, left=88 if logarithmic_values else 72, right=150)


def cells_panel(trial: Trial, metric: Metric, cells: Mapping[tuple[str, str], str], title: str) -> Panel | None:
    """A metric over two choices, a cell an arm: the mean over seeds with half its 95 % interval; the best is framed.

    Args:
        trial: whose arms.
        metric: what is written into the cells; darker is worse.
        cells: (row, column) -> arm. Cells of arms that the trial does not have, or with a run without a value, are
            empty.
        title: of the panel.

    Returns:
        None where fewer than two cells have values.
    """
    values = trial.by_seed(metric)
    found = {
        place: t_interval(np.asarray(values[label]))[:2]
        for place, label in cells.items()
        if len(values.get(label, ())) and np.isfinite(values[label]).all()
    }
    if len(found) < 2:
        return None
    rows, columns = (list(dict.fromkeys(place[axis] for place in found)) for axis in (0, 1))
    means = {place: float(mean) for place, (mean, _) in found.items()}
    low, high = min(means.values()), max(means.values())
    best = (max if metric.larger_is_better else min)(means, key=means.__getitem__)

    def draw(axes: Axes) -> None:
        for place, (mean, half) in found.items():
            shade = (float(mean) - low) / (high - low) if high > low else 0.5
            words = [f"±{half:.{metric.digits}f}"] if np.isfinite(half) else []
            x, y = columns.index(place[1]), rows.index(place[0])
            number = f"{float(mean):.{metric.digits}f}"
            draw_cell(axes, x, y, shade if metric.larger_is_better else 1 - shade, number, words, place == best)
        axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), title=shorten(title, 44))
        axes.set_xticks(np.arange(len(columns)) + 0.5, [shorten(name, 14) for name in columns])
        axes.set_yticks(np.arange(len(rows)) + 0.5, [shorten(name, 24) for name in rows])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    alt = f"{title}: {metric.name}. " + "; ".join(f"{a}, {b}: {means[a, b]:.{metric.digits}f}" for a, b in means)
    left = 20 + 6.6 * max(len(shorten(name, 24)) for name in rows)
    return Panel(draw, alt, 64 * len(columns), 34 * len(rows), left=left)


def trade_panel(trial: Trial, across: Metric, up: Metric, title: str, levels: Sequence[float] = ()) -> Panel | None:
    """Two metrics against each other, a point an arm: means over seeds with their 95 % intervals.

    Args:
        trial: whose arms; those with a run without one of the figures are left out.
        across: the metric on the horizontal axis, above 0; its scale is logarithmic.
        up: that on the vertical axis.
        title: of the panel.
        levels: of `up`, drawn as lines.

    Returns:
        None where nothing was measured.
    """
    columns = [trial.by_seed(metric) for metric in (across, up)]
    points = {}
    for label in trial.labels:
        values = [np.asarray(column[label], np.float64) for column in columns]
        if all(len(of) and np.isfinite(of).all() for of in values):
            points[label] = [t_interval(of)[:2] for of in values]
    if not points:
        return None

    def draw(axes: Axes) -> None:
        for place, (label, ((x, half_x), (y, half_y))) in enumerate(points.items()):
            axes.errorbar(
                x,
                y,
                xerr=half_x if half_x < x else None,  # which a logarithmic axis could not show
                yerr=half_y if np.isfinite(half_y) else None,
                fmt=MARKERS[place // len(SERIES) % len(MARKERS)],
                color=SERIES[place % len(SERIES)],
                markersize=4,
                label=shorten(label, 28),
            )
        for level in levels:
            axes.axhline(level, color=MUTED, linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        axes.set(xlabel=across.name, ylabel=up.name, title=shorten(title, 44))
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.02), borderaxespad=0.2)

    told = "; ".join(f"{label} {x:.3g}, {y:.4g}" for label, ((x, _), (y, _)) in points.items())
    return Panel(draw, f"{title}: {up.name} against {across.name}. {told}", WIDTH, 240, left=60, right=190)


def number_line(name: str, points: Mapping[float, str], values: Mapping[str, Sequence[float]]) -> Line:
    """Mean and half-width over seeds at each number, ascending, where every run has a value."""
    found = [(number, np.asarray(values[label], np.float64)) for number, label in points.items() if label in values]
    sound = sorted((number, of) for number, of in found if len(of) and np.isfinite(of).all())
    intervals = [t_interval(of) for _, of in sound]
    return Line(
        name,
        np.array([number for number, _ in sound]),
        np.array([mean for mean, _, _ in intervals]),
        np.array([half for _, half, _ in intervals]),
    )
