"""Dropout: identity, rate, gradient, and that static and traced rates draw the same."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.nn.dropout import (
    DROPOUTS,
    AlphaDropout,
    Dropout,
    MixedDropout,
    SpatialDropout,
    alpha_dropout,
    dropout,
    mixed_dropout,
    spatial_dropout,
)

MODULES = (Dropout, SpatialDropout, AlphaDropout)
FUNCTIONS = (dropout, spatial_dropout, alpha_dropout)
KINDS = range(len(DROPOUTS))
MAPS = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3, 4, 10)), jnp.float32)
KEY = jax.random.key(1)
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


@jax.jit
def mixed(kind, rate, x, key):
    return MixedDropout(kind, rate).apply({}, x, True, rngs={"dropout": key})


@jax.jit
def static(rate, x, key):
    return [module(rate).apply({}, x, True, rngs={"dropout": key}) for module in MODULES]


def test_all_kinds_are_neutral_at_rate_zero_and_in_evaluation():
    for module in (*MODULES, *(partial(MixedDropout, kind) for kind in KINDS)):
        assert module(0.0).apply({}, MAPS, True) is MAPS
        assert module(0.5).apply({}, MAPS, False) is MAPS
    rates = jnp.array([0.0, 0.5])
    together = [y[0] for y in jax.vmap(static, (0, None, None))(rates, MAPS, KEY)]
    both = [jax.vmap(mixed, (None, 0, None, None))(kind, rates, MAPS, KEY)[0] for kind in KINDS]
    alone = [mixed(kind, 0.0, MAPS, KEY) for kind in KINDS]
    assert all(y.tobytes() == MAPS.tobytes() for y in (*static(0.0, MAPS, KEY), *together, *both, *alone))


@pytest.mark.parametrize("x", [X, MAPS], ids=["values", "maps"])
def test_a_traced_kind_draws_as_the_static_modules(x):
    together = jax.vmap(mixed, (0, None, None, None))(jnp.array(KINDS), 0.3, x, KEY)
    for kind, expected in zip(KINDS, static(0.3, x, KEY), strict=True):
        for y in (mixed(kind, 0.3, x, KEY), together[kind]):
            np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    rngs = {"dropout": KEY}
    np.testing.assert_allclose(MixedDropout(2, 0.3).apply({}, x, True, rngs=rngs), expected, rtol=1e-6, atol=1e-6)


def test_spatial_dropout_drops_whole_channels():
    y = np.asarray(spatial_dropout(KEY, jnp.ones((300, 3, 4, 30)), 0.2))
    assert (y == y[:, :1, :1]).all()
    assert abs((y == 0).mean() - 0.2) < 0.02  # 9000 draws: a standard deviation of 0.004
    np.testing.assert_allclose(y[y != 0], 1 / 0.8, rtol=1e-6)
    np.testing.assert_array_equal(spatial_dropout(KEY, X, 0.3), dropout(KEY, X, 0.3))


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(rate):
    x = jax.random.normal(jax.random.key(0), (500, 400))
    y = np.asarray(alpha_dropout(KEY, x, rate), np.float64)
    dropped = np.asarray(dropout(KEY, jnp.ones_like(x), rate)) == 0  # the same mask from the same key
    assert abs(dropped.mean() - rate) < 0.005
    # The affine map, from moments of the mixture of x and the floor: mean (1 - q) f, variance q + q (1 - q) f^2.
    floor, keep = float(jax.nn.selu(jnp.float32(-1e9))), 1 - rate
    mixture = np.where(dropped, floor, x)
    mean, variance = (1 - keep) * floor, keep * (1 + (0 - (1 - keep) * floor) ** 2) + (1 - keep) * (keep * floor) ** 2
    np.testing.assert_allclose(y, (mixture - mean) / np.sqrt(variance), atol=1e-5)
    assert abs(y.mean()) < 0.01 and abs(y.var() - 1) < 0.02


def test_gradients_by_finite_differences():
    @jax.jit
    def gradient_and_difference(kind, x, key):
        forms = [*FUNCTIONS, partial(mixed_dropout, kind)]
        gradients = [jax.grad(lambda x, f=f: f(key, x, 0.4).sum())(x) for f in forms]
        return gradients, [(f(key, x + 1, 0.4) - f(key, x - 1, 0.4)) / 2 for f in forms]  # affine: any step is exact

    for kind in KINDS:
        for gradient, difference in zip(*gradient_and_difference(kind, MAPS, KEY), strict=True):
            np.testing.assert_allclose(gradient, difference, atol=1e-5)


def test_all_kinds_keep_the_dtype():
    low = MAPS.astype(jnp.bfloat16)
    for kind in KINDS:
        assert FUNCTIONS[kind](KEY, low, 0.5).dtype == mixed_dropout(kind, KEY, low, 0.5).dtype == jnp.bfloat16


def test_further_refusals():
    for module in (SpatialDropout(1.0), AlphaDropout(1), MixedDropout(2, -0.5)):
        with pytest.raises(UsageError, match=r"\[0, 1\)"):
            module.apply({}, MAPS, True)
    with pytest.raises(UsageError, match="plain, spatial, alpha, got 3"):
        MixedDropout(3, 0.5).apply({}, MAPS, True)
