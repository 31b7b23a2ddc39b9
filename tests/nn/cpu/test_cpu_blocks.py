"""Blocks of norm, activation and convolution, pooling or sum: equal to the plain composition in float64."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.cpu.blocks import (
    ACTIVATION_NUMBERS,
    NormAct,
    activation_number,
    conv_moments,
    norm_act,
    norm_act_conv,
    norm_act_pool,
    norm_add_act,
)
from fishnet.nn.cpu.convolution import window_of
from fishnet.nn.cpu.library import VARIABLE
from fishnet.nn.moments import affine, moments
from fishnet.nn.parametric import Parametric
from fishnet.nn.pooling import max_pool
from tests.conftest import KEPT

pytestmark = pytest.mark.usefixtures("kernels")
LAYOUT = ("NHWC", "HWIO", "NHWC")
# Shape of the maps, channels out, side of the kernel, stride, whether depthwise.
SHAPES = [
    ((2, 7, 9, 17), 19, 3, 1, False),
    ((2, 6, 5, 3), 16, 3, 2, False),
    ((2, 9, 8, 20), 20, 3, 1, True),
    ((2, 8, 9, 24), 24, 3, 2, True),
    ((1, 5, 5, 32), 48, 1, 1, False),
    ((2, 8, 8, 32), 33, 1, 2, False),
    ((2, 9, 8, 32), 32, 3, 1, False),
]


def activate(name: str, n, coefficient):
    """The activation by its plain function, with a coefficient or slope [c]."""
    f = ACTIVATIONS[name]
    if name == "prelu":
        return jnp.where(n >= 0, n, coefficient * n)
    return f.function(n, None, lax.stop_gradient(coefficient[0]), None, False) if isinstance(f, Parametric) else f(n)


def normed(name, x, center, gain, shift, coefficient, added=0.0):
    return activate(name, affine(x, center, gain, shift) + added, coefficient)


def draw(shape: tuple[int, ...], name: str, seed: int) -> list[np.ndarray]:
    """Maps, a norm's numbers and an activation's coefficient."""
    rng = np.random.default_rng(seed)
    (b, *_, c), normal = shape, lambda *size: rng.normal(size=size).astype(np.float32)
    coefficient = normal(c) if name == "prelu" else np.full(c, 0.7, np.float32)
    return [normal(*shape), 0.3 * normal(b, c), 1 + 0.3 * normal(b, c), 0.3 * normal(b, c), coefficient]


def assert_same_gradients(name, block, plain, arguments, within=2e-6):
    """Values and gradients of a block in float32 and of the plain functions in float64."""
    rng = np.random.default_rng(5)
    with jax.enable_x64(True):
        y, pull = jax.vjp(plain, *(jnp.asarray(a, jnp.float64) for a in arguments))
        directions = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), y)
        expected = [*jax.tree.leaves(y), *pull(jax.tree.map(lambda d: jnp.asarray(d, jnp.float64), directions))]
        expected = [np.asarray(leaf) for leaf in expected]
    y, pull = jax.vjp(block, *map(jnp.asarray, arguments))
    found = [*jax.tree.leaves(y), *pull(jax.tree.map(jnp.asarray, directions))]
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        # A coefficient that is no learned slope has no gradient.
        if i - len(jax.tree.leaves(y)) == 4 and name != "prelu":
            continue
        error = np.linalg.norm(np.asarray(one, np.float64) - other) / np.linalg.norm(other)
        assert error < within, (i, error)


def with_norm(block):
    """`block(x, norm, ...)` with the norm's numbers as arguments of their own."""

    def of(kind):
        return lambda x, center, gain, shift, coefficient, *rest: block(
            x, NormAct(center, gain, shift, coefficient, kind), *rest
        )

    return of


@pytest.mark.parametrize("name", ACTIVATION_NUMBERS)
def test_norm_activation_and_convolution(name):
    number = ACTIVATION_NUMBERS[name]
    for shape, out, side, stride, depthwise in [SHAPES[number % 7], SHAPES[(number + 3) % 7]]:
        rng = np.random.default_rng(number)
        k = 0.3 * rng.normal(size=(side, side, 1 if depthwise else shape[3], out)).astype(np.float32)
        groups, strides = (out if depthwise else 1), (stride, stride)
        window = window_of(jnp.zeros(shape), jnp.asarray(k), strides, "SAME", None, None, LAYOUT, groups, 1, None)

        def plain(*arguments, options=(strides, "SAME"), groups=groups):
            *norm, k = arguments
            y = lax.conv_general_dilated(
                normed(name, *norm), k, *options, dimension_numbers=LAYOUT, feature_group_count=groups
            )
            return y, *moments(y)

        def block(x, norm, k, window=window, depthwise=depthwise):
            return tuple(norm_act_conv(window, depthwise, x, norm, k))

        assert_same_gradients(name, with_norm(block)(jnp.int32(number)), plain, [*draw(shape, name, number), k])


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_convolution_with_moments(case):
    shape, out, side, stride, depthwise = case
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    k = rng.normal(size=(side, side, 1 if depthwise else shape[3], out)).astype(np.float32)
    groups, strides = (out if depthwise else 1), (stride, stride)
    window = window_of(jnp.asarray(x), jnp.asarray(k), strides, "VALID", None, None, LAYOUT, groups, 1, None)

    def plain(x, k):
        y = lax.conv_general_dilated(x, k, strides, "VALID", dimension_numbers=LAYOUT, feature_group_count=groups)
        return y, *moments(y)

    assert_same_gradients("", lambda x, k: tuple(conv_moments(window, depthwise, x, k)), plain, [x, k])


@pytest.mark.parametrize("name", ACTIVATION_NUMBERS)
def test_pooling_and_sums(name):
    number = ACTIVATION_NUMBERS[name]
    kind, shape = jnp.int32(number), SHAPES[number % 7][0]
    arguments = draw(shape, name, number)
    added = np.random.default_rng(9).normal(size=shape).astype(np.float32)
    pool, act, both = with_norm(norm_act_pool)(kind), with_norm(norm_act)(kind), with_norm(norm_add_act)(kind)
    assert_same_gradients(name, pool, lambda *given: max_pool(normed(name, *given)), arguments)
    assert_same_gradients(name, act, lambda *given: normed(name, *given), arguments)
    assert_same_gradients(name, both, lambda *given: normed(name, *given), [*arguments, added])


@pytest.mark.parametrize("name", ACTIVATION_NUMBERS)
def test_activations_and_slopes_over_their_whole_range(name):
    """Within a few units in the last place of the largest of 1, x and y; at the kinks as the plain functions."""
    x = np.concatenate([np.linspace(-100, 88, 4001), np.linspace(-1e-3, 1e-3, 201), [0.0, -0.0, 6, -3, 3]])
    x = x.astype(np.float32)[None, :, None, None]
    if name in ("hard_swish", "relu6"):  # their plain functions halve the gradient at some kinks
        x = x[:, ~np.isin(x[0, :, 0, 0], (0, 6, -3, 3))]
    one = jnp.ones((1, 1))
    norm = NormAct(0 * one, one, 0 * one, jnp.full(1, 0.7), jnp.int32(ACTIVATION_NUMBERS[name]))
    y, pull = jax.vjp(lambda x: norm_act(x, norm), jnp.asarray(x))
    slope = pull(jnp.ones_like(y))[0]
    with jax.enable_x64(True):
        exact, pull = jax.vjp(lambda x: activate(name, x, jnp.full(1, 0.7, jnp.float64)), jnp.asarray(x, jnp.float64))
        exact_slope = np.asarray(pull(jnp.ones_like(exact))[0])
        exact = np.asarray(exact)
    size = np.maximum(1, np.abs(exact))
    assert (np.abs(y - exact) / size).max() < 5e-7
    assert (np.abs(slope - exact_slope) / np.maximum(size, np.abs(exact_slope))).max() < 2e-6


@pytest.mark.parametrize("name", ACTIVATION_NUMBERS)
def test_what_is_no_number_stays_so(name):
    x = jnp.full((1, 2, 2, 5), jnp.nan)
    one = jnp.ones((1, 5))
    norm = NormAct(0 * one, one, 0 * one, jnp.ones(5), jnp.int32(ACTIVATION_NUMBERS[name]))
    for y in (norm_act(x, norm), norm_act_pool(x, norm), norm_add_act(jnp.zeros_like(x), norm, x)):
        assert jnp.isnan(y).all()
    x = x.at[0, 0, 0].set(jnp.inf)
    window = (1, 1, 0, 0, 0, 0)
    assert jnp.isnan(norm_act_conv(window, False, x, norm, jnp.ones((1, 1, 5, 3))).y[0, 1]).all()


def test_only_fishnets_own_activations_have_a_number():
    assert {name: activation_number(f) for name, f in ACTIVATIONS.items()} == ACTIVATION_NUMBERS | {"rrelu": None}
    assert activation_number(jax.nn.relu) is None and activation_number(lambda x: x) is None


def test_the_first_of_equal_pixels_gets_the_gradient():
    x = jnp.zeros((1, 4, 4, 3))
    one = jnp.ones((1, 3))
    norm = NormAct(0 * one, one, 0 * one, jnp.zeros(3), jnp.int32(ACTIVATION_NUMBERS["identity"]))
    found = jax.grad(lambda x: norm_act_pool(x, norm).sum())(x)
    assert (found == jax.grad(lambda x: max_pool(x).sum())(x)).all()


def test_an_unknown_activation_is_refused():
    one = jnp.ones((1, 3))
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such activation"):
        norm_act(jnp.zeros((1, 2, 2, 3)), NormAct(one, one, one, one[0], jnp.int32(99)))


@pytest.mark.slow
def test_avx2_and_avx512_give_the_same_bits():
    def digest(variant: str) -> str:
        program = [sys.executable, str(Path(__file__).with_name("same_bits.py"))]
        paths = {"PYTHONPATH": str(Path(__file__).parents[3]), "XDG_CACHE_HOME": str(KEPT.parent / "kernels")}
        done = subprocess.run(
            program, env=os.environ | paths | {VARIABLE: variant}, capture_output=True, text=True, timeout=900
        )
        if "which this processor" in done.stderr:
            pytest.skip(done.stderr.splitlines()[-1])
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert digest("avx2") == digest("avx512")
