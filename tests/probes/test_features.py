"""Ranks and class geometry of features against NumPy and against layouts whose figures are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.probes.features import (
    add_features,
    class_cosines,
    collapse,
    effective_rank,
    feature_metrics,
    init_class_moments,
    singular_values,
    stable_rank,
)

RNG = np.random.default_rng(0)
K, F = 4, 6
LABELS = np.repeat([0, 1, 3], [9, 5, 10])  # the third class has no image
H = RNG.normal(size=(24, F)) @ RNG.normal(size=(F, F)) + RNG.normal(size=(K, F))[LABELS] * 2 + 1


@jax.jit
def moments_of(h, labels):
    """In three batches."""
    moments = init_class_moments(K, F)
    for part in range(3):
        moments = add_features(moments, h[part::3], labels[part::3])
    return moments


def test_moments_equal_numpy():
    found = moments_of(jnp.float32(H), LABELS)
    means = np.array([H[np.equal(LABELS, c)].mean(0) if c in LABELS else np.zeros(F) for c in range(K)])
    np.testing.assert_array_equal(found.count, [9, 5, 0, 10])
    np.testing.assert_allclose(found.mean, means, rtol=1e-4, atol=1e-5)
    d = H - means[LABELS]
    np.testing.assert_allclose(found.within, d.T @ d, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.gram, H.T @ H, rtol=1e-4, atol=1e-3)


def test_nothing_cancels_far_from_zero():
    found = moments_of(jnp.float32(H + 1000), LABELS)
    near = moments_of(jnp.float32(H), LABELS)
    np.testing.assert_allclose(found.within, near.within, atol=0.02 * float(jnp.trace(near.within)) / F)


def test_ranks_equal_the_definition():
    sigma = np.linalg.svd(H, compute_uv=False)
    p = sigma / sigma.sum()
    found = singular_values(jnp.float32(H.T @ H))
    np.testing.assert_allclose(found, sigma, rtol=1e-3)
    assert effective_rank(found) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)
    assert stable_rank(found) == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-3)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_equal_singular_values_count_as_many(rank):
    sigma = jnp.float32([2.0] * rank + [0.0] * (F - rank))
    assert effective_rank(sigma) == pytest.approx(rank, rel=1e-6)
    assert stable_rank(sigma) == pytest.approx(rank)
    # From the matrix, rounding errors of the null space count for nothing.
    q = np.linalg.qr(RNG.normal(size=(24, rank)))[0] @ np.linalg.qr(RNG.normal(size=(F, rank)))[0].T
    gram = jnp.float32(q).T @ jnp.float32(q)
    assert effective_rank(singular_values(gram)) == pytest.approx(rank, rel=1e-3)


def test_ranks_do_not_depend_on_the_scale_and_zeros_have_none():
    sigma = jnp.float32([5, 2, 0.1])
    for rank in (effective_rank, stable_rank):
        assert rank(1e15 * sigma) == pytest.approx(float(rank(sigma)), rel=1e-5)
        assert np.isnan(rank(jnp.zeros(3)))


def test_collapse_equals_the_definition():
    means = np.array([H[np.equal(LABELS, c)].mean(0) for c in (0, 1, 3)])
    d = H - means[np.array([0, 1, -1, 2])[LABELS]]
    within = d.T @ d / len(H)
    between = (means - means.mean(0)).T @ (means - means.mean(0)) / 3
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-8)) / 3
    moments = moments_of(jnp.float32(H), LABELS)
    assert collapse(moments) == pytest.approx(expected, rel=1e-3)
    found = feature_metrics(moments)
    assert found["collapse"] == pytest.approx(expected, rel=1e-3)
    assert found["within_variance"] == pytest.approx(np.trace(within), rel=1e-4)
    assert found["between_variance"] == pytest.approx(np.trace(between), rel=1e-4)
    assert found["effective_rank"].shape == ()


def simplex(noise):
    """Four classes at the corners of a simplex, their features in a plane of their own."""
    corners = np.eye(K) - 1 / K
    labels = np.arange(40) % K
    h = np.pad(corners[labels] * 3, ((0, 0), (0, F - K))) + 2
    h[:, :K] += noise * (np.arange(40) // K - 4.5)[:, None] / 10
    return h, labels


def test_collapsed_classes():
    h, labels = simplex(noise=0.0)
    found = feature_metrics(moments_of(jnp.float32(h), labels))
    assert found["collapse"] == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(found["nearest_class_cosine"], [-1 / (K - 1)] * K, atol=1e-5)
    # Noise along (1, 1, 1, 1), in which the means do not differ, does not count; its variance does.
    h, labels = simplex(noise=1.0)
    noisy = feature_metrics(moments_of(jnp.float32(h), labels))
    assert noisy["collapse"] == pytest.approx(0, abs=1e-4)
    assert noisy["within_variance"] == pytest.approx(K * 0.0825, rel=1e-3)


def test_classes_that_are_not_told_apart():
    means = jnp.float32([[1, 0], [1.1, 0], [-3, 0.1], [7, 7]])
    cosines = class_cosines(means, jnp.float32([5, 2, 1, 0]))
    assert cosines[0, 1] > 0.99
    assert np.isnan(cosines[3]).all() and np.isnan(cosines[:, 3]).all()
    np.testing.assert_allclose(cosines[:3, :3], cosines[:3, :3].T)
    one = jnp.ones((8, F))
    found = feature_metrics(moments_of(one, np.arange(8) % K))
    assert found["effective_rank"] == pytest.approx(1, rel=1e-3)
    assert np.isnan(found["collapse"])
    assert found["between_variance"] == 0


def test_lanes():
    both = jnp.float32([H, H * 2 + 1])
    found = jax.jit(jax.vmap(lambda h: feature_metrics(moments_of(h, LABELS))))(both)
    for lane in range(2):
        one = feature_metrics(moments_of(both[lane], LABELS))
        for name, value in one.items():
            np.testing.assert_allclose(found[name][lane], value, rtol=1e-3, atol=1e-4, err_msg=name)
