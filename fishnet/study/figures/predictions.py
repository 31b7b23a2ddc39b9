"""Figures from predictions: AUC changes by test images, rejection curves, bias and variance."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from fishnet.metrics.selective import rejection_curve
from fishnet.models.mc_dropout import entropy
from fishnet.report.figures.curves import Line, limits_of, line_panel
from fishnet.report.figures.svg import GRID, MUTED, SERIES, Panel, shorten
from fishnet.stats import Bounds, VarianceBySource, delong_test, t_interval, variance_by_source
from fishnet.study.derived_metrics import predictions_by_run
from fishnet.study.figures.answers import LETTERS, ROW, WIDTH, label_width
from fishnet.study.trials import Trial

FRACTIONS = np.linspace(0.05, 1, 39)  # of the images that are left, at which rejection curves are drawn


class AucChange(NamedTuple):
    """Change of the AUC of one class between two arms, on the same test images."""

    name: str
    before: float
    after: float
    interval: Bounds[float]  # of after - before
    p: float


def auc_change(trial: Trial, class_name: str, before: str, after: str, name: str = "") -> AucChange | None:
    """DeLong's test of two arms on one class, of their probabilities averaged over the seeds.

    It says what the choice of test photographs leaves open, which no number of seeds can settle. Where a task changes
    the images themselves, photographs are paired all the same.

    Args:
        trial: whose first look is used.
        class_name: of the class.
        before: an arm.
        after: the one it is compared with.
        name: for the figure; empty: that of `after`.

    Returns:
        None where an arm has no predictions, or the class is not among them.
    """
    old, new = mean_probabilities(trial, before), mean_probabilities(trial, after)
    if old is None or new is None:
        return None
    (labels, a), (_, b) = old, new
    names = trial.looks[0].results.classes_of(trial.looks[0].runs(before)[0])
    if class_name not in names or a.shape != b.shape:
        return None
    c = names.index(class_name)
    # As two classes, of which the second is the class at hand.
    b, a = (np.stack([-p[:, c], p[:, c]], 1) for p in (b, a))
    test = delong_test((labels == c).astype(int), b, a)
    interval = Bounds(float(test.interval.low[1]), float(test.interval.high[1]))
    return AucChange(name or after, float(test.auc_b[1]), float(test.auc_a[1]), interval, float(test.p[1]))


def mean_probabilities(trial: Trial, label: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels [n] and the mean over seeds of an arm's test probabilities [n, k]; None without any."""
    look = trial.looks[0]
    found = predictions_by_run(look.results)
    kept = [found[run] for run in look.runs(label) if run in found]
    return (kept[0][0], np.mean([p for _, p in kept], 0)) if kept else None


def auc_changes_panel(changes: Sequence[AucChange | None], title: str) -> Panel | None:
    """AUC of one class before (hollow) and after (filled) a change, with DeLong's interval of the difference.

    Args:
        changes: of `auc_change`; those that are None are left out.
        title: of the panel.

    Returns:
        None where nothing is left.
    """
    shown = [change for change in changes if change is not None]
    if not shown:
        return None
    names = [change.name for change in shown]

    def draw(axes: Axes) -> None:
        axes.axvline(0.5, color=GRID, linewidth=1, zorder=0)
        for place, change in enumerate(shown):
            low, high = change.before + change.interval.low, change.before + change.interval.high
            if np.isfinite([low, high]).all():
                axes.plot([low, high], [place, place], color=SERIES[0], linewidth=3.5, solid_capstyle="butt", zorder=2)
            axes.plot([change.after], [place], "o", color=SERIES[0], markersize=5, zorder=3)
            axes.plot([change.before], [place], "o", color=MUTED, markerfacecolor="none", markersize=6, zorder=3)
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="AUC of the class: hollow stuck, filled cured")
        axes.set_yticks(range(len(shown)), [shorten(name, 30) for name in names])
        axes.set_title(shorten(title, 60), x=-label_width(names) / WIDTH)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")

    told = "; ".join(
        f"{change.name} {change.before:.3f} to {change.after:.3f}, difference [{change.interval.low:+.3f}, "
        f"{change.interval.high:+.3f}]"
        for change in shown
    )
    return Panel(draw, f"{title}. {told}", WIDTH, 14 + ROW * len(shown), left=label_width(names))


def rejection_panel(trial: Trial, labels: Sequence[str], title: str) -> Panel | None:
    """Accuracy of the answers that are left when the most doubtful (by entropy) are rejected, a line an arm.

    Args:
        trial: whose first look is drawn.
        labels: of the arms.
        title: of the panel.

    Returns:
        None where there are no predictions.
    """
    look = trial.looks[0]
    found = predictions_by_run(look.results)
    lines = []
    for label in labels:
        curves = [rejection_at_fractions(*found[run]) for run in look.runs(label) if run in found]
        if curves:
            mean, half, _ = t_interval(np.stack(curves), axis=0)
            lines.append(Line(label, 100 * FRACTIONS, mean, half))
    limits = limits_of(lines)
    across = "images that are answered, %"
    return None if limits is None else line_panel(lines, title, "accuracy of these", limits, across, LETTERS)


def rejection_at_fractions(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The rejection curve by entropy of one run's probabilities [n, k], at `FRACTIONS`."""
    curve = rejection_curve(p.argmax(-1) == labels, np.asarray(entropy(p)))
    return curve[np.maximum(np.ceil(FRACTIONS * len(curve) - 1e-9).astype(int), 1) - 1]


def split_variance(trial: Trial, draws: Sequence[str]) -> VarianceBySource | None:
    """Bias and variance by source of a network whose draws of the training images are arms of their own.

    Args:
        trial: whose first look is used.
        draws: the labels of these arms.

    Returns:
        None with fewer than 2 draws or 2 seeds that have predictions in all of them.
    """
    look = trial.looks[0]
    found = predictions_by_run(look.results)
    runs = [look.runs(label) for label in draws]
    seeds = [row for row in zip(*runs, strict=True) if all(run in found for run in row)]
    if len(draws) < 2 or len(seeds) < 2:
        return None
    p = np.stack([[found[run][1] for run in row] for row in seeds], 1)
    return variance_by_source(p, found[seeds[0][0]][0])


def variance_panel(splits: Mapping[str, VarianceBySource | None], title: str) -> Panel | None:
    """Squared error of the class probabilities as a bar of bias, variance from training sets and from seeds.

    Args:
        splits: network -> its split; those that are None are left out.
        title: of the panel.

    Returns:
        None where nothing is left.
    """
    shown = {name: split for name, split in splits.items() if split is not None}
    if not shown:
        return None
    parts = (("bias", "bias^2"), ("sets", "training sets"), ("seeds", "seeds"))

    def draw(axes: Axes) -> None:
        for place, split in enumerate(shown.values()):
            left = 0.0
            for i, (part, word) in enumerate(parts):
                width = max(getattr(split, part), 0.0)
                axes.barh(place, width, left=left, height=0.62, color=SERIES[i], label=word if place == 0 else None)
                left += width
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="squared error of the probabilities")
        axes.set_yticks(range(len(shown)), [shorten(name, 30) for name in shown])
        axes.set_title(shorten(title, 60), x=-label_width(list(shown)) / WIDTH)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.02), borderaxespad=0.2)

    told = "; ".join(
        f"{name}: bias {split.bias:.3f}, training sets {split.sets:.3f}, seeds {split.seeds:.3f}"
        for name, split in shown.items()
    )
    return Panel(draw, f"{title}. {told}", WIDTH, 14 + ROW * len(shown), left=label_width(list(shown)), right=110)
