"""Dropout whose rate may be traced."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fishnet.errors import UsageError


def dropout(key: Array, x: Float[Array, "..."], rate: ArrayLike) -> Float[Array, "..."]:
    """Each entry is zeroed with probability `rate`, the others are scaled so that the mean stays.

        y = x m / (1 - rate), m ~ Bernoulli(1 - rate)

    Args:
        key: a random key.
        x: any shape.
        rate: probability of zero in [0, 1), possibly traced.

    Returns:
        Shape and dtype of `x`.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """
    keep = 1.0 - jnp.asarray(rate, jnp.float32)
    kept = jax.random.bernoulli(key, keep, x.shape)
    return jnp.where(kept, x / keep.astype(x.dtype), jnp.zeros_like(x))


class Dropout(nn.Module):
    """`dropout` in training, the identity in evaluation; draws from the rng stream "dropout".

    A rate of 0 is exactly the identity. As a Python number it draws nothing and needs no stream; traced it is a
    branch that draws nothing either, as long as the rate is not vectorised by `jax.vmap`.

    Args:
        rate: probability of zero in [0, 1), a Python number or a traced scalar.

    Raises:
        UsageError: a Python rate outside [0, 1), when called.
    """

    rate: ArrayLike

    @nn.compact
    def __call__(self, x: Float[Array, "..."], train: bool) -> Float[Array, "..."]:
        """Applies dropout to `x` of any shape when `train` is true."""
        if isinstance(self.rate, int | float):
            if not 0 <= self.rate < 1:
                raise UsageError(f"dropout rate must be in [0, 1), got {self.rate}")
            if not train or self.rate == 0:
                return x
            return dropout(self.make_rng("dropout"), x, self.rate)
        if not train:
            return x
        return jax.lax.cond(self.rate > 0, dropout, lambda key, x, rate: x, self.make_rng("dropout"), x, self.rate)
