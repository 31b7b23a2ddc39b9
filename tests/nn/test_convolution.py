"""The gemm and Winograd lowerings against `lax.conv_general_dilated`: values and both gradients."""

from functools import partial
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fishnet.errors import UsageError
from fishnet.nn.convolution import gemm
from fishnet.nn.winograd import winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")


def compare(
    size, kernel, strides, padding, channels=(3, 4), groups=1, lhs_dilation=None, rhs_dilation=None, ours=gemm, tol=1e-5
):
    """Values and gradients of both lowerings, compared relative to their largest entry."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, channels[0])), jnp.float32)
    k = jnp.asarray(rng.normal(size=(*kernel, channels[0] // groups, channels[1])), jnp.float32)

    def convolve(lowering, x, k):
        return lowering(
            x,
            k,
            strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=LAYOUT,
            feature_group_count=groups,
        )

    shape = jax.eval_shape(partial(convolve, lax.conv_general_dilated), x, k).shape
    dy = jnp.asarray(rng.normal(size=shape), jnp.float32)

    @jax.jit
    def both(x, k, dy):
        results = [jax.vjp(partial(convolve, lowering), x, k) for lowering in (ours, lax.conv_general_dilated)]
        return [(y, *pull(dy)) for y, pull in results]

    for result, theirs in zip(*both(x, k, dy), strict=True):
        np.testing.assert_allclose(result, theirs, atol=tol * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [*product([1, 3], [1, 2]), *(pytest.param(5, stride, marks=pytest.mark.slow) for stride in (1, 2))],
)
def test_sizes_and_padding(kernel, stride):
    # Odd and even sizes in both axes; string padding at stride 2 and even sizes is (0, 1) in XLA.
    compare((7, 8), (kernel, kernel), (stride, stride), "SAME")
    compare((8, 9), (kernel, kernel), (stride, stride), ((1, 2), (0, 1)))
    if kernel == 3:
        compare((8, 7), (kernel, kernel), (stride, stride), "SAME")
        compare((8, 9), (kernel, kernel), (stride, stride), "VALID")


def test_depthwise():
    compare((7, 8), (3, 3), (1, 1), "SAME", (3, 3), groups=3)
    compare((7, 8), (3, 3), (2, 2), "SAME", (3, 3), groups=3)
    compare((7, 8), (2, 3), (1, 3), ((1, 2), (0, 1)), (3, 6), groups=3)
    compare((9, 8), (3, 2), (1, 2), "VALID", (3, 6), groups=3, rhs_dilation=(2, 3))


def test_other_groups():
    compare((7, 8), (3, 3), (2, 2), "SAME", (4, 6), groups=2)
    compare((7, 8), (1, 1), (1, 1), "SAME", (4, 6), groups=2)


def test_dilations():
    compare((9, 8), (3, 3), (1, 1), "SAME", rhs_dilation=(2, 1))
    compare((5, 4), (3, 3), (1, 2), ((2, 2), (1, 2)), lhs_dilation=(2, 3))
    compare((8, 8), (2, 3), (2, 1), "SAME_LOWER")


@pytest.mark.parametrize(
    ("size", "padding"),
    [
        ((8, 5), "SAME"),
        ((7, 8), ((1, 2), (0, 1))),
        *(pytest.param(*of, marks=pytest.mark.slow) for of in (((5, 7), "VALID"), ((6, 6), ((-1, 3), (2, 0))))),
    ],
)
def test_winograd(size, padding):
    # Measured error relative to the largest entry: 4e-7; the transforms add and subtract what the plain form does not.
    compare(size, (3, 3), (1, 1), padding, (32, 5), ours=winograd, tol=2e-6)


def test_winograd_leaves_the_rest_to_gemm():
    for kernel, stride, channels, groups in [(3, 2, 32, 1), (5, 1, 32, 1), (3, 1, 8, 1), (3, 1, 32, 32)]:
        x, k = jnp.ones((1, 8, 8, channels)), jnp.ones((kernel, kernel, channels // groups, 32))
        arguments = (x, k, (stride, stride), "SAME")
        options = {"dimension_numbers": LAYOUT, "feature_group_count": groups}
        plain, ours = (jax.make_jaxpr(partial(f, **options), static_argnums=(2, 3)) for f in (gemm, winograd))
        assert str(plain(*arguments)) == str(ours(*arguments))
    applies = jax.make_jaxpr(lambda x, k: winograd(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT))
    assert str(applies(jnp.ones((1, 8, 8, 32)), jnp.ones((3, 3, 32, 4)))).count("dot_general") == 16


def test_one_and_three_spatial_axes():
    rng = np.random.default_rng(0)
    for axes in (1, 3):
        ours, theirs = nn.Conv(4, (2,) * axes, conv_general_dilated=gemm), nn.Conv(4, (2,) * axes)
        x = jnp.asarray(rng.normal(size=(2, *(6,) * axes, 3)), jnp.float32)
        variables = theirs.init(jax.random.key(0), x)
        np.testing.assert_allclose(jax.jit(ours.apply)(variables, x), theirs.apply(variables, x), atol=1e-5)


def test_negative_padding_crops():
    # The oracle is a crop by hand: at stride 2 and jax 0.10.1 XLA's CPU convolution returns garbage here.
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 8, 3)), jnp.float32)
    k = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)
    y = gemm(x, k, (2, 2), ((-1, 2), (0, 0)), dimension_numbers=LAYOUT)
    cropped = jnp.pad(x[:, 1:], ((0, 0), (0, 2), (0, 0), (0, 0)))
    expected = lax.conv_general_dilated(cropped, k, (2, 2), "VALID", dimension_numbers=LAYOUT)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_inside_a_loop_and_under_vmap():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 2, 5, 5, 4)), jnp.float32)
    for groups in (1, 4):
        k = jnp.asarray(rng.normal(size=(3, 2, 2, 4 // groups, 4)), jnp.float32)

        def slope(x, k, groups=groups):
            def loss(x, k):
                y = gemm(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=groups)
                return (y**2).sum()

            return jax.grad(loss, (0, 1))(x, k)

        apart = [jax.jit(slope)(x[i], k[i]) for i in range(3)]
        together = jax.jit(jax.vmap(slope))(x, k), lax.map(lambda a: slope(*a), (x, k))
        for n in (0, 1):
            expected = jnp.stack([a[n] for a in apart])
            for result in together:
                np.testing.assert_allclose(result[n], expected, atol=1e-6 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("groups", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_low_precision(groups):
    x = jnp.ones((1, 5, 5, 4), jnp.bfloat16)
    k = jnp.ones((3, 3, 4 // groups, 4), jnp.bfloat16)

    def convolve(x, k):
        return gemm(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=groups)

    y, dx, dk = jax.jit(lambda x, k: (convolve(x, k), *jax.vjp(convolve, x, k)[1](convolve(x, k))))(x, k)
    assert y.dtype == dx.dtype == dk.dtype == jnp.bfloat16
    assert y[0, 2, 2, 0] == 9 * 4 / groups
    wide = gemm(x, k, (1, 1), "SAME", None, None, LAYOUT, groups, preferred_element_type=jnp.float32)
    assert wide.dtype == jnp.float32


@pytest.mark.parametrize(("lowering", "c"), [(gemm, 4), (winograd, 32)])
def test_refusals(lowering, c):
    x, k = jnp.ones((1, 5, 5, c)), jnp.ones((3, 3, c, 4))
    with pytest.raises(UsageError, match="channels last"):
        lowering(x, k, (1, 1), "SAME")
    with pytest.raises(UsageError, match="batch_group_count=2"):
        lowering(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT, batch_group_count=2)
    with pytest.raises(UsageError, match="2 groups"):
        lowering(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=2)
    with pytest.raises(UsageError, match="circular"):
        lowering(x, k, (1, 1), "circular", dimension_numbers=LAYOUT)
    with pytest.raises(UsageError, match="explicit padding"):
        lowering(x, k, (1, 1), "SAME", lhs_dilation=(2, 2), dimension_numbers=LAYOUT)
    with pytest.raises(UsageError, match="does not fit"):
        lowering(jnp.ones((1, 2, 5, c)), k, (1, 1), "VALID", dimension_numbers=LAYOUT)
