"""The network by hand: right, it is fishnet's and autodiff's; each error is what it is said to be."""

import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.models import scratch
from fishnet.study.handwritten import (
    NetVariant,
    backward,
    check_gradient,
    cross_entropy,
    find_not_finite,
    forward,
    init_params,
    train,
)

RNG = np.random.default_rng(0)
X = RNG.random((64, 20)).astype(np.float32)
LABELS = RNG.integers(0, 10, 64)
LABELS[:10] = range(10)


def test_the_right_network_is_fishnets():
    how = NetVariant()
    params = init_params(how, 20, 10, seed=3)
    layers = forward(how, params, X)
    theirs = scratch.Parameters(**{name: jnp.asarray(value) for name, value in params.items()})
    of = scratch.forward(theirs, X)
    np.testing.assert_allclose(layers["p"], of.p, atol=1e-6)
    assert cross_entropy(layers["p"], LABELS) == pytest.approx(float(scratch.loss(of.z2, LABELS)), rel=1e-5)
    gradients = backward(how, params, X, LABELS, layers)
    for name, expected in scratch.backward(theirs, X, LABELS, of)._asdict().items():
        np.testing.assert_allclose(gradients[name], expected, atol=2e-7)


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


def test_the_first_array_that_is_not_finite_is_named():
    assert find_not_finite({"a": np.ones(3), "b": np.array([1, np.inf]), "c": np.array([np.nan])}) == "b"
    assert find_not_finite({"a": np.ones(3), "loss": float("inf")}) == "loss"
    assert find_not_finite({"a": np.ones(3)}) == ""


def test_a_run_learns_and_a_broken_one_says_where_it_broke():
    small = {"task": "synthetic", "epochs": 12}
    right = train(small, 0)
    assert right["curves"][-1]["train_loss"] < right["curves"][0]["train_loss"]
    assert [row["epoch"] for row in right["curves"]] == list(range(1, 13))
    assert right["runs"][0]["first_bad"] == ""
    assert right["runs"][0]["first_bad_step"] == 13
    broken = train(small | {"divisor": 1.0, "mean": False, "shift": False}, 0)["runs"][0]
    assert (broken["first_bad"], broken["first_bad_step"]) == ("exponentials", 1)
    assert broken["gradient_error"] == 0.0 or broken["gradient_error"] > -2
    stopped = train(small | {"sign": 1.0, "epochs": 40, "patience": 3}, 0)["curves"]
    assert len(stopped) < 40
