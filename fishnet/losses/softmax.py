"""Softmax losses as one formula: `w_y ((1 - p_y)^gamma` times the smoothed log loss `+ poly (1 - p_y))`.

Each gives a value an example; the loss of a batch is the plain mean of these values (weights included, not
divided by their sum), which is what `class_weights` are scaled for: their mean over the training samples is 1.
"""

import math
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from fishnet.checks.traced import violates
from fishnet.errors import UsageError


def softmax_loss(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    class_weights: Float[ArrayLike, " k"],
    gamma: ArrayLike,
    smoothing: ArrayLike,
    *,
    poly: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    margins: Float[ArrayLike, " k"] | None = None,
    offsets: Float[ArrayLike, " k"] | None = None,
) -> Float[Array, " b"]:
    """Softmax loss, general form: `w_y ((1 - p_y)^gamma (-(1 - s) log p_y - (s / k) sum_j log p_j) + poly (1 - p_y))`.

    p is the softmax of `scale (logits + offsets - margin)`, where only the true class y has a margin, `margins[y]`.
    With gamma 0 its factor is exactly 1; with weights 1 and everything else neutral (0; scale 1) the result is
    cross-entropy, to the bit. Powers of 1 - p_y are taken as `exp(gamma log(1 - p_y))` with `log(1 - p_y)` over the
    other classes' logits, so values and gradients are finite also where p_y rounds to 1. All numbers may be traced.

    Args:
        logits: [b, k]; narrower floating types are widened to float32 first.
        labels: [b] integers in [0, k); a label outside selects no class and gives NaN.
        class_weights: w [k], 0 or more.
        gamma: the focusing exponent, 0 or more.
        smoothing: s in [0, 1), the fraction of the target that is spread evenly over all k classes.
        poly: coefficient of 1 - p_y on top of the log loss's own, -1 or more.
        scale: an inverse temperature, above 0.
        margins: [k], by which the true class's logit must exceed the others; none where not given.
        offsets: [k], added to every example's logits; none where not given.

    Returns:
        The loss [b] of each example, not averaged.

    Raises:
        UsageError: fewer than 2 classes, labels that are no integers, shapes that do not fit, or a known number out of
            its range.

    Source: Lin et al. 2017 (focal), https://arxiv.org/abs/1708.02002; Szegedy et al. 2016 (smoothing),
    https://arxiv.org/abs/1512.00567; others at the functions that are members
    """
    check_in_range("gamma", gamma, 0, math.inf)
    check_in_range("smoothing", smoothing, 0, 1)
    check_in_range("poly", poly, -1, math.inf)
    check_in_range("scale", scale, 0, math.inf, with_low=False)
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_examples(logits, labels)
    k = logits.shape[-1]
    check_by_class("class weights", class_weights, k)
    check_by_class("margins", margins, k, -math.inf)
    check_by_class("offsets", offsets, k, -math.inf)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # A comparison, not a gather: its gradient is a select where that of a gather is a scatter.
    own = jnp.arange(k) == labels[:, None]
    if offsets is not None:
        logits = logits + jnp.asarray(offsets, logits.dtype)
    if margins is not None:
        logits = logits - jnp.where(own, jnp.asarray(margins, logits.dtype), 0.0)
    below = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    # Room for the scale and the weights: an infinite loss would meet a derivative of 0, and that is NaN.
    lowest = jnp.finfo(logits.dtype).min / 2**20
    logits = scale * jnp.where((below < lowest) & jnp.isfinite(logits), lowest, below)
    own_logit = jnp.sum(jnp.where(own, logits, 0.0), -1)
    total = jax.nn.logsumexp(logits, -1)
    rest = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), -1)
    # Without smoothing the other classes stay out of it, for a logit of -inf would make 0 * inf of the spread part.
    spread = jnp.where(cast(Array, smoothing) > 0, smoothing * (total - jnp.sum(logits / k, -1)), 0.0)
    # The floor keeps gamma 0 from meeting -inf, where the other classes' logits are that far below.
    log_rest = jnp.maximum(rest - total, jnp.finfo(logits.dtype).min)
    weight = jnp.sum(jnp.where(own, jnp.asarray(class_weights, logits.dtype), 0.0), -1)
    focused = weight * jnp.exp(gamma * log_rest) * ((1 - smoothing) * (total - own_logit) + spread)
    known = (labels >= 0) & (labels < k)
    return jnp.where(known, focused + weight * poly * jnp.exp(log_rest), jnp.nan)


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
        UsageError: as `softmax_loss`.

    Example:
        >>> logits, labels = jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1])
        >>> print(np.asarray(cross_entropy(logits, labels)).round(3))
        [0.127 0.693]

    Source: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567
    """
    return softmax_loss(logits, labels, weights_or_ones(logits), 0.0, smoothing)


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
        UsageError: as `softmax_loss`.

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
        UsageError: as `softmax_loss`.

    Example:
        >>> logits, labels = jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1])
        >>> print(np.asarray(focal(logits, labels, gamma=2.0)).round(3))
        [0.002 0.173]

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002
    """
    return softmax_loss(logits, labels, weights_or_ones(logits, class_weights), gamma, smoothing)


def poly1(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    epsilon: ArrayLike = 1.0,
    class_weights: Float[ArrayLike, " k"] | None = None,
    smoothing: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """Poly-1: `w_y` (CE `+ epsilon (1 - p_y))`, the first term of the log loss's series in 1 - p_y made larger.

    Args:
        logits: [b, k].
        labels: [b] integers in [0, k).
        epsilon: -1 or more; 0 is cross-entropy, -1 takes the first term away.
        class_weights: w [k], 1 where not given.
        smoothing: s in [0, 1), of the cross-entropy only.

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: as `softmax_loss`.

    Source: Leng et al. 2022, https://arxiv.org/abs/2204.12511
    """
    return softmax_loss(logits, labels, weights_or_ones(logits, class_weights), 0.0, smoothing, poly=epsilon)


def check_in_range(name: str, value: ArrayLike, low: int | float, high: int | float, with_low: bool = True) -> None:
    """Refuses a known number outside [low, high), or (low, high) without `with_low`; a traced one passes.

    Raises:
        UsageError: it is outside, or NaN.
    """
    if violates(value, lambda value: ((value > low) | (with_low & (value == low))) & (value < high)):
        raise UsageError(f"{name} must be in {'[' if with_low else '('}{low:g}, {high:g}), got {value}")


def check_examples(logits: Array, labels: Array) -> None:
    """Refuses logits and labels of a wrong shape or type.

    Raises:
        UsageError: logits and labels are not [b, k], k from 2, and [b], or labels are no integers.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise UsageError(f"logits {logits.shape} and labels {labels.shape} are not [b, k] and [b]")
    if logits.shape[-1] < 2:
        raise UsageError(f"a loss needs at least 2 classes, the logits have {logits.shape[-1]}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UsageError(f"labels must be integers, the positions of the classes, not {labels.dtype}")


def check_by_class(what: str, values: ArrayLike | None, k: int, low: int | float = 0) -> None:
    """Refuses an array that does not hold one number, `low` or more, for each of k classes; None passes.

    Raises:
        UsageError: its shape is not [k], or a known number is below `low` or NaN.
    """
    if values is None:
        return
    if jnp.shape(values) != (k,):
        raise UsageError(f"{what} {jnp.shape(values)} are not [{k}], one for each class")
    if violates(values, lambda values: values >= low):
        raise UsageError(f"{what} must be {low:g} or more, got {np.asarray(values).tolist()}")


def weights_or_ones(logits: Float[ArrayLike, "b k"], class_weights: Float[ArrayLike, " k"] | None = None) -> ArrayLike:
    """Returns the weights [k], or ones for as many classes as the logits have."""
    return jnp.ones(jnp.shape(logits)[-1]) if class_weights is None else class_weights
