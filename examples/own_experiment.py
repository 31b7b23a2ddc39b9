"""An experiment of your own: which norm keeps a network trainable when the learning rate is far too high?

    python examples/own_experiment.py

The sweep crosses the failure (learning rates up to 16 times the usual one) with the remedies, so all arms share seeds,
images and noise. At each rate every norm is compared with the control, paired by seed. The verdicts of a rate hold for
all of its arms at once.
"""

import tempfile

from fishnet.stats import compare
from fishnet.sweep import Recipe, Sweep, run_sweep

RECIPE = Recipe(task="mnist-mini?train=0.1", model="mlp", widths=(32, 32), batch_size=32, epochs=3)
AXES = {"lr": [0.05, 0.2, 0.8], "norm": ["none", "batch", "layer"]}
SEEDS = 8
CONTROL = "none"
MARGIN = 0.02  # differences in test accuracy below this do not matter
CHANCE = 0.1  # what a diverged run counts as: a guess among ten digits


def main() -> None:
    """Trains all arms and prints a verdict for each."""
    with tempfile.TemporaryDirectory() as out:
        runs = run_sweep(Sweep(RECIPE, axes=AXES, seeds=SEEDS), out).runs
    for lr, at_rate in runs.groupby("lr"):
        accuracy = {norm: list(arm.sort_values("seed").test_accuracy) for norm, arm in at_rate.groupby("norm")}
        print(f"learning rate {lr:g}")
        for norm, row in compare(accuracy, CONTROL, margin=MARGIN, diverged=CHANCE).items():
            low, high = row.simultaneous_interval
            difference = "" if norm == CONTROL else f"{row.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
            print(f"  {norm:6} {row.mean:.3f}  {row.verdict:10} {difference:24} {row.counted}")


if __name__ == "__main__":
    main()
