"""Transfer of a pretrained backbone to a classifier."""

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from fishnet.errors import UsageError


def transfer_trunk(
    classifier: Mapping[str, Any],
    pretrained: Mapping[str, Any],
    head: Collection[str] = ("head",),
    optional: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Replaces a classifier's variables by those of a pretrained backbone, all but the head.

    Args:
        classifier: one collection of its variables, `params` or `batch_stats`.
        pretrained: the same collection of an `Objective` (or another classifier); what the classifier does not have is
            left out.
        head: names of the modules that stay as they are in `classifier`.
        optional: how the names of modules begin that stay as they are where `pretrained` lacks them.

    Returns:
        A tree like `classifier`.

    Raises:
        UsageError: `pretrained` lacks a leaf of the backbone, or has it in another shape.
    """
    leaves: dict[str, Any] = flatten_dict(classifier, keep_empty_nodes=True, sep="/")
    found: dict[str, Any] = flatten_dict(pretrained, keep_empty_nodes=True, sep="/")
    for name, leaf in leaves.items():
        module = name.split("/")[0]
        if module in head or (name not in found and module.startswith(optional)):
            continue
        if name not in found:
            raise UsageError(f"the pretrained network has no {name}, which the classifier's backbone needs")
        if jnp.shape(found[name]) != jnp.shape(leaf):
            theirs, ours = jnp.shape(found[name]), jnp.shape(leaf)
            raise UsageError(f"{name} has shape {theirs} in the pretrained network and {ours} in the classifier")
        leaves[name] = found[name]
    return unflatten_dict(leaves, sep="/")
