"""Class weights, margins and log priors from the class counts of the training split, made on the host."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fishnet.checks.traced import check_progress, violates
from fishnet.errors import UsageError
from fishnet.lookup import Table, lookup
from fishnet.losses.softmax import check_in_range


def class_weights(counts: ArrayLike | Sequence, how: str | Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Weights of the classes from their numbers of training samples.

    Args:
        counts: [k] samples of each class in the train split.
        how: a name in `CLASS_WEIGHTINGS`, or a function of the counts [k] float64 that gives weights [k].

    Returns:
        Weights [k] float32.

    Raises:
        UsageError: an unknown name, a negative count, or no samples at all.

    Example:
        >>> print(class_weights([90, 10], "inverse").round(3))
        [0.556 5.   ]
    """
    return np.asarray(lookup(CLASS_WEIGHTINGS, how, "class weighting")(check_counts(counts)), np.float32)


def equal_weights(counts: np.ndarray) -> np.ndarray:
    """Equal weights: 1 for each class.

    Args:
        counts: n_c [k] float64.

    Returns:
        Weights [k].
    """
    return np.ones_like(counts)


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """Inverse-frequency weights: `n / (k n_c)` with k the classes that have samples; their mean over the samples is 1.

    Args:
        counts: n_c [k] float64.

    Returns:
        Weights [k]; 0 for a class without samples.

    Source: King and Zeng 2001; scikit-learn's `class_weight="balanced"`.
    """
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.where(present, counts, 1)), 0)


def effective_number(counts: np.ndarray, beta: int | float = 0.999) -> np.ndarray:
    """Inverse effective number of samples: weights proportional to `(1 - beta) / (1 - beta^n_c)`, with mean 1.

    Args:
        counts: n_c [k] float64.
        beta: in [0, 1): 0 weighs all classes alike, towards 1 it becomes inverse frequency.

    Returns:
        Weights [k]; 0 for a class without samples.

    Raises:
        UsageError: `beta` is outside [0, 1).

    Source: Cui et al. 2019, https://arxiv.org/abs/1901.05555
    """
    check_in_range("beta", beta, 0, 1)
    present = counts > 0
    numbers = (1 - beta ** np.where(present, counts, 1)) / (1 - beta)
    weights = np.where(present, 1 / numbers, 0)
    return weights * counts.sum() / np.dot(weights, counts)


def defer_weights(
    class_weights: Float[ArrayLike, " k"], progress: ArrayLike, start: ArrayLike = 0.8
) -> Float[Array, " k"]:
    """Deferred re-weighting: all weights are exactly 1 until `start`, then `class_weights`.

    Args:
        class_weights: w [k].
        progress: fraction of the training done, in [0, 1), possibly traced.
        start: in [0, 1]; 0 is from the beginning, 1 never.

    Returns:
        Weights [k] for this step.

    Raises:
        UsageError: `progress` or `start` is known and outside [0, 1].

    Source: Cao et al. 2019, https://arxiv.org/abs/1906.07413 (from epoch 160 of 200)
    """
    check_progress(progress)
    if violates(start, lambda start: (start >= 0) & (start <= 1)):
        raise UsageError(f"start must be in [0, 1], got {start}")
    return jnp.where(jnp.asarray(progress) < start, 1.0, jnp.asarray(class_weights))


def ldam_margins(counts: ArrayLike | Sequence, largest: int | float = 0.5) -> np.ndarray:
    """Margins of LDAM: `C / n_c^(1/4)`, where C gives the rarest class the margin `largest`.

    Args:
        counts: n_c [k] samples of each class in the train split; a class without any counts as if it had one.
        largest: the margin of the rarest class, in units of the unscaled logits, 0 or more.

    Returns:
        Margins [k] float32.

    Raises:
        UsageError: a negative count, no samples at all, or a negative margin.

    Source: Cao et al. 2019, https://arxiv.org/abs/1906.07413
    """
    check_in_range("largest", largest, 0, np.inf)
    counts = np.maximum(check_counts(counts), 1)
    return np.asarray(largest * (counts.min() / counts) ** 0.25, np.float32)


def log_priors(counts: ArrayLike | Sequence, tau: int | float = 1.0) -> np.ndarray:
    """Offsets of logit adjustment: `tau log(n_c / n)`.

    Args:
        counts: n_c [k] samples of each class in the train split; a class without any counts as if it had one.
        tau: the strength, 0 or more; 0 is exactly no offset, 1 balances the error for calibrated logits.

    Returns:
        Offsets [k] float32.

    Raises:
        UsageError: a negative count, no samples at all, or a negative strength.

    Source: Menon et al. 2021, https://arxiv.org/abs/2007.07314
    """
    check_in_range("tau", tau, 0, np.inf)
    counts = np.maximum(check_counts(counts), 1)
    return np.asarray(tau * np.log(counts / counts.sum()) + 0.0, np.float32)  # + 0: no negative zeros


def check_counts(counts: ArrayLike | Sequence) -> np.ndarray:
    """Checks the numbers of samples of the classes; returns them as float64 [k].

    Raises:
        UsageError: a negative count, no samples at all, or another shape.
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not (counts >= 0).all() or counts.sum() == 0:
        raise UsageError(f"class counts {counts.tolist()} are not a list of numbers, 0 or more, with a positive sum")
    return counts


CLASS_WEIGHTINGS: Table[Callable[[np.ndarray], np.ndarray]] = Table(
    {
        "none": equal_weights,
        "inverse": inverse_frequency,
        "effective": effective_number,
    }
)
