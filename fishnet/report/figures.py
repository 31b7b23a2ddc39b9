"""The report's figures: each function looks at the results and returns panels to draw."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fishnet.report.canvas import GRID, INK, MARKERS, MUTED, SERIES, Panel
from fishnet.report.results import Arm, Results
from fishnet.report.roc import roc_curve
from fishnet.report.tables import interval_text, number_text

METRICS = {
    "test_accuracy": "Test accuracy",
    "test_balanced_accuracy": "Test balanced accuracy",
    "test_macro_auc": "Test macro AUC",
}
MOST_FACETS = 12  # panels of a figure
MOST_LINES = 12  # labelled lines in a panel
MOST_CLASSES = 24  # ROC panels
COUNT_BLUE = "#0b5a9d"  # dark enough for white figures on it in both schemes


def overview(results: Results) -> list[Panel]:
    """Test figures of all arms: a dot plot for one axis, heat maps for two, one a combination of the others."""
    if len(results.axes) == 0:
        return []
    if len(results.axes) == 1:
        return [dot_plot(results, metric) for metric in METRICS]
    rest = list(results.axes)[2:]
    combinations = list(itertools.product(*(results.axes[name] for name in rest)))[:MOST_FACETS]
    metrics = METRICS if not rest else ("test_accuracy", "test_balanced_accuracy")
    return [
        heat_map(results, metric, dict(zip(rest, chosen, strict=True))) for chosen in combinations for metric in metrics
    ]


def heat_map(results: Results, metric: str, chosen: dict[str, str]) -> Panel:
    """A cell an arm: first axis downwards, second across, the others fixed at `chosen`."""
    (row_axis, rows), (column_axis, columns) = list(results.axes.items())[:2]
    cells = {
        (arm.values[row_axis], arm.values[column_axis]): arm
        for arm in results.arms
        if all(arm.values[name] == value for name, value in chosen.items())
    }
    means = [arm.metrics[metric].mean for arm in results.arms]
    known = [mean for mean in means if not np.isnan(mean)]
    scale = Normalize(min(known, default=0), max(known, default=1) + 1e-9)
    title = METRICS[metric] + "".join(f", {name}={value}" for name, value in chosen.items())

    def draw(axes: Axes) -> None:
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            _cell(axes, j, i, cells[row, column], metric, scale, cells[row, column] is results.best)
        axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), xlabel=column_axis, ylabel=row_axis, title=title)
        axes.set_xticks(np.arange(len(columns)) + 0.5, [_short(c, 14) for c in columns], rotation=0 if _brief(columns) else 30)
        axes.set_yticks(np.arange(len(rows)) + 0.5, [_short(r, 24) for r in rows])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    alt = f"Heat map of {title.lower()} by {row_axis} and {column_axis}. " + "; ".join(
        f"{row}, {column}: {interval_text(arm.metrics[metric])}" for (row, column), arm in cells.items()
    )
    bottom = 42 if _brief(columns) else 42 + 3 * max(len(_short(c, 14)) for c in columns)
    return Panel(draw, alt, 60 * len(columns), 42 * len(rows), left=_label_width(rows), bottom=bottom)


def dot_plot(results: Results, metric: str) -> Panel:
    """Mean and interval of every arm on one axis, and each run as a faint dot."""
    ((axis, levels),) = results.axes.items()

    def draw(axes: Axes) -> None:
        for i, arm in enumerate(results.arms):
            value = arm.metrics[metric]
            runs = results.runs[results.runs["run"].isin(arm.runs)][metric]
            axes.plot(runs, np.full(len(runs), i), "o", color=MUTED, alpha=0.5, markersize=3, markeredgewidth=0)
            colour = SERIES[1] if arm is results.best else SERIES[0]
            if value.n:
                half = value.half if value.n > 1 else 0.0
                axes.errorbar(value.mean, i, xerr=half, fmt="o", color=colour, markersize=5, capsize=3, linewidth=1.4)
            else:
                axes.text(0.5, i, "diverged", transform=axes.get_yaxis_transform(), ha="center", va="center", color=MUTED)
        axes.set_yticks(range(len(levels)), [_short(level, 24) for level in levels])
        axes.set(ylim=(len(levels) - 0.5, -0.5), xlabel=METRICS[metric].lower(), ylabel=axis, title=METRICS[metric])
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)

    alt = f"{METRICS[metric]} by {axis}. " + "; ".join(
        f"{arm.values[axis]}: {interval_text(arm.metrics[metric])}" for arm in results.arms
    )
    return Panel(draw, alt, 220, 26 * len(levels), left=_label_width(levels))


def learning_curves(results: Results, column: str, label: str) -> list[Panel]:
    """Mean and interval by epoch: a line a value of the first axis, a panel a combination of the others."""
    if results.curves.empty or column not in results.curves:
        return []
    curves = {arm.name: results.curve(arm, column) for arm in results.arms}
    values = [mean for _, mean, _ in curves.values()]
    everything = np.concatenate(values) if values else np.zeros(0)
    everything = everything[np.isfinite(everything)]
    if not len(everything):
        return []
    margin = 0.06 * (np.ptp(everything) or abs(everything[0]) or 1.0)
    limits = (everything.min() - margin, everything.max() + margin)
    names = list(results.axes)
    facets: dict[tuple[str, ...], list[Arm]] = {}
    for arm in results.arms:
        facets.setdefault(tuple(arm.values[name] for name in names[1:]), []).append(arm)
    panels = []
    for chosen, arms in list(facets.items())[:MOST_FACETS]:
        title = ", ".join(f"{name} {value}" for name, value in zip(names[1:], chosen, strict=True)) or label
        lines = [(arm.values[names[0]] if names else label, *curves[arm.name]) for arm in arms]
        missing = [arm.values[names[0]] if names else arm.name for arm in arms if not arm.runs]
        panels.append(line_panel(lines, title, label, limits, missing))
    return panels


def line_panel(
    lines: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    title: str,
    label: str,
    limits: tuple[float, float],
    missing: Sequence[str] = (),
) -> Panel:
    """Lines with bands by epoch, each named at its end.

    Args:
        lines: (name, epochs [e], mean [e], half-width [e]).
        title: above the panel.
        label: of the vertical axis.
        limits: of the vertical axis.
        missing: names of lines that do not exist because all runs diverged.
    """
    drawn = [line for line in lines if len(line[1]) and np.isfinite(line[2]).any()]
    last = [float(line[2][np.isfinite(line[2])][-1]) for line in drawn]
    order = np.argsort(last)[::-1]
    named = set(order) if len(drawn) <= MOST_LINES else {*order[:8], *order[-4:]}

    def draw(axes: Axes) -> None:
        colour_of = {}
        for i, (name, epochs, mean, half) in enumerate(drawn):
            colour = colour_of[i] = SERIES[i % len(SERIES)] if i in named else GRID
            style = ("-", "--", ":")[i // len(SERIES) % 3] if i in named else "-"
            marker = MARKERS[i % len(MARKERS)] if i in named else ""
            axes.plot(epochs, mean, linestyle=style, color=colour, marker=marker, markersize=3,
                      markevery=max(1, len(epochs) // 8), label=name, zorder=3 if i in named else 1)  # fmt: skip
            if i in named and np.isfinite(half).any():
                axes.fill_between(epochs, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="epoch", ylabel=label, title=title, ylim=limits)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(axis="y")
        gap = (limits[1] - limits[0]) * 12.5 / 150  # the height of a name in an axes of about 150 px
        places = spread([last[i] for i in sorted(named)], gap, limits)
        for i, place in zip(sorted(named), places, strict=True):
            axes.annotate(
                _short(drawn[i][0], 12), (drawn[i][1][-1], last[i]), (1.1, place), va="center", fontsize=7.5,
                textcoords=axes.get_yaxis_transform(), annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": colour_of[i], "linewidth": 1.0, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 0.5)},
            )  # fmt: skip
        if missing:
            axes.set_title(f"{title}\n(all runs diverged: {', '.join(missing)})", fontsize=7.5)

    alt = f"{label} by epoch, {title}. At the end: " + "; ".join(
        f"{drawn[i][0]} {number_text(last[i])}" for i in order
    )
    return Panel(draw, alt, 136, 150, left=46, right=80, top=38 if missing else 24)


def roc_panels(results: Results) -> list[Panel]:
    """One-vs-rest ROC curves on the test split: a panel a class, the best arm against the worst."""
    arms = [("best", results.best)]
    if results.worst is not None and results.worst is not results.best:
        arms.append(("worst", results.worst))
    chosen = []
    for name, arm in arms:
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
        words.append(f"{name} {_auc_text(results, runs[0], class_name)}")

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
        for i, j, false, true in sorted(curves, key=lambda curve: -curve[1]):
            axes.plot(false, true, color=SERIES[i], linewidth=1.8 if j == 0 else 0.8, alpha=1 if j == 0 else 0.4,
                      linestyle=("-", "--")[i])  # fmt: skip
        for i, word in enumerate(words):
            height = 1.05 + 0.085 * (len(words) - 1 - i)
            axes.text(0.13, height, word, transform=axes.transAxes, fontsize=7.5)
            axes.plot([0, 0.1], [height + 0.025] * 2, color=SERIES[i], linestyle=("-", (0, (2, 1)))[i], linewidth=1.8,
                      transform=axes.transAxes, clip_on=False)  # fmt: skip
        if not curves:
            axes.text(0.5, 0.5, "no test image of this class", ha="center", transform=axes.transAxes, color=MUTED)
        axes.set(xlim=(-0.02, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel="false positive rate",
                 ylabel="true positive rate")  # fmt: skip
        axes.set_title(f"{_short(class_name, 28)} ({support})", pad=8 + 12 * len(words))

    alt = f"ROC curve of {class_name}, {support} test images. AUC: " + ", ".join(words)
    return Panel(draw, alt, 180, 160, left=46, right=36, top=56)


def confusion_panel(counts: np.ndarray, classes: Sequence[str]) -> Panel:
    """Counts [true class, guess] on the test split; colour is the share of the true class."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = 24 if len(classes) <= 40 else 10

    def draw(axes: Axes) -> None:
        for i, j in zip(*np.nonzero(counts), strict=True):
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=COUNT_BLUE, alpha=0.12 + 0.88 * share[i, j], linewidth=0))
            if cell > 12:
                colour = "#ffffff" if share[i, j] > 0.5 else INK
                axes.text(j + 0.5, i + 0.5, str(counts[i, j]), ha="center", va="center", fontsize=7, color=colour)
        ticks = np.arange(len(classes)) + 0.5
        size = 7 if cell > 12 else 5
        axes.set_xticks(ticks, [_short(name, 28) for name in classes], rotation=90, fontsize=size)
        axes.set_yticks(ticks, [f"{_short(n, 28)} ({c})" for n, c in zip(classes, counts.sum(1), strict=True)], fontsize=size)
        axes.set(xlim=(0, len(classes)), ylim=(len(classes), 0), xlabel="guess", ylabel="true class (test images)")
        axes.set_xticks(np.arange(len(classes) + 1), minor=True)
        axes.set_yticks(np.arange(len(classes) + 1), minor=True)
        axes.grid(which="minor", linewidth=0.4)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)

    alt = f"Confusion matrix: {np.trace(counts)} of {counts.sum()} test images right"
    side, names = cell * len(classes), 5.1 * max(len(_short(name, 28)) for name in classes)
    return Panel(draw, alt, side, side, left=names + 58, top=8, bottom=names + 30)


def spread(places: Sequence[float], gap: float, limits: tuple[float, float]) -> list[float]:
    """`places` moved apart until neighbours are `gap` apart, in the same order, within `limits` as far as they fit."""
    order = np.argsort(places, kind="stable")
    moved = np.array(places, float)[order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], moved[i + 1] - gap if i + 1 < len(moved) else limits[1])
    result = np.empty(len(moved))
    result[order] = moved
    return result.tolist()


def _cell(axes: Axes, x: int, y: int, arm: Arm, metric: str, scale: Normalize, best: bool) -> None:
    value = arm.metrics[metric]
    if value.n == 0:
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor="none", edgecolor=GRID, hatch="////", linewidth=0))
        axes.text(x + 0.5, y + 0.5, "diverged" if arm.diverged else "-", ha="center", va="center", fontsize=7.5)
        return
    colour = colormaps["cividis"](float(scale(value.mean)))
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, linewidth=0))
    ink = "#ffffff" if np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5 else "#000000"
    words = [f"±{number_text(value.half)}"] * (value.n > 1) + [f"{arm.diverged}/{arm.seeds} div."] * bool(arm.diverged)
    top = 0.5 - 0.14 * len(words)
    axes.text(x + 0.5, y + top, number_text(value.mean), ha="center", va="center", color=ink, fontweight="bold", fontsize=8)
    for i, word in enumerate(words):
        axes.text(x + 0.5, y + top + 0.28 * (i + 1), word, ha="center", va="center", color=ink, fontsize=6.5)
    if best:
        axes.add_patch(Rectangle((x + 0.04, y + 0.05), 0.92, 0.9, facecolor="none", edgecolor=ink, linewidth=1.6))


def _auc_text(results: Results, run: int, class_name: str) -> str:
    if results.per_class.empty:
        return ""
    rows = results.per_class[(results.per_class["run"] == run) & (results.per_class["class"] == class_name)]
    if rows.empty or np.isnan(rows["auc"].iloc[0]):
        return "-"
    auc, low, high = (float(rows[name].iloc[0]) for name in ("auc", "auc_low", "auc_high"))
    return number_text(auc) + (f" [{number_text(low)}, {number_text(high)}]" if low == low else "")


def _label_width(texts: Sequence[str]) -> float:
    return 34 + 6.6 * max(len(_short(text, 24)) for text in texts)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


def _brief(texts: Sequence[str]) -> bool:
    return max(map(len, texts), default=0) <= 9
