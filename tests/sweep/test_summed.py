"""The gradient of a sum of lanes is the lanes' gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.program.summed import summed_value_and_grad
from tests.sweep.conftest import TINY


def lane(differentiated):
    """A function of a lane that closes over what is vectorised and what is not."""
    shared = jnp.arange(6.0).reshape(2, 3)

    def step(params, x, count):
        def objective(params):
            y = jnp.tanh(shared @ params["w"] + params["b"] * x)
            return (y**2).sum() * count, {"y": y, "count": count + 1}

        return differentiated(objective)(params)

    return step


def test_it_is_value_and_grad_with_and_without_lanes():
    keys = jax.random.split(jax.random.key(0), 5)
    params = {"w": jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys), "b": jnp.arange(5.0)}
    x, count = jnp.linspace(-1, 1, 5), jnp.arange(5)
    usual, summed = (lane(f) for f in (lambda f: jax.value_and_grad(f, has_aux=True), summed_value_and_grad))
    one = jax.tree.map(lambda leaf: leaf[2], (params, x, count))
    jax.tree.map(np.testing.assert_array_equal, usual(*one), summed(*one))
    for function in (jax.vmap(summed), jax.jit(jax.vmap(summed))):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), jax.vmap(usual)(params, x, count),
            function(params, x, count),
        )  # fmt: skip


def test_a_sweep_gives_the_same_losses(tmp_path):
    sweep = Sweep(dataclasses.replace(TINY, epochs=1), axes={"lr": [0.01, 0.03]}, seeds=1)
    losses = [
        pd.read_parquet(run_sweep(sweep, tmp_path / f"{name}", 2, name, devices=1).out / "curves.parquet")["train_loss"]
        for name in (None, "native_summed")
    ]
    np.testing.assert_allclose(*losses, atol=1e-6)
