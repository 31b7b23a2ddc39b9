"""Clipping of gradients by value, by global norm and by unit: f(grads, params, limit) -> (grads, fraction clipped).

The limit may be traced, and infinity leaves every gradient as it is, bit for bit. Record the fraction: a
limit that always clips is another learning rate, and one that never clips does nothing.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from fishnet.checks.traced import violates
from fishnet.errors import UsageError
from fishnet.lookup import Table
from fishnet.optim.masks import global_norm, kernel_mask, unit_norms

Clipped = tuple[optax.Updates, jax.Array]
Clipping = Callable[[optax.Updates, optax.Params, ArrayLike], Clipped]

SMALLEST_UNIT = 1e-3  # norm that adaptive clipping takes smaller units to have, so that zeros can be left


def clip_by_value(grads: optax.Updates, limit: ArrayLike) -> Clipped:
    """Clips each entry to [-limit, limit]: `min(max(g, -limit), limit)`.

    Args:
        grads: a tree of arrays.
        limit: 0 or more, in units of the gradient; may be traced.

    Returns:
        A tree like `grads`, and the fraction of its entries other than 0 that were outside, [] float32.

    Raises:
        UsageError: `limit` is a plain number that is negative or NaN.

    Source: Graves 2013, section 2.1, https://arxiv.org/abs/1308.0850
    """
    check_limit(limit)
    return optax.tree.clip(grads, -cast(jax.Array, limit), limit), clipped_fraction(grads, limit)


def clip_by_global_norm(grads: optax.Updates, limit: ArrayLike) -> Clipped:
    """Scales all gradients by one factor: `g * min(1, limit / |g|)`, with |g| the norm over all entries together.

    Unlike `optax.clip_by_global_norm` it leaves gradients of infinite norm alone when the limit is infinite.

    Args:
        grads: a tree of arrays.
        limit: 0 or more, in units of the gradient; may be traced.

    Returns:
        A tree like `grads`, and 1 if they were scaled, else 0, [] float32.

    Raises:
        UsageError: `limit` is a plain number that is negative or NaN.

    Example:
        >>> grads, clipped = clip_by_global_norm({"w": jnp.array([3.0, 4.0])}, 1.0)
        >>> import numpy as np
        >>> print(np.asarray(grads["w"]).round(2), clipped)
        [0.6 0.8] 1.0

    Source: Pascanu et al. 2013, https://arxiv.org/abs/1211.5063
    """
    check_limit(limit)
    norm = global_norm(grads)
    factor = norm_factor(norm, limit)
    return jax.tree.map(lambda g: g * factor, grads), (norm > limit).astype(jnp.float32)


def clipped_fraction(grads: optax.Updates, limit: ArrayLike) -> jax.Array:
    """Fraction of the nonzero entries that lie outside [-limit, limit], [] float32."""
    outside = [jnp.sum(jnp.abs(g) > limit, dtype=jnp.float32) for g in jax.tree.leaves(grads)]
    # A parameter that only neighbors in a program use has no gradient, and must not count.
    entries = [jnp.sum(g != 0, dtype=jnp.float32) for g in jax.tree.leaves(grads)]
    return sum(outside) / jnp.maximum(sum(entries), 1)


def norm_factor(norm: jax.Array, limit: ArrayLike) -> jax.Array:
    """Factor `min(1, limit / norm)`; exactly 1 where the norm is within the limit, also where both are infinite."""
    long = norm > limit
    return jnp.where(long, limit / jnp.where(long, norm, 1.0), 1.0)


def adaptive_clip(grads: optax.Updates, params: optax.Params, limit: ArrayLike) -> Clipped:
    """Adaptive gradient clipping: scales each unit's gradient to a norm of at most `limit * max(|w|, 1e-3)`.

    A unit is what leads into one output of a kernel (see `unit_norms`), or a whole bias or scale. All layers are
    clipped; the paper leaves the last one out.

    Args:
        grads: a tree of arrays.
        params: a tree like `grads`, of one network (no lane axis).
        limit: largest ratio of gradient to weights, 0 or more (the paper: 0.01 to 0.16); may be traced.

    Returns:
        A tree like `grads`, and the fraction of units with a gradient that were scaled, [] float32.

    Raises:
        UsageError: `limit` is a known number that is negative or NaN, or `kernel_mask` has no rule for a parameter.

    Source: Brock et al. 2021, https://arxiv.org/abs/2102.06171
    """
    check_limit(limit)
    leaves, tree = jax.tree.flatten(grads)
    clipped, counts, units = [], [], []
    for g, w, kernel in zip(leaves, jax.tree.leaves(params), jax.tree.leaves(kernel_mask(params)), strict=True):
        norm, allowed = unit_norms(g, kernel), limit * jnp.maximum(unit_norms(w, kernel), SMALLEST_UNIT)
        long = norm > allowed
        clipped.append(g * jnp.where(long, allowed / jnp.where(long, norm, 1.0), 1.0))
        counts.append(jnp.sum(long, dtype=jnp.float32))
        units.append(jnp.sum(norm > 0, dtype=jnp.float32))
    return tree.unflatten(clipped), sum(counts) / jnp.maximum(sum(units), 1)


def check_limit(limit: ArrayLike) -> None:
    """Refuses known numbers that are negative or NaN; traced ones pass.

    Raises:
        UsageError: `limit` is one of them.
    """
    if violates(limit, lambda limit: limit >= 0):
        raise UsageError(f"limit {limit} is not 0 or a positive number (infinity for none)")


CLIPPINGS: Table[Clipping] = Table(
    {
        "value": lambda grads, params, limit: clip_by_value(grads, limit),
        "norm": lambda grads, params, limit: clip_by_global_norm(grads, limit),
        "adaptive": adaptive_clip,
    }
)
