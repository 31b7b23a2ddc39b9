"""Probes of gradients: norms by layer, and cosines between successive steps."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishnet.optim.masks import global_norm
from fishnet.probes.layers import kernel_layers, layer_norms, layer_sizes, split_by_layer


def gradient_norms(grads: Mapping[str, Any], layers: Sequence[str]) -> Float[Array, " layer"]:
    """Gradient norm of each layer.

        |g_l| = sqrt(sum over the weights w of layer l of (dL/dw)^2)

    Args:
        grads: gradients of the loss, a tree like the parameters.
        layers: names of all layers, see `fishnet.probes.recording.layer_names`.

    Returns:
        [layer], in units of the loss over units of a weight.

    Raises:
        UsageError: a leaf that belongs to none of the layers, or a layer without leaves.

    Source: Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", AISTATS
    2010, section 4.2.
    """
    return layer_norms(grads, layers)


def gradient_rms(grads: Mapping[str, Any], layers: Sequence[str]) -> Float[Array, " layer"]:
    """Root mean square of each layer's gradient, which is comparable between wide and narrow layers.

        rms_l = |g_l| / sqrt(n_l), n_l the number of weights of layer l

    Arguments, unit and errors as for `gradient_norms`.

    Returns:
        [layer].
    """
    return layer_norms(grads, layers) / jnp.sqrt(jnp.asarray(layer_sizes(grads, layers), jnp.float32))


def first_to_last(norms: Float[Array, " layer"], layers: Sequence[str], kernels: Sequence[str]) -> Float[Array, ""]:
    """Ratio of the first layer's norm to the last one's: below 1 gradients vanish, above 1 they explode.

        ratio = |g_first| / |g_last|, over the layers that have a kernel

    Args:
        norms: of all layers, such as `gradient_norms` or `gradient_rms`.
        layers: their names.
        kernels: names of the layers with a kernel, see `fishnet.probes.layers.kernel_layers`.

    Returns:
        [] without unit; infinite or NaN where the last layer has no gradient.

    Source: Pascanu, Mikolov and Bengio, "On the Difficulty of Training Recurrent Neural Networks", arXiv:1211.5063.
    """
    return norms[layers.index(kernels[0])] / norms[layers.index(kernels[-1])]


def gradient_metrics(params: Mapping[str, Any], grads: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Array]:
    """Gradient norm of each layer, and the ratio of the first to the last.

        |g_l| = sqrt(sum over the weights w of layer l of (dL/dw)^2),   rms_l = |g_l| / sqrt(n_l),
        ratio = |g_first| / |g_last|, over the layers that have a kernel

    Args:
        params: tells which layers have a kernel.
        grads: as for `gradient_norms`.
        layers: as for `gradient_norms`.

    Returns:
        `gradient_norm` and `gradient_rms` [layer], `gradient_ratio` [].

    Raises:
        UsageError: as `gradient_norms`.

    Source: Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", AISTATS
    2010, section 4.2.
    """
    norms = gradient_norms(grads, layers)
    return {
        "gradient_norm": norms,
        "gradient_rms": gradient_rms(grads, layers),
        "gradient_ratio": first_to_last(norms, layers, kernel_layers(params, layers)),
    }


def cosine(a: Any, b: Any) -> Float[Array, ""]:
    """Cosine of the angle between two trees, each taken as one vector.

        cos = <a, b> / (|a| |b|)

    Args:
        a: of arrays.
        b: a tree like `a`.

    Returns:
        [] in [-1, 1]; NaN where one of them is zero.
    """
    a_unit, b_unit = _unit(a), _unit(b)
    return jnp.clip(_dot(a_unit, b_unit), -1.0, 1.0)


def gradient_cosines(grads: Mapping[str, Any], before: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Array]:
    """Cosine between the gradients of successive steps: near 0 for noise, near -1 when steps oscillate.

        cos = <g(t), g(t-1)> / (|g(t)| |g(t-1)|), of the whole gradient and of each layer's part

    Args:
        grads: of this step, a tree like the parameters.
        before: of the step before it.
        layers: as for `gradient_norms`.

    Returns:
        `gradient_cosine` [] and `layer_gradient_cosine` [layer], in [-1, 1]; NaN where a gradient is zero.

    Raises:
        UsageError: as `gradient_norms`.

    Source: Xing et al., "A Walk with SGD", arXiv:1802.08770.
    """
    pairs = zip(split_by_layer(grads, layers), split_by_layer(before, layers), strict=True)
    return {
        "gradient_cosine": cosine(grads, before),
        "layer_gradient_cosine": jnp.stack([cosine(a, b) for a, b in pairs]),
    }


def _unit(tree: Any) -> Any:
    # Scaled before anything is multiplied, so that lengths far from 1 neither overflow nor vanish.
    largest = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(tree)]).max()
    scaled = jax.tree.map(lambda leaf: leaf / largest, tree)
    norm = global_norm(scaled)
    return jax.tree.map(lambda leaf: leaf / norm, scaled)


def _dot(a: Any, b: Any) -> Array:
    return cast(Array, sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))
