"""Initializers as one formula, a standard deviation times noise of unit variance; all numbers may be traced.

Example:
    >>> import jax
    >>> from flax import linen as nn
    >>> from fishnet.nn.initializers import INITIALIZERS
    >>> layer = nn.Dense(3, kernel_init=INITIALIZERS["he_normal"])
    >>> layer.init(jax.random.key(0), jax.numpy.ones((1, 4)))["params"]["kernel"].shape
    (4, 3)
"""

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from fishnet.lookup import Table

FANS = ("in", "avg", "out", "none")
DISTRIBUTIONS = ("truncated_normal", "uniform", "normal", "constant", "orthogonal")

# The standard deviation of a standard normal truncated to (-2, 2): dividing by it restores unit variance.
TRUNCATED_STD = 0.87962566103423978


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Fan-in and fan-out of a kernel whose last two axes are inputs and outputs.

        fan_in = k i, fan_out = k o, k = product of the leading (spatial) axes

    A depthwise kernel [h, w, 1, c] has fan_in = h w, but fan_out = h w c, as in `jax.nn.initializers`: prefer
    the initializers by `in` there.

    Args:
        shape: [..., i, o], two axes or more.

    Returns:
        `(fan_in, fan_out)`.

    Raises:
        ValueError: fewer than two axes.

    Example:
        >>> fans((3, 3, 16, 32))
        (144, 288)
    """
    if len(shape) < 2:
        raise ValueError(f"variance scaling needs a kernel of two axes or more, got shape {tuple(shape)}")
    field = 1
    for size in shape[:-2]:
        field *= size
    return field * shape[-2], field * shape[-1]


@dataclass(frozen=True)
class VarianceScaling:
    """Variance-scaling initializer: mean 0 and variance `gain^2 scale / fan`; orthogonal and constant kernels too.

        std = gain sqrt(scale / fan), fan = fan_in, (fan_in + fan_out) / 2, fan_out or 1
        truncated normal: std / 0.8796 x N(0, 1) cut at +-2;   uniform: U(-sqrt(3) std, sqrt(3) std)
        normal: N(0, std^2);   constant: std
        orthogonal: std Q, where Q [k i, o] has orthonormal columns, or rows where these are fewer

    Called as `f(key, shape, dtype)`, so it is a Linen `kernel_init` as it is. Every field may be traced: lanes
    of one program may differ in it. Q is computed only where it is needed, unless `jax.vmap` vectorizes the
    distribution.

    Args:
        scale: 2 for He, 1 for Glorot and LeCun.
        fan: index into `FANS`: 0 in, 1 avg, 2 out, 3 none.
        distribution: index into `DISTRIBUTIONS`: 0 truncated normal, 1 uniform, 2 normal, 3 constant, 4 orthogonal.
        gain: factor on the standard deviation.
        among: indices into `DISTRIBUTIONS`, ascending: what a traced `distribution` may be.
        unit_variance: whether the kernels are to be rescaled on data afterwards, as `fishnet.nn.lsuv` does; a kernel by
            itself cannot.

    Source: He et al., arXiv:1502.01852; Glorot and Bengio, AISTATS 2010; LeCun et al., "Efficient BackProp", 1998;
    Saxe et al., arXiv:1312.6120 (orthogonal).
    """

    scale: ArrayLike
    fan: ArrayLike
    distribution: ArrayLike
    gain: ArrayLike = 1.0
    among: tuple[int, ...] = tuple(range(len(DISTRIBUTIONS)))
    unit_variance: bool = False

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        """Draws a kernel of `shape` and `dtype`; equal to `jax.nn.initializers` for the same key."""
        fan_in, fan_out = fans(shape)
        fan = jnp.array([fan_in, (fan_in + fan_out) / 2, fan_out, 1], dtype)[self.fan]
        std = jnp.asarray(self.gain, dtype) * jnp.sqrt(jnp.asarray(self.scale, dtype) / fan)
        if isinstance(self.distribution, int):
            return _draw(self.distribution, key, shape, dtype) * std
        branches = [lambda k, i=i: _draw(i, k, shape, dtype) for i in self.among]
        return jax.lax.switch(jnp.searchsorted(jnp.array(self.among), self.distribution), branches, key) * std


def _draw(distribution: int, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Draws a kernel from one of the `DISTRIBUTIONS` with standard deviation 1."""
    if distribution == 3:
        return jnp.ones(shape, dtype)
    if distribution == 4:
        wide = jnp.promote_types(dtype, jnp.float32)  # there is no QR decomposition in half precision
        return jax.nn.initializers.orthogonal()(key, shape, wide).astype(dtype)
    # Drawn in a row, which gives the same bits: XLA's CPU backend unrolls short loops over axes, and the generator in
    # them is long. A kernel [3, 3, 3, 16] takes 2.4 s to compile, as a row 0.4 s.
    row = (prod(shape),)
    if distribution == 0:
        noise = jax.random.truncated_normal(key, -2, 2, row, dtype) / jnp.asarray(TRUNCATED_STD, dtype)
    elif distribution == 1:
        noise = jax.random.uniform(key, row, dtype, -1, 1) * jnp.sqrt(jnp.asarray(3, dtype))
    else:
        noise = jax.random.normal(key, row, dtype)
    return noise.reshape(shape)


def variance_scaling(scale: ArrayLike, fan: ArrayLike, distribution: ArrayLike) -> VarianceScaling:
    """Builds a `VarianceScaling` initializer with gain 1.

    Args:
        scale: numerator of the variance, possibly traced.
        fan: index into `FANS`, possibly traced.
        distribution: index into `DISTRIBUTIONS`, possibly traced.

    Returns:
        `f(key, shape, dtype=float32) -> kernel`.
    """
    return VarianceScaling(scale, fan, distribution)


INITIALIZERS: Table[VarianceScaling] = Table(
    {
        "he_normal": variance_scaling(2.0, 0, 0),
        "he_uniform": variance_scaling(2.0, 0, 1),
        "glorot_normal": variance_scaling(1.0, 1, 0),
        "glorot_uniform": variance_scaling(1.0, 1, 1),
        "lecun_normal": variance_scaling(1.0, 0, 0),
        "lecun_uniform": variance_scaling(1.0, 0, 1),
        "truncated": VarianceScaling(1.0, 3, 0, gain=0.05),
        "uniform": VarianceScaling(1.0, 3, 1, gain=0.05 / 3**0.5),  # limits of 0.05
        "normal": VarianceScaling(1.0, 3, 2, gain=0.05),
        "constant": VarianceScaling(1.0, 3, 3, gain=0.05),
        "orthogonal": VarianceScaling(1.0, 3, 4),
        "lsuv": VarianceScaling(1.0, 3, 4, unit_variance=True),
    }
)
