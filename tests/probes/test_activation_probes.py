"""Slopes against finite differences, flat parts at their stated ends, dead units that were planted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.nn.activations import ACTIVATIONS, identity, relu, sigmoid, tanh
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.parametric import Parametric
from fishnet.probes import Site, record_forward
from fishnet.probes.activations import (
    activation_metrics,
    active_units,
    dead_fraction,
    is_saturated,
    max_slope,
    merge_active,
    moments,
    saturation,
    slope,
)
from tests.probes.conftest import IMAGES, mlp, variables_of

X = np.linspace(-6, 6, 97).astype(np.float32)[:, None] + np.float32([0.01, 0.03])
SLOPES = {"slope": jnp.float32([0.25, 0.05])}


def site_of(name, x=X, index=False):
    act = ACTIVATIONS[name]
    learned = isinstance(act, Parametric) and act.slope is not None
    if index:
        return Site(jnp.asarray(x), None, ActivationByIndex((tanh, act), 1), SLOPES if learned else {})
    return Site(jnp.asarray(x), None, act, SLOPES if learned else {})


def value(name, x):
    """The function in evaluation, float64."""
    act = ACTIVATIONS[name]
    return np.asarray(act(jnp.asarray(x, jnp.float32), *([SLOPES["slope"]] if name == "prelu" else [])), np.float64)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_equals_a_finite_difference(name):
    h = 2.0**-6
    kinks = np.min([np.abs(X - kink) for kink in (0, 6, -3, 3)], axis=0) > 2 * h
    difference = (value(name, X + h) - value(name, X - h)) / (2 * h)
    found = np.asarray(slope(site_of(name), jnp.asarray(X)))
    np.testing.assert_allclose(found[kinks], difference[kinks], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["relu", "elu", "prelu", "rrelu"])
def test_a_choice_has_the_slope_of_what_is_chosen(name):
    one, mixed = site_of(name), site_of(name, index=True)
    np.testing.assert_allclose(slope(mixed, mixed.x), slope(one, one.x), rtol=1e-6)
    np.testing.assert_array_equal(is_saturated(mixed), is_saturated(one))


STEEPEST = {"relu": 1, "relu6": 1, "tanh": 1, "sigmoid": 0.25, "identity": 1, "leaky_relu": 1, "elu": 1, "prelu": 1}
STEEPEST |= {"softplus": 1, "selu": 1.758, "gelu": 1.129, "silu": 1.0998, "mish": 1.0885, "hard_swish": 1.5}


@pytest.mark.parametrize("name", STEEPEST)
def test_the_steepest_slope_is_known(name):
    np.testing.assert_allclose(
        max_slope(site_of(name)), [STEEPEST[name]] * 2, rtol=0.03 if name == "hard_swish" else 0.01
    )


def test_what_grows_ever_steeper_has_no_flat_part():
    site = site_of("exponential")
    assert np.isnan(max_slope(site)).all()
    assert not is_saturated(site).any()
    assert np.isnan(saturation(site))
    assert active_units({"a": site})["a"].all()


# Where the flat part on the left ends, and where the one on the right begins.
ENDS = {
    "tanh": (np.arctanh(-np.sqrt(0.9)), np.arctanh(np.sqrt(0.9))),
    "sigmoid": (-3.636, 3.636),
    "relu": (0, np.inf),
    "relu6": (0, 6),
    "leaky_relu": (0, np.inf),
    "elu": (np.log(0.1), np.inf),
    "identity": (-np.inf, np.inf),
}


@pytest.mark.parametrize("name", ENDS)
def test_flat_parts_end_where_it_is_said(name):
    low, high = ENDS[name]
    sure = (np.abs(X - low) > 0.02) & (np.abs(X - high) > 0.02)
    np.testing.assert_array_equal(
        np.asarray(is_saturated(site_of(name)))[sure], (np.less(X, low) | np.greater(X, high))[sure]
    )


def test_ends_in_terms_of_the_outputs():
    x = jnp.linspace(-6, 6, 6001)[:, None]
    for act, low, high in ((tanh, -0.9487, 0.9487), (sigmoid, 0.0257, 0.9743)):
        steep = act(x)[~is_saturated(Site(x, None, act, {}))]
        assert (steep.min(), steep.max()) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_a_learned_slope_counts_channel_by_channel():
    flat = np.asarray(is_saturated(site_of("prelu")))
    np.testing.assert_array_equal(flat, (X < 0) & [False, True])
    assert saturation(site_of("leaky_relu")) == pytest.approx((X < 0).mean())


def test_relu_at_zero_and_what_is_not_finite():
    site = Site(jnp.float32([[0.0, -1.0, 1.0, jnp.nan, jnp.inf, -jnp.inf]]), None, relu, {})
    np.testing.assert_array_equal(is_saturated(site)[0, :3], [True, True, False])
    assert not is_saturated(Site(jnp.full((2, 2), jnp.nan), None, tanh, {})).any()


def test_half_precision_is_widened():
    site = Site(jnp.asarray(X, jnp.bfloat16), None, tanh, {})
    assert slope(site, site.x).dtype == jnp.float32


def test_moments_equal_numpy():
    y = np.random.default_rng(0).gamma(2, 3, size=(5, 3, 3, 4))
    mean, std, kurtosis = moments(jnp.float32(y))
    assert (mean, std) == (pytest.approx(y.mean(), rel=1e-5), pytest.approx(y.std(), rel=1e-5))
    assert kurtosis == pytest.approx(np.mean((y - y.mean()) ** 4) / y.var() ** 2, rel=1e-4)
    assert moments(jax.random.normal(jax.random.key(0), (100000,)))[2] == pytest.approx(3, abs=0.1)
    assert np.isnan(moments(jnp.ones(4))[2])


def planted():
    """A relu network whose first layer has two dead units of five, and one that lives in a single image."""
    model = mlp(norm="none")
    variables = variables_of(model)
    params = variables["params"]
    first = params["dense_0"]["kernel"].at[:, :3].set(0.0)
    x = ((IMAGES.astype(np.float32) - 120) / 60).reshape(len(IMAGES), -1)
    bias = np.zeros(5, np.float32)
    bias[:2] = -1.0
    # The third unit sees one pixel, and is above 0 only for the image that has it brightest.
    first = first.at[0, 2].set(1.0)
    bias[2] = -np.sort(x[:, 0])[-2:].mean()
    params = {**params, "dense_0": {"kernel": first}, "norm_0": {"bias": jnp.asarray(bias)}}
    return model, {**variables, "params": params}, int(x[:, 0].argmax())


@pytest.mark.slow
def test_planted_dead_units_are_found():
    model, variables, bright = planted()
    sites = record_forward(lambda: model.apply(variables, IMAGES, train=False)).sites
    active = active_units(sites)
    np.testing.assert_array_equal(active["act_0"], [False, False, True, True, True])
    expected = (np.asarray(sites["act_1"].y) > 0).any(0)
    np.testing.assert_array_equal(active["act_1"], expected)
    np.testing.assert_allclose(dead_fraction(active, ["act_1", "act_0"]), [1 - expected.mean(), 0.4], rtol=1e-6)
    # Batches taken together, and not each on its own.
    parts = [
        active_units(record_forward(lambda i=images: model.apply(variables, i, train=False)).sites)
        for images in np.split(IMAGES, 4)
    ]
    assert [bool(part["act_0"][2]) for part in parts] == [i == bright // 6 for i in range(4)]
    together = merge_active(merge_active(parts[0], parts[1]), merge_active(parts[2], parts[3]))
    jax.tree.map(np.testing.assert_array_equal, together, active)


def test_figures_of_all_sites():
    model = mlp(act=tanh)
    variables = variables_of(model)
    seen = record_forward(lambda: model.apply(variables, IMAGES, train=False))
    found = jax.jit(lambda v: activation_metrics(record_forward(lambda: model.apply(v, IMAGES, train=False)).sites))(
        variables
    )
    for i, site in enumerate(seen.sites.values()):
        y = np.asarray(site.y, np.float64)
        assert found["activation_mean"][i] == pytest.approx(y.mean(), abs=1e-6)
        assert found["activation_std"][i] == pytest.approx(y.std(), rel=1e-5)
        assert found["saturation"][i] == pytest.approx((1 - y**2 < 0.1).mean())
    assert (
        activation_metrics({"a": Site(seen.sites["act_0"].x, seen.sites["act_0"].x, identity, {})})["saturation"] == 0
    )
