"""Losses against optax, SciPy, scikit-learn and PyTorch, a reference written out in float64, and finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.special import log_expit, log_softmax
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from fishnet.errors import UsageError
from fishnet.losses import (
    CLASS_WEIGHTINGS,
    FAMILIES,
    FAMILY_NUMBERS,
    LOSSES,
    class_balanced_focal,
    class_weighted,
    class_weights,
    cross_entropy,
    deferred,
    effective_number,
    focal,
    hinge,
    ldam,
    ldam_margins,
    log_priors,
    logit_adjusted,
    mixed_loss,
    mse,
    neutral_numbers,
    one_vs_rest,
    poly1,
    softmax_loss,
)

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

B, K = 40, 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, K)).astype(np.float32) * 4
LABELS = RNG.integers(0, K, B)
WEIGHTS = RNG.uniform(0, 3, K).astype(np.float32)

MARGINS = RNG.uniform(0, 0.5, K).astype(np.float32)
OFFSETS = -RNG.uniform(0, 3, K).astype(np.float32)

logits, labels, weights = jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(WEIGHTS)
margins, offsets = jnp.asarray(MARGINS), jnp.asarray(OFFSETS)
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


# What each entry of the table needs beyond logits and labels.
NEEDS = {
    "class_weighted": (weights,),
    "class_balanced_focal": (weights,),
    "ldam": (margins,),
    "logit_adjusted": (offsets,),
}


def test_the_table_holds_the_losses() -> None:
    names = "cross_entropy class_weighted focal class_balanced_focal ldam logit_adjusted poly1 one_vs_rest mse hinge"
    assert list(LOSSES) == names.split()


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


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_one_vs_rest_equals_scipys_sigmoids(smoothing: float) -> None:
    x, target = LOGITS.astype(float), (1 - smoothing) * np.eye(K)[LABELS] + smoothing / K
    expected = -(target * log_expit(x) + (1 - target) * log_expit(-x)).sum(1)
    np.testing.assert_allclose(one_vs_rest(logits, labels, None, smoothing), expected, rtol=1e-5, atol=1e-6)
    expected = WEIGHTS[LABELS] * expected
    np.testing.assert_allclose(one_vs_rest(logits, labels, weights, smoothing), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mse_equals_numpys(smoothing: float) -> None:
    expected = ((LOGITS - (1 - smoothing) * np.eye(K)[LABELS] - smoothing / K) ** 2).mean(1)
    np.testing.assert_allclose(mse(logits, labels, None, smoothing), expected, rtol=1e-5)
    np.testing.assert_allclose(mse(logits, labels, weights, smoothing), WEIGHTS[LABELS] * expected, rtol=1e-5)


def test_hinge_is_crammer_and_singers() -> None:
    expected = [max(0, 1 + max(np.delete(row, y)) - row[y]) for row, y in zip(LOGITS, LABELS, strict=True)]
    np.testing.assert_allclose(hinge(logits, labels), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hinge(logits, labels, weights), WEIGHTS[LABELS] * expected, rtol=1e-5, atol=1e-6)
    assert float(hinge(jnp.asarray([[3.0, 1.0, 1.9]]), jnp.asarray([0]))[0]) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_gives_a_number_an_example_and_nan_for_a_label_outside(name: str) -> None:
    y = labels.at[0].set(-1).at[1].set(K)
    for x in (logits, logits.astype(jnp.bfloat16)):
        got = LOSSES[name](x, y, *NEEDS.get(name, ()))
        assert (got.shape, got.dtype) == ((B,), jnp.float32)
        np.testing.assert_array_equal(np.isnan(got), np.arange(B) < 2)
    with pytest.raises(UsageError, match="at least 2 classes, the logits have 1"):
        LOSSES[name](logits[:, :1], labels, *(a[:1] for a in NEEDS.get(name, ())))


@pytest.mark.parametrize("name", LOSSES)
def test_every_losses_gradient_equals_finite_differences(name: str) -> None:
    with jax.enable_x64(True):
        x, y = jnp.asarray(LOGITS[:6], jnp.float64), jnp.asarray(LABELS[:6])
        more = [jnp.asarray(a, jnp.float64) for a in NEEDS.get(name, ())]
        check_grads(lambda x, *more: LOSSES[name](x, y, *more), (x, *more), order=1, modes=["rev"], rtol=1e-4)


def test_the_familys_gradient_in_every_number_equals_finite_differences() -> None:
    with jax.enable_x64(True):
        x, y = jnp.asarray(LOGITS[:6], jnp.float64), jnp.asarray(LABELS[:6])
        arrays = [jnp.asarray(a, jnp.float64) for a in (WEIGHTS, MARGINS, OFFSETS)]
        numbers = [jnp.float64(v) for v in (1.5, 0.1, 0.7, 1.3)]

        def family(x, w, m, o, g, s, poly, scale):
            return softmax_loss(x, y, w, g, s, poly=poly, scale=scale, margins=m, offsets=o)

        check_grads(family, (x, *arrays, *numbers), order=1, modes=["rev"], rtol=1e-4)


@pytest.mark.parametrize("family", range(len(FAMILIES)), ids=FAMILIES)
@pytest.mark.parametrize("size", [1e2, 1e18, 3.4e38])
def test_every_family_has_finite_gradients_at_any_finite_logits(family: int, size: float) -> None:
    x = jnp.asarray([[size, -size, 0], [size, -size, 0], [-size, size, size], [0, 0, 0]], jnp.float32)
    numbers = neutral_numbers(3).replace(class_weights=jnp.asarray([0.0, 1.0, 0.5]))
    more = {"gamma": jnp.float32(2), "smoothing": jnp.float32(0.1), "poly": jnp.float32(1), "scale": jnp.float32(30)}
    y = jnp.asarray([0, 1, 2, 1])
    for n in (numbers, numbers.replace(**more)):
        values, gradient = MIXED_WITH_GRADIENT(jnp.int32(family), x, y, n)
        assert np.isfinite(gradient).all()
        # A square, or a sum of such logits, is beyond float32.
        assert np.isfinite(values).all() or size > 1e38
        assert not np.isnan(values).any()


MIXED_WITH_GRADIENT = jax.jit(
    lambda i, x, y, n: (mixed_loss(i, x, y, n), jax.grad(lambda x: mixed_loss(i, x, y, n).sum())(x))
)


def test_mixed_loss_is_each_family_in_turn_also_beside_the_others() -> None:
    numbers = neutral_numbers(K).replace(
        class_weights=weights,
        gamma=jnp.float32(2),
        smoothing=jnp.float32(0.1),
        poly=jnp.float32(1),
        scale=jnp.float32(2),
        margins=margins,
        offsets=offsets,
    )
    expected = {
        "softmax": softmax_loss(
            logits, labels, weights, 2.0, 0.1, poly=1.0, scale=2.0, margins=margins, offsets=offsets
        ),
        "one_vs_rest": one_vs_rest(logits, labels, weights, 0.1),
        "mse": mse(logits, labels, weights, 0.1),
        "hinge": hinge(logits, labels, weights),
    }
    assert tuple(expected) == FAMILIES == tuple(FAMILY_NUMBERS)
    together = jax.jit(jax.vmap(mixed_loss, (0, None, None, None)))(jnp.arange(4), logits, labels, numbers)
    for i, name in enumerate(FAMILIES):
        alone, _ = MIXED_WITH_GRADIENT(jnp.int32(i), logits, labels, numbers)
        np.testing.assert_allclose(alone, expected[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(together[i], expected[name], rtol=1e-5, atol=1e-6)


def test_family_numbers_says_which_numbers_matter() -> None:
    changed = {"gamma": 2.0, "smoothing": 0.3, "poly": 1.0, "scale": 3.0}
    changed = {name: jnp.float32(value) for name, value in changed.items()}
    changed |= {"class_weights": weights, "margins": margins, "offsets": offsets}
    for i, name in enumerate(FAMILIES):
        plain, _ = MIXED_WITH_GRADIENT(jnp.int32(i), logits, labels, neutral_numbers(K))
        for number, value in changed.items():
            got, _ = MIXED_WITH_GRADIENT(jnp.int32(i), logits, labels, neutral_numbers(K).replace(**{number: value}))
            assert (np.asarray(got) != np.asarray(plain)).any() == (number in FAMILY_NUMBERS[name])


@pytest.mark.parametrize("index", [-1, 4])
def test_a_family_that_is_none_is_refused(index: int) -> None:
    with pytest.raises(UsageError, match="is not a position in softmax, one_vs_rest, mse, hinge"):
        mixed_loss(index, logits, labels, neutral_numbers(K))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda: focal(logits, labels, -1.0), r"gamma must be in \[0, inf\), got -1.0"),
        (lambda: cross_entropy(logits, labels, 1), r"smoothing must be in \[0, 1\), got 1"),
        (lambda: mse(logits, labels, None, -0.1), "smoothing"),
        (lambda: one_vs_rest(logits, labels, None, 1.5), "smoothing"),
        (lambda: poly1(logits, labels, -1.5), r"poly must be in \[-1, inf\)"),
        (lambda: ldam(logits, labels, margins, scale=0), r"scale must be in \(0, inf\)"),
        (lambda: ldam(logits, labels, margins, scale=float("nan")), "scale"),
        (lambda: ldam_margins([3, 4], -0.5), "largest"),
        (lambda: log_priors([3, 4], -1), "tau"),
        (lambda: effective_number(np.array([3.0, 4.0]), 1.0), "beta"),
        (lambda: deferred(weights, 0.5, 1.5), r"start must be in \[0, 1\], got 1.5"),
        (lambda: ldam_margins([0, 0]), "class counts"),
        (lambda: log_priors([3, -4]), "class counts"),
    ],
)
def test_numbers_out_of_range_are_refused(f, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        f()


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
    f = jax.jit(deferred)
    for progress in (0.0, 0.3, 0.799):
        np.testing.assert_array_equal(f(weights, progress), np.ones(K))
    for progress in (0.8, 0.99):
        np.testing.assert_array_equal(f(weights, progress), weights)
    np.testing.assert_array_equal(deferred(weights, 0.0, 0), weights)
    np.testing.assert_array_equal(deferred(weights, 0.999, 1), np.ones(K))
