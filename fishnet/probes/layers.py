"""Norms, sizes and finiteness of parameters, gradients or updates, by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Bool, Float

from fishnet.errors import UsageError
from fishnet.optim.masks import global_norm

KERNEL = "kernel"


def split_by_layer(tree: Mapping[str, Any], layers: Sequence[str]) -> list[dict[str, Array]]:
    """Splits a tree by layer: the leaves of each layer by their names.

    Args:
        tree: of arrays, nested like the parameters of one network (no lane axis).
        layers: names of all its layers, see `fishnet.probes.recording.layer_names`.

    Returns:
        A dictionary a layer, in their order.

    Raises:
        UsageError: a leaf that belongs to none of the layers, or a layer without leaves.
    """
    found: dict[str, dict[str, Array]] = {name: {} for name in layers}
    flat: dict[tuple[str, ...], Any] = flatten_dict(tree)
    for path, leaf in flat.items():
        name = "/".join(path[:-1])
        if name not in found:
            raise UsageError(f"parameter {'/'.join(path)} belongs to none of the layers {', '.join(layers)}")
        found[name][path[-1]] = leaf
    for name, leaves in found.items():
        if not leaves:
            raise UsageError(f"layer {name!r} has no parameters")
    return list(found.values())


def kernel_layers(params: Mapping[str, Any], layers: Sequence[str]) -> tuple[str, ...]:
    """Names of the layers that have a kernel: convolutions and dense layers, not norms and slopes.

    Args:
        params: of one network, or their shapes.
        layers: as for `split_by_layer`.
    """
    return tuple(name for name, leaves in zip(layers, split_by_layer(params, layers), strict=True) if KERNEL in leaves)


def layer_norms(tree: Mapping[str, Any], layers: Sequence[str]) -> Float[Array, " layer"]:
    """Euclidean norm of each layer, `sqrt(sum of x^2 over all its entries)`; their squares add up to the whole norm's.

    Args:
        tree: parameters, gradients or updates of one network.
        layers: as for `split_by_layer`.

    Returns:
        [layer] float32, in the unit of the entries.

    Raises:
        UsageError: as `split_by_layer`.
    """
    return jnp.stack([global_norm(leaves) for leaves in split_by_layer(tree, layers)])


def layer_sizes(tree: Mapping[str, Any], layers: Sequence[str]) -> np.ndarray:
    """Number of entries of each layer, [layer] int64; arguments and errors as for `split_by_layer`."""
    return np.array([sum(leaf.size for leaf in leaves.values()) for leaves in split_by_layer(tree, layers)], np.int64)


def finite_layers(tree: Mapping[str, Any], layers: Sequence[str]) -> Bool[Array, " layer"]:
    """Whether all entries of each layer are finite, [layer]; arguments and errors as for `split_by_layer`."""
    return jnp.stack([all_finite(leaves) for leaves in split_by_layer(tree, layers)])


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether all entries of a tree of arrays are finite; True for an empty tree."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)] or [jnp.bool_(True)]).all()
