"""The two passes over the data that every norm is made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _wide(m: Array, ndim: int) -> Array:
    """[b, c] to [b, 1, ..., 1, c]."""
    return m.reshape(m.shape[0], *(1,) * (ndim - 2), m.shape[1])


def moments(x: Float[Array, "b *s c"]) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
    """Mean and biased variance of each sample and channel over all pixels, from one pass over `x`.

    Args:
        x: [b, h, w, c] or [b, c].

    Returns:
        `(mean, var)`, both [b, c], float32 or better; a variance is never negative.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if x.ndim == 2:
        return x, jnp.zeros_like(x)
    axes = tuple(range(1, x.ndim - 1))
    centre = (slice(None), *(n // 2 for n in x.shape[1:-1]))
    shift = jax.lax.stop_gradient(x[centre])
    away = x - _wide(shift, x.ndim)
    first, second = away.mean(axes), jnp.square(away).mean(axes)
    return shift + first, jnp.maximum(second - jnp.square(first), 0)


def affine(
    x: Float[Array, "b *s c"], mean: Float[Array, "b c"], gain: Float[Array, "b c"], bias: Float[Array, "b c"]
) -> Float[Array, "b *s c"]:
    """Each sample and channel centred, scaled and shifted.

        y = (x - mean) gain + bias
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    fixed = jax.lax.stop_gradient(mean)
    shift = bias - gain * (mean - fixed)
    return ((wide - _wide(fixed, x.ndim)) * _wide(gain, x.ndim) + _wide(shift, x.ndim)).astype(x.dtype)
