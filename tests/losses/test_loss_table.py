"""Losses outside the softmax family, the table of all, and the mixture that lanes choose among."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.special import log_expit

from fishnet.errors import UsageError
from fishnet.losses import (
    FAMILIES,
    FAMILY_NUMBERS,
    LOSSES,
    cross_entropy,
    defer_weights,
    effective_number,
    focal,
    hinge,
    ldam,
    ldam_margins,
    log_priors,
    mixed_loss,
    mse,
    neutral_numbers,
    one_vs_rest,
    poly1,
    softmax_loss,
)
from tests.losses.examples import LABELS, LOGITS, NEEDS, WEIGHTS, B, K, labels, logits, margins, offsets, weights


def test_names_in_saved_sweeps_are_still_there() -> None:
    names = "cross_entropy class_weighted focal class_balanced_focal ldam logit_adjusted poly1 one_vs_rest mse hinge"
    assert set(names.split()) <= set(LOSSES)


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
        (lambda: defer_weights(weights, 0.5, 1.5), r"start must be in \[0, 1\], got 1.5"),
        (lambda: ldam_margins([0, 0]), "class counts"),
        (lambda: log_priors([3, -4]), "class counts"),
    ],
)
def test_numbers_out_of_range_are_refused(f, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        f()


@pytest.fixture
def no_annotations():
    """Without the checks of shapes and types that tests alone have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", LOSSES)
def test_what_would_broadcast_or_name_no_class_is_refused(name: str, no_annotations: None) -> None:
    loss, more = LOSSES[name], NEEDS.get(name, ())
    wrong = {
        "must be integers.* not float32": (logits, labels + jnp.float32(0.7), *more),
        "must be integers.* not bool": (logits, labels > 0, *more),
        r"\(40, 7\) and labels \(40, 1\) are not": (logits, labels[:, None], *more),
        r"\(40, 7\) and labels \(1,\) are not": (logits, labels[:1], *more),
        r"\(7,\) and labels \(\) are not": (logits[0], labels[0], *more),
    }
    if more:
        wrong[r"\(1,\) are not \[7\], one for each class"] = logits, labels, more[0][:1]
        wrong["must be .* or more, got"] = logits, labels, more[0].at[2].set(jnp.nan)
    for message, given in wrong.items():
        with pytest.raises(UsageError, match=message):
            loss(*given)
    one_hot = jax.nn.one_hot(labels, K)
    with pytest.raises(UsageError, match="are not"):
        loss(logits, one_hot, *more)


WEIGHTED = ["class_weighted", "focal", "poly1", "one_vs_rest", "mse", "hinge"]


@pytest.mark.parametrize("name", WEIGHTED)
def test_negative_weights_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="class weights must be 0 or more"):
        LOSSES[name](logits, labels, class_weights=-weights)


@pytest.mark.parametrize("kind", [-1, 4, np.int32(4), 0.5])
def test_a_family_that_there_is_not_is_refused_not_clamped(kind: float) -> None:
    with pytest.raises(UsageError, match="is not a position in softmax, one_vs_rest"):
        mixed_loss(kind, logits, labels, neutral_numbers(K))
