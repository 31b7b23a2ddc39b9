"""Kernel transforms of weight norm and weight standardization."""

from math import prod

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from fishnet.errors import UsageError

TINY = 1e-12  # of a squared length: a unit without weights stays without


def normalize_kernel(kernel: Float[Array, "*s o"]) -> Float[Array, "*s o"]:
    """Normalizes each unit's weights to length 1: `v / |v|`, over all axes but the last.

    Args:
        kernel: [i, o] of a dense layer or [kh, kw, i, o] of a convolution.

    Returns:
        Shape and dtype of `kernel`.

    Example:
        >>> print(jnp.linalg.norm(normalize_kernel(jnp.ones((4, 2))), axis=0).round(3))
        [1. 1.]

    Source: Salimans and Kingma, arXiv:1602.07868, equation 2.
    """
    return kernel * lax.rsqrt(_squared_length(kernel) + TINY)


def standardize_kernel(kernel: Float[Array, "*s o"]) -> Float[Array, "*s o"]:
    """Centers each unit's weights and normalizes them to length 1: `(v - mean v) / |v - mean v|`.

    Mean and length are over all axes but the last.

    Args:
        kernel: [i, o] of a dense layer or [kh, kw, i, o] of a convolution.

    Returns:
        Shape and dtype of `kernel`.

    Raises:
        UsageError: units of a single weight, which would all be 0.

    Source: Qiao et al., arXiv:1903.10520; with length 1 as Brock, De and Smith, arXiv:2101.08692, equation 4.
    """
    if prod(kernel.shape[:-1]) == 1:
        raise UsageError(f"a kernel {kernel.shape} cannot be standardized: the single weight of each unit becomes 0")
    return normalize_kernel(kernel - kernel.mean(_units(kernel), keepdims=True))


def normalize_kernel_by_kind(
    kind: Int[Array, ""], weight: int, standardized: int, kernel: Float[Array, "*s o"]
) -> Float[Array, "*s o"]:
    """Applies `normalize_kernel`, `standardize_kernel` or nothing, by a kind that may be traced.

    Args:
        kind: [] int32.
        weight: the kind whose kernels are of unit length.
        standardized: the kind whose kernels are standardized.
        kernel: [i, o] or [kh, kw, i, o].

    Returns:
        Shape and dtype of `kernel`.
    """
    mean = jnp.where(kind == standardized, kernel.mean(_units(kernel), keepdims=True), 0.0)
    centered = kernel - mean
    length = lax.rsqrt(_squared_length(centered) + TINY)
    return centered * jnp.where((kind == weight) | (kind == standardized), length, 1.0)


def initial_scale(kind: str, kernel: Float[Array, "*s o"]) -> Float[Array, " o"]:
    """Scale at which a layer with a normalized kernel begins as it would without norm.

    Args:
        kind: "weight" (then exactly so) or "weight_standardized" (up to the mean of the weights).
        kernel: [i, o] or [kh, kw, i, o], as initialized.

    Returns:
        [o], the lengths of the units' weights (without their mean).
    """
    if kind == "weight_standardized":
        kernel = kernel - kernel.mean(_units(kernel), keepdims=True)
    return jnp.sqrt(_squared_length(kernel)).reshape(-1)


def _units(kernel: Array) -> tuple[int, ...]:
    return tuple(range(kernel.ndim - 1))


def _squared_length(kernel: Array) -> Array:
    return jnp.square(kernel).sum(_units(kernel), keepdims=True)
