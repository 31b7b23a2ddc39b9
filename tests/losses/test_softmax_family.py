"""The softmax losses against optax, SciPy, scikit-learn, a reference written out in float64, and finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from fishnet.errors import UsageError
from fishnet.losses import (
    class_balanced_focal,
    class_weighted,
    cross_entropy,
    focal,
    ldam,
    log_priors,
    logit_adjusted,
    mixed_loss,
    neutral_numbers,
    poly1,
    softmax_loss,
)
from tests.losses.examples import (
    LABELS,
    LOGITS,
    MARGINS,
    OFFSETS,
    REPEATABLE,
    WEIGHTS,
    B,
    K,
    labels,
    logits,
    margins,
    offsets,
    weights,
)

softmax_jit = jax.jit(softmax_loss)


def by_hand(weights: np.ndarray, gamma: float, smoothing: float) -> list[float]:
    """The formula a sample and a class at a time, in float64."""
    out = []
    for row, y in zip(LOGITS.astype(float), LABELS, strict=True):
        total = sum(math.exp(v - row.max()) for v in row)
        log_p = [v - row.max() - math.log(total) for v in row]
        target = [(1 - smoothing) * (c == y) + smoothing / K for c in range(K)]
        smoothed = -sum(t * lp for t, lp in zip(target, log_p, strict=True))
        rest = sum(math.exp(lp) for c, lp in enumerate(log_p) if c != y)
        out.append(weights[y] * rest**gamma * smoothed)
    return out


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_equals_the_formula_written_out(gamma: float, smoothing: float) -> None:
    got = softmax_loss(logits, labels, weights, gamma, smoothing)
    np.testing.assert_allclose(got, by_hand(WEIGHTS, gamma, smoothing), rtol=2e-5, atol=1e-6)


def test_cross_entropy_equals_optax() -> None:
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-5, atol=1e-6)


def test_smoothed_cross_entropy_equals_optax() -> None:
    expected = optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(labels, K), 0.2))
    np.testing.assert_allclose(cross_entropy(logits, labels, 0.2), expected, rtol=1e-5, atol=1e-6)


def test_focal_equals_optax_a_class_against_the_other() -> None:
    # With two classes softmax is the sigmoid of the difference.
    two = logits[:, :2]
    y = labels % 2
    expected = optax.sigmoid_focal_loss(two[:, 1] - two[:, 0], y.astype(jnp.float32), gamma=2.0)
    np.testing.assert_allclose(focal(two, y), expected, rtol=1e-4, atol=1e-6)


def test_mean_cross_entropy_equals_scikit_learn() -> None:
    p = np.exp(LOGITS.astype(float))
    expected = log_loss(LABELS, p / p.sum(1, keepdims=True), labels=range(K))
    assert float(cross_entropy(logits, labels).mean()) == pytest.approx(expected, rel=1e-5)


def test_the_family_is_one_bit_for_bit() -> None:
    plain = cross_entropy(logits, labels)
    ones = jnp.ones(K)
    for same in (focal(logits, labels, 0.0), class_weighted(logits, labels, ones), focal(logits, labels, 0, ones)):
        np.testing.assert_array_equal(same, plain)
    gradient = jax.grad(lambda x: cross_entropy(x, labels).sum())(logits)
    np.testing.assert_array_equal(jax.grad(lambda x: focal(x, labels, 0.0).sum())(logits), gradient)


def test_gradient_of_cross_entropy_is_softmax_minus_target() -> None:
    got = jax.grad(lambda x: cross_entropy(x, labels, 0.1).sum())(logits)
    expected = jax.nn.softmax(logits) - optax.smooth_labels(jax.nn.one_hot(labels, K), 0.1)
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize(("gamma", "smoothing"), [(0.0, 0.0), (0.5, 0.0), (2.0, 0.1)])
def test_gradients_equal_finite_differences(gamma: float, smoothing: float) -> None:
    with jax.enable_x64(True):
        x, y = jnp.asarray(LOGITS[:6], jnp.float64), jnp.asarray(LABELS[:6])
        w = jnp.asarray(WEIGHTS, jnp.float64)
        check_grads(lambda x, w: softmax_loss(x, y, w, gamma, smoothing), (x, w), order=1, modes=["rev"], rtol=1e-4)
        numbers = jnp.float64(gamma + 0.3), jnp.float64(smoothing + 0.1)
        check_grads(lambda g, s: softmax_loss(x, y, w, g, s), numbers, order=1, modes=["rev"], rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30, 1e37])
@pytest.mark.parametrize("right", [True, False])
def test_values_and_gradients_are_finite_at_any_logits(gamma: float, scale: float, right: bool) -> None:
    x = jnp.asarray([[scale, -scale, 0.0], [scale, scale, -scale]], jnp.float32)
    y = jnp.asarray([0, 1]) if right else jnp.asarray([1, 2])
    values, back = jax.vjp(lambda x: softmax_loss(x, y, jnp.ones(3), gamma, 0.0), x)
    assert np.isfinite(values).all()
    assert np.isfinite(back(jnp.ones(2))[0]).all()


def test_a_certain_and_right_answer_costs_nothing_and_a_certain_and_wrong_one_its_gap() -> None:
    x = jnp.asarray([[200.0, -200.0]])
    for gamma in (0.0, 0.5, 2.0):
        assert float(focal(x, jnp.asarray([0]), gamma)[0]) == 0
        assert float(focal(x, jnp.asarray([1]), gamma)[0]) == 400


def test_focal_stays_accurate_where_p_rounds_to_one() -> None:
    # 1 - p = 2e-9 is 0 in float32; the loss is (1 - p)^0.5 * (1 - p) to first order.
    x, rest = jnp.asarray([[20.0, 0.0]]), math.exp(-20) / (1 + math.exp(-20))
    gradient = jax.grad(lambda x: focal(x, jnp.asarray([0]), 0.5).sum())(jnp.asarray([[10.0, 0.0]]))
    assert np.isfinite(gradient).all()
    assert abs(float(gradient[0, 1])) > 0
    assert float(focal(x, jnp.asarray([1]), 0.5)[0]) == pytest.approx((1 - rest) ** 0.5 * 20, rel=1e-5)


@given(shift=st.floats(-100, 100), gamma=st.floats(0, 4), smoothing=st.floats(0, 0.9))
@settings(REPEATABLE, max_examples=30)
def test_moving_all_logits_alike_changes_nothing(shift: float, gamma: float, smoothing: float) -> None:
    moved = softmax_loss(logits + np.float32(shift), labels, weights, gamma, smoothing)
    expected = softmax_loss(logits, labels, weights, gamma, smoothing)
    # float32's rounding of the shifted logits: |shift| * 2^-24 and its like.
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=2e-4)


@given(gamma=st.floats(0, 5))
@settings(REPEATABLE, max_examples=20)
def test_focal_is_never_above_cross_entropy(gamma: float) -> None:
    assert bool((focal(logits, labels, gamma) <= cross_entropy(logits, labels)).all())


def test_all_numbers_may_be_traced_and_vectorised_over_lanes() -> None:
    gammas, smoothings = jnp.asarray([0.0, 0.5, 2.0]), jnp.asarray([0.0, 0.1, 0.3])
    tables = jnp.stack([jnp.ones(K), weights, weights * 2])
    lanes = jax.jit(jax.vmap(softmax_loss, (None, None, 0, 0, 0)))(logits, labels, tables, gammas, smoothings)
    for i in range(3):
        expected = softmax_loss(logits, labels, tables[i], float(gammas[i]), float(smoothings[i]))
        np.testing.assert_allclose(lanes[i], expected, rtol=1e-5, atol=1e-6)


def test_narrow_logits_are_widened_first() -> None:
    got = cross_entropy(logits.astype(jnp.bfloat16), labels)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, cross_entropy(logits.astype(jnp.bfloat16).astype(jnp.float32), labels))


def test_a_label_outside_the_classes_shows() -> None:
    assert np.isnan(cross_entropy(logits[:2], jnp.asarray([-1, K]))).all()


def test_a_class_that_is_ruled_out_does_no_harm() -> None:
    x = jnp.asarray([[1.0, 2.0, -jnp.inf]])
    value, gradient = jax.value_and_grad(lambda x: cross_entropy(x, jnp.asarray([0])).sum())(x)
    assert float(value) == pytest.approx(math.log(1 + math.e), rel=1e-6)
    assert np.isfinite(gradient).all()


def test_one_class_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 2 classes, the logits have 1"):
        cross_entropy(logits[:, :1], labels)


def whole_family(weights: np.ndarray, gamma: float, smoothing: float, poly: float, scale: float) -> np.ndarray:
    """The whole formula in float64, with MARGINS and OFFSETS, on SciPy's log-softmax."""
    one_hot = np.eye(K)[LABELS]
    log_p = log_softmax(scale * (LOGITS.astype(float) + OFFSETS - MARGINS * one_hot), axis=1)
    p = np.exp(log_p[one_hot == 1])
    smoothed = -((1 - smoothing) * one_hot + smoothing / K) * log_p
    return weights[LABELS] * ((1 - p) ** gamma * smoothed.sum(1) + poly * (1 - p))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("poly", "scale"), [(0.0, 1.0), (-1.0, 0.3), (2.0, 3.0)])
def test_the_whole_family_equals_the_formula(gamma: float, smoothing: float, poly: float, scale: float) -> None:
    numbers = {"poly": jnp.float32(poly), "scale": jnp.float32(scale), "margins": margins, "offsets": offsets}
    got = softmax_jit(logits, labels, weights, jnp.float32(gamma), jnp.float32(smoothing), **numbers)
    expected = whole_family(WEIGHTS.astype(float), gamma, smoothing, poly, scale)
    np.testing.assert_allclose(got, expected, rtol=5e-5, atol=2e-6)


def before(logits: jax.Array, labels: jax.Array, weights: jax.Array, gamma: float, smoothing: float) -> jax.Array:
    """The formula without scale, margins, offsets and poly, operation by operation."""
    logits = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    own = jnp.arange(K) == labels[:, None]
    own_logit = jnp.sum(jnp.where(own, logits, 0.0), -1)
    total = jax.nn.logsumexp(logits, -1)
    rest = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), -1)
    spread = jnp.where(smoothing > 0, smoothing * (total - jnp.sum(logits / K, -1)), 0.0)
    modulation = jnp.exp(gamma * jnp.maximum(rest - total, jnp.finfo(logits.dtype).min))
    weight = jnp.sum(jnp.where(own, weights, 0.0), -1)
    return weight * modulation * ((1 - smoothing) * (total - own_logit) + spread)


def gradient_of(f):
    """f(x, ...) and its gradient with respect to x, compiled."""
    return jax.jit(lambda x, *rest: (f(x, *rest), jax.grad(lambda x: f(x, *rest).sum())(x)))


def test_neutral_numbers_change_no_bit_of_values_and_gradients() -> None:
    traced = {"poly": jnp.float32(0), "scale": jnp.float32(1), "margins": jnp.zeros(K), "offsets": jnp.zeros(K)}
    plain, new = gradient_of(before), gradient_of(softmax_loss)
    neutral = gradient_of(lambda x, y, w, g, s, t: softmax_loss(x, y, w, g, s, **t))
    mixed = gradient_of(lambda x, y, n: mixed_loss(jnp.int32(0), x, y, n))
    for gamma, smoothing in [(0.0, 0.0), (2.0, 0.0), (0.5, 0.1)]:
        numbers = jnp.float32(gamma), jnp.float32(smoothing)
        expected = plain(logits, labels, weights, *numbers)
        jax.tree.map(np.testing.assert_array_equal, new(logits, labels, weights, *numbers), expected)
        jax.tree.map(np.testing.assert_array_equal, neutral(logits, labels, weights, *numbers, traced), expected)
        same = neutral_numbers(K).replace(class_weights=weights, gamma=numbers[0], smoothing=numbers[1])
        jax.tree.map(np.testing.assert_array_equal, mixed(logits, labels, same), expected)


def test_members_are_the_family_at_their_numbers() -> None:
    expected = cross_entropy(logits, labels)
    for same in (
        ldam(logits, labels, jnp.zeros(K)),
        logit_adjusted(logits, labels, jnp.zeros(K)),
        poly1(logits, labels, 0.0),
        class_balanced_focal(logits, labels, jnp.ones(K), 0.0),
    ):
        np.testing.assert_array_equal(same, expected)
    np.testing.assert_array_equal(
        class_balanced_focal(logits, labels, weights, 2.0, 0.1), focal(logits, labels, 2.0, weights, 0.1)
    )


def test_ldam_is_cross_entropy_of_logits_less_the_margin() -> None:
    moved = LOGITS - np.eye(K, dtype=np.float32)[LABELS] * MARGINS
    expected = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(30 * moved), labels) * weights[labels]
    got = ldam(logits, labels, margins, weights, 30.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)  # logits of 400 in float32


def test_logit_adjustment_is_the_posterior_under_the_training_prior() -> None:
    # softmax(x + log prior) is Bayes' rule with likelihoods exp(x).
    prior = np.array([0.7, 0.2, 0.1])
    likelihood = np.exp(LOGITS[:, :3].astype(float))
    posterior = likelihood * prior / (likelihood @ prior)[:, None]
    y = labels % 3
    got = logit_adjusted(logits[:, :3], y, log_priors([70, 20, 10], 1.0))
    np.testing.assert_allclose(got, -np.log(posterior[np.arange(B), y]), rtol=2e-5, atol=1e-6)


def test_poly1_equals_optax() -> None:
    expected = optax.losses.poly_loss_cross_entropy(logits, jax.nn.one_hot(labels, K), epsilon=1.0)
    np.testing.assert_allclose(poly1(logits, labels), expected, rtol=1e-5, atol=1e-6)


def test_poly1_at_minus_one_has_no_gradient_where_the_answer_is_nearly_right() -> None:
    # The log loss is (1 - p) + (1 - p)^2 / 2 + ...: without its first term it starts with the square.
    x = jnp.asarray([[7.0, 0.0]])
    rest = 1 / (1 + math.exp(7))
    gap = float(poly1(x, jnp.asarray([0]), -1.0)[0])
    assert gap == pytest.approx(rest**2 / 2, abs=2e-7)  # float32 takes two numbers near 1e-3 apart


def test_the_familys_gradient_in_every_number_equals_finite_differences() -> None:
    with jax.enable_x64(True):
        x, y = jnp.asarray(LOGITS[:6], jnp.float64), jnp.asarray(LABELS[:6])
        arrays = [jnp.asarray(a, jnp.float64) for a in (WEIGHTS, MARGINS, OFFSETS)]
        numbers = [jnp.float64(v) for v in (1.5, 0.1, 0.7, 1.3)]

        def family(x, w, m, o, g, s, poly, scale):
            return softmax_loss(x, y, w, g, s, poly=poly, scale=scale, margins=m, offsets=o)

        check_grads(family, (x, *arrays, *numbers), order=1, modes=["rev"], rtol=1e-4)
