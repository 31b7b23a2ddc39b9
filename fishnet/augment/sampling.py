"""Class-balanced sampling, and augmentation by class, for long-tailed data.

Positions are drawn inside the compiled program, in integers, so that they are the same in every program. Weights from
class counts are made on the host.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, Int32, PRNGKeyArray, UInt32

from fishnet.checks.arrays import check_whole_numbers
from fishnet.checks.traced import is_whole_in, violates
from fishnet.errors import UsageError
from fishnet.lookup import unknown_name
from fishnet.losses.class_counts import check_counts

TOTAL = 2**30  # largest sum of the weights of all images


def sampling_weights(
    counts: ArrayLike | Sequence, strength: int | float, factors: ArrayLike | Sequence | None = None
) -> np.ndarray:
    """Weights with which the images of each class are drawn, proportional to `f_c n_c^(-strength)`.

    Args:
        counts: n_c [k] images of each class in the train split.
        strength: 0 or more: 0 leaves the frequencies as they are, 1 makes the classes equally frequent, 1/2 goes half
            of the way, above 1 rare classes become the frequent ones.
        factors: f_c [k], above 0, on the frequency of each class; None: 1 for all.

    Returns:
        Weights [k] int32: exactly 1 at strength 0 and equal factors; else with `sum_c n_c w_c` about 2^30, 1 or more
        for a class that has images, 0 for one that has none.

    Raises:
        UsageError: a negative strength or count, a factor that is not positive, or no images at all.

    Example:
        >>> weights = sampling_weights([90, 10], strength=1)
        >>> round(float(weights[1] / weights[0]), 2)
        9.0

    Source: Shen et al. 2016 (strength 1, class-aware sampling), https://arxiv.org/abs/1512.05830; Mahajan et al. 2018
    (strengths between), https://arxiv.org/abs/1805.00932
    """
    counts = check_counts(counts)
    if not 0 <= strength < np.inf:
        raise UsageError(f"the strength of class-balanced sampling must be 0 or more, got {strength}")
    factors = np.ones(len(counts)) if factors is None else np.asarray(factors, np.float64)
    if factors.shape != counts.shape or not ((factors > 0) & (factors < np.inf)).all():
        raise UsageError(f"sampling factors {factors.tolist()} are not {len(counts)} numbers above 0")
    if strength == 0 and (factors == factors[0]).all():
        return np.ones(len(counts), np.int32)
    present = counts > 0
    # Relative to the rarest class, so that no power overflows.
    relative = np.where(present, factors * (counts[present].min() / np.where(present, counts, 1)) ** strength, 0)
    weights = relative * (TOTAL - counts.sum()) / np.dot(relative, counts)
    return np.where(present, np.maximum(np.floor(weights), 1), 0).astype(np.int32)


def weighted_positions(key: PRNGKeyArray, weights: Int32[ArrayLike, " n"], size: int) -> Int32[Array, " size"]:
    """Draws positions with replacement, with probability `w_i / sum w`, to 1 part in 2^32.

    Args:
        key: a random key.
        weights: w [n], 0 or more, with a sum of 1 to 2^31 - 1; possibly traced.
        size: how many to draw.

    Returns:
        Positions [size] in [0, n).

    Raises:
        UsageError: known weights that are no whole numbers from 0 on, or whose sum is out of its range.
    """
    if violates(weights, is_whole_in(0, 2**31)) or violates(weights, lambda w: 0 < w.sum(dtype=np.float64) < 2**31):
        raise UsageError("sampling weights must be whole numbers, 0 or more, with a sum of 1 to 2^31 - 1")
    ends = jnp.cumsum(jnp.asarray(weights), dtype=jnp.int32)
    place = _high_product(jax.random.bits(key, (size,)), ends[-1].astype(jnp.uint32))
    return jnp.searchsorted(ends, place.astype(jnp.int32), side="right").astype(jnp.int32)


def balanced_positions(
    key: PRNGKeyArray, order: Int32[ArrayLike, " n"], labels: Int[ArrayLike, " images"], weights: Int32[ArrayLike, " k"]
) -> Int32[Array, " n"]:
    """Positions of one epoch: `order` itself, or as many drawn from it with replacement by class weights.

    Weights that are all equal (strength 0, or classes that are equally frequent already) leave `order` exactly as it
    is: every image once.

    Args:
        key: a random key; not the one that `order` was shuffled with.
        order: the epoch's permutation of the training split's positions.
        labels: the class of each image, by position, in [0, k).
        weights: [k], of `sampling_weights`, possibly traced.

    Returns:
        Positions [n].
    """
    order, weights = jnp.asarray(order), jnp.asarray(weights)

    def draw(order: jax.Array) -> jax.Array:
        return order[weighted_positions(key, weights[jnp.asarray(labels)[order]], order.shape[0])]

    return jax.lax.cond((weights == weights[0]).all(), lambda order: order, draw, order)


def class_balanced_order(key: PRNGKeyArray, labels: Int[ArrayLike, " images"], n: int) -> Int32[Array, " n"]:
    """Draws positions with replacement so that every class that has images comes equally often.

    Args:
        key: a random key.
        labels: the class of each image, 0 or more; known, not traced.
        n: how many to draw.

    Returns:
        Positions [n] in `labels`.

    Raises:
        UsageError: no labels, or one that is no whole number from 0 on.

    Source: Shen et al. 2016 (class-aware sampling), https://arxiv.org/abs/1512.05830
    """
    labels = check_whole_numbers(labels, "labels", 0, 2**31)
    if labels.size == 0:
        raise UsageError("class-balanced sampling needs labels")
    return weighted_positions(key, sampling_weights(np.bincount(labels), 1)[labels], n)


def class_mask(classes: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Mask of the classes that are named.

    Args:
        classes: the names of all k classes.
        names: some of them.

    Returns:
        [k] bool.

    Raises:
        UsageError: a name that is no class; the message lists the valid ones and the nearest.
    """
    for name in names:
        if name not in classes:
            raise unknown_name("class", name, classes)
    return np.array([name in names for name in classes], bool)


def choose_by_class(
    labels: Int[ArrayLike, " b"], mask: Bool[ArrayLike, " k"], stronger: ArrayLike, usual: ArrayLike
) -> Array:
    """Chooses each example of a masked class from `stronger` and the others from `usual`: augmentation by class.

    Args:
        labels: [b]; a label outside [0, k) counts as not masked.
        mask: [k], of `class_mask`, possibly traced.
        stronger: [b, ...], such as images after the stronger augmentation.
        usual: [b, ...] of the same type.

    Returns:
        [b, ...].

    Raises:
        UsageError: the two are not of one type.
    """
    if jnp.result_type(stronger) != jnp.result_type(usual):
        raise UsageError(f"examples of {jnp.result_type(stronger)} and {jnp.result_type(usual)} cannot be mixed")
    mask = jnp.asarray(mask)
    chosen = ((jnp.arange(mask.shape[0]) == jnp.asarray(labels)[:, None]) & mask).any(-1)
    return jnp.where(chosen.reshape(-1, *[1] * (jnp.ndim(usual) - 1)), stronger, usual)


def _high_product(a: UInt32[Array, "..."], b: UInt32[Array, ""]) -> UInt32[Array, "..."]:
    """Computes `a b >> 32` of 64-bit products, in halves of 16 bits."""
    low, high, b_low, b_high = a & 0xFFFF, a >> 16, b & 0xFFFF, b >> 16
    middle = high * b_low + (low * b_low >> 16)
    return high * b_high + (middle >> 16) + (low * b_high + (middle & 0xFFFF) >> 16)
