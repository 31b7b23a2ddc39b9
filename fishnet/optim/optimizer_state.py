"""Optimizers of different kinds side by side: their states share slots, so that a traced index can choose."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from fishnet.optim.optimizers import Optimizer


@struct.dataclass
class OptimizerState:
    """What optimizers remember, without saying which optimizer: each kind lays its own state out over these."""

    trees: tuple[Any, ...]  # each shaped like the parameters (a velocity, a second moment, ...)
    counts: jax.Array  # [count] int32, updates made; or the bits of another scalar


def init_optimizer_state(optimizers: Sequence[Optimizer], params: Any) -> OptimizerState:
    """Zeroed slots large enough for any of `optimizers`, whose states must start from zero.

    Args:
        optimizers: that may use the slots.
        params: of one run; only shapes and types matter.
    """
    needs = [_split(jax.eval_shape(_build(o).init, params), params) for o in optimizers]
    trees = max(len(trees) for trees, _ in needs)
    counts = max(1, *(len(counts) for _, counts in needs))  # at least one: a checkpoint holds no empty arrays
    return OptimizerState(
        tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(trees)),
        jnp.zeros((counts,), jnp.int32),
    )


def descent_direction(
    optimizer: Optimizer,
    grads: Any,
    slots: OptimizerState,
    params: Any,
    momentum: jax.Array,
    weight_decay: jax.Array,
    lr: jax.Array,
) -> tuple[Any, OptimizerState]:
    """The descent direction of an optimizer at unit learning rate.

    Args:
        optimizer: whose layout the slots are in.
        grads: a tree like `params`.
        slots: what the optimizer remembers.
        params: of one run.
        momentum, weight_decay: [] float32, see `Optimizer`.
        lr: [] float32, the rate that the direction will be multiplied by, for those that ask for it.

    Returns:
        The direction, a tree like `params`, and the slots after this step; those that the optimizer does not use are
        as before.
    """
    transform = optax.with_extra_args_support(_build(optimizer, momentum, weight_decay))
    updates, state = transform.update(grads, to_optax_state(optimizer, slots, params), params, learning_rate=lr)
    trees, counts = _split(state, params)
    counts = jnp.stack([*counts, *slots.counts[len(counts) :]])
    return updates, OptimizerState((*trees, *slots.trees[len(trees) :]), counts)


def to_optax_state(optimizer: Optimizer, slots: OptimizerState, params: Any) -> Any:
    """The optax state of an optimizer as the slots have it.

    Args:
        optimizer: whose layout the slots are in.
        slots: what it remembers.
        params: of one run; only shapes and types matter.
    """
    return _join(jax.eval_shape(_build(optimizer).init, params), slots, params)


def _build(optimizer: Optimizer, momentum: Any = 0.9, weight_decay: Any = 0.0) -> optax.GradientTransformation:
    return optimizer.build(momentum, weight_decay)


def _split(state: Any, params: Any) -> tuple[list[Any], list[Any]]:
    """The leaves of an optax state as trees shaped like the parameters, and scalars in the bits of int32."""
    treedef = jax.tree.structure(params)
    leaves = jax.tree.leaves(state)
    large = [leaf for leaf in leaves if leaf.ndim]
    trees = [treedef.unflatten(large[i : i + treedef.num_leaves]) for i in range(0, len(large), treedef.num_leaves)]
    return trees, [_bits(leaf, jnp.int32) for leaf in leaves if not leaf.ndim]


def _bits(scalar: Any, dtype: Any) -> Any:
    """A scalar of 32 bits under another type; of an abstract one only the shape matters."""
    if isinstance(scalar, jax.ShapeDtypeStruct) or scalar.dtype == dtype:
        return scalar
    return lax.bitcast_convert_type(scalar, dtype)


def _join(like: Any, slots: OptimizerState, params: Any) -> Any:
    """The inverse of `_split`: an optax state of the structure of `like`, filled from the slots."""
    leaves, treedef = jax.tree.flatten(like)
    large = iter(leaf for tree in slots.trees for leaf in jax.tree.leaves(tree))
    counts = iter(slots.counts[i] for i in range(len(slots.counts)))
    return treedef.unflatten([next(large) if leaf.ndim else _bits(next(counts), leaf.dtype) for leaf in leaves])
