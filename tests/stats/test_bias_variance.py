"""Bias and variance by hand, by simulation with known ones, and against the formulas for guesses."""

import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.stats import bias_variance, variance_by_source


def test_by_hand():
    # Two networks, one image of class 0: they say .8 and .4 for it.
    p = np.array([[[0.8, 0.2]], [[0.4, 0.6]]])
    found = bias_variance(p, [0])
    assert found.error == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2)
    assert found.variance == pytest.approx(2 * 2 * 0.2**2)  # 2 classes, (.2^2 + .2^2) / (2 - 1)
    assert found.bias == pytest.approx(2 * 0.4**2 - found.variance / 2)


def test_the_parts_add_up_and_networks_that_agree_have_no_variance():
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(4), (3, 5, 30)), rng.integers(0, 4, 30)
    found = variance_by_source(p, labels)
    assert found.bias + found.sets + found.seeds == pytest.approx(found.error)
    together = bias_variance(p, labels)
    assert together.error.shape == (5,)
    np.testing.assert_allclose(together.bias + together.variance, together.error)
    same = bias_variance(np.repeat(p[:1], 4, 0), labels)
    np.testing.assert_allclose(same.variance, 0, atol=1e-15)
    np.testing.assert_allclose(same.bias, same.error)


def test_variance_by_source_is_what_was_put_in():
    """p = mean + a_d + b_ds on two classes, whose squares count twice: normal draws of known variance."""
    rng = np.random.default_rng(1)
    sets, seeds, images = 40, 6, 400
    shift = rng.normal(0, 0.10, (sets, 1, images)) + rng.normal(0, 0.05, (sets, seeds, images))
    p = np.stack([0.7 + shift, 0.3 - shift], -1)
    found = variance_by_source(p, np.zeros(images, int))
    assert found.sets == pytest.approx(2 * 0.10**2, rel=0.05)
    assert found.seeds == pytest.approx(2 * 0.05**2, rel=0.05)
    assert found.bias == pytest.approx(2 * 0.3**2, rel=0.02)


def test_few_networks_do_not_flatter():
    """Split by the plain formula, two networks would have half the variance, and what is missing would be bias."""
    rng = np.random.default_rng(2)
    p = 0.5 + rng.normal(0, 0.1, (2, 20_000, 1)) * np.array([1, -1])
    found = bias_variance(p, np.zeros(20_000, int))
    assert found.variance == pytest.approx(0.02, rel=0.05)
    assert found.bias == pytest.approx(0.5, rel=0.01)


def test_half_of_it_splits_the_error_of_guesses():
    rng = np.random.default_rng(3)
    guesses, labels = rng.integers(0, 3, (7, 50)), rng.integers(0, 3, 50)
    found = bias_variance(np.eye(3)[guesses], labels)
    assert found.error / 2 == pytest.approx((guesses != labels).mean())
    share = np.stack([(guesses == c).mean(0) for c in range(3)], -1)  # Kohavi and Wolpert's P(guess = c)
    assert found.variance / 2 == pytest.approx((7 / 6) * (1 - np.square(share).sum(-1)).mean() / 2)


@pytest.mark.parametrize(
    ("p", "labels", "message"),
    [
        (np.ones((1, 3, 2)), [0, 1, 0], "2 networks or more, got 1"),
        (np.ones((2, 3, 2)), [0, 1], "are not"),
        (np.ones((2, 2, 2)), [0, 2], "do not fit 2 classes"),
    ],
)
def test_what_cannot_be_split_is_refused(p, labels, message):
    with pytest.raises(UsageError, match=message):
        bias_variance(p, labels)


def test_one_seed_says_nothing_of_seeds():
    with pytest.raises(UsageError, match="2 seeds"):
        variance_by_source(np.ones((3, 1, 2, 2)), [0, 1])
