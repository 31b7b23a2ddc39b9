"""Training one network from fishnet's pieces, without the sweep engine: model, optimizer, schedule, loss, `lax.scan`.

    python examples/one_lane_no_engine.py

Every piece is a pure function, so the training loop is ordinary JAX. A sweep trains the same network as one of its
lanes: the script runs that sweep too and checks that the training losses of five epochs (20 steps) agree within 1e-5.
"""

import tempfile
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax.core import FrozenDict

from fishnet.augment import AUGMENTATIONS
from fishnet.data import Task, load_task
from fishnet.losses import LOSSES
from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.norms import NORMS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.schedules import SCHEDULES
from fishnet.sweep import Recipe, Sweep, run_sweep

SEED, EPOCHS, BATCH, LR, MOMENTUM = 3, 5, 64, 0.05, 0.9


class State(NamedTuple):
    """State that a training step reads and returns."""

    params: FrozenDict
    batch_stats: FrozenDict
    opt_state: optax.OptState


def stream_key(stream: str, step: jax.Array | int = 0) -> jax.Array:
    """The key of one draw: from the seed, the name of the stream and the step, never from a position."""
    key = jax.random.fold_in(jax.random.key(SEED, impl="threefry2x32"), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def train(task: Task) -> np.ndarray:
    """Trains the network.

    Returns:
        The mean training loss of each epoch, [epoch] float32.
    """
    images, labels = jnp.asarray(task.images), jnp.asarray(task.labels)
    rows = jnp.asarray(task.splits["train"])
    steps_per_epoch = len(rows) // BATCH
    steps = EPOCHS * steps_per_epoch

    model = MODELS["cnn"](classes=len(task.classes), widths=(8, 16), act=ACTIVATIONS["elu"], norm=NORMS["batch"])
    optimizer = OPTIMIZERS["momentum"].build(MOMENTUM, 0.0)  # a direction: the step is params - lr * direction
    schedule, augment, loss = SCHEDULES["cosine"], AUGMENTATIONS["flip_shift"], LOSSES["cross_entropy"]
    constants = {"standardize": {"mean": jnp.asarray(task.mean), "std": jnp.asarray(task.std)}}

    variables = model.init({"params": stream_key("init")}, images[:1], train=False)
    start = State(variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))
    shuffle = [jax.random.bits(stream_key("order", epoch), rows.shape) for epoch in range(EPOCHS)]
    orders = jnp.stack([rows[jnp.argsort(bits)][: steps_per_epoch * BATCH] for bits in shuffle])
    batches = orders.reshape(steps, BATCH)

    def objective(params: FrozenDict, batch_stats: FrozenDict, x: jax.Array, y: jax.Array) -> tuple:
        variables = {"params": params, "batch_stats": batch_stats, "constants": constants}
        logits, after = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return loss(logits, y).mean(), after["batch_stats"]

    def train_step(state: State, step: jax.Array) -> tuple[State, jax.Array]:
        batch = batches[step]
        x = augment(stream_key("augment", step), images[batch])
        grad = jax.value_and_grad(objective, has_aux=True)
        (value, batch_stats), grads = grad(state.params, state.batch_stats, x, labels[batch])
        direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
        lr = LR * schedule(step / steps)
        params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
        return State(params, batch_stats, opt_state), value

    _, losses = jax.jit(lambda state: jax.lax.scan(train_step, state, jnp.arange(steps)))(start)
    return np.asarray(losses.reshape(EPOCHS, steps_per_epoch).mean(1))


def train_in_a_sweep() -> np.ndarray:
    """Trains the same network as a lane of a sweep with another activation beside it.

    Returns:
        The mean training loss of each epoch, [epoch] float32.
    """
    recipe = Recipe(
        task="synthetic", model="cnn", widths=(8, 16), norm="batch", optimizer="momentum", momentum=MOMENTUM, lr=LR,
        schedule="cosine", augment="flip_shift", batch_size=BATCH, epochs=EPOCHS,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        runs = run_sweep(Sweep(recipe, axes={"activation": ["relu", "elu"]}, seeds=[SEED]), folder).runs
        curves = pd.read_parquet(f"{folder}/curves.parquet")
    lane = int(runs.loc[runs.activation == "elu", "run"].item())
    return curves[curves.run == lane].sort_values("epoch").train_loss.to_numpy()


def main() -> None:
    """Trains both ways and compares."""
    alone, lane = train(load_task("synthetic", 16)), train_in_a_sweep()
    print("epoch  without the engine  as a lane")
    for epoch, (a, b) in enumerate(zip(alone, lane, strict=True), 1):
        print(f"{epoch:5d}  {a:18.6f}  {b:9.6f}")
    np.testing.assert_allclose(alone, lane, rtol=0, atol=1e-5)
    print("equal within 1e-5")


if __name__ == "__main__":
    main()
