"""Classification metrics in float64 on the host, for one run or for thousands at once.

Everywhere `labels` are [n] integers in [0, k) and `logits` [..., n, k], any leading axes being runs: the results are
[...] or [..., k]. Where a run has a logit that is not finite its metrics are NaN, not those of an arbitrary guess.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from fishnet.checks.arrays import ArrayLike, FloatOrArray, check_whole_numbers
from fishnet.errors import UsageError
from fishnet.metrics.roc import auc_interval, check_scores, macro_auc, nan_mean, one_vs_rest_auc, ratio

ECE_BINS = 15
ROUNDING = 1e-2  # of a sum of probabilities, such as of a thousand classes in half precision
CHUNK = 1 << 18  # logits worked on at a time: the temporaries of thousands of runs stay in the cache


def summary(labels: ArrayLike | Sequence, logits: ArrayLike | Sequence) -> dict[str, FloatOrArray]:
    """Computes the six metrics that the tables hold for each split.

    Args:
        labels: [n] integers in [0, k).
        logits: [..., n, k].

    Returns:
        `loss` (mean unweighted negative log likelihood, nats), `accuracy`, `balanced_accuracy`, `macro_auc` (of the
        probabilities), `macro_f1` and `ece`, each [...] float64.

    Raises:
        UsageError: no samples, or shapes or labels that do not fit.

    Example:
        >>> scores = summary([0, 1, 1], [[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> {name: round(float(score), 3) for name, score in scores.items()}
        {'loss': 0.584, 'accuracy': 0.667, 'balanced_accuracy': 0.75, 'macro_auc': 1.0, 'macro_f1': 0.667, 'ece': 0.194}
    """

    def evaluate(labels: np.ndarray, logits: np.ndarray) -> dict[str, FloatOrArray]:
        losses, probabilities = log_loss_and_probabilities(labels, logits)
        counts = confusion(labels, logits.argmax(-1), logits.shape[-1])
        return {
            "loss": losses.mean(-1),
            "accuracy": accuracy(counts),
            "balanced_accuracy": balanced_accuracy(counts),
            "macro_auc": macro_auc(labels, probabilities),
            "macro_f1": macro_f1(counts),
            "ece": ece(labels, probabilities),
        }

    return map_runs(evaluate, labels, logits)


def undefined_metrics(labels: Int[ArrayLike, " n"], classes: int) -> tuple[str, ...]:
    """Names of the metrics of `summary` that are undefined for these labels, whatever the logits.

    Args:
        labels: [n] integers in [0, classes).
        classes: k.

    Returns:
        `macro_auc` where all labels are of one class.
    """
    numbers = summary(labels, np.zeros((len(np.asarray(labels)), classes)))
    return tuple(name for name, value in numbers.items() if np.isnan(value))


def class_metrics(labels: ArrayLike | Sequence, logits: ArrayLike | Sequence) -> dict[str, FloatOrArray]:
    """Computes the metrics of each class that are recorded every epoch.

    Args:
        labels: [n] integers in [0, k).
        logits: [..., n, k].

    Returns:
        `auc` (one against the rest) and `loss` (mean negative log likelihood of the class's samples, nats), each
        [..., k] float64; NaN for a class without samples.

    Raises:
        UsageError: no samples, or shapes or labels that do not fit.
    """

    def evaluate(labels: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
        losses, probabilities = log_loss_and_probabilities(labels, logits)
        k = logits.shape[-1]
        # Not a matrix product: BLAS rounds by the number of runs, and a run must have the metrics that it has alone.
        sums = bincount_rows(np.broadcast_to(labels, losses.shape), losses, k)
        return {"auc": one_vs_rest_auc(labels, probabilities), "loss": ratio(sums, np.bincount(labels, minlength=k))}

    return map_runs(evaluate, labels, logits)


def per_class(
    labels: ArrayLike | Sequence, logits: ArrayLike | Sequence, confidence: float = 0.95
) -> dict[str, FloatOrArray]:
    """Computes the metrics that the tables hold for each class at the end of training.

    Args:
        labels: [n] integers in [0, k).
        logits: [..., n, k].
        confidence: of the interval from `auc_low` to `auc_high` (`roc.auc_interval`).

    Returns:
        `support` [..., k] int64 (samples), and `auc`, `auc_low`, `auc_high`, `recall` and `precision`, each [..., k]
        float64. AUC and recall of a class without samples and precision of a class never predicted are NaN.

    Raises:
        UsageError: no samples, or shapes or labels that do not fit, or a confidence that is not between 0 and 1.
    """

    def evaluate(labels: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
        probabilities = log_loss_and_probabilities(labels, logits)[1]
        counts = confusion(labels, logits.argmax(-1), logits.shape[-1])
        low, high = auc_interval(labels, probabilities, confidence)
        return {
            "auc": one_vs_rest_auc(labels, probabilities),
            "auc_low": low,
            "auc_high": high,
            "recall": ratio(diagonal(counts), counts.sum(-1)),
            "precision": ratio(diagonal(counts), counts.sum(-2)),
        }

    values = map_runs(evaluate, labels, logits)
    k = np.shape(logits)[-1]
    support = np.bincount(check_whole_numbers(labels, "labels", 0, k), minlength=k)
    return {"support": np.broadcast_to(support, np.shape(values["auc"])), **values}


def nll(labels: Int[ArrayLike, " n"], logits: Real[ArrayLike, "*runs n k"]) -> Float[FloatOrArray, "*runs"]:
    """Mean negative log likelihood in nats: `mean_i -log softmax(logits_i)[y_i]`.

    Args:
        labels: [n] integers in [0, k).
        logits: [..., n, k].

    Returns:
        [...] float64.

    Raises:
        UsageError: shapes or labels that do not fit.
    """
    labels, logits = check_scores(labels, logits, "logits")
    return log_loss_and_probabilities(labels, logits)[0].mean(-1)


def confusion(
    labels: Int[ArrayLike, " n"], predicted: Int[ArrayLike, "*runs n"], classes: int
) -> Int[np.ndarray, "*runs k k"]:
    """Confusion matrix: `counts[i, j]` samples of class i were predicted as class j.

    Args:
        labels: [n] integers in [0, classes).
        predicted: [..., n] integers in [0, classes).
        classes: k.

    Returns:
        [..., k, k] int64.

    Raises:
        UsageError: a label or prediction that is no whole number in [0, classes), or shapes that do not fit.

    Example:
        >>> print(confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), classes=2))
        [[1 0]
         [1 1]]
    """
    labels = check_whole_numbers(labels, "labels", 0, classes)
    predicted = check_whole_numbers(predicted, "predictions", 0, classes)
    if labels.ndim != 1 or predicted.shape[-1:] != labels.shape:
        raise UsageError(f"labels {labels.shape} and predictions {predicted.shape} are not [n] and [..., n]")
    return bincount_rows(labels * classes + predicted, None, classes**2).reshape(
        *predicted.shape[:-1], classes, classes
    )


def accuracy(counts: Int[ArrayLike, "*runs k k"]) -> Float[FloatOrArray, "*runs"]:
    """Accuracy, the fraction of correct samples: `trace / sum`.

    Args:
        counts: [..., k, k] confusion matrices.

    Returns:
        [...] float64.
    """
    return ratio(diagonal(counts).sum(-1), np.sum(counts, (-2, -1)))


def balanced_accuracy(counts: Int[ArrayLike, "*runs k k"]) -> Float[FloatOrArray, "*runs"]:
    """Balanced accuracy, the mean recall over the classes that have samples: `mean_c TP_c / n_c`.

    Args:
        counts: [..., k, k] confusion matrices.

    Returns:
        [...] float64.

    Source: Brodersen et al. 2010, https://doi.org/10.1109/ICPR.2010.764
    """
    return nan_mean(ratio(diagonal(counts), np.sum(counts, -1)))


def macro_f1(counts: Int[ArrayLike, "*runs k k"]) -> Float[FloatOrArray, "*runs"]:
    """Macro F1, the mean over classes of `2 TP / (2 TP + FP + FN)`.

    Classes that have neither samples nor predictions are left out.

    Args:
        counts: [..., k, k] confusion matrices.

    Returns:
        [...] float64.

    Source: scikit-learn's `f1_score(average="macro")`, whose choice of classes this is.
    """
    return nan_mean(ratio(2 * diagonal(counts), np.sum(counts, -1) + np.sum(counts, -2)))


def ece(
    labels: Int[ArrayLike, " n"], probabilities: Real[ArrayLike, "*runs n k"], bins: int = ECE_BINS
) -> Float[FloatOrArray, "*runs"]:
    """Expected calibration error of the top probability: `sum_b (n_b / n) |accuracy_b - mean confidence_b|`.

    Args:
        labels: [n] integers in [0, k).
        probabilities: [..., n, k], rows that add up to 1.
        bins: B equal-width bins, bin b being `((b - 1) / B, b / B]`.

    Returns:
        [...] float64 in [0, 1].

    Raises:
        UsageError: shapes or labels that do not fit, or rows that are no probabilities, such as logits.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    labels, probabilities = check_scores(labels, probabilities, "probabilities")
    if not ((probabilities >= 0).all() and (np.abs(probabilities.sum(-1) - 1) < ROUNDING).all()):
        raise UsageError("rows of probabilities must be 0 or more and add up to 1; logits need a softmax first")
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    of_bin = np.searchsorted(np.arange(1, bins) / bins, confidence)
    return np.abs(bincount_rows(of_bin, right - confidence, bins)).sum(-1) / confidence.shape[-1]


def map_runs(f: Callable, labels: ArrayLike | Sequence, logits: ArrayLike | Sequence) -> dict[str, FloatOrArray]:
    """Maps `f(labels [n], logits [r, n, k])` over the leading axes, a few runs at a time; NaN for non-finite logits.

    Returns:
        The dictionary of arrays [r, ...] that `f` gives, their first axis turned into the leading axes of `logits`.

    Raises:
        UsageError: no samples, or shapes or labels that do not fit.
    """
    labels, logits = np.asarray(labels), np.asarray(logits)
    if labels.ndim != 1 or logits.ndim < 2 or logits.shape[-2] != len(labels) or 0 in logits.shape[-2:]:
        raise UsageError(f"labels {labels.shape} and logits {logits.shape} are not [n] and [..., n, k] above 0")
    labels = check_whole_numbers(labels, "labels", 0, logits.shape[-1])
    lead, (n, k) = logits.shape[:-2], logits.shape[-2:]
    runs = logits.reshape(-1, n, k)
    size = max(1, CHUNK // (n * k))
    parts = []
    for start in range(0, max(len(runs), 1), size):
        part = np.asarray(runs[start : start + size], np.float64)
        finite = np.all(np.isfinite(part), axis=(1, 2))
        values = f(labels, np.where(finite[:, None, None], part, 0.0))
        parts.append({name: np.where(finite.reshape(-1, *[1] * (v.ndim - 1)), v, np.nan) for name, v in values.items()})
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: value.reshape(lead + value.shape[1:])[()] for name, value in merged.items()}


def log_loss_and_probabilities(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes -log p_y [..., n] and softmax probabilities [..., n, k] of float64 logits, by one exponential."""
    shifted = logits - logits.max(-1, keepdims=True)
    own = shifted[..., np.arange(len(labels)), labels]
    exponential = np.exp(shifted, out=shifted)
    total = exponential.sum(-1)
    exponential /= total[..., None]
    return np.log(total) - own, exponential


def bincount_rows(index: np.ndarray, weights: np.ndarray | None, bins: int) -> np.ndarray:
    """Applies `np.bincount` along the last axis: [..., n] to [..., bins]."""
    *lead, n = index.shape
    runs = int(np.prod(lead))
    index = index.reshape(runs, n) + np.arange(runs)[:, None] * bins
    weights = weights if weights is None else weights.ravel()
    return np.bincount(index.ravel(), weights, minlength=runs * bins).reshape(*lead, bins)


def diagonal(counts: Shaped[ArrayLike, "*runs k k"]) -> Shaped[np.ndarray, "*runs k"]:
    """Diagonals [..., k] of matrices [..., k, k]."""
    return np.diagonal(counts, axis1=-2, axis2=-1)
