"""Losses outside the softmax family, for comparison: one-vs-rest sigmoids, squared error and hinge.

Each gives a value an example, as the softmax losses do, and `w_y`, the weight of the true class, multiplies it.
"""

from typing import cast

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from fishnet.losses.softmax import check_by_class, check_examples, check_in_range


def one_vs_rest(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    class_weights: Float[ArrayLike, " k"] | None = None,
    smoothing: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """One-vs-rest sigmoid loss: `w_y sum_c (-t_c log sigma(x_c) - (1 - t_c) log(1 - sigma(x_c)))`.

    The targets are those of smoothed cross-entropy, `t_c = (1 - s) [c = y] + s / k`.

    Args:
        logits: x [b, k]; narrower floating types are widened to float32 first.
        labels: [b] integers in [0, k); a label outside gives NaN.
        class_weights: w [k], 1 where not given.
        smoothing: s in [0, 1).

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: fewer than 2 classes, or a known number out of its range.

    Source: Rifkin and Klautau 2004, https://jmlr.org/papers/v5/rifkin04a.html; Wightman et al. 2021 (as a loss for
    image classifiers), https://arxiv.org/abs/2110.00476
    """
    logits, own = _prepare(logits, labels)
    losses = optax.sigmoid_binary_cross_entropy(logits, _targets(own, smoothing))
    return _known(own, jnp.sum(_weights(own, class_weights) * losses, -1))


def mse(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    class_weights: Float[ArrayLike, " k"] | None = None,
    smoothing: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """Squared error of the outputs against one-hot targets, mean over the classes: `w_y / k sum_c (x_c - t_c)^2`.

    The outputs are the logits themselves, as in regression: no softmax, which would make it the Brier score. The
    targets are `t_c = (1 - s) [c = y] + s / k`. Above about 1e19 a logit's square is infinite, its gradient is not.

    Args:
        logits: x [b, k]; narrower floating types are widened to float32 first.
        labels: [b] integers in [0, k); a label outside gives NaN.
        class_weights: w [k], 1 where not given.
        smoothing: s in [0, 1).

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: fewer than 2 classes, or a known number out of its range.

    Source: Hui and Belkin 2021, https://arxiv.org/abs/2006.07322 (theirs rescales the true class for many classes)
    """
    logits, own = _prepare(logits, labels)
    error = logits - _targets(own, smoothing)
    # Weight and mean come before the product: the derivative of a square would double first and overflow.
    return _known(own, jnp.sum(_weights(own, class_weights) / own.shape[-1] * error * error, -1))


def hinge(
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    class_weights: Float[ArrayLike, " k"] | None = None,
) -> Float[Array, " b"]:
    """Crammer-Singer multi-class hinge with margin 1: `w_y max(0, 1 + max_(c != y) x_c - x_y)`.

    Args:
        logits: x [b, k]; narrower floating types are widened to float32 first.
        labels: [b] integers in [0, k); a label outside gives NaN.
        class_weights: w [k], 1 where not given.

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: fewer than 2 classes.

    Example:
        >>> print(hinge(jnp.array([[2.0, 0.5], [2.0, 0.5]]), jnp.array([0, 1])))
        [0.  2.5]

    Source: Crammer and Singer 2001, https://jmlr.org/papers/v2/crammer01a.html
    """
    logits, own = _prepare(logits, labels)
    return _known(own, _weights(own, class_weights)[:, 0] * optax.losses.multiclass_hinge_loss(logits, labels))


def _prepare(logits: ArrayLike, labels: ArrayLike) -> tuple[Float[Array, "b k"], Bool[Array, "b k"]]:
    """Checks examples; returns the logits in float32 or better and the one-hot labels [b, k]."""
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_examples(logits, labels)
    own = jnp.arange(logits.shape[-1]) == labels[:, None]
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), own


def _targets(own: Bool[Array, "b k"], smoothing: ArrayLike) -> Float[Array, "b k"]:
    check_in_range("smoothing", smoothing, 0, 1)
    return cast(Array, (1 - smoothing) * own + smoothing / own.shape[-1])


def _weights(own: Bool[Array, "b k"], class_weights: Float[ArrayLike, " k"] | None) -> Float[Array, "b 1"]:
    """Weight of each example's true class."""
    if class_weights is None:
        return jnp.ones((own.shape[0], 1))
    check_by_class("class weights", class_weights, own.shape[-1])
    return jnp.sum(jnp.where(own, jnp.asarray(class_weights), 0.0), -1, keepdims=True)


def _known(own: Bool[Array, "b k"], losses: Float[Array, " b"]) -> Float[Array, " b"]:
    """Returns the losses, NaN where the label is none of the classes."""
    return jnp.where(own.any(-1), losses, jnp.nan)
