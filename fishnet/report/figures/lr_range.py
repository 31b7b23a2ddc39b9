"""Learning-rate range test, read from its output folder: losses by rate, and their picture."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from fishnet.report.figures.svg import GRID, MARKERS, MUTED, SERIES, Panel, plain_ticks
from fishnet.report.results import Results
from fishnet.report.tables import number_text
from fishnet.stats.lr_range import Suggestion

WIDTH, HEIGHT = 460, 240  # CSS pixels, of the axes
LINES = {"train_loss": "training", "val_loss": "validation"}


@dataclass(frozen=True)
class RangeTest:
    """Losses by rate and seed after the last epoch; NaN where a run diverged."""

    rates: np.ndarray  # [r], ascending
    train_loss: np.ndarray  # [r, s], mean over the steps of the epoch
    val_loss: np.ndarray  # [r, s], at its end
    val_accuracy: np.ndarray  # [r, s]

    @property
    def diverged(self) -> np.ndarray:
        """Number of diverged seeds at each rate, [r]."""
        return (~np.isfinite(self.val_loss)).sum(1)


def range_test_of(results: Results) -> RangeTest:
    """The losses of a finished sweep whose only axis is `lr`."""
    rates = np.sort(np.asarray(results.sweep["axes"]["lr"], np.float64))
    columns = (*LINES, "val_accuracy")
    fine = results.runs[results.runs["status"] != "diverged"]
    # A column is missing in an empty table only.
    last = results.curves[results.curves["run"].isin(fine["run"])] if len(results.curves) else results.curves
    last = last.sort_values("epoch").groupby("run").tail(1).set_index("run") if len(last) else last
    values = {name: np.full((len(rates), len(results.sweep["seeds"])), np.nan) for name in columns}
    for run, rate, seed in zip(fine["run"], fine["lr"], fine["seed"], strict=True):
        place = int(np.abs(np.log(rates / rate)).argmin()), results.sweep["seeds"].index(seed)
        for name in columns:
            values[name][place] = last.loc[run, name]
    return RangeTest(rates, **values)


def range_panel(test: RangeTest, suggestion: Suggestion | None) -> Panel:
    """Training and validation loss by rate, mean and range over the seeds, with what is suggested.

    Args:
        test: the losses.
        suggestion: of `fishnet.stats.lr_range.suggest`; None when every rate diverged.
    """
    bottom, top = limits(test, suggestion)
    sound = test.diverged == 0
    above = sound & (test.val_loss.mean(1) > top)
    places = {"every seed diverged": test.diverged == test.val_loss.shape[1]}
    places["some seeds diverged"] = ~sound & ~places["every seed diverged"]

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        if suggestion is not None:
            axes.axvspan(suggestion.low, suggestion.high, color=GRID, alpha=0.6, linewidth=0, zorder=0)
            axes.axvline(suggestion.rate, color=MUTED, linewidth=1, zorder=1)
            axes.set_title(title(suggestion))
        for i, (name, word) in enumerate(LINES.items()):
            losses = np.where(sound[:, None], getattr(test, name), np.nan)
            mean, low, high = losses.mean(1), losses.min(1), losses.max(1)
            axes.plot(test.rates, mean, color=SERIES[i], marker=MARKERS[i], markersize=3.5, label=f"{word} loss")
            if losses.shape[1] > 1:
                axes.fill_between(test.rates, low, high, color=SERIES[i], alpha=0.18, linewidth=0)
        edge = {"transform": axes.get_xaxis_transform(), "clip_on": False, "linestyle": "", "color": MUTED}
        for (word, where), marker in zip(places.items(), "xX", strict=True):
            if where.any():
                axes.plot(test.rates[where], np.ones(where.sum()), marker=marker, markersize=6, label=word, **edge)
        if above.any():
            number = np.ones(above.sum())
            axes.plot(test.rates[above], number, marker=6, markersize=5, label="above the picture", **edge)
        ends = test.rates[[0, -1]] * (test.rates[0] / test.rates[-1]) ** np.array([0.02, -0.02])
        words = "loss" + ", mean and range over seeds" * (test.val_loss.shape[1] > 1)
        axes.set(xlim=ends, ylim=(bottom, top), xlabel="learning rate", ylabel=words)
        plain_ticks(axes.xaxis)
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=7.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)

    return Panel(draw, describe_range(test, suggestion), WIDTH, HEIGHT, right=150)


def limits(test: RangeTest, suggestion: Suggestion | None) -> tuple[float, float]:
    """Vertical limits: all losses at rates up to the best, and up to twice the lowest at higher rates.

    The losses of rates that are much too high would else press all others flat.
    """
    if suggestion is None:
        return 0.0, 1.0
    shown = (test.rates <= suggestion.rate) & (test.diverged == 0)
    values = np.stack([test.train_loss, test.val_loss])
    sound = values[:, test.diverged == 0]
    lowest = sound.min()
    top = max(values[:, shown].max(), 2 * suggestion.loss)
    top = min(top, sound.max())
    room = 0.06 * ((top - lowest) or abs(top) or 1.0)
    return float(lowest - room), float(top + room)


def title(suggestion: Suggestion) -> str:
    """`suggested 0.05; as good: 0.02 to 0.1`."""
    text = f"suggested: {suggestion.rate:g}"
    if suggestion.low < suggestion.high:
        text += f"; as good within one standard error: {suggestion.low:g} to {suggestion.high:g}"
    return text


def describe_range(test: RangeTest, suggestion: Suggestion | None) -> str:
    """Alternative text of the picture."""
    means = [
        f"{rate:g}: " + (number_text(losses.mean()) if not gone else f"{gone} of {len(losses)} diverged")
        for rate, losses, gone in zip(test.rates, test.val_loss, test.diverged, strict=True)
    ]
    text = "Training and validation loss by learning rate. "
    text += "Every rate diverged. " if suggestion is None else f"{title(suggestion).capitalize()}. "
    return text + "Validation loss: " + "; ".join(means)
