"""The network written by hand against autodiff, finite differences, SciPy and the Linen model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from fishnet.models import MODELS
from fishnet.models.scratch import NetVariant, backward, check_gradient, cross_entropy, forward, init_params
from fishnet.nn.activations import relu
from fishnet.nn.norms import NORMS
from fishnet.study.handwritten import find_not_finite

RNG = np.random.default_rng(0)
X = RNG.random((64, 20)).astype(np.float32)
LABELS = RNG.integers(0, 10, 64)
LABELS[:10] = range(10)
RIGHT, EXACT = NetVariant(), NetVariant(precision="float64")


def gradients(how, params, x, labels):
    return backward(how, params, x, labels, forward(how, params, x))


def optax_loss(params, x, labels):
    """The same by JAX's and Optax's functions."""
    logits = jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_initial_parameters_are_hes():
    params = init_params(RIGHT, 784, 10, seed=3)
    assert {name: leaf.shape for name, leaf in params.items()} == {
        "w1": (784, 10), "b1": (10,), "w2": (10, 10), "b2": (10,)
    }  # fmt: skip
    assert all(leaf.dtype == np.float32 for leaf in params.values())
    for name, fan_in in (("w1", 784), ("w2", 10)):
        w = params[name]
        assert float(w.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=5 / w.size**0.5)
        assert abs(float(w.mean())) < 5 * (2 / fan_in / w.size) ** 0.5
    assert not params["b1"].any() and not params["b2"].any()


def test_loss_and_gradients_equal_autodiff():
    params = {name: leaf + np.float32(0.1) for name, leaf in init_params(RIGHT, 20, 10, seed=3).items()}
    loss, expected = jax.jit(jax.value_and_grad(optax_loss))(params, X, LABELS)
    assert cross_entropy(forward(RIGHT, params, X)["p"], LABELS) == pytest.approx(float(loss), rel=1e-6)
    for name, found in gradients(RIGHT, params, X, LABELS).items():
        assert np.abs(found - expected[name]).max() <= 1e-6 * np.abs(expected[name]).max()


def test_gradients_equal_finite_differences_in_float64():
    params = {name: RNG.normal(size=leaf.shape) for name, leaf in init_params(EXACT, 20, 10, seed=0).items()}
    found = gradients(EXACT, params, X.astype(np.float64), LABELS)
    for name, leaf in params.items():
        for index in list(np.ndindex(leaf.shape))[::7]:
            step = np.zeros_like(leaf)
            step[index] = 1e-6
            moved = ({**params, name: leaf + h} for h in (step, -step))
            up, down = (cross_entropy(forward(EXACT, at, X)["p"], LABELS) for at in moved)
            assert found[name][index] == pytest.approx((up - down) / 2e-6, abs=1e-8)


def test_a_unit_at_zero_passes_no_gradient():
    black = gradients(RIGHT, init_params(RIGHT, 20, 10, seed=0), np.zeros_like(X), LABELS)
    assert not black["w1"].any() and not black["b1"].any()
    assert black["b2"].any()


@pytest.mark.parametrize("row", [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [3e38, -3e38, 0.0], [-1e4, 1e4, 1e4]], ids=str)
def test_probabilities_and_gradients_are_right_at_extreme_logits(row):
    """The identity as second layer, so that its biases are the logits."""
    k = len(row)
    params = {"w1": np.zeros((2, k)), "b1": np.zeros(k), "w2": np.eye(k), "b2": np.float64(row)}
    x, labels = np.ones((k, 2)), np.arange(k)
    exact = np.tile(np.float64(row), (k, 1))
    layers = forward(EXACT, params, x)
    np.testing.assert_allclose(layers["p"], softmax(exact, -1), rtol=1e-12)
    found = backward(EXACT, params, x, labels, layers)
    np.testing.assert_allclose(found["b2"], (softmax(exact, -1) - np.eye(k)).sum(0) / k, atol=1e-15)
    expected = -log_softmax(exact, -1)[np.arange(k), labels]
    with np.errstate(divide="ignore"):
        losses = [cross_entropy(layers["p"][[i]], labels[[i]]) for i in range(k)]
    representable = softmax(exact, -1)[np.arange(k), labels] > 0
    np.testing.assert_allclose(np.array(losses)[representable], expected[representable], rtol=1e-12)
    assert np.isinf(np.array(losses)[~representable]).all()


def test_equals_the_linen_model():
    """MLP 784-10-10 without norm, given the same weights."""
    model = MODELS["mlp"](classes=10, widths=(10,), norm=NORMS["none"], act=relu)
    images = RNG.integers(0, 256, (32, 28, 28, 1)).astype(np.uint8)
    mean, std, labels = np.float32([33.0]), np.float32([79.0]), LABELS[:32]
    params = init_params(RIGHT, 784, 10, seed=1)
    params |= {name: params[name] + np.float32(0.05) for name in ("b1", "b2")}
    learned = {
        "dense_0": {"kernel": params["w1"]},
        "norm_0": {"bias": params["b1"]},
        "head": {"kernel": params["w2"], "bias": params["b2"]},
    }
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))["params"]
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, learned)

    def model_loss(learned):
        variables = {"params": learned, "constants": {"standardize": {"mean": mean, "std": std}}}
        logits = model.apply(variables, images, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    x = ((images - mean) / std).reshape(32, -1)
    slopes, logits = jax.jit(jax.grad(model_loss, has_aux=True))(learned)
    np.testing.assert_allclose(forward(RIGHT, params, x)["z2"], logits, atol=1e-5)
    expected = {"w1": slopes["dense_0"]["kernel"], "b1": slopes["norm_0"]["bias"]}
    expected |= {"w2": slopes["head"]["kernel"], "b2": slopes["head"]["bias"]}
    for name, found in gradients(RIGHT, params, x, labels).items():
        assert np.abs(found - expected[name]).max() <= 2e-6 * np.abs(expected[name]).max()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, False),
        ({"shift": False}, False),
        ({"divisor": 1.0}, False),
        ({"sign": 1.0}, False),
        ({"precision": "half"}, False),
        ({"weights": "uniform"}, False),
        ({"mean": False}, True),
        ({"softmax_axis": 0}, True),
        ({"bias_axis": None}, True),
        ({"relu_gradient": False}, True),
    ],
)
def test_the_gradient_check_finds_wrong_equations_and_nothing_else(changes, found):
    error = check_gradient(NetVariant(**changes), X, LABELS, seed=1)
    assert (error > 1e-2) if found else (error < 1e-5)


def test_without_one_over_m_the_gradient_is_m_times_as_long():
    how, summed = NetVariant(), NetVariant(mean=False)
    params = init_params(how, 20, 10, seed=3)
    layers = forward(how, params, X)
    right, long = (backward(of, params, X, LABELS, layers) for of in (how, summed))
    np.testing.assert_allclose(long["w1"], 64 * right["w1"], rtol=1e-4, atol=1e-6)
    error = check_gradient(summed, X, LABELS, seed=1)
    assert error == pytest.approx(31 / 33, rel=1e-4)  # (m - 1) / (m + 1) of the 32 images that it looks at


def test_half_precision_rounds_every_array():
    half = NetVariant(precision="half")
    layers = forward(half, init_params(half, 20, 10, seed=0), X)
    for name, array in layers.items():
        np.testing.assert_array_equal(array, array.astype(np.float16), err_msg=name)
    with np.errstate(all="ignore"):
        huge = forward(NetVariant(precision="half", shift=False), init_params(half, 20, 10, seed=0), 1000 * X)
    assert find_not_finite(huge) == "exponentials"
