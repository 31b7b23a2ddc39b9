"""Schedules and clipping that are chosen by a traced number, so that networks with different ones share a program."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from fishnet.optim.clipping import CLIPPINGS, clipped_fraction, norm_factor
from fishnet.optim.schedules import CYCLIC, SCHEDULES, with_floor, with_warmup


def schedule_by_index(
    index: jax.Array, progress: jax.Array, cycles: jax.Array, warmup: jax.Array, floor: jax.Array
) -> jax.Array:
    """Factor on the peak learning rate by the schedule at position `index` in `SCHEDULES`, with warm-up and a floor.

    All schedules are computed; each is a few scalar operations.

    Args:
        index: [] int32.
        progress: [] float32, fraction of the run done.
        cycles: [] float32, of the cyclic schedules.
        warmup: [] float32, as for `with_warmup`.
        floor: [] float32, lowest factor, as for `with_floor`.

    Example:
        >>> cosine = jnp.int32(list(SCHEDULES).index("cosine"))
        >>> print(f"{schedule_by_index(cosine, jnp.float32(0.5), cycles=4.0, warmup=0.0, floor=0.0):.2f}")
        0.50
    """

    def schedule(progress: Any) -> jax.Array:
        values = [cast(Any, f)(progress, cycles) if name in CYCLIC else f(progress) for name, f in SCHEDULES.items()]
        return lax.select_n(index, *[jnp.asarray(value, jnp.float32) for value in values])

    return with_warmup(lambda p: with_floor(schedule(p), floor), progress, warmup)


class Clip(struct.PyTreeNode):
    """Clipping entry by entry, which an update applies on its way: `min(max(g factor, -bound), bound)`."""

    factor: jax.Array  # [] float32
    bound: jax.Array  # [] float32
    fraction: jax.Array  # [] float32, of the gradient that is clipped, see `fishnet.optim.clipping`

    def __call__(self, grads: Any) -> Any:
        return jax.tree.map(lambda g: jnp.clip(g * self.factor, -self.bound, self.bound), grads)


def clip_by_index(
    ways: Sequence[str], index: jax.Array, grads: optax.Updates, norm: jax.Array, params: optax.Params, limit: jax.Array
) -> tuple[optax.Updates, Clip]:
    """Clips gradients in the way at position `index` in `ways`, as far as that is not done entry by entry.

    Args:
        ways: names in `CLIPPINGS`, and none.
        index: [] int32.
        grads: a tree like `params`.
        norm: [] float32, of all gradients together.
        params: of one network.
        limit: [] float32; infinity leaves every gradient as it is, bit for bit.

    Returns:
        The gradients, already clipped where that is done unit by unit, and what the update has left to do.
    """
    one, infinite = jnp.float32(1), jnp.float32(jnp.inf)
    if "adaptive" in ways:
        grads, fraction = lax.cond(
            index == ways.index("adaptive"),
            lambda: CLIPPINGS["adaptive"](grads, params, limit),
            lambda: (grads, jnp.float32(0)),
        )
    else:
        fraction = jnp.float32(0)
    clips = {
        "none": lambda: Clip(one, infinite, jnp.float32(0)),
        "value": lambda: Clip(one, limit, clipped_fraction(grads, limit)),
        "norm": lambda: Clip(norm_factor(norm, limit), infinite, (norm > limit).astype(jnp.float32)),
        "adaptive": lambda: Clip(one, infinite, fraction),
    }
    return grads, lax.switch(index, [clips[name] for name in ways])
