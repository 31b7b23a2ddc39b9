"""Stochastic depth: neutral at rate 0, whole examples, mean kept, rates that grow linearly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.nn.stochastic_depth import StochasticDepth, linear_rates, stochastic_depth

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3, 4, 5)), jnp.float32)
KEY = jax.random.key(0)


def run(rate, train=True, key=KEY):
    return StochasticDepth(rate).apply({}, X, train, rngs={"dropout": key})


def test_rate_zero_and_evaluation_are_exactly_the_identity():
    assert StochasticDepth(0.0).apply({}, X, True) is X
    assert StochasticDepth(0.5).apply({}, X, False) is X
    assert jax.jit(run)(0.0).tobytes() == X.tobytes()
    both = jax.jit(jax.vmap(run))(jnp.array([0.0, 0.5]))
    assert both[0].tobytes() == X.tobytes()
    np.testing.assert_allclose(both[1], run(0.5), rtol=1e-6)


def test_branches_are_kept_or_dropped_whole():
    y = np.asarray(stochastic_depth(KEY, jnp.ones((5000, 2, 3)), 0.3))
    assert (y == y[:, :1, :1]).all()
    dropped = y[:, 0, 0] == 0
    assert abs(dropped.mean() - 0.3) < 0.03  # 5000 draws: a standard deviation of 0.0065
    np.testing.assert_allclose(y[~dropped], 1 / 0.7, rtol=1e-6)


def test_the_gradient_is_the_mask():
    for key in jax.random.split(KEY, 3):
        y, pull = jax.vjp(lambda x, key=key: stochastic_depth(key, x, 0.4), X)
        np.testing.assert_allclose(pull(jnp.ones_like(y))[0] * X, y, rtol=1e-6)


def test_linear_rates():
    assert linear_rates(0.0, 3) == (0.0, 0.0, 0.0)
    np.testing.assert_allclose(linear_rates(0.5, 5), [0.1, 0.2, 0.3, 0.4, 0.5])
    traced = jax.jit(lambda last: jnp.stack(linear_rates(last, 5)))
    np.testing.assert_allclose(traced(0.5), linear_rates(0.5, 5), rtol=1e-6)
    assert (traced(0.0) == 0).all()


def test_keeps_the_dtype():
    assert stochastic_depth(KEY, X.astype(jnp.bfloat16), 0.5).dtype == jnp.bfloat16


def test_refusals():
    for rate in (-0.1, 1.0, 1):
        with pytest.raises(UsageError, match=str(rate)):
            run(rate)
        with pytest.raises(UsageError, match="stochastic depth"):
            linear_rates(rate, 4)
    with pytest.raises(UsageError, match="got 0"):
        linear_rates(0.1, 0)
