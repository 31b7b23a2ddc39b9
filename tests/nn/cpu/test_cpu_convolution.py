"""The convolution kernels on CPU against float64: values, gradients, gradients of gradients, lanes and threads."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from fishnet.nn.cpu.convolution import cpu_kernels
from tests.nn.cpu.exact import LAYOUT, products

pytestmark = pytest.mark.usefixtures("kernels")
SAME3 = (1, 1, 1, 1, 1, 1)  # window of a 3x3 convolution of stride 1


def convolve(x, k, strides=(1, 1), padding="SAME", lowering=cpu_kernels):
    groups = x.shape[3] // k.shape[2]
    return lowering(x, k, strides, padding, dimension_numbers=LAYOUT, feature_group_count=groups)


@partial(jax.jit, static_argnums=(3, 4, 5))
def value_and_gradients(x, k, dy, strides, padding, lowering=cpu_kernels):
    y, pull = jax.vjp(lambda x, k: convolve(x, k, strides, padding, lowering), x, k)
    return y, *pull(dy)


def draw(rng, *shapes):
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def whole(rng, shape):
    """Whole numbers, whose sums of products float32 holds without rounding, by Winograd too."""
    return jnp.asarray(rng.integers(-3, 4, size=shape), jnp.float32)


def assert_exact(batch, size, kernel, channels, strides, padding, depthwise):
    """Values and gradients of whole numbers equal those of float64, to the last bit."""
    rng = np.random.default_rng(0)
    ci, co = channels if not depthwise else (channels[1], channels[1])
    x, k = whole(rng, (batch, *size, ci)), whole(rng, (*kernel, 1 if depthwise else ci, co))
    *exact, dy = products(x, k, partial(whole, rng), strides, padding, depthwise)
    padding = padding if isinstance(padding, str) else tuple(padding)
    ours = value_and_gradients(x, k, jnp.asarray(dy, jnp.float32), strides, padding)
    assert "ffi_call" in str(jax.make_jaxpr(convolve, static_argnums=(2, 3))(x, k, strides, padding))
    for result, expected, name in zip(ours, exact, ("y", "dx", "dk"), strict=True):
        np.testing.assert_array_equal(result, expected, name)


KERNELS = [(1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (3, 1), (2, 5)]
CHANNELS = [(1, 16), (3, 17), (15, 7), (16, 16), (7, 1), (17, 33), (16, 130), (130, 3)]
SIZES = [(8, 9), (7, 7), (1, 1), (12, 5), (4, 18)]
PADDINGS = ["SAME", "VALID", "SAME_LOWER", "explicit"]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_values_and_gradients_of_whole_numbers_are_exact(kernel):
    # Channels and sizes take turns: each meets each stride and padding, if not with each kernel.
    turn = KERNELS.index(kernel)
    for strides, padding in product([(1, 1), (2, 2), (1, 2), (2, 1)], PADDINGS):
        turn += 1
        size, channels = SIZES[turn % len(SIZES)], CHANNELS[turn % len(CHANNELS)]
        if padding == "explicit":
            padding = tuple((min(1, n - 1), n - 1) for n in kernel)
        if padding == "VALID":
            size = tuple(map(max, size, kernel))
        assert_exact(1 + turn % 3, size, kernel, channels, strides, padding, depthwise=turn % 3 == 0)


@pytest.mark.parametrize("batch", [2, 16, 65])
def test_batches(batch):
    assert_exact(batch, (6, 5), (3, 3), (16, 17), (1, 1), "SAME", depthwise=False)
    assert_exact(batch, (6, 5), (3, 3), (16, 17), (2, 2), "SAME", depthwise=True)


@pytest.mark.parametrize("depthwise", [False, True])
def test_the_reference_is_the_convolution_of_xla(depthwise):
    for strides, padding in [((1, 2), "SAME"), ((2, 1), ((1, 2), (0, 1)))]:
        rng = np.random.default_rng(0)
        x, k = rng.normal(size=(2, 7, 8, 3)), rng.normal(size=(3, 4, 1 if depthwise else 3, 3))
        *exact, dy = products(x, k, partial(rng.normal, 0, 1), strides, padding, depthwise)
        with jax.enable_x64(True):
            theirs = value_and_gradients(x, k, dy, strides, padding, lax.conv_general_dilated)
        for ours, result in zip(exact, theirs, strict=True):
            assert result.dtype == np.float64
            np.testing.assert_allclose(result, ours, rtol=1e-12, atol=1e-12)


@settings(max_examples=40)
@given(st.data())
def test_any_shape(data):
    kernel = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    padding = tuple(data.draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))) for n in kernel)
    size = [data.draw(st.integers(max(1, n - sum(of)), 20)) for n, of in zip(kernel, padding, strict=True)]
    strides = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    depthwise = data.draw(st.booleans())
    co = data.draw(st.integers(1, 40))
    ci = co if depthwise else data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    x, k = draw(rng, (data.draw(st.integers(1, 3)), *size, ci), (*kernel, 1 if depthwise else ci, co))
    *exact, dy = products(x, k, lambda shape: draw(rng, shape)[0], strides, padding, depthwise)
    ours = value_and_gradients(x, k, jnp.asarray(dy, jnp.float32), strides, padding)
    magnitudes = products(abs(x), abs(k), abs(dy), strides, padding, depthwise)
    for result, expected, largest in zip(ours, exact, magnitudes, strict=False):
        # 2^-24 a rounding, of sums of magnitudes; measured up to 4e-7
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6 * largest.max())


def test_gradients_are_differences():
    # The product is linear in either operand and whole numbers are exact: so are central differences of any step.
    rng = np.random.default_rng(0)
    for strides, shape in [((1, 1), (3, 3, 16, 17)), ((2, 1), (5, 2, 3, 18)), ((1, 2), (3, 3, 1, 18))]:
        x, v = (whole(rng, (2, 9, 8, 18 if shape[2] == 1 else shape[2])) for _ in range(2))
        k, u = whole(rng, shape), whole(rng, shape)
        f = jax.jit(partial(convolve, strides=strides))
        dy = whole(rng, jax.eval_shape(f, x, k).shape)
        _, dx, dk = value_and_gradients(x, k, dy, strides, "SAME")
        assert jnp.vdot(dx, v) == jnp.vdot(dy, f(x + v, k) - f(x - v, k)) / 2 != 0
        assert jnp.vdot(dk, u) == jnp.vdot(dy, f(x, k + u) - f(x, k - u)) / 2 != 0


@pytest.mark.parametrize(
    ("shape", "strides"), [((3, 3, 16, 16), (1, 1)), ((3, 3, 3, 16), (2, 2)), ((3, 2, 1, 16), (1, 2))]
)
def test_second_derivatives_are_those_of_xla(shape, strides):
    x, k, v, u = draw(np.random.default_rng(0), *[(2, 7, 6, shape[2] if shape[2] > 1 else 16), shape] * 2)

    def product_with_hessian(lowering):
        def loss(operands):
            return jnp.tanh(convolve(*operands, strides, "SAME", lowering) / 5).sum()

        def slope(operands):
            return sum(map(jnp.vdot, jax.grad(loss)(operands), (v, u)))

        return jax.grad(lambda operands: slope(operands) + jnp.square(jax.grad(slope)(operands)[1]).sum())((x, k))

    ours, theirs = jax.jit(lambda: [product_with_hessian(of) for of in (cpu_kernels, lax.conv_general_dilated)])()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(abs(b).max()))


LANES = [((2, 7, 6, 16), (3, 3, 16, 17)), ((2, 7, 6, 3), (3, 3, 3, 5)), ((2, 7, 6, 5), (5, 5, 1, 5))]


@pytest.mark.parametrize(("maps", "kernel"), LANES)
def test_lanes_are_those_of_a_loop(maps, kernel):
    x, k, dy = draw(np.random.default_rng(0), (3, *maps), (3, *kernel), (3, *maps[:3], kernel[3]))
    alone = partial(value_and_gradients, strides=(1, 1), padding="SAME")
    solo = [value_and_gradients(x[i], k[i], dy[i], (1, 1), "SAME") for i in range(3)]
    lanes = jax.jit(jax.vmap(lambda x, k, dy: alone(x, k, dy)))(x, k, dy)
    for one, all_ in zip(zip(*solo, strict=True), lanes, strict=True):
        np.testing.assert_array_equal(all_, jnp.stack(one))
    shared = jax.jit(jax.vmap(lambda x, k, dy: alone(x, k, dy), (None, 0, 0)))(x[0], k, dy)
    np.testing.assert_array_equal(shared[0][0], solo[0][0])
    np.testing.assert_array_equal(shared[2][0], solo[0][2])


def test_steps_of_a_scan_are_those_of_a_loop():
    x, k = draw(np.random.default_rng(0), (4, 2, 8, 8, 16), (3, 3, 16, 16))

    def step(k, x):
        return k - 1e-3 * jax.grad(lambda k: jnp.square(convolve(x, k)).mean())(k), None

    by_scan = jax.jit(lambda: lax.scan(step, k, x)[0])()
    one = jax.jit(lambda k, x: step(k, x)[0])
    for of_step in x:
        k = one(k, of_step)
    np.testing.assert_allclose(by_scan, k, rtol=1e-6, atol=1e-7)
    assert not np.array_equal(by_scan, draw(np.random.default_rng(0), (4, 2, 8, 8, 16), (3, 3, 16, 16))[1])


@pytest.mark.parametrize(("maps", "kernel"), LANES)
def test_an_image_does_not_depend_on_its_batch(maps, kernel):
    x, k, dy = draw(np.random.default_rng(0), (9, *maps[1:]), kernel, (9, *maps[1:3], kernel[3]))
    y, dx, _ = value_and_gradients(x, k, dy, (1, 1), "SAME")
    for i in range(9):
        alone = value_and_gradients(x[i : i + 1], k, dy[i : i + 1], (1, 1), "SAME")
        np.testing.assert_array_equal(alone[0][0], y[i])
        np.testing.assert_array_equal(alone[1][0], dx[i])


def test_threads_at_once_give_the_same_bits():
    rng = np.random.default_rng(0)
    # each pair of shapes wants scratch memory of other sizes
    work = [draw(rng, (4, 16, 16, maps[3]), kernel, (4, 16, 16, kernel[3])) for maps, kernel in LANES]
    alone = [[np.asarray(a) for a in value_and_gradients(*of, (1, 1), "SAME")] for of in work]

    def repeat(first):
        for i in range(first, first + 30):
            for a, b in zip(value_and_gradients(*work[i % 3], (1, 1), "SAME"), alone[i % 3], strict=True):
                np.testing.assert_array_equal(a, b)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(repeat, range(3))) == [None] * 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("maps", "kernel"), LANES)
def test_what_is_not_finite_reaches_all_that_depends_on_it(value, maps, kernel):
    rng = np.random.default_rng(0)
    operands = draw(rng, maps, kernel, (*maps[:3], kernel[3]))
    ones = [np.ones(a.shape) for a in operands]
    for which in range(3):
        at = (*(n // 2 for n in operands[which].shape[:-1]), operands[which].shape[-1] - 1)
        bad = [a.at[at].set(value) if i == which else a for i, a in enumerate(operands)]
        marks = [a.copy() for a in ones]
        marks[which][...] = 0
        marks[which][at] = 1
        reached = [a > 0 for a in products(*marks, (1, 1), "SAME", kernel[2] == 1)[:3]]
        # of the three results, the one that does not have this operand stays finite
        for i, (result, depends) in enumerate(zip(value_and_gradients(*bad, (1, 1), "SAME"), reached, strict=True)):
            depends = depends & ((which, i) not in ((0, 1), (1, 2), (2, 0)))
            assert not np.isfinite(result[depends]).any()
            if kernel[2:] != (16, 17):  # by Winograd it reaches the whole tile
                assert np.isfinite(result[~depends]).all()


@pytest.mark.parametrize("channels", [16, 32, pytest.param(64, marks=pytest.mark.slow)])
def test_kernel_gradient_by_winograd_is_accurate(channels):
    # Maps as behind a ReLU, whose mean adds up over 65,536 pixels, and gradients of either sign. Measured relative to
    # float64: 4.6e-7 with 16 channels, 4.8e-7 with 32, 4.5e-7 with 64.
    rng = np.random.default_rng(channels)
    x, k, dy = (
        rng.standard_normal(shape, np.float32)
        for shape in [(64, 32, 32, channels), (3, 3, channels, channels), (64, 32, 32, channels)]
    )
    x = np.maximum(x + 0.5, 0)
    wide, slopes = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), dy.reshape(-1, channels).astype(np.float64)
    seen = (wide[:, i : i + 32, j : j + 32].reshape(-1, channels) for i, j in np.ndindex(3, 3))
    exact = np.stack([maps.T.astype(np.float64) @ slopes for maps in seen]).reshape(k.shape)
    result = value_and_gradients(x, k, dy, (1, 1), "SAME")[2]
    assert np.linalg.norm(result - exact) < 1e-5 * np.linalg.norm(exact)
