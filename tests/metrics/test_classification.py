"""Metrics against scikit-learn and loops over samples, for single runs and for many at once."""

import math

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as sk

from fishnet.errors import UsageError
from fishnet.metrics import classification as metrics
from fishnet.metrics import roc

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SUMMARY = ["loss", "accuracy", "balanced_accuracy", "macro_auc", "macro_f1", "ece"]


def sample(n: int = 80, k: int = 5, runs: tuple[int, ...] = (), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    return labels, (2 * rng.normal(size=(*runs, n, k)) + 1.5 * np.eye(k)[labels]).astype(np.float32)


def ece_by_hand(labels: np.ndarray, p: np.ndarray, bins: int = 15) -> float:
    """Guo et al., equation 3: a bin and a sample at a time."""
    total = 0.0
    for b in range(1, bins + 1):
        inside = [i for i in range(len(labels)) if (b - 1) / bins < p[i].max() <= b / bins]
        if inside:
            accuracy = sum(p[i].argmax() == labels[i] for i in inside) / len(inside)
            confidence = sum(p[i].max() for i in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


def oracle(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    p = softmax(logits.astype(np.float64), -1)
    guess = p.argmax(-1)
    return {
        "loss": sk.log_loss(labels, p, labels=range(p.shape[-1])),
        "accuracy": sk.accuracy_score(labels, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, guess),
        "macro_auc": sk.roc_auc_score(labels, p, multi_class="ovr"),
        "macro_f1": sk.f1_score(labels, guess, average="macro"),
        "ece": ece_by_hand(labels, p),
    }


@pytest.mark.parametrize("seed", range(5))
def test_summary_equals_scikit_learn(seed: int) -> None:
    labels, logits = sample(seed=seed)
    got = metrics.summary(labels, logits)
    assert list(got) == SUMMARY
    assert got == pytest.approx(oracle(labels, logits), rel=1e-12, abs=1e-12)


def test_a_run_among_many_has_the_figures_it_has_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = sample(runs=(3, 4))
    whole = metrics.summary(labels, logits)
    classes = metrics.per_class(labels, logits) | metrics.class_metrics(labels, logits)
    for where in np.ndindex(3, 4):
        alone = metrics.summary(labels, logits[where])
        assert {name: value[where] for name, value in whole.items()} == alone
        alone = metrics.per_class(labels, logits[where]) | metrics.class_metrics(labels, logits[where])
        for name, value in alone.items():
            np.testing.assert_array_equal(classes[name][where], value)
    monkeypatch.setattr(metrics, "CHUNK", 1)  # a run at a time
    for name, value in metrics.summary(labels, logits).items():
        np.testing.assert_array_equal(whole[name], value)


def test_ties_of_the_top_logit_go_to_the_first_class() -> None:
    counts = metrics.confusion(np.array([0, 1]), np.zeros((2, 2)).argmax(-1), 2)
    np.testing.assert_array_equal(counts, [[1, 0], [1, 0]])


def test_classes_without_samples_are_left_out_as_scikit_learn_does() -> None:
    labels, logits = sample(k=6)
    labels = np.where(labels == 3, 0, labels)  # class 3 is predicted, but never right
    logits[:, 5] = -50  # class 5 has samples and is never predicted
    got = metrics.summary(labels, logits)
    guess = logits.argmax(-1)
    assert 3 in guess
    assert got["balanced_accuracy"] == pytest.approx(np.mean([(guess[labels == c] == c).mean() for c in {*labels}]))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(labels, guess, average="macro", zero_division=0))
    present = [c for c in range(6) if c != 3]
    p = softmax(logits.astype(float), -1)
    assert got["macro_auc"] == pytest.approx(np.mean([sk.roc_auc_score(labels == c, p[:, c]) for c in present]))


def test_per_class_equals_scikit_learn() -> None:
    labels, logits = sample()
    p = softmax(logits.astype(float), -1)
    got = metrics.per_class(labels, logits)
    assert list(got) == ["support", "auc", "auc_low", "auc_high", "recall", "precision"]
    precision, recall, _, support = sk.precision_recall_fscore_support(labels, p.argmax(-1))
    np.testing.assert_array_equal(got["support"], support)
    np.testing.assert_allclose(got["precision"], precision)
    np.testing.assert_allclose(got["recall"], recall)
    np.testing.assert_allclose(got["auc"], [sk.roc_auc_score(labels == c, p[:, c]) for c in range(5)])
    assert ((got["auc_low"] < got["auc"]) & (got["auc"] < got["auc_high"])).all()


def test_class_figures_are_those_of_the_classes_samples() -> None:
    labels, logits = sample()
    got = metrics.class_metrics(labels, logits)
    np.testing.assert_array_equal(got["auc"], metrics.per_class(labels, logits)["auc"])
    expected = [metrics.nll(labels[labels == c], logits[labels == c]) for c in range(5)]
    np.testing.assert_allclose(got["loss"], expected, rtol=1e-12)
    assert np.dot(got["loss"], np.bincount(labels)) / 80 == pytest.approx(metrics.summary(labels, logits)["loss"])


def test_per_class_is_nan_where_there_is_nothing_to_divide_by() -> None:
    labels, logits = np.array([0, 0, 1]), np.array([[2.0, 0, 1], [2, 0, 1], [2, 0, 1]])
    got = metrics.per_class(labels, logits) | metrics.class_metrics(labels, logits)
    np.testing.assert_array_equal(got["support"], [2, 1, 0])
    np.testing.assert_array_equal(got["recall"], [1, 0, np.nan])
    np.testing.assert_array_equal(got["precision"], [2 / 3, np.nan, np.nan])
    assert np.isnan([got[name][2] for name in ("auc", "auc_low", "auc_high", "loss")]).all()


def test_confusion_equals_scikit_learn() -> None:
    labels, logits = sample(runs=(2,))
    got = metrics.confusion(labels, logits.argmax(-1), 5)
    assert got.shape == (2, 5, 5)
    for run in range(2):
        np.testing.assert_array_equal(got[run], sk.confusion_matrix(labels, logits[run].argmax(-1)))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_outside_the_matrix_is_refused(wrong: int) -> None:
    for labels, guess in (([0, wrong], [0, 0]), ([0, 0], [0, wrong])):
        with pytest.raises(UsageError, match=r"must be whole numbers in \[0, 3\), got"):
            metrics.confusion(np.array(labels), np.array(guess), 3)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(REPEATABLE, max_examples=60)
def test_what_a_confusion_matrix_adds_up_to(pairs: list[tuple[int, int]]) -> None:
    labels, guess = np.array(pairs).T
    counts = metrics.confusion(labels, guess, 4)
    np.testing.assert_array_equal(counts.sum(1), np.bincount(labels, minlength=4))
    np.testing.assert_array_equal(counts.sum(0), np.bincount(guess, minlength=4))
    assert metrics.accuracy(counts) == pytest.approx((labels == guess).mean())
    assert metrics.balanced_accuracy(counts) == pytest.approx(
        np.mean([(guess[labels == c] == c).mean() for c in set(labels.tolist())])
    )
    assert metrics.macro_f1(counts) == pytest.approx(sk.f1_score(labels, guess, average="macro", zero_division=0))


def test_nll_is_exact_where_probabilities_underflow() -> None:
    assert metrics.nll(np.array([1]), np.array([[1e4, 0.0]])) == 1e4
    assert metrics.nll(np.array([0]), np.array([[1e4, 0.0]])) == 0
    assert metrics.nll(np.array([0, 1]), np.zeros((2, 8))) == pytest.approx(math.log(8))


def test_ece_of_known_cases() -> None:
    sure = np.tile([1.0, 0.0], (4, 1))
    assert metrics.ece(np.array([0, 0, 0, 0]), sure) == 0
    assert metrics.ece(np.array([0, 1, 1, 1]), sure) == 0.75
    # Two bins whose errors have opposite signs do not cancel: |1 - 0.8| and |0 - 0.6|, half the samples each.
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])
    assert metrics.ece(np.array([0, 0, 1, 1]), p) == pytest.approx(0.4)
    # The top bin holds what rounding put above 1.
    assert metrics.ece(np.array([0]), np.array([[1 + 1e-15, 0.0]])) < 1e-14
    # A confidence on an edge belongs to the bin below it: 0.5 with 0.4 in (0, 0.5], not with 0.8 in (0.5, 1].
    p = np.array([[0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])
    assert metrics.ece(np.array([0, 1, 0]), p, bins=2) == pytest.approx((abs(1 - 0.9) + 0.2) / 3)


def test_a_diverged_run_is_nan_and_its_neighbours_are_not() -> None:
    labels, logits = sample(runs=(3,))
    logits[1, 4, 2] = np.nan
    logits[2, 0, 0] = np.inf
    got, alone = metrics.summary(labels, logits), metrics.summary(labels, logits[0])
    for name in SUMMARY:
        np.testing.assert_array_equal(got[name], [alone[name], np.nan, np.nan])
    classes = metrics.per_class(labels, logits)
    np.testing.assert_array_equal(classes["support"], np.tile(np.bincount(labels), (3, 1)))
    assert np.isnan(classes["auc"][1:]).all()
    assert not np.isnan(classes["auc"][0]).any()


def test_no_runs_give_empty_columns() -> None:
    labels, logits = sample(runs=(0,))
    assert {name: value.shape for name, value in metrics.summary(labels, logits).items()} == dict.fromkeys(
        SUMMARY, (0,)
    )


def test_inputs_are_left_as_they_are() -> None:
    labels, logits = sample()
    logits = logits.astype(np.float64)
    before = logits.copy()
    metrics.summary(labels, logits)
    metrics.per_class(labels, logits)
    metrics.nll(labels, logits)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([], np.zeros((0, 3)), "above 0"),
        ([0, 1], np.zeros((3, 2)), "are not"),
        ([[0, 1]], np.zeros((2, 2)), "are not"),
        ([0, 1], np.zeros(2), "are not"),
        ([0, 2], np.zeros((2, 2)), r"labels must be whole numbers in \[0, 2\), got 2"),
        ([-1, 1], np.zeros((2, 2)), "labels must be .* got -1"),
    ],
)
def test_what_does_not_fit_is_refused(labels: list, logits: np.ndarray, message: str) -> None:
    for f in (metrics.summary, metrics.class_metrics, metrics.per_class):
        with pytest.raises(UsageError, match=message):
            f(np.array(labels, int), logits)


@pytest.mark.parametrize("label", [0.5, 1.7, -1, 3, np.nan, 2**32, "1", True])
def test_no_label_is_rounded_wrapped_or_left_out(label: object) -> None:
    labels, logits = np.array([0, label] if label is not True else [False, True]), np.zeros((2, 3))
    p = np.full((2, 3), 1 / 3)
    for f in (
        lambda: metrics.summary(labels, logits),
        lambda: metrics.per_class(labels, logits),
        lambda: metrics.nll(labels, logits),
        lambda: metrics.confusion([0, 0], labels, 3),
        lambda: metrics.confusion(labels, [0, 0], 3),
        lambda: metrics.ece(labels, p),
        lambda: roc.one_vs_rest_auc(labels, p),
        lambda: roc.macro_auc(labels, p),
        lambda: roc.delong_interval(labels, p),
    ):
        with pytest.raises(UsageError, match="must be whole numbers"):
            f()


def test_labels_that_are_whole_floats_are_counted_like_integers() -> None:
    logits = np.random.default_rng(0).normal(size=(9, 3))
    labels = np.arange(9) % 3
    for f in (metrics.summary, metrics.per_class, metrics.class_metrics):
        jax.tree.map(np.testing.assert_array_equal, f(labels.astype(float), logits), f(labels, logits))


def test_calibration_of_logits_is_refused() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3))
    for values in (logits, np.abs(logits), np.full((5, 3), np.nan), np.array([[0.7, 0.7, -0.4]] * 5)):
        with pytest.raises(UsageError, match="logits need a softmax first"):
            metrics.ece(np.zeros(5, int), values)


def test_shapes_that_would_broadcast_are_refused() -> None:
    for f in (metrics.ece, metrics.nll, roc.one_vs_rest_auc):
        with pytest.raises(UsageError, match="are not"):
            f(np.array([1]), np.full((5, 3), 1 / 3))
    with pytest.raises(UsageError, match="are not"):
        metrics.confusion([1], [0, 1, 2], 3)
