"""An activation of your own in a sweep: a function in a table, then a name like any other.

python examples/own_activation.py
"""

import tempfile

import jax
import jax.numpy as jnp

from fishnet.nn.activations import ACTIVATIONS
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep


def snake(x: jax.Array) -> jax.Array:
    """Identity with a periodic part: `y = x + sin(x)^2`. Source: Ziyin et al., arXiv:2006.08195."""
    return x + jnp.sin(x) ** 2


def main() -> None:
    """Trains networks with relu and snake in one program, and loads one of them."""
    ACTIVATIONS["snake"] = snake
    recipe = Recipe(task="mnist-mini?train=0.2", model="mlp", widths=(32,), epochs=4)
    sweep = Sweep(recipe, axes={"activation": ["relu", "snake"]}, seeds=3)
    with tempfile.TemporaryDirectory() as out:
        runs = run_sweep(sweep, out).runs
        print(runs.groupby("activation")[["val_accuracy", "test_accuracy"]].agg(["mean", "std"]).round(3))
        run = int(runs.loc[runs.activation == "snake", "val_accuracy"].idxmax())
        print("loaded as plain Linen:", type(load_run(out, run).model).__name__)


if __name__ == "__main__":
    main()
