"""State shared by optimizers of different kinds, so that a traced index can choose among them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from fishnet.optim.optimizers import Optimizer


class OptimizerState(struct.PyTreeNode):
    """State of any optimizer: each kind lays its own state out over these arrays."""

    trees: tuple[Any, ...]  # each shaped like the parameters (a velocity, a second moment, ...)
    counts: jax.Array  # [count] int32, updates made; or the bits of another scalar


def init_optimizer_state(optimizers: Sequence[Optimizer], params: Any) -> OptimizerState:
    """Initial state, all zeros, large enough for any of `optimizers`.

    Args:
        optimizers: those that may use the state; their own states must start from zero.
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
    """Descent direction of an optimizer at unit learning rate.

    Args:
        optimizer: the optimizer that `slots` belongs to.
        grads: a tree like `params`.
        slots: its state.
        params: of one run.
        momentum, weight_decay: [] float32, see `Optimizer`.
        lr: [] float32, learning rate of the step, for optimizers that need it.

    Returns:
        The direction, a tree like `params`, and the state after this step; arrays that the optimizer does not use stay.
    """
    transform = optax.with_extra_args_support(_build(optimizer, momentum, weight_decay))
    updates, state = transform.update(grads, to_optax_state(optimizer, slots, params), params, learning_rate=lr)
    trees, counts = _split(state, params)
    counts = jnp.stack([*counts, *slots.counts[len(counts) :]])
    return updates, OptimizerState((*trees, *slots.trees[len(trees) :]), counts)


def to_optax_state(optimizer: Optimizer, slots: OptimizerState, params: Any) -> Any:
    """Converts the shared state to the optax state of one optimizer.

    Args:
        optimizer: the optimizer that `slots` belongs to.
        slots: its state.
        params: of one run; only shapes and types matter.
    """
    return _join(jax.eval_shape(_build(optimizer).init, params), slots, params)


def _build(optimizer: Optimizer, momentum: Any = 0.9, weight_decay: Any = 0.0) -> optax.GradientTransformation:
    return optimizer.build(momentum, weight_decay)


def _split(state: Any, params: Any) -> tuple[list[Any], list[Any]]:
    """Splits an optax state into trees shaped like the parameters, and scalars in the bits of int32."""
    treedef = jax.tree.structure(params)
    leaves = jax.tree.leaves(state)
    large = [leaf for leaf in leaves if leaf.ndim]
    trees = [treedef.unflatten(large[i : i + treedef.num_leaves]) for i in range(0, len(large), treedef.num_leaves)]
    return trees, [_bits(leaf, jnp.int32) for leaf in leaves if not leaf.ndim]


def _bits(scalar: Any, dtype: Any) -> Any:
    """Casts the bits of a 32-bit scalar to another type; an abstract scalar stays as it is."""
    if isinstance(scalar, jax.ShapeDtypeStruct) or scalar.dtype == dtype:
        return scalar
    return lax.bitcast_convert_type(scalar, dtype)


def _join(like: Any, slots: OptimizerState, params: Any) -> Any:
    """Inverts `_split`: fills an optax state of the structure of `like` from the shared state."""
    leaves, treedef = jax.tree.flatten(like)
    large = iter(leaf for tree in slots.trees for leaf in jax.tree.leaves(tree))
    counts = iter(slots.counts[i] for i in range(len(slots.counts)))
    return treedef.unflatten([next(large) if leaf.ndim else _bits(next(counts), leaf.dtype) for leaf in leaves])
