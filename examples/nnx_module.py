"""An NNX module inside a model of fishnet, by way of `nnx.bridge.ToLinen`.

    python examples/nnx_module.py

`ToLinen` takes the class and its arguments, not an instance: the module is created when the model is built inside the
traced program, and its variables become part of the model's.
"""

import tempfile

import jax
from flax import nnx

from fishnet.models import MODELS
from fishnet.models.mlp import MLP
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep


class Bottleneck(nnx.Module):
    """A residual bottleneck: `y = x + W2 tanh(W1 x)`."""

    def __init__(self, features: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.down = nnx.Linear(features, width, rngs=rngs)
        self.up = nnx.Linear(width, features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.up(nnx.tanh(self.down(x)))


class BottleneckMLP(MLP):
    """The perceptron with a bottleneck in front of its head."""

    def features(self, images: jax.Array, train: bool) -> jax.Array:
        x = super().features(images, train)
        return nnx.bridge.ToLinen(Bottleneck, args=(x.shape[-1], 8), name="bottleneck")(x)


def main() -> None:
    """Trains the model with two activations and loads a run."""
    MODELS["bottleneck_mlp"] = BottleneckMLP
    recipe = Recipe(task="synthetic", model="bottleneck_mlp", widths=(32,), epochs=3)
    with tempfile.TemporaryDirectory() as out:
        runs = run_sweep(Sweep(recipe, axes={"activation": ["relu", "elu"]}, seeds=2), out).runs
        params = load_run(out).variables["params"]
    print(runs[["activation", "seed", "status", "val_accuracy"]])
    print(jax.tree.map(lambda leaf: leaf.shape, dict(params)["bottleneck"]))


if __name__ == "__main__":
    main()
