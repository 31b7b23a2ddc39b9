"""Classification losses: one formula, `w_y (1 - p_y)^gamma` times the label-smoothed log loss.

Each gives a value an example; the loss of a batch is the plain mean of these values (weights included, not
divided by their sum), which is what `class_weights` are scaled for: their mean over the training samples is 1.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from fishnet.errors import UsageError
from fishnet.lookup import lookup


def softmax_loss(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    class_weights: Float[ArrayLike, " k"],
    gamma: ArrayLike,
    smoothing: ArrayLike,
) -> Float[Array, " b"]:
    """The family of softmax losses: `w_y (1 - p_y)^gamma (-(1 - s) log p_y - (s / k) sum_j log p_j)`.

    p is the softmax of the logits. With gamma 0 the factor is exactly 1, with weights 1 and s 0 what is left is
    cross-entropy. The factor is computed as `exp(gamma log(1 - p_y))` with `log(1 - p_y)` taken over the other
    classes' logits, so values and gradients are finite also where p_y rounds to 1. All numbers may be traced.

    Args:
        logits: [b, k]; narrower floating types are widened to float32 first.
        labels: [b] integers in [0, k); a label outside selects no class and gives NaN.
        class_weights: w [k], 0 or more.
        gamma: the focusing exponent, 0 or more.
        smoothing: s in [0, 1), the share of the target spread evenly over all k classes.

    Returns:
        The loss [b] of each example, not averaged.

    Raises:
        UsageError: fewer than 2 classes.

    Source: Lin et al. 2017 (focal), https://arxiv.org/abs/1708.02002; Szegedy et al. 2016 (smoothing),
    https://arxiv.org/abs/1512.00567
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    k = logits.shape[-1]
    if k < 2:
        raise UsageError(f"a softmax loss needs at least 2 classes, the logits have {k}")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    logits = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    # A comparison, not a gather: its gradient is a select where that of a gather is a scatter.
    own = jnp.arange(k) == labels[:, None]
    own_logit = jnp.sum(jnp.where(own, logits, 0.0), -1)
    total = jax.nn.logsumexp(logits, -1)
    rest = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), -1)
    # Without smoothing the other classes stay out of it, for a logit of -inf would make 0 * inf of the spread part.
    spread = jnp.where(smoothing > 0, smoothing * (total - jnp.sum(logits / k, -1)), 0.0)
    # The floor keeps gamma 0 from meeting -inf, where the other classes' logits are that far below.
    modulation = jnp.exp(gamma * jnp.maximum(rest - total, jnp.finfo(logits.dtype).min))
    weight = jnp.sum(jnp.where(own, jnp.asarray(class_weights, logits.dtype), 0.0), -1)
    known = (labels >= 0) & (labels < k)
    return jnp.where(known, weight * modulation * ((1 - smoothing) * (total - own_logit) + spread), jnp.nan)


def cross_entropy(
    logits: Float[ArrayLike, "b k"], labels: Int[ArrayLike, " b"], smoothing: ArrayLike = 0.0
) -> Float[Array, " b"]:
    """Cross-entropy, with label smoothing s: `-(1 - s) log p_y - (s / k) sum_j log p_j`.

    Args:
        logits: [b, k].
        labels: [b] integers in [0, k).
        smoothing: s in [0, 1).

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: fewer than 2 classes.

    Source: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567
    """
    return softmax_loss(logits, labels, jnp.ones(jnp.shape(logits)[-1]), 0.0, smoothing)


def class_weighted(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    class_weights: Float[ArrayLike, " k"],
    smoothing: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """Cross-entropy times the weight of the true class: `w_y` CE.

    With smoothing the weight of the true class multiplies the whole term (PyTorch weighs each class's share of it).

    Args:
        logits: [b, k].
        labels: [b] integers in [0, k).
        class_weights: w [k], as from `class_weights`.
        smoothing: s in [0, 1).

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: fewer than 2 classes.

    Source: King and Zeng 2001, https://doi.org/10.1093/oxfordjournals.pan.a004868
    """
    return softmax_loss(logits, labels, class_weights, 0.0, smoothing)


def focal(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    gamma: ArrayLike = 2.0,
    class_weights: Float[ArrayLike, " k"] | None = None,
    smoothing: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """Multi-class softmax focal loss: `w_y (1 - p_y)^gamma` CE.

    Args:
        logits: [b, k].
        labels: [b] integers in [0, k).
        gamma: the focusing exponent; 0 is cross-entropy.
        class_weights: w [k] (the paper's alpha), 1 where not given.
        smoothing: s in [0, 1).

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: fewer than 2 classes.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002
    """
    weights = jnp.ones(jnp.shape(logits)[-1]) if class_weights is None else class_weights
    return softmax_loss(logits, labels, weights, gamma, smoothing)


def class_weights(counts: ArrayLike | Sequence, how: str | Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The weight of each class from its number of training samples.

    Args:
        counts: [k] samples of each class in the train split.
        how: a name in `CLASS_WEIGHTINGS`, or a function of the counts [k] float64 that gives weights [k].

    Returns:
        Weights [k] float32.

    Raises:
        UsageError: an unknown name, a negative count, or no samples at all.
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not (counts >= 0).all() or counts.sum() == 0:
        raise UsageError(f"class counts {counts.tolist()} are not a list of numbers, 0 or more, with a positive sum")
    return np.asarray(lookup(CLASS_WEIGHTINGS, how, "class weighting")(counts), np.float32)


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """Inverse frequency: `n / (k n_c)` with k the classes that have samples; their mean over the samples is 1.

    Args:
        counts: n_c [k] float64.

    Returns:
        Weights [k]; 0 for a class without samples.

    Source: King and Zeng 2001; scikit-learn's `class_weight="balanced"`.
    """
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.where(present, counts, 1)), 0)


LOSSES: dict[str, Callable] = {
    "cross_entropy": cross_entropy,
    "class_weighted": class_weighted,
    "focal": focal,
}

CLASS_WEIGHTINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": np.ones_like,
    "inverse": inverse_frequency,
}
