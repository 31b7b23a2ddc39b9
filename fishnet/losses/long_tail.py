"""Softmax losses for long-tailed data, with weights, margins or offsets from class_counts.py."""

from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from fishnet.losses.softmax import softmax_loss, weights_or_ones


def class_balanced_focal(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    class_weights: Float[ArrayLike, " k"],
    gamma: ArrayLike = 2.0,
    smoothing: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """Focal loss weighted by the effective number of samples: `w_y (1 - p_y)^gamma` CE.

    The paper's focal loss is a sum of sigmoids, this one is softmax's; its weights add up to k, these have mean 1
    over the samples.

    Args:
        logits: [b, k].
        labels: [b] integers in [0, k).
        class_weights: w [k], as from `class_weights(counts, "effective")`.
        gamma: the focusing exponent.
        smoothing: s in [0, 1).

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: as `softmax_loss`.

    Source: Cui et al. 2019, https://arxiv.org/abs/1901.05555
    """
    return softmax_loss(logits, labels, class_weights, gamma, smoothing)


def ldam(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    margins: Float[ArrayLike, " k"],
    class_weights: Float[ArrayLike, " k"] | None = None,
    scale: ArrayLike = 1.0,
    smoothing: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """Label-distribution-aware margins: cross-entropy of `scale (logits - m_y at the true class)`.

    In the paper the last layer is normalized: logits are cosines of features and class weights, in [-1, 1], and
    scale is 30. Here the logits are taken as they come, from an ordinary layer whose weights set their own scale:
    hence the default of 1, and 30 for a head that is normalized. Margins count before the scale.

    Args:
        logits: [b, k].
        labels: [b] integers in [0, k).
        margins: m [k], as from `ldam_margins`.
        class_weights: w [k], 1 where not given; `deferred` gives the paper's deferred re-weighting.
        scale: the paper's s, above 0.
        smoothing: s in [0, 1).

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: as `softmax_loss`.

    Source: Cao et al. 2019, https://arxiv.org/abs/1906.07413
    """
    return softmax_loss(
        logits, labels, weights_or_ones(logits, class_weights), 0.0, smoothing, scale=scale, margins=margins
    )


def logit_adjusted(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    offsets: Float[ArrayLike, " k"],
    class_weights: Float[ArrayLike, " k"] | None = None,
    smoothing: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """Cross-entropy of `logits + tau log prior`: the bare logits learn to rank as if classes were equally frequent.

    The offsets are for training only; predictions and evaluation use the logits as they are.

    Args:
        logits: [b, k].
        labels: [b] integers in [0, k).
        offsets: tau log prior [k], as from `log_priors`.
        class_weights: w [k], 1 where not given.
        smoothing: s in [0, 1).

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: as `softmax_loss`.

    Example:
        >>> import jax.numpy as jnp
        >>> from fishnet.losses import log_priors
        >>> logits, labels = jnp.zeros((1, 2)), jnp.array([1])
        >>> print(round(float(logit_adjusted(logits, labels, log_priors([90, 10]))[0]), 3))
        2.303

    Source: Menon et al. 2021, https://arxiv.org/abs/2007.07314
    """
    return softmax_loss(logits, labels, weights_or_ones(logits, class_weights), 0.0, smoothing, offsets=offsets)
