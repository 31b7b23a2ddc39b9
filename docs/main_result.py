"""Draws the README's picture of the main job, and prints the sentence that goes with it.

python -m experiments.ablation --out runs/main
python docs/main_result.py runs/main        # writes docs/figures/main_result.png
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fishnet.data import load_task
from fishnet.report.results import Arm, Results, load_results

TARGET = Path(__file__).parent / "figures" / "main_result.png"
INK, MUTED = "#1c1d20", "#6a6e75"
COLORS = ("#6a6e75", "#0072b2", "#d55e00", "#009e73", "#c2579b", "#b97f00")  # Okabe and Ito's, darkened
SPECIES = 8  # photographs in the strip
METRIC = "test_accuracy"


def main(folder: str) -> None:
    """Draws the picture of the sweep in a folder."""
    results = load_results(folder)
    style = {"font.size": 9, "axes.edgecolor": MUTED, "text.color": INK, "axes.spines.top": False}
    with matplotlib.rc_context(style | {"axes.spines.right": False}):
        figure = Figure(figsize=(10, 5.7))
        draw_photographs(figure, results)
        draw_heat_map(figure.add_axes((0.085, 0.1, 0.39, 0.5)), results)
        draw_curves(figure.add_axes((0.57, 0.1, 0.41, 0.5)), results)
        figure.savefig(TARGET, dpi=120)
    print(sentence(results))


def draw_photographs(figure: Figure, results: Results) -> None:
    """Draws a test photograph of each of the most frequent species, the one with most contrast, and its name."""
    task = load_task(results.sweep["recipe"]["task"], 64)
    test = task.splits["test"]
    frequent = np.argsort(-np.bincount(task.labels), kind="stable")[:SPECIES]
    for i, label in enumerate(frequent):
        axes = figure.add_axes((0.02 + 0.1205 * i, 0.715, 0.1165, 0.2))
        photographs = task.images[test[task.labels[test] == label]]
        axes.imshow(photographs[photographs.std((1, 2, 3)).argmax()])
        axes.set_title(task.classes[label].replace(" ", "\n"), fontsize=8, style="italic", pad=3)
        axes.set_axis_off()
    figure.text(0.02, 0.682, "Photographs: Fish4Knowledge, University of Edinburgh", fontsize=7, color=MUTED)


def draw_heat_map(axes: Axes, results: Results) -> None:
    """Draws a cell an arm with mean and interval; the frame marks the arm that validation ranks best."""
    rows, columns = list(results.axes.values())
    means = np.array([arm.metrics[METRIC].mean for arm in results.arms]).reshape(len(rows), len(columns))
    axes.imshow(means, cmap="YlGnBu", vmin=np.nanmin(means) - 0.1, vmax=np.nanmax(means) + 0.25, aspect="auto")
    for arm in results.arms:
        row, column = (list(values).index(arm.values[axis]) for axis, values in results.axes.items())
        value = arm.metrics[METRIC]
        axes.text(column, row, f"{value.mean:.3f}\n± {value.half:.3f}", ha="center", va="center", fontsize=8.5)
        if arm is results.best:
            frame = {"fill": False, "edgecolor": "#d55e00", "linewidth": 2}
            axes.add_patch(matplotlib.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    axes.set_xticks(range(len(columns)), [f"{name} norm" if name != "none" else "no norm" for name in columns])
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Test accuracy (frame: best by validation)", loc="left", fontsize=9.5)


def draw_curves(axes: Axes, results: Results) -> None:
    """Draws validation accuracy by epoch, a line an arm in the color of its norm."""
    norms = results.axes["norm"]
    for arm in results.arms:
        epochs, mean, _ = results.curve(arm, "val_accuracy")
        color = COLORS[norms.index(arm.values["norm"])]
        axes.plot(epochs, mean, color=color, linewidth=2.2 if arm is results.best else 1.1)
    for norm, color in zip(norms, COLORS, strict=False):
        axes.plot([], [], color=color, label=f"{norm} norm" if norm != "none" else "no norm")
    axes.set(xlabel="epoch", xlim=(1, None))
    axes.grid(axis="y", color="#dfe2e6", linewidth=0.6)
    axes.legend(frameon=False, ncols=2, loc="lower right")
    axes.set_title("Validation accuracy, mean over seeds, a line an arm", loc="left", fontsize=9.5)


def sentence(results: Results) -> str:
    """Caption of the picture: number of runs, best arm, device and versions."""
    best: Arm = results.best
    validation, test = best.metrics["val_accuracy"], best.metrics[METRIC]
    versions = ", ".join(f"{name} {results.sweep['versions'][name]}" for name in ("python", "jax", "flax"))
    arm = " and ".join(f"{axis} {value}" for axis, value in best.values.items())
    return (
        f"{len(results.runs)} runs: {len(results.arms)} arms, {best.seeds} seeds each; mean and 95 % Student t "
        f"interval. Best by validation: {arm}, validation accuracy {validation.mean:.3f} ± {validation.half:.3f}, "
        f"test accuracy {test.mean:.3f} ± {test.half:.3f}. Measured on {results.sweep['device']}; {versions}."
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
