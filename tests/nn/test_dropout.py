"""Dropout: identity, rate, gradient, and that static and traced rates draw the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.nn.dropout import Dropout, dropout

X = jnp.asarray(np.random.default_rng(0).normal(size=(40, 50)), jnp.float32)


def run(rate, train=True, key=0):
    return Dropout(rate).apply({}, X, train, rngs={"dropout": jax.random.key(key)})


def test_rate_zero_and_evaluation_are_exactly_the_identity():
    assert Dropout(0.0).apply({}, X, True) is X
    assert Dropout(0.5).apply({}, X, False) is X
    assert (jax.jit(run)(0.0) == X).all()
    assert (jax.jit(lambda rate: run(rate, train=False))(0.5) == X).all()


def test_a_traced_rate_draws_as_a_static_one():
    np.testing.assert_allclose(jax.jit(run)(0.3), run(0.3), rtol=1e-6)
    both = jax.vmap(run)(jnp.array([0.0, 0.3]))
    np.testing.assert_allclose(both[1], run(0.3), rtol=1e-6)
    assert (both[0] == X).all()


def test_rate_and_mean():
    y = dropout(jax.random.key(1), jnp.ones((300, 300)), 0.2)
    assert abs(float((y == 0).mean()) - 0.2) < 0.01
    assert abs(float(y.mean()) - 1) < 0.01
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(0.8)}


def test_the_gradient_is_the_mask():
    y, pull = jax.vjp(lambda x: dropout(jax.random.key(1), x, 0.4), X)
    (dx,) = pull(jnp.ones_like(y))
    np.testing.assert_allclose(dx * X, y, rtol=1e-6)


def test_another_key_another_mask():
    assert (run(0.5, key=0) != run(0.5, key=1)).any()


def test_keeps_the_dtype():
    assert dropout(jax.random.key(0), X.astype(jnp.bfloat16), 0.5).dtype == jnp.bfloat16


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1, 2.5, float("nan")])
def test_refuses_a_rate_outside_its_range(rate):
    with pytest.raises(UsageError, match=str(rate)):
        run(rate)
