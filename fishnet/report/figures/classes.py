"""The figures that compare classes: ROC curves and the confusion matrix."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fishnet.report.figures.svg import GRID, INK, MUTED, SERIES, Panel, shorten
from fishnet.report.results import Results
from fishnet.report.tables import number_text

MOST_CLASSES = 24  # ROC panels
COUNT_BLUE = "#0b5a9d"  # dark enough for white figures on it in both schemes


def roc_panels(results: Results) -> list[Panel]:
    """One-vs-rest ROC curves on the test split: a panel a class, the best arm against the worst."""
    arms = [results.best] if results.best is results.worst else [results.best, results.worst]
    names = ["AUC"] if len(arms) == 1 else ["best", "worst"]
    chosen = []
    for name, arm in zip(names, arms, strict=True):
        kept = [run for run in (arm.runs if arm else ()) if not results.test_predictions(run).empty]
        if kept:
            chosen.append((name, kept))
    if not chosen:
        return []
    classes = results.classes_of(chosen[0][1][0])
    counts = np.bincount(results.test_predictions(chosen[0][1][0])["label"], minlength=len(classes))
    shown = sorted(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    return [_roc_panel(results, chosen, classes[k], k, int(counts[k])) for k in shown]


def _roc_panel(results: Results, chosen: list, class_name: str, k: int, support: int) -> Panel:
    curves, words = [], []
    for i, (name, runs) in enumerate(chosen):
        for j, run in enumerate(runs):
            table = results.test_predictions(run)
            column = f"p_{class_name}"
            if column not in table:
                continue
            rates = roc_curve(table["label"].to_numpy() == k, table[column].to_numpy(float))
            if rates is not None:
                curves.append((i, j, *rates))
        words.append(f"{name} {_auc_of(results, runs[0], class_name)}")

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
        for i, j, false, true in sorted(curves, key=lambda curve: -curve[1]):
            axes.plot(
                false,
                true,
                color=SERIES[i],
                linewidth=1.8 if j == 0 else 0.8,
                alpha=1 if j == 0 else 0.4,
                linestyle=("-", "--")[i],
            )
        for i, word in enumerate(words):
            height = 1.05 + 0.085 * (len(words) - 1 - i)
            axes.text(0.13, height, word, transform=axes.transAxes, fontsize=7.5)
            axes.plot(
                [0, 0.1],
                [height + 0.025] * 2,
                color=SERIES[i],
                linestyle=("-", (0, (2, 1)))[i],
                linewidth=1.8,
                transform=axes.transAxes,
                clip_on=False,
            )
        if not curves:
            axes.text(0.5, 0.5, "no test image of this class", ha="center", transform=axes.transAxes, color=MUTED)
        axes.set(
            xlim=(-0.02, 1),
            ylim=(0, 1.02),
            xticks=[0, 0.5, 1],
            yticks=[0, 0.5, 1],
            xlabel="false positive rate",
            ylabel="true positive rate",
        )
        axes.set_title(f"{shorten(class_name, 28)} ({support})", pad=8 + 12 * len(words))

    alt = f"ROC curve of {class_name}, {support} test images. AUC: " + ", ".join(words)
    return Panel(draw, alt, 180, 160, left=46, right=36, top=56)


def confusion_panel(counts: np.ndarray, classes: Sequence[str]) -> Panel:
    """Confusion matrix [true class, predicted class] on the test split; color is the fraction of the true class."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = 24 if len(classes) <= 40 else 10

    def draw(axes: Axes) -> None:
        for i, j in zip(*np.nonzero(counts), strict=True):
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=COUNT_BLUE, alpha=0.12 + 0.88 * share[i, j], linewidth=0))
            if cell > 12:
                color = "#ffffff" if share[i, j] > 0.5 else INK
                axes.text(j + 0.5, i + 0.5, str(counts[i, j]), ha="center", va="center", fontsize=7, color=color)
        ticks = np.arange(len(classes)) + 0.5
        size = 7 if cell > 12 else 5
        axes.set_xticks(ticks, [shorten(name, 28) for name in classes], rotation=90, fontsize=size)
        axes.set_yticks(
            ticks, [f"{shorten(n, 28)} ({c})" for n, c in zip(classes, counts.sum(1), strict=True)], fontsize=size
        )
        axes.set(xlim=(0, len(classes)), ylim=(len(classes), 0), xlabel="guess", ylabel="true class (test images)")
        axes.set_xticks(np.arange(len(classes) + 1), minor=True)
        axes.set_yticks(np.arange(len(classes) + 1), minor=True)
        axes.grid(which="minor", linewidth=0.4)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)

    alt = f"Confusion matrix: {np.trace(counts)} of {counts.sum()} test images right"
    side, names = cell * len(classes), 5.1 * max(len(shorten(name, 28)) for name in classes)
    return Panel(draw, alt, side, side, left=names + 58, top=8, bottom=names + 30)


def roc_curve(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Rates of false and of true positives as the threshold falls from above the highest score to the lowest.

    Args:
        positive: [n] bool, whether an example is of the class.
        scores: [n], higher for the class; equal scores are passed in one step.

    Returns:
        false and true positive rate, each [m], from (0, 0) to (1, 1); None without both kinds of examples.

    Source: T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006).
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    positive, scores = positive[order], np.asarray(scores)[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # the last example at each distinct score
    true = np.append(0, np.cumsum(positive)[last])
    false = np.append(0, np.cumsum(~positive)[last])
    return false / false[-1], true / true[-1]


def auc_text(row: Mapping[str, float] | pd.Series) -> str:
    """`.993 [.973, .998]` from a row of `per_class`; a dash where there is no AUC."""
    auc, low, high = (float(row[name]) for name in ("auc", "auc_low", "auc_high"))
    return number_text(auc) + (f" [{number_text(low)}, {number_text(high)}]" if low == low else "")


def _auc_of(results: Results, run: int, class_name: str) -> str:
    if results.per_class.empty:
        return ""
    rows = results.per_class[(results.per_class["run"] == run) & (results.per_class["class"] == class_name)]
    return "-" if rows.empty else auc_text(rows.iloc[0])
