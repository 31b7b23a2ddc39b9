"""Loss chosen by a traced index, so that runs with different losses share a program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from fishnet.checks.traced import is_whole_in, violates
from fishnet.errors import UsageError
from fishnet.losses.non_softmax import hinge, mse, one_vs_rest
from fishnet.losses.softmax import softmax_loss


class LossNumbers(struct.PyTreeNode):
    """Numbers of all losses; all may be traced. See `softmax_loss` for their meaning and range."""

    class_weights: Any  # [k] float32
    gamma: Any  # [] float32
    smoothing: Any  # [] float32
    poly: Any  # [] float32
    scale: Any  # [] float32
    margins: Any  # [k] float32
    offsets: Any  # [k] float32


def neutral_numbers(classes: int) -> LossNumbers:
    """Numbers of plain cross-entropy (and of the other families without weights or smoothing).

    Args:
        classes: k.

    Returns:
        The numbers, float32; `numbers.replace(gamma=...)` makes others of them.
    """
    zero, zeros = jnp.float32(0), jnp.zeros(classes, jnp.float32)
    return LossNumbers(jnp.ones(classes, jnp.float32), zero, zero, zero, jnp.float32(1), zeros, zeros)


def mixed_loss(
    kind_index: ArrayLike,
    logits: Float[ArrayLike, "b k"],
    labels: Int[ArrayLike, " b"],
    numbers: LossNumbers,
    families: tuple[str, ...] | None = None,
) -> Float[Array, " b"]:
    """Loss of the family at a position in `families`, which may be traced.

    Numbers that the family does not have (see FAMILY_NUMBERS) are ignored: refuse them beforehand.

    Args:
        kind_index: position in `families`, an integer, possibly traced.
        logits: [b, k].
        labels: [b] integers in [0, k); a label outside gives NaN.
        numbers: for k classes.
        families: names in FAMILIES to choose among; None: all of them.

    Returns:
        The loss [b] of each example.

    Raises:
        UsageError: a known index that is no position; fewer than 2 classes.
    """
    families = FAMILIES if families is None else families
    if violates(kind_index, is_whole_in(0, len(families))):
        raise UsageError(f"loss family {kind_index} is not a position in {', '.join(families)}")
    branches = [_BY_NUMBERS[name] for name in families]
    return jax.lax.switch(kind_index, branches, jnp.asarray(logits), jnp.asarray(labels), numbers)


def _softmax(logits: Array, labels: Array, n: LossNumbers) -> Array:
    others = {"poly": n.poly, "scale": n.scale, "margins": n.margins, "offsets": n.offsets}
    return softmax_loss(logits, labels, n.class_weights, n.gamma, n.smoothing, **others)


FAMILIES = ("softmax", "one_vs_rest", "mse", "hinge")

FAMILY_NUMBERS: dict[str, tuple[str, ...]] = {
    "softmax": ("class_weights", "gamma", "smoothing", "poly", "scale", "margins", "offsets"),
    "one_vs_rest": ("class_weights", "smoothing"),
    "mse": ("class_weights", "smoothing"),
    "hinge": ("class_weights",),
}

_BY_NUMBERS: dict[str, Callable[[Array, Array, LossNumbers], Array]] = {
    "softmax": _softmax,
    "one_vs_rest": lambda logits, labels, n: one_vs_rest(logits, labels, n.class_weights, n.smoothing),
    "mse": lambda logits, labels, n: mse(logits, labels, n.class_weights, n.smoothing),
    "hinge": lambda logits, labels, n: hinge(logits, labels, n.class_weights),
}
