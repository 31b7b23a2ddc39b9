"""Sampling by class against exact integers in Python, and the distributions of what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fishnet.augment.sampling import (
    TOTAL,
    balanced_positions,
    choose_by_class,
    class_balanced_order,
    class_mask,
    sampling_weights,
    weighted_positions,
)
from fishnet.errors import UsageError

KEY = jax.random.key(0)
COUNTS = np.array([2000, 300, 40, 0, 5])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS)).astype(np.int32)
N = len(LABELS)
ORDER = np.random.default_rng(1).permutation(N).astype(np.int32)

weighted_jit = jax.jit(weighted_positions, static_argnums=2)
balanced_jit = jax.jit(balanced_positions)
epochs_jit = jax.jit(jax.vmap(balanced_positions, (0, None, None, None)))


def by_hand(key: jax.Array, weights: np.ndarray, size: int) -> list[int]:
    """The image whose stretch of the sum of weights the random bits, a fraction of it, fall into."""
    total, positions = int(np.sum(weights, dtype=np.int64)), []
    for bits in np.asarray(jax.random.bits(key, (size,))):
        place, position = int(bits) * total >> 32, 0
        while place >= weights[position]:
            place -= int(weights[position])
            position += 1
        positions.append(position)
    return positions


@pytest.mark.parametrize("strength", [0.25, 0.5, 1, 2.0])
def test_weights_are_powers_of_the_counts(strength: float) -> None:
    weights = sampling_weights(COUNTS, strength)
    assert weights.dtype == np.int32
    present = COUNTS > 0
    exact = COUNTS[present] ** -float(strength)
    np.testing.assert_allclose(weights[present] / weights[present].sum(), exact / exact.sum(), rtol=1e-3)
    assert weights[3] == 0
    assert 0.99 * TOTAL < int(weights.astype(np.int64) @ COUNTS) <= TOTAL


def test_a_strength_of_one_gives_classes_the_same_share() -> None:
    np.testing.assert_allclose((sampling_weights(COUNTS, 1) * COUNTS / TOTAL)[COUNTS > 0], 0.25, rtol=1e-5)


def test_a_strength_of_zero_gives_every_class_the_weight_one() -> None:
    np.testing.assert_array_equal(sampling_weights(COUNTS, 0), 1)


def test_no_class_that_has_images_is_lost_however_strong() -> None:
    weights = sampling_weights([10**6, 1, 0], 50)
    assert weights[0] == 1
    assert weights[2] == 0
    assert weights[1] + 10**6 <= TOTAL


@pytest.mark.parametrize(
    "weights", [[1, 0, 7, 3, 0], [2**31 - 1], [2**30, 2**30 - 1], [0, 0, 1, 0], [65535, 65536, 65537, 2**29, 0]]
)
def test_positions_are_those_of_exact_integers(weights: list[int]) -> None:
    got = weighted_jit(KEY, np.array(weights, np.int32), 500)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, by_hand(KEY, np.array(weights, np.int32), 500))


def test_each_image_is_drawn_as_often_as_its_weight_says() -> None:
    weights = np.array([5, 0, 1, 30, 14, 0, 50], np.int32)
    counts = np.bincount(weighted_jit(KEY, weights, 20_000), minlength=7)
    assert not counts[weights == 0].any()
    expected = 20_000 * weights[weights > 0] / 100
    assert stats.chisquare(counts[weights > 0], expected).pvalue > 1e-3


def test_without_strength_the_order_is_exactly_the_given_one() -> None:
    np.testing.assert_array_equal(balanced_jit(KEY, ORDER, LABELS, sampling_weights(COUNTS, 0)), ORDER)
    np.testing.assert_array_equal(balanced_jit(KEY, ORDER[:100], LABELS, np.full(5, 77, np.int32)), ORDER[:100])


def test_an_epoch_is_drawn_from_the_order() -> None:
    got = balanced_jit(KEY, ORDER[:100], LABELS, sampling_weights(COUNTS, 0.5))
    expected = by_hand(KEY, sampling_weights(COUNTS, 0.5)[LABELS[ORDER[:100]]], 100)
    np.testing.assert_array_equal(got, ORDER[:100][expected])


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_epochs_show_classes_and_images_at_their_rates(strength: float) -> None:
    epochs = np.asarray(epochs_jit(jax.random.split(KEY, 40), ORDER, LABELS, sampling_weights(COUNTS, strength)))
    assert epochs.shape == (40, N)
    present = COUNTS > 0
    exact = COUNTS[present] ** (1 - strength)
    classes = np.bincount(LABELS[epochs].ravel(), minlength=5)[present]
    assert stats.chisquare(classes, 40 * N * exact / exact.sum()).pvalue > 1e-3
    for c in np.flatnonzero(present):  # and within a class all images alike
        images = np.bincount(epochs.ravel(), minlength=N)[c == LABELS]
        assert stats.chisquare(images).pvalue > 1e-3


def test_successive_draws_are_independent() -> None:
    epoch = LABELS[np.asarray(balanced_jit(KEY, ORDER, LABELS, sampling_weights(COUNTS, 1)))]
    pairs = np.zeros((5, 5))
    np.add.at(pairs, (epoch[:-1], epoch[1:]), 1)
    pairs = pairs[COUNTS > 0][:, COUNTS > 0]
    assert stats.chi2_contingency(pairs).pvalue > 1e-3


def test_a_run_gets_the_same_positions_alone_and_beside_others_of_other_strengths() -> None:
    keys = jax.random.split(KEY, 3)
    weights = np.stack([sampling_weights(COUNTS, s) for s in (0, 0.5, 1)])
    alone = np.stack([balanced_jit(key, ORDER, LABELS, w) for key, w in zip(keys, weights, strict=True)])
    together = jax.jit(jax.vmap(balanced_positions, (0, None, None, 0)))(keys, ORDER, LABELS, weights)
    np.testing.assert_array_equal(together, alone)
    mapped = jax.jit(lambda *runs: jax.lax.map(lambda run: balanced_positions(run[0], ORDER, LABELS, run[1]), runs))
    np.testing.assert_array_equal(mapped(keys, weights), alone)


def test_class_balanced_order_shows_classes_equally_often() -> None:
    got = np.asarray(class_balanced_order(KEY, LABELS, 8000))
    counts = np.bincount(LABELS[got], minlength=5)
    assert counts[3] == 0
    assert stats.chisquare(counts[COUNTS > 0]).pvalue > 1e-3


def test_images_of_masked_classes_come_from_the_stronger_augmentation() -> None:
    rng = np.random.default_rng(0)
    usual, stronger = (rng.integers(0, 256, (7, 3, 4, 2)).astype(np.uint8) for _ in range(2))
    labels, mask = np.array([0, 1, 2, 3, -1, 4, 1], np.int32), np.array([False, True, False, True])
    got = jax.jit(choose_by_class)(labels, mask, stronger, usual)
    assert got.dtype == jnp.uint8
    for i, label in enumerate(labels):
        np.testing.assert_array_equal(got[i], stronger[i] if label in (1, 3) else usual[i])
    np.testing.assert_array_equal(choose_by_class(labels, np.zeros(4, bool), stronger, usual), usual)
    np.testing.assert_array_equal(
        choose_by_class(labels, mask, stronger[:, 0, 0, 0], usual[:, 0, 0, 0])[1], got[1, 0, 0, 0]
    )


def test_a_mask_names_classes_and_refuses_those_that_do_not_exist() -> None:
    np.testing.assert_array_equal(class_mask(["bass", "carp", "eel"], ["eel", "bass"]), [True, False, True])
    np.testing.assert_array_equal(class_mask(["bass", "carp"], []), [False, False])
    with pytest.raises(UsageError, match="unknown class 'crap': valid are bass, carp; did you mean 'carp'"):
        class_mask(["bass", "carp"], ["crap"])


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda: sampling_weights([3, 4], -0.5), "strength of class-balanced sampling must be 0 or more, got -0.5"),
        (lambda: sampling_weights([3, 4], float("nan")), "strength"),
        (lambda: sampling_weights([0, 0], 1), "class counts"),
        (lambda: sampling_weights([3, -4], 1), "class counts"),
        (lambda: class_balanced_order(KEY, np.array([], int), 3), "needs labels"),
        (lambda: class_balanced_order(KEY, np.array([1, -1]), 3), "labels must be .* got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(f, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        f()


@pytest.mark.parametrize("weights", [[0.3, 0.7], [1, -1], [0, 0], [2**31 - 1, 1], [float("nan"), 1]])
def test_weights_that_integers_would_falsify_are_refused(weights: list[float]) -> None:
    for given in (weights, np.array(weights), jnp.array(weights, jnp.float32)):
        with pytest.raises(UsageError, match="sampling weights must be whole numbers"):
            weighted_positions(KEY, given, 10)


@pytest.mark.parametrize("labels", [[0, 1.5], [True, False], ["0", "1"], [float("nan")]])
def test_labels_that_are_no_whole_numbers_are_refused(labels: list) -> None:
    with pytest.raises(UsageError, match="labels must be whole numbers"):
        class_balanced_order(KEY, labels, 10)


def test_examples_of_two_types_are_not_mixed() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="examples of float32 and uint8 cannot be mixed"):
        choose_by_class(np.array([0, 1]), np.array([True, False]), images.astype(np.float32) / 255, images)
