"""Normalised kernels: what weight norm and weight standardisation do to a layer before it is applied."""

from math import prod

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from fishnet.errors import UsageError

TINY = 1e-12  # of a squared length: a unit without weights stays without


def normalize_kernel(kernel: Float[Array, "*s o"]) -> Float[Array, "*s o"]:
    """Each unit's weights at length 1: `v / |v|`, over all axes but the last.

    Args:
        kernel: [i, o] of a dense layer or [kh, kw, i, o] of a convolution.

    Returns:
        Shape and dtype of `kernel`.

    Source: Salimans and Kingma, arXiv:1602.07868, equation 2.
    """
    return kernel * lax.rsqrt(_squared_length(kernel) + TINY)


def standardize_kernel(kernel: Float[Array, "*s o"]) -> Float[Array, "*s o"]:
    """Each unit's weights with mean 0 and length 1: `(v - mean v) / |v - mean v|`, over all axes but the last.

    Args:
        kernel: [i, o] of a dense layer or [kh, kw, i, o] of a convolution.

    Returns:
        Shape and dtype of `kernel`.

    Raises:
        UsageError: units of a single weight, which would all be 0.

    Source: Qiao et al., arXiv:1903.10520; with length 1 as Brock, De and Smith, arXiv:2101.08692, equation 4.
    """
    if prod(kernel.shape[:-1]) == 1:
        raise UsageError(f"a kernel {kernel.shape} cannot be standardised: the single weight of each unit becomes 0")
    return normalize_kernel(kernel - kernel.mean(_units(kernel), keepdims=True))


def normalize_kernel_by_kind(
    kind: Int[Array, ""], weight: int, standardised: int, kernel: Float[Array, "*s o"]
) -> Float[Array, "*s o"]:
    """`normalize_kernel`, `standardize_kernel` or the kernel as it is, bit for bit, by a number that may be traced.

    Args:
        kind: [] int32.
        weight: the kind whose kernels are of unit length.
        standardised: the kind whose kernels are standardised.
        kernel: [i, o] or [kh, kw, i, o].

    Returns:
        Shape and dtype of `kernel`.
    """
    mean = jnp.where(kind == standardised, kernel.mean(_units(kernel), keepdims=True), 0.0)
    centred = kernel - mean
    length = lax.rsqrt(_squared_length(centred) + TINY)
    return centred * jnp.where((kind == weight) | (kind == standardised), length, 1.0)


def initial_scale(kind: str, kernel: Float[Array, "*s o"]) -> Float[Array, " o"]:
    """The scale with which a layer behind a normalised kernel starts out as the layer without norm would.

    Args:
        kind: "weight" (then exactly so) or "weight_standardised" (up to the mean of the weights).
        kernel: [i, o] or [kh, kw, i, o], as initialised.

    Returns:
        [o], the lengths of the units' weights (without their mean).
    """
    if kind == "weight_standardised":
        kernel = kernel - kernel.mean(_units(kernel), keepdims=True)
    return jnp.sqrt(_squared_length(kernel)).reshape(-1)


def _units(kernel: Array) -> tuple[int, ...]:
    return tuple(range(kernel.ndim - 1))


def _squared_length(kernel: Array) -> Array:
    return jnp.square(kernel).sum(_units(kernel), keepdims=True)
