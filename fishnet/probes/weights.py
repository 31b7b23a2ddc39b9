"""Probes of weights: norms, updates and sparsity."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishnet.probes.layers import KERNEL, kernel_layers, layer_norms, split_by_layer

SMALL = 0.01  # of the root mean square of its kernel, below which a weight counts as small


def update_metrics(params: Mapping[str, Any], after: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Array]:
    """Norm of each layer's update and parameters, and their ratio.

        |w_l|,   |u_l| with u = w(t+1) - w(t),   ratio_l = |u_l| / |w_l|

    The update is the whole one: learning rate, momentum, decay, clipping and constraints are in it. Ratios about 1e-3
    a step are usual; far above, a layer is unstable, far below, it does not learn.

    Args:
        params: before the step.
        after: after it.
        layers: names of all layers, see `fishnet.probes.recording.layer_names`.

    Returns:
        `parameter_norm` and `update_norm` in units of a weight and `update_ratio`, each [layer]; a layer that is zero
        has an infinite ratio, NaN if it stays so.

    Raises:
        UsageError: a leaf that belongs to none of the layers, or a layer without leaves.

    Source: You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", arXiv:1708.03888; about 1e-3:
    Karpathy, Stanford CS231n, "Neural Networks Part 3", 2015.
    """
    norms = layer_norms(params, layers)
    moved = layer_norms(jax.tree.map(jnp.subtract, after, params), layers)
    return {"parameter_norm": norms, "update_norm": moved, "update_ratio": moved / norms}


def zero_fraction(kernel: Float[Array, "..."]) -> Float[Array, ""]:
    """Fraction of the entries that are exactly 0, [] in [0, 1].

    Args:
        kernel: weights, of any shape.
    """
    return (kernel == 0).mean(dtype=jnp.float32)


def small_fraction(kernel: Float[Array, "..."], below: float = SMALL) -> Float[Array, ""]:
    """Fraction of the entries that are much smaller than the others, zeros included.

        #{|w| < below rms} / n, rms = sqrt(mean w^2)

    Of normal weights it is 0.8 % at the default.

    Args:
        kernel: weights, of any shape.
        below: 0 or more, a fraction of the root mean square.

    Returns:
        [] in [0, 1]; 1 where all weights are 0.
    """
    largest = jnp.abs(kernel).max()
    scaled = jnp.abs(kernel) / jnp.where(largest > 0, largest, 1.0)
    rms = jnp.sqrt(jnp.square(scaled).mean())
    return ((scaled < below * rms) | (kernel == 0)).mean(dtype=jnp.float32)


def sparsity_metrics(params: Mapping[str, Any], layers: Sequence[str], below: float = SMALL) -> dict[str, Array]:
    """Fractions of each kernel's weights that are exactly 0, and close to 0.

        zero = #{w = 0} / n,   small = #{|w| < 0.01 rms} / n, rms = sqrt(mean w^2)

    Args:
        params: of one network.
        layers: names of all its layers, see `fishnet.probes.recording.layer_names`; norms and slopes have no kernel and
            are left out.
        below: see `small_fraction`.

    Returns:
        `zero_weights` and `small_weights`, each [layers with a kernel] in [0, 1].

    Raises:
        UsageError: a leaf that belongs to none of the layers, or a layer without leaves.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", arXiv:1506.02626.
    """
    found = dict(zip(layers, split_by_layer(params, layers), strict=True))
    kernels = [found[name][KERNEL] for name in kernel_layers(params, layers)]
    return {
        "zero_weights": jnp.stack([zero_fraction(kernel) for kernel in kernels]),
        "small_weights": jnp.stack([small_fraction(kernel, below) for kernel in kernels]),
    }
