"""Rejection curves by hand, against all orders, and what they are where doubt knows nothing or everything."""

import itertools

import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.metrics.selective import rejection_area, rejection_curve


def test_by_hand():
    # The wrong answer is the most doubtful but one.
    curve = rejection_curve([True, True, False, True], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(curve, [1, 1, 2 / 3, 3 / 4])
    assert rejection_area([True, True, False, True], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(curve.mean())


def test_equal_doubts_are_the_mean_of_all_orders():
    right, doubt = np.array([1, 0, 1, 1, 0]), np.array([0.5, 0.5, 0.1, 0.5, 0.9])
    orders = [order for order in itertools.permutations(range(5)) if (np.diff(doubt[list(order)]) >= 0).all()]
    curves = [np.cumsum(right[list(order)]) / np.arange(1, 6) for order in orders]
    np.testing.assert_allclose(rejection_curve(right, doubt), np.mean(curves, 0))


def test_doubt_that_says_nothing_and_doubt_that_knows():
    right = np.array([1, 1, 1, 0, 0, 1, 0, 1], bool)
    np.testing.assert_allclose(rejection_curve(right, np.zeros(8)), right.mean())
    best, worst = rejection_area(right, ~right), rejection_area(right, right)
    assert worst < right.mean() < best
    assert rejection_curve(right, ~right)[-1] == right.mean()


@pytest.mark.parametrize("doubt", [[0.1], [np.nan, 0.1], [[0.1, 0.2]]])
def test_what_has_no_order_is_refused(doubt):
    with pytest.raises(UsageError):
        rejection_curve([True, False], doubt)


def test_an_answer_is_right_or_wrong() -> None:
    for right in ([1, 2, 0], [0.5, 1, 0], [np.nan, 1, 0]):
        with pytest.raises(UsageError, match="true or false"):
            rejection_curve(right, [0.1, 0.2, 0.3])
