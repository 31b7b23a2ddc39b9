"""What the kernels' handlers refuse, and which convolutions go to XLA's lowering instead."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fishnet.errors import UsageError
from fishnet.nn.cpu.convolution import WINOGRAD_FROM, cpu_kernels
from fishnet.nn.winograd import winograd
from tests.nn.cpu.exact import LAYOUT

pytestmark = pytest.mark.usefixtures("kernels")
MOST = np.iinfo(np.int64).max
SAME = (1, 1, 1, 1, 1, 1)  # window of a 3x3 convolution of stride 1
X, K, Y = (2, 6, 5, 3), (3, 3, 3, 4), (2, 6, 5, 4)


def call(name="", window=SAME, x=X, k=K, y=Y, depthwise=False, dtype=jnp.float32):
    """A handler with any shapes; x, k and y are those of the convolution, whatever of them the result is."""
    shapes = {"": (x, k, y), "_input_gradient": (y, k, x), "_kernel_gradient": (x, y, k)}[name]
    result = jax.ShapeDtypeStruct(shapes[2], dtype)
    numbers = {"window": np.array(window, np.int64), "depthwise": depthwise, "winograd_from": np.int64(WINOGRAD_FROM)}
    operands = [jnp.ones(shape, dtype) for shape in shapes[:2]]
    return jax.ffi.ffi_call(f"fishnet_convolution{name}", result)(*operands, **numbers).block_until_ready()


@pytest.mark.parametrize("name", ["", "_input_gradient", "_kernel_gradient"])
@pytest.mark.parametrize(
    ("problem", "arguments"),
    [
        ("a window has six numbers", {"window": (1, 1)}),
        ("strides are 1 or 2", {"window": (0, 1, 1, 1, 1, 1)}),
        ("strides are 1 or 2", {"window": (1, 3, 1, 1, 1, 1)}),
        ("padding is narrower than the kernel", {"window": (1, 1, -1, 1, 1, 1)}),
        ("padding is narrower than the kernel", {"window": (1, 1, 1, 1, 1, 3)}),
        ("padding is narrower than the kernel", {"window": (1, 1, MOST, MOST, 1, 1)}),
        ("shapes do not fit each other", {"window": (2, 1, 1, 1, 1, 1)}),
        ("shapes do not fit each other", {"y": (2, 6, 6, 4)}),
        ("shapes do not fit each other", {"y": (3, 6, 5, 4)}),
        ("shapes do not fit each other", {"k": (3, 3, 2, 4)}),
        ("shapes do not fit each other", {"depthwise": True}),
        # division rounds to zero: without a check of their own, one output row of a map that is too small would do
        ("shapes do not fit each other", {"window": (2, 2, 0, 0, 0, 0), "x": (2, 2, 2, 3), "y": (2, 1, 1, 4)}),
    ],
)
def test_what_does_not_fit_is_refused(name, problem, arguments):
    with pytest.raises(Exception, match=f"fishnet's convolution: {problem}"):
        call(name, **arguments)


@pytest.mark.parametrize("name", ["", "_input_gradient", "_kernel_gradient"])
def test_other_ranks_types_and_empty_arrays_are_refused(name):
    with pytest.raises(Exception, match="rank"):
        call(name, x=X[1:], k=K[1:], y=Y[1:])
    with pytest.raises(Exception, match="dtype"):
        call(name, dtype=jnp.bfloat16)
    # XLA itself leaves out what has an empty result
    empty = {
        "": {"x": (2, 6, 5, 0), "k": (3, 3, 0, 4)},
        "_input_gradient": {"y": (2, 6, 5, 0), "k": (3, 3, 3, 0)},
        "_kernel_gradient": {"x": (0, 6, 5, 3), "y": (0, 6, 5, 4)},
    }
    with pytest.raises(Exception, match="a convolution of nothing"):
        call(name, **empty[name])
    assert call(name).shape == {"": Y, "_input_gradient": X, "_kernel_gradient": K}[name]


def test_other_convolutions_go_to_xla():
    maps, kernel = (2, 8, 7, 4), (3, 3, 4, 6)
    for x, k, options in [
        (maps, kernel, {"dtype": jnp.bfloat16}),
        (maps, kernel, {"preferred_element_type": jnp.bfloat16}),
        (maps, kernel, {"rhs_dilation": (2, 1)}),
        (maps, kernel, {"lhs_dilation": (1, 2), "padding": ((1, 1), (1, 1))}),
        (maps, (3, 3, 2, 6), {"feature_group_count": 2}),
        (maps, (3, 3, 1, 8), {"feature_group_count": 4}),  # two kernels a channel
        (maps, kernel, {"window_strides": (1, 3)}),
        (maps, kernel, {"padding": ((-1, 1), (0, 0))}),
        (maps, kernel, {"padding": ((3, 0), (0, 0))}),
        ((2, 8, 4), (3, 4, 6), {"window_strides": (2,), "dimension_numbers": ("NWC", "WIO", "NWC")}),
        (
            (2, 5, 4, 3, 4),
            (3, 3, 3, 4, 6),
            {"window_strides": (1, 1, 2), "dimension_numbers": ("NDHWC", "DHWIO", "NDHWC")},
        ),
        ((0, 8, 7, 4), kernel, {}),
        ((2, 8, 7, 0), (3, 3, 0, 6), {}),
        (maps, (3, 3, 4, 0), {}),
    ]:
        rng = np.random.default_rng(0)
        options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT} | options
        dtype = options.pop("dtype", jnp.float32)
        x, k = (jnp.asarray(rng.normal(size=shape), dtype) for shape in (x, k))
        ours, theirs = (jax.make_jaxpr(partial(of, **options))(x, k) for of in (cpu_kernels, winograd))
        assert str(ours) == str(theirs) and "ffi_call" not in str(ours), options
    for problem, options in [
        ("no batch groups", {"batch_group_count": 2}),
        ("channels last", {"dimension_numbers": ("NWHC", "HWIO", "NHWC")}),
    ]:
        with pytest.raises(UsageError, match=problem):
            cpu_kernels(jnp.ones(maps), jnp.ones(kernel), (1, 1), "SAME", **{"dimension_numbers": LAYOUT} | options)
    applies = jax.make_jaxpr(partial(cpu_kernels, window_strides=(1, 2), padding="SAME", dimension_numbers=LAYOUT))
    assert "ffi_call" in str(applies(jnp.ones(maps), jnp.ones(kernel)))


@pytest.mark.parametrize(
    ("maps", "kernel", "options"),
    [
        ((0, 8, 7, 4), (3, 3, 4, 6), {}),
        ((2, 8, 7, 0), (3, 3, 0, 6), {}),
        ((2, 8, 7, 4), (3, 3, 4, 6), {"rhs_dilation": (2, 1)}),
        ((2, 8, 7, 4), (3, 3, 4, 6), {"padding": ((3, 0), (0, 3))}),
    ],
)
def test_their_results_are_those_of_xla(maps, kernel, options):
    rng = np.random.default_rng(0)
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT} | options
    x, k = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (maps, kernel))
    ours, theirs = jax.jit(lambda x, k: [of(x, k, **options) for of in (cpu_kernels, lax.conv_general_dilated)])(x, k)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_arrays_of_numpy_are_operands_of_derivatives():
    x, k = np.ones((1, 4, 4, 3), np.float32), np.ones((3, 3, 3, 2), np.float32)
    convolve = partial(cpu_kernels, window_strides=(1, 1), padding="VALID", dimension_numbers=LAYOUT)
    y, pull = jax.vjp(convolve, x, k)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 2), 27))
    np.testing.assert_array_equal(pull(y)[0][0, 0, 0], [54, 54, 54])
