"""A lane's training losses against a training loop of plain JAX, Flax and Optax that knows nothing of the engine."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from fishnet.augment import beta_table, mix
from fishnet.data import load_task
from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.norms import NORMS
from fishnet.sweep import Recipe, Sweep, run_sweep
from tests.sweep.conftest import trained

RECIPE = Recipe(
    task="synthetic", image_size=8, model="mlp", widths=(8,), norm="batch", activation="tanh", optimizer="momentum",
    momentum=0.9, lr=0.05, schedule="constant", augment="none", batch_size=32, epochs=3, seed=5,
)  # fmt: skip
MIXUP = (0.0, 0.4)


def fail_for_some(x):
    """Activation that is NaN in about every second batch, so that finite batches follow the first bad one."""
    return jnp.where(x[0, 0] > 0, jnp.nan, x)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of both activations with and without mixup, in one program."""
    axes = {"activation": ["tanh", "fail_for_some"], "mixup": MIXUP}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ACTIVATIONS, "fail_for_some", fail_for_some)
        return run_sweep(Sweep(RECIPE, axes=axes, seeds=[RECIPE.seed, 0]), tmp_path_factory.mktemp("runs") / "out")


@pytest.fixture(scope="module")
def curves(swept):
    """Training loss of each epoch by the parameter of mixup, of the runs with tanh and the seed of `RECIPE`."""
    runs = swept.runs.query("activation == 'tanh' and seed == @RECIPE.seed")
    table = pd.read_parquet(swept.out / "curves.parquet").merge(runs[["run", "mixup"]])
    return {alpha: rows.sort_values("epoch").train_loss.to_numpy() for alpha, rows in table.groupby("mixup")}


def stream_key(stream: str, step: int = 0) -> jax.Array:
    """Key of one random draw, from the seed, the name of its stream and the step."""
    key = jax.random.fold_in(jax.random.key(RECIPE.seed, impl="threefry2x32"), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def train(mixup: float) -> np.ndarray:
    """Mean training loss of each epoch, [epoch]: Optax's momentum on Flax's gradients, a Python loop over the steps."""
    task = load_task(RECIPE.task, RECIPE.image_size)
    rows, size = jnp.asarray(task.splits["train"]), RECIPE.batch_size
    model = MODELS["mlp"](classes=len(task.classes), widths=(8,), act=ACTIVATIONS["tanh"], norm=NORMS["batch"])
    constants = {"standardize": {"mean": jnp.asarray(task.mean), "std": jnp.asarray(task.std)}}
    variables = model.init({"params": stream_key("init")}, task.images[:1], train=False)
    params, statistics = variables["params"], variables["batch_stats"]
    optimizer = optax.sgd(RECIPE.lr, momentum=RECIPE.momentum)
    state = optimizer.init(params)
    none, fill = beta_table(0), jnp.round(jnp.asarray(task.mean)).astype(jnp.uint8)

    @jax.jit
    def make_step(params, statistics, state, images, labels, partner, share):
        def objective(params):
            variables = {"params": params, "batch_stats": statistics, "constants": constants}
            logits, after = model.apply(variables, images, train=True, mutable=["batch_stats"])
            own, other = (
                optax.softmax_cross_entropy_with_integer_labels(logits, of) for of in (labels, labels[partner])
            )
            return (share * own + (1 - share) * other).mean(), after["batch_stats"]

        (loss, statistics), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), statistics, state, loss

    losses = []
    for epoch in range(RECIPE.epochs):
        order = rows[jnp.argsort(jax.random.bits(stream_key("order", epoch), rows.shape))]
        for at in range(len(rows) // size):
            batch = order[at * size : (at + 1) * size]
            key = stream_key("mix", len(losses))
            images, partner, share = mix(key, jnp.asarray(task.images)[batch], beta_table(mixup), none, 0, fill)
            params, statistics, state, loss = make_step(
                params, statistics, state, images, jnp.asarray(task.labels)[batch], partner, share
            )
            losses.append(loss)
    return np.reshape(losses, (RECIPE.epochs, -1)).mean(1)


@pytest.mark.parametrize("mixup", MIXUP)
def test_a_lane_trains_as_a_plain_loop_does(curves, mixup):
    np.testing.assert_allclose(curves[mixup], train(mixup), rtol=0, atol=1e-5)


def test_a_run_that_was_not_finite_once_trains_no_further(swept):
    failed = swept.runs.query("activation == 'fail_for_some'")
    assert (failed.status == "diverged").all() and (swept.runs.query("activation == 'tanh'").status == "ok").all()
    first_bad = failed.first_bad_step.to_numpy()
    assert (first_bad < 8 - 2).any()  # of the 8 steps of the first epoch
    steps = trained(swept.out)["lanes"]["epoch"]["steps"][failed.run]
    np.testing.assert_array_equal(steps[first_bad < 8], first_bad[first_bad < 8])
