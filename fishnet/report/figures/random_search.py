"""Figures of a random search: validation accuracy against each value, curves of the best arms."""

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fishnet.report.figures.curves import Line, limits_of, line_panel
from fishnet.report.figures.svg import MUTED, SERIES, Panel, plain_ticks, shorten
from fishnet.report.results import RANK_BY, Arm, Results
from fishnet.report.tables import NAMES, interval_text
from fishnet.sweep.spec.field_parsing import shown_value
from fishnet.sweep.spec.search_space import Choices, Range

BEST = 6  # arms whose learning curves are shown
MOST_NAMES = 8  # numbers of a list that are written side by side as if they were names
WIDE = 30  # times the lowest number; a list that reaches further is shown on a logarithmic scale
SPREAD = 0.5  # of the distance between two names, over which the arms of one name are spread


def value_panels(results: Results) -> list[Panel]:
    """Validation accuracy of every arm against each value by which arms differ: a panel a field."""
    if not results.sampled or results.best is None:
        return []
    return [value_panel(results, name) for name in results.axes]


def value_panel(results: Results, name: str) -> Panel:
    """Panel with every arm at its value of field `name`: numbers on their scale, names side by side."""
    best = results.best
    assert best is not None, "`value_panels` draws nothing without a best arm"
    domain = results.sampled.get(name)
    scale = range_of(domain)
    place, finish, foot_room = numbers(results, name, scale) if scale else names(results, name)
    ended = set(results.runs.loc[results.runs["status"] == "stopped", "arm"])

    def draw(axes: Axes) -> None:
        finish(axes)
        foot = axes.get_xaxis_transform()
        for i, arm in enumerate(results.arms):
            mean = arm.metrics[RANK_BY].mean
            if arm is best or np.isnan(mean):
                continue
            values = results.runs.loc[results.runs["run"].isin(arm.runs), RANK_BY]
            if len(values) > 1:
                axes.plot([place(i, arm)] * 2, [values.min(), values.max()], color=MUTED, alpha=0.35, linewidth=1)
            face = "none" if arm.name in ended else SERIES[0]
            axes.plot(place(i, arm), mean, "o", markersize=4, markeredgecolor=SERIES[0], markerfacecolor=face)
        lost = [place(i, arm) for i, arm in enumerate(results.arms) if not arm.runs and arm.diverged]
        axes.plot(lost, np.zeros(len(lost)), "x", color=MUTED, markersize=5, transform=foot, clip_on=False)
        axes.plot(
            place(results.arms.index(best), best),
            best.metrics[RANK_BY].mean,
            "D",
            color=SERIES[1],
            markersize=6,
            zorder=4,
        )
        axes.set(xlabel=name, ylabel=NAMES[RANK_BY])
        axes.grid(axis="y")

    drawn = "" if domain is None else f", drawn from {domain}"
    alt = (
        f"Validation accuracy of {len(results.arms)} arms by {name}{drawn}. "
        f"Best: {name} {best.values[name]}, {interval_text(best.metrics[RANK_BY])}"
    )
    return Panel(draw, alt, 220, 160, left=62, top=10, bottom=foot_room)


def range_of(domain: Range | Choices | None) -> Range | None:
    """The scale on which values stand: of a list that of its numbers, if they are too many to be written side by side;
    None where they are names, or few."""
    if not isinstance(domain, Choices):
        return domain
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in domain.values)
    if not numeric or len(domain.values) <= MOST_NAMES:
        return None
    low, high = min(domain.values), max(domain.values)
    return Range(low, high, log=low > 0 and high > WIDE * low)


Scale = tuple[Callable[[int, Arm], float], Callable[[Axes], None], float]


def numbers(results: Results, name: str, domain: Range) -> Scale:
    """Horizontal axis of a sampled number: position of an arm, function that sets the axis up, room below it."""
    room = 0.03

    def finish(axes: Axes) -> None:
        low, high = domain.low, domain.high
        if domain.log:
            axes.set_xscale("log")
            axes.set_xlim(low * (low / high) ** room, high * (high / low) ** room)
            plain_ticks(axes.xaxis)
        else:
            axes.set_xlim(low - room * (high - low), high + room * (high - low))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=isinstance(low, int)))

    return lambda i, arm: results.points[arm.name][name], finish, Panel.bottom


def names(results: Results, name: str) -> Scale:
    """Horizontal axis of names: position of an arm among them, function that sets the axis up, room below it."""
    domain = results.sampled.get(name)
    levels = [shown_value(v) for v in domain.values] if isinstance(domain, Choices) else results.axes[name]

    def place(i: int, arm: Arm) -> float:
        # Steps of the golden ratio spread any number of arms evenly, and the same ones in every panel alike.
        return levels.index(arm.values[name]) + SPREAD * (i * 0.618034 % 1 - 0.5)

    shown = [shorten(level, 14) for level in levels]
    longest = max(map(len, shown))
    # Upright enough for lines of text to stand apart, where they are too long to stand side by side.
    turned = 0 if longest * len(levels) <= 36 else 30 if len(levels) <= 10 else 60

    def finish(axes: Axes) -> None:
        axes.set_xticks(
            range(len(levels)),
            shown,
            rotation=turned,
            ha="right" if turned else "center",
            rotation_mode="anchor" if turned else "default",
        )
        axes.set_xlim(-0.5, len(levels) - 0.5)
        axes.tick_params(axis="x", length=0)

    return place, finish, Panel.bottom + 6.5 * longest * math.sin(math.radians(turned))


def best_curves(results: Results, column: str, label: str) -> list[Panel]:
    """The curves of the best arms by validation, each named by its rank.

    Args:
        results: of a sweep with samples.
        column: of `curves`.
        label: what it is, with its unit.
    """
    lines = [Line(str(rank), *results.curve(arm, column)) for rank, arm in enumerate(best_arms(results), start=1)]
    limits = limits_of(lines)
    return [] if limits is None else [line_panel(lines, label, label, limits)]


def best_arms(results: Results) -> list[Arm]:
    """The arms whose curves are shown, best first."""
    return [arm for arm in results.ranked if arm.runs][:BEST]
