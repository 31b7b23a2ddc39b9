"""Activations against PyTorch's, values and gradients; a difference in definition is what is tested."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.parametric import Parametric
from tests.oracles.there import F, channels_first, channels_last, compiled, draw, gradients, there, torch

THEIRS = {
    "identity": torch.nn.Identity(),
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": functools.partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "hard_swish": F.hardswish,
    "mish": F.mish,
    "relu6": F.relu6,
    "exponential": torch.exp,
    "prelu": lambda x: F.prelu(x, torch.full((1,), 0.25, dtype=x.dtype)),
    "rrelu": functools.partial(F.rrelu, training=False),
}
# Everywhere but at kinks: near 0, in the middle and far out.
X = np.concatenate([np.linspace(-9, 9, 240), [-60, -30, -1e-3, 1e-3, 30, 60]]).astype(np.float32)
KINKS = np.array([-3, 0, 3, 6], np.float32)


@functools.cache
def activated():
    """Value and slope of every activation at X and at KINKS, in one program."""

    def all_of(x):
        return {name: jax.vjp(lambda x, f=f: f(x), x) for name, f in ACTIVATIONS.items()}

    def both(x):
        return {name: (y, pull(jnp.ones_like(y))[0]) for name, (y, pull) in all_of(x).items()}

    return compiled(lambda: (both(jnp.asarray(X)), both(jnp.asarray(KINKS))))()


def slopes_there(name, x):
    x = there(x)
    y = THEIRS[name](x)
    return y.detach().numpy(), gradients(y, np.ones(len(x)), x)[0]


@pytest.mark.parametrize("name", THEIRS)
def test_activations(name):
    # A rounding of x, of the exponential and of their product; softplus there is linear from 20 on, off by 2e-9.
    for got, expected in zip(activated()[0][name], slopes_there(name, X), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_what_pytorch_has_too_is_compared():
    assert set(THEIRS) <= set(ACTIVATIONS)
    assert not [name for name in set(ACTIVATIONS) - set(THEIRS) if hasattr(F, name)]


# name -> (slope at 0 here, there): ours is the right-hand side's, as the docstrings say: y = x for x >= 0.
AT_ZERO = {"leaky_relu": (1, 0.01), "prelu": (1, 0.25), "rrelu": (1, 11 / 48)}


@pytest.mark.parametrize("name", THEIRS)
def test_slopes_at_kinks(name):
    got, expected = activated()[1][name][1], slopes_there(name, KINKS)[1].copy()
    if name in AT_ZERO:
        here, at_theirs = AT_ZERO[name]
        assert expected[KINKS == 0] == pytest.approx(at_theirs)
        expected[KINKS == 0] = here
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_random_slopes_have_pytorchs_range():
    x = -np.ones(4000, np.float32)
    ours = -np.asarray(ACTIVATIONS["rrelu"](jnp.asarray(x), key=jax.random.key(0), train=True))
    theirs = -F.rrelu(torch.tensor(x), training=True).numpy()
    for slopes in (ours, theirs):
        assert 1 / 8 <= slopes.min() < 0.127
        assert 0.331 < slopes.max() <= 1 / 3
        assert slopes.mean() == pytest.approx(11 / 48, abs=4 * (5 / 24) / np.sqrt(12 * len(x)))  # 4 standard errors


def test_learned_slopes_get_pytorchs_gradient():
    x, slope, dy = draw(4, 3, 3, 5), draw(5), draw(4, 3, 3, 5)
    prelu = ACTIVATIONS["prelu"]
    assert isinstance(prelu, Parametric)

    @compiled
    def run(x, slope, dy):
        y, pull = jax.vjp(lambda x, slope: prelu(x, slope), x, slope)
        return y, pull(dy)

    y, ours = run(x, slope, dy)
    their_x, their_slope = there(x), there(slope)
    expected = channels_last(F.prelu(channels_first(their_x), their_slope))
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-6)
    for got, g in zip(ours, gradients(expected, dy, their_x, their_slope), strict=True):
        np.testing.assert_allclose(got, g, rtol=1e-5, atol=2e-6)  # sums over 36 products
