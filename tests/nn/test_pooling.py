"""Pooling against XLA's windowed reductions, values and gradients, ties included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fishnet.errors import UsageError
from fishnet.nn.pooling import POOLS, max_pool, mean_pool

CASES = [((2, 8, 8, 3), 2), ((2, 7, 9, 3), 2), ((1, 10, 13, 2), 3), ((2, 5, 5, 2), 5), ((2, 4, 6, 3), 1)]
IDENTITIES = {"max": (-jnp.inf, lax.max), "mean": (0.0, lax.add)}


def oracle(name, window, x):
    start, reduction = IDENTITIES[name]
    shape = (1, window, window, 1)
    return lax.reduce_window(x, start, reduction, shape, shape, "VALID") / (window**2 if name == "mean" else 1)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize(("shape", "window"), CASES)
def test_equals_reduce_window(name, shape, window):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 4, shape), jnp.float32)  # full of ties
    dy = jnp.asarray(rng.normal(size=(shape[0], shape[1] // window, shape[2] // window, shape[3])), jnp.float32)

    @jax.jit
    def both(x, dy):
        results = [jax.vjp(f, x) for f in (partial(POOLS[name], window=window), partial(oracle, name, window))]
        return [(y, *pull(dy)) for y, pull in results]

    for ours, theirs in zip(*both(x, dy), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", POOLS)
def test_the_same_inside_a_loop_and_under_vmap(name):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2, 6, 5, 4)), jnp.float32)
    slope = jax.grad(lambda x: (POOLS[name](x) ** 2).sum())
    apart = jnp.stack([jax.jit(slope)(one) for one in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(slope))(x), apart, rtol=1e-6)
    np.testing.assert_allclose(lax.map(slope, x), apart, rtol=1e-6)


def test_the_first_of_equal_pixels_gets_the_gradient():
    dx = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 2, 2, 1)))
    assert dx.ravel().tolist() == [1, 0, 0, 0]


def test_nan_is_not_hidden():
    for i in range(4):
        x = jnp.zeros(4).at[i].set(jnp.nan).reshape(1, 2, 2, 1)
        assert jnp.isnan(max_pool(x)).all() and jnp.isnan(mean_pool(x)).all()


def test_low_precision():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    for pool in POOLS.values():
        y, pull = jax.vjp(pool, x)
        assert y.dtype == jnp.bfloat16 and pull(y)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("window", [0, 5])
def test_refuses_a_window_that_does_not_fit(window):
    for pool in POOLS.values():
        with pytest.raises(UsageError, match="4 x 6"):
            pool(jnp.ones((1, 4, 6, 2)), window)
