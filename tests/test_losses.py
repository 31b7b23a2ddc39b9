"""Losses against optax, scikit-learn and PyTorch, a reference written out in float64, and finite differences."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from fishnet.errors import UsageError
from fishnet.losses import (
    CLASS_WEIGHTINGS,
    LOSSES,
    class_weighted,
    class_weights,
    cross_entropy,
    focal,
    softmax_loss,
)

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

B, K = 40, 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, K)).astype(np.float32) * 4
LABELS = RNG.integers(0, K, B)
WEIGHTS = RNG.uniform(0, 3, K).astype(np.float32)

logits, labels, weights = jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(WEIGHTS)


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


def test_the_table_holds_the_thin_functions() -> None:
    assert LOGITS.shape == (B, K)
    assert set(LOSSES) == {"cross_entropy", "class_weighted", "focal"}
    for name, arguments in {"cross_entropy": (), "class_weighted": (weights,), "focal": ()}.items():
        assert LOSSES[name](logits, labels, *arguments).shape == (B,)


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_pytorch(smoothing: float) -> None:
    torch = pytest.importorskip("torch", reason="torch comes with the bench extra")
    arguments = torch.tensor(LOGITS), torch.tensor(LABELS)
    f = partial(torch.nn.functional.cross_entropy, reduction="none", label_smoothing=smoothing)
    np.testing.assert_allclose(cross_entropy(logits, labels, smoothing), f(*arguments), rtol=1e-5, atol=1e-6)
    if smoothing == 0:  # with smoothing PyTorch weighs every class's share of the target
        expected = f(*arguments, weight=torch.tensor(WEIGHTS))
        np.testing.assert_allclose(class_weighted(logits, labels, weights), expected, rtol=1e-5, atol=1e-6)


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
    with pytest.raises(UsageError, match="unknown class weighting 'invers': valid are none, inverse; did you mean"):
        class_weights([1, 2], "invers")


@pytest.mark.parametrize("counts", [[0, 0], [3, -1], [[1, 2]], [float("nan"), 1]])
def test_counts_that_are_none_are_refused(counts: list) -> None:
    with pytest.raises(UsageError, match="class counts"):
        class_weights(counts, "inverse")
