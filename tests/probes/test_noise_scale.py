"""The noise scale against the definition, where the gradients of all examples are known."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.probes.noise_scale import (
    GradientSum,
    add_gradient,
    init_gradient_sum,
    noise_scale,
    noise_scale_of_examples,
)

# A quadratic loss |w - x_i|^2 / 2 at w = 0: the gradient of example i is -x_i.
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)) + 0.7


def sum_of(batches):
    """Gradients of batches [m, b] of examples, as a tree of two leaves."""
    start = init_gradient_sum({"a": jnp.zeros((2,)), "b": jnp.zeros((3, 1))})
    for members in batches:
        g = -X[list(members)].mean(0)
        start = add_gradient(start, {"a": jnp.float32(g[:2]), "b": jnp.float32(g[2:, None])})
    return start


def test_single_examples_give_the_covariance_of_the_sample():
    found = noise_scale_of_examples(jnp.float32(-X))
    trace = np.trace(np.cov(X.T))
    assert found.trace == pytest.approx(trace, rel=1e-5)
    square = np.sum(X.mean(0) ** 2) - trace / len(X)
    assert found.square == pytest.approx(square, rel=1e-5)
    assert found.scale == pytest.approx(trace / square, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_unbiased_over_all_ways_to_make_batches(size):
    """Two batches of the six, all of them alike: their mean is the estimate from single examples, exactly."""
    found = []
    for first in combinations(range(6), size):
        for second in combinations(sorted(set(range(6)) - set(first)), size):
            found.append(noise_scale(sum_of([first, second]), size))
    trace = np.trace(np.cov(X.T))
    np.testing.assert_allclose(np.mean([f.trace for f in found]), trace, rtol=1e-5)
    np.testing.assert_allclose(np.mean([f.square for f in found]), np.sum(X.mean(0) ** 2) - trace / 6, rtol=1e-5)


def test_known_noise_is_found():
    """Gradients G + noise of variance v in each of 50 weights: B = 50 v / |G|^2."""
    rng = np.random.default_rng(1)
    gradient, spread, size = rng.normal(size=50), 3.0, 8
    batches = gradient + rng.normal(size=(4000, 50)) * spread / np.sqrt(size)
    sums = GradientSum(jnp.float32(batches.sum(0)), jnp.float32((batches**2).sum()), jnp.float32(4000))
    found = noise_scale(sums, size)
    assert found.trace == pytest.approx(50 * spread**2, rel=0.02)
    assert found.scale == pytest.approx(50 * spread**2 / (gradient @ gradient), rel=0.02)


def test_equal_gradients_have_no_noise_and_pure_noise_no_scale():
    same = noise_scale(sum_of([(0, 1), (0, 1), (0, 1)]), 2)
    assert (same.trace, same.scale) == (pytest.approx(0, abs=1e-5), pytest.approx(0, abs=1e-5))
    opposed = noise_scale_of_examples(jnp.float32([[1.0, 2.0], [-1.0, -2.0]]))
    assert opposed.square < 0
    assert opposed.scale == np.inf


def test_scale_is_free_of_units_and_works_in_lanes():
    one = noise_scale_of_examples(jnp.float32(X))
    lanes = jax.jit(jax.vmap(noise_scale_of_examples))(jnp.float32([X, -3 * X]))
    np.testing.assert_allclose(lanes.scale, [one.scale] * 2, rtol=1e-5)
    np.testing.assert_allclose(lanes.trace, [one.trace, 9 * one.trace], rtol=1e-5)


def test_too_little_to_tell():
    assert np.isnan(noise_scale(sum_of([(0, 1)]), 2).scale)
    with pytest.raises(UsageError, match="batches of 1 example or more, got 0"):
        noise_scale(sum_of([(0,), (1,)]), 0)
