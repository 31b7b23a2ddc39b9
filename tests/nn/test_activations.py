"""Activations against their formulas in float64, and their gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.nn.activations import ACTIVATIONS

S, A = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
FORMULAS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x >= 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "selu": lambda x: S * np.where(x > 0, x, A * (np.exp(np.minimum(x, 0)) - 1)),
    "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "relu6": lambda x: np.clip(x, 0, 6),
    "exponential": np.exp,
    "squareplus": lambda x: (x + np.sqrt(x**2 + 4)) / 2,
    "prelu": lambda x: np.where(x >= 0, x, 0.25 * x),
    "rrelu": lambda x: np.where(x >= 0, x, 11 / 48 * x),
}
X = np.concatenate([np.linspace(-7, 7, 240), [-1e-3, 1e-3]])  # no point at a kink


def test_the_table_is_complete():
    assert set(ACTIVATIONS) == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients(name):
    f, formula = ACTIVATIONS[name], FORMULAS[name]
    np.testing.assert_allclose(f(jnp.asarray(X, jnp.float32)), formula(X), rtol=1e-6, atol=2e-6)
    slope = jax.vmap(jax.grad(f))(jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(slope, (formula(X + 1e-5) - formula(X - 1e-5)) / 2e-5, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_finite_far_out(name):
    x = jnp.array([-1e10, -1e4, -100.0, 0.0, 100.0, 1e4, 1e10])
    if name == "exponential":
        x = jnp.minimum(x, 88)  # beyond, its value is no float32
    assert jnp.isfinite(ACTIVATIONS[name](x)).all()
    assert jnp.isfinite(jax.vmap(jax.grad(ACTIVATIONS[name]))(x)).all()


@pytest.mark.parametrize("name", FORMULAS)
def test_keeps_shape_and_dtype(name):
    y = ACTIVATIONS[name](jnp.ones((2, 3), jnp.bfloat16))
    assert y.shape == (2, 3) and y.dtype == jnp.bfloat16


def test_relu_has_no_slope_at_zero():
    assert jax.grad(ACTIVATIONS["relu"])(0.0) == 0
    assert jax.grad(ACTIVATIONS["relu6"])(0.0) == 0 == jax.grad(ACTIVATIONS["relu6"])(6.0)


def test_gelu_is_near_the_exact_one():
    x = jnp.linspace(-6, 6, 1001)
    assert jnp.abs(ACTIVATIONS["gelu"](x) - jax.nn.gelu(x, approximate=False)).max() < 5e-4
