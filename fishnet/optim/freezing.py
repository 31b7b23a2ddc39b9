"""Freezing of parameters by pattern, gradual unfreezing, and learning-rate factors by layer."""

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from fishnet.errors import UsageError
from fishnet.optim.masks import path_names

STAGES = 8  # at most; a table of a fixed length, so that runs with different stages share a program
TRUNK = "trunk"  # the pattern for everything but the head
_SITE = re.compile(r"_(\d+)$")


def is_in_head(path: tuple[str, ...]) -> bool:
    """Whether the leaf at `path` belongs to a head (`head`, `expert_head`)."""
    return path[0].endswith("head")


def frozen_mask(params: Any, patterns: Sequence[str], head: Collection[str] = ("head",)) -> Any:
    """Mask of the frozen leaves.

    A pattern matches the whole path of a leaf ("conv_0/kernel") or its first name ("conv_0"), with the wildcards of
    `fnmatch`; "trunk" and "trunk/*" match everything but the head.

    Args:
        params: a tree of arrays (or their shapes) of one network.
        patterns: any number; none freezes nothing.
        head: names of the modules that do not belong to the backbone.

    Returns:
        A tree like `params` of Python booleans.

    Raises:
        UsageError: a pattern that matches no leaf, or patterns that freeze every leaf.

    Example:
        >>> params = {"conv_0": {"kernel": 0}, "head": {"kernel": 0, "bias": 0}}
        >>> frozen_mask(params, ["trunk"])
        {'conv_0': {'kernel': True}, 'head': {'bias': False, 'kernel': False}}
    """
    paths = [path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]

    def matches(pattern: str, path: tuple[str, ...]) -> bool:
        if pattern == f"{TRUNK}/*":
            return path[0] not in head
        return _names_layer(pattern, path[0], head) or fnmatchcase("/".join(path), pattern)

    for pattern in patterns:
        if not any(matches(pattern, path) for path in paths):
            layers = ", ".join(dict.fromkeys(path[0] for path in paths))
            raise UsageError(f"freeze: {pattern!r} matches no parameter; layers are trunk, {layers}")
    mask = [any(matches(pattern, path) for pattern in patterns) for path in paths]
    if all(mask):
        raise UsageError(f"freeze: {'+'.join(patterns)!r} freezes every parameter: nothing could learn")
    return jax.tree.unflatten(jax.tree.structure(params), mask)


def frozen_layers(
    layers: Collection[str], patterns: Sequence[str], head: Collection[str] = ("head",)
) -> tuple[str, ...]:
    """Names of layers whose batch-norm statistics are frozen too, not only their parameters.

    A pattern that matches the name of a layer ("norm_0", "norm_*", "trunk") freezes its statistics. One that matches
    only leaves ("norm_0/*", "norm_0/scale", "trunk/*") does not.

    Args:
        layers: first names of the leaves of a network.
        patterns, head: as for `frozen_mask`.

    Returns:
        Names, in the order of `layers`.
    """
    return tuple(name for name in layers if any(_names_layer(pattern, name, head) for pattern in patterns))


def _names_layer(pattern: str, layer: str, head: Collection[str]) -> bool:
    return layer not in head if pattern == TRUNK else fnmatchcase(layer, pattern)


def stop_gradients(params: Any, mask: Any) -> Any:
    """Stops the gradients of frozen leaves; the compiler then skips what only they would need.

    Args:
        params: a tree of arrays.
        mask: of `frozen_mask`.
    """
    return jax.tree.map(lambda leaf, stop: lax.stop_gradient(leaf) if stop else leaf, params, mask)


class LayerScales(struct.PyTreeNode):
    """Learning-rate factors by layer and by stage of unfreezing; the last layer is the head."""

    factor: jax.Array | np.ndarray  # [layer] float32, discriminative rates
    start: jax.Array | np.ndarray  # [layer] int32, first step in which a layer learns
    stage_start: (
        jax.Array | np.ndarray
    )  # [STAGES] int32, first step of each stage; 2^31 - 1 for stages that do not exist
    stage_factor: jax.Array | np.ndarray  # [STAGES] float32

    def at(self, step: jax.Array) -> jax.Array:
        """Factor of each layer in a step, [layer] float32: exactly 0 while it is frozen, exactly 1 by default."""
        stage = jnp.maximum((self.stage_start <= step).sum() - 1, 0)
        return jnp.where(step >= self.start, self.factor * jnp.asarray(self.stage_factor)[stage], 0.0)


def layer_scales(
    layers: int,
    decay: float = 1.0,
    unfreeze: Sequence[int] = (0,),
    stage_factors: Sequence[float] = (1.0,),
    steps_per_epoch: int = 1,
) -> LayerScales:
    """Learning-rate factors of discriminative fine-tuning and gradual unfreezing.

        rate of layer l = lr decay^(layers - l) stage factor, l = 0 the first layer, l = layers the head
        frozen until the epoch of its block: the hidden layers are cut into as many equal blocks as there are epochs in
        `unfreeze`, and the block next to the head begins first

    Args:
        layers: hidden layers, 1 or more.
        decay: ratio of each layer's learning rate to that of the next layer, above 0; ULMFiT: 1 / 2.6.
        unfreeze: epochs from 0, not decreasing; (0,): everything learns from the start.
        stage_factors: on all rates, one for each stage (first the head alone, then one more block), or one for all.
        steps_per_epoch: 1 or more.

    Returns:
        NumPy arrays [layers + 1] and [STAGES].

    Raises:
        UsageError: epochs that decrease or are negative, more epochs than hidden layers or than `STAGES` - 1, a factor
            that is not positive, or another number of factors than stages.

    Example:
        >>> scales = layer_scales(layers=3, decay=0.5)
        >>> print(scales.at(0))
        [0.125 0.25  0.5   1.   ]

    Source: Howard and Ruder, "Universal Language Model Fine-tuning", arXiv:1801.06146.
    """
    check_stages(decay, unfreeze, stage_factors)
    if len(unfreeze) > layers:
        raise UsageError(f"unfreeze: {len(unfreeze)} blocks of layers, but the network has {layers} hidden layers")
    epochs = (0, *unfreeze) if tuple(unfreeze) != (0,) else (0,)
    start = np.zeros(layers + 1, np.int64)
    for block, members in enumerate(np.array_split(np.arange(layers)[::-1], len(unfreeze))):
        start[members] = unfreeze[block] * steps_per_epoch
    limit = np.iinfo(np.int32).max
    stage_start = np.full(STAGES, limit)
    stage_start[: len(epochs)] = np.minimum(np.multiply(epochs, steps_per_epoch), limit)
    factors = np.ones(STAGES)
    factors[: len(epochs)] = stage_factors if len(stage_factors) > 1 else stage_factors[0]
    return LayerScales(
        factor=np.asarray(np.power(float(decay), layers - np.arange(layers + 1)), np.float32),
        start=np.minimum(start, limit).astype(np.int32),
        stage_start=stage_start.astype(np.int32),
        stage_factor=factors.astype(np.float32),
    )


def check_stages(decay: float, unfreeze: Sequence[int], stage_factors: Sequence[float]) -> None:
    """Refuses stages of unfreezing that no network can have.

    Raises:
        UsageError: see `layer_scales`.
    """
    if not 0 < decay < np.inf:
        raise UsageError(f"layer_rate: {decay:g} is not above 0")
    if list(unfreeze) != sorted(unfreeze) or min(unfreeze) < 0:
        raise UsageError(f"unfreeze: {'-'.join(map(str, unfreeze))!r} is not a list of epochs from 0 that go up")
    stages = 1 if tuple(unfreeze) == (0,) else len(unfreeze) + 1
    if stages > STAGES:
        raise UsageError(f"unfreeze: {len(unfreeze)} epochs are more than {STAGES - 1}")
    if len(stage_factors) not in (1, stages):
        raise UsageError(f"unfreeze_rates: {len(stage_factors)} factors for {stages} stages (one, or one a stage)")
    if not all(0 < factor < np.inf for factor in stage_factors):
        raise UsageError(f"unfreeze_rates: {'-'.join(map('{:g}'.format, stage_factors))!r} has a factor not above 0")


def select_by_layer(params: Any, layers: int, values: Any) -> Any:
    """Selects for each leaf the entry of `values` that belongs to its layer.

    Args:
        params: a tree of arrays of one network.
        layers: hidden layers; leaves of layer l are called by names that end in `_l`, `input_norm` goes with the first.
        values: [layers + 1], the head's last.

    Returns:
        A tree like `params`.

    Raises:
        UsageError: a leaf that belongs to no layer.
    """

    def pick(path: tuple, _: Any) -> Any:
        names = path_names(path)
        site = _SITE.search(names[0])
        if is_in_head(names):
            return values[layers]
        if names[0] == "input_norm":
            return values[0]
        if site is None or int(site[1]) >= layers:
            raise UsageError(f"no layer of {layers} has a parameter {'/'.join(names)}")
        return values[int(site[1])]

    return jax.tree_util.tree_map_with_path(pick, params)


def keep_frozen(scales: Any | None, new: Any, old: Any) -> Any:
    """Keeps the leaves of `old` where a layer is frozen, and takes those of `new` where it learns.

    Args:
        scales: factor on the learning rate of each leaf, 0 while it is frozen; None: everything learns.
        new, old: trees like `scales`.
    """
    return new if scales is None else jax.tree.map(lambda s, a, b: jnp.where(s > 0, a, b), scales, new, old)


def zero_frozen(scales: Any | None, grads: Any) -> Any:
    """Sets the gradients of frozen layers to 0; `scales` as for `keep_frozen`."""
    return keep_frozen(scales, grads, jax.tree.map(jnp.zeros_like, grads))
