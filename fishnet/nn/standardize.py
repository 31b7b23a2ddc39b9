"""Standardization of images by constants in the model's variables."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from fishnet.errors import UsageError


def to_float_images(x: Num[Array | np.ndarray, "..."]) -> Float[Array, "b h w c"]:
    """Casts images `x` [b, h, w, c], uint8 or floats in 0..255, to float32.

    Raises:
        UsageError: `x` is not of rank 4.
    """
    if x.ndim != 4:
        raise UsageError(f"images must be [batch, height, width, channels], got shape {x.shape}")
    return jnp.asarray(x, jnp.float32)


class Standardize(nn.Module):
    """Standardizes images to zero mean and unit variance.

        y = (x - mean) / std

    `mean` [c] and `std` [c] live in the collection `constants` (0 and 1 until they are set from the task): the
    network carries its standardization with it, and no optimizer ever sees it.

    Args:
        dtype: of the result; the arithmetic is float32.

    Example:
        >>> images = np.full((1, 2, 2, 3), 255, np.uint8)
        >>> constants = {"mean": jnp.full(3, 127.5), "std": jnp.full(3, 127.5)}
        >>> print(Standardize().apply({"constants": constants}, images)[0, 0, 0])
        [1. 1. 1.]
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Num[Array | np.ndarray, "..."]) -> Float[Array, "b h w c"]:
        """Standardizes `x` [b, h, w, c], uint8 or floats in 0..255.

        Raises:
            UsageError: `x` is not of rank 4.
        """
        x = to_float_images(x)
        c = x.shape[-1]
        mean = self.variable("constants", "mean", jnp.zeros, (c,), jnp.float32).value
        std = self.variable("constants", "std", jnp.ones, (c,), jnp.float32).value
        return ((x - mean) / std).astype(self.dtype)
