"""What losses make of class counts: weights, margins, priors."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from fishnet.errors import UsageError
from fishnet.losses import (
    CLASS_WEIGHTINGS,
    class_weights,
    defer_weights,
    effective_number,
    ldam_margins,
    log_priors,
)
from tests.losses.examples import LABELS, REPEATABLE, K, weights


def test_inverse_frequency_equals_scikit_learn() -> None:
    counts = np.bincount(LABELS, minlength=K)
    expected = compute_class_weight("balanced", classes=np.arange(K), y=LABELS)
    np.testing.assert_allclose(class_weights(counts, "inverse"), expected, rtol=1e-6)


@given(counts=st.lists(st.integers(0, 10_000), min_size=2, max_size=20).filter(any))
@settings(REPEATABLE, max_examples=60)
def test_weights_average_to_one_over_the_samples(counts: list[int]) -> None:
    for how in CLASS_WEIGHTINGS:
        got = class_weights(counts, how)
        assert got.dtype == np.float32
        assert np.dot(got, counts) / sum(counts) == pytest.approx(1, rel=1e-5)


def test_a_class_without_samples_weighs_nothing_and_none_weighs_all_alike() -> None:
    np.testing.assert_allclose(class_weights([30, 0, 10], "inverse"), [40 / 60, 0, 2])
    np.testing.assert_array_equal(class_weights([30, 0, 10], "none"), [1, 1, 1])


def test_ones_own_weighting_passes_through() -> None:
    np.testing.assert_allclose(class_weights([4, 9], np.sqrt), [2, 3])


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(
        UsageError, match="unknown class weighting 'invers': valid are none, inverse, effective; did you mean"
    ):
        class_weights([1, 2], "invers")


@pytest.mark.parametrize("counts", [[0, 0], [3, -1], [[1, 2]], [float("nan"), 1]])
def test_counts_that_are_none_are_refused(counts: list) -> None:
    with pytest.raises(UsageError, match="class counts"):
        class_weights(counts, "inverse")


def test_effective_number_is_the_papers_sum() -> None:
    # E_n = (1 - beta^n) / (1 - beta) is the sum of the first n powers of beta.
    counts = np.array([1, 10, 1000, 0, 5000])
    raw = np.array([1 / sum(0.999**i for i in range(n)) if n else 0 for n in counts])
    np.testing.assert_allclose(class_weights(counts, "effective"), raw / (raw @ counts / counts.sum()), rtol=1e-6)
    np.testing.assert_allclose(effective_number(counts.astype(float), 0)[counts > 0], 1)
    small = np.array([3.0, 8.0])
    np.testing.assert_allclose(effective_number(small, 1 - 1e-7), class_weights(small, "inverse"), rtol=1e-5)


def test_margins_fall_with_the_fourth_root_of_the_count() -> None:
    got = ldam_margins([16, 10_000, 256, 0, 1])
    np.testing.assert_allclose(got, [0.25, 0.05, 0.125, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(ldam_margins([16, 256], 1.0), [1.0, 0.5], rtol=1e-6)
    assert got.dtype == np.float32


def test_log_priors_are_logarithms_of_frequencies() -> None:
    np.testing.assert_allclose(log_priors([10, 30, 60]), np.log([0.1, 0.3, 0.6]), rtol=1e-6)
    np.testing.assert_allclose(log_priors([10, 30, 60], 0.5), np.log([0.1, 0.3, 0.6]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(log_priors([10, 0, 60], 0).view(np.int32), 0)
    assert np.isfinite(log_priors([10, 0, 60])).all()


def test_deferred_weights_are_exactly_one_until_their_time() -> None:
    f = jax.jit(defer_weights)
    for progress in (0.0, 0.3, 0.799):
        np.testing.assert_array_equal(f(weights, progress), np.ones(K))
    for progress in (0.8, 0.99):
        np.testing.assert_array_equal(f(weights, progress), weights)
    np.testing.assert_array_equal(defer_weights(weights, 0.0, 0), weights)
    np.testing.assert_array_equal(defer_weights(weights, 0.999, 1), np.ones(K))
