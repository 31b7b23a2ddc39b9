"""Dropout at a rate that may be traced: of entries, of whole channels, and for selu (alpha dropout)."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fishnet.checks.traced import is_whole_in, violates
from fishnet.errors import UsageError

DROPOUTS = ("plain", "spatial", "alpha")

# What selu goes to on the far left: scale times alpha of `jax.nn.selu`.
SELU_FLOOR = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


def dropout(key: Array, x: Float[Array, "..."], rate: ArrayLike) -> Float[Array, "..."]:
    """Zeroes each entry with probability `rate` and scales the others, so that the mean stays the same.

        y = x m / (1 - rate), m ~ Bernoulli(1 - rate)

    Args:
        key: a random key.
        x: any shape.
        rate: probability of zero in [0, 1), possibly traced.

    Returns:
        Shape and dtype of `x`.

    Raises:
        UsageError: a known rate outside [0, 1).

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """
    return broadcast_dropout(x.shape, key, x, rate)


def spatial_dropout(key: Array, x: Float[Array, "b *s c"], rate: ArrayLike) -> Float[Array, "b *s c"]:
    """Zeroes whole channels of each example's maps with probability `rate`.

        y = x m / (1 - rate), m[b, c] ~ Bernoulli(1 - rate)

    Neighboring pixels are correlated, so dropping them one by one hides little. Values [b, c] are treated exactly as
    by `dropout`.

    Args:
        key: a random key.
        x: maps [b, h, w, c], or values [b, c].
        rate: probability of zero in [0, 1), possibly traced.

    Returns:
        Shape and dtype of `x`.

    Raises:
        UsageError: a known rate outside [0, 1).

    Source: Tompson et al., "Efficient Object Localization Using Convolutional Networks", arXiv:1411.4280.
    """
    return broadcast_dropout(_channels(x), key, x, rate)


def alpha_dropout(key: Array, x: Float[Array, "..."], rate: ArrayLike) -> Float[Array, "..."]:
    """Sets dropped entries to the left limit of selu, then restores mean 0 and variance 1 by an affine map.

        y = a (x m + f (1 - m)) + b, m ~ Bernoulli(q), q = 1 - rate, f = -1.7581
        a = 1 / sqrt(q (1 + f^2 (1 - q))), b = -a f (1 - q)

    Args:
        key: a random key.
        x: any shape, with entries of mean 0 and variance 1.
        rate: probability of being dropped in [0, 1), possibly traced.

    Returns:
        Shape and dtype of `x`.

    Raises:
        UsageError: a known rate outside [0, 1).

    Source: Klambauer et al., "Self-Normalizing Neural Networks", arXiv:1706.02515, section 3.
    """
    return _apply_mask(_draw_mask(key, rate, x.shape), x, *_alpha_constants(1.0 - jnp.asarray(rate, jnp.float32)))


def broadcast_dropout(shape: tuple[int, ...], key: Array, x: Float[Array, "..."], rate: ArrayLike) -> Array:
    """Applies `dropout` with one draw for all entries along the axes where `shape` is 1.

    Args:
        shape: shape of the draws, which broadcasts to that of `x`.
        key: a random key.
        x: any shape.
        rate: probability of zero in [0, 1), possibly traced.

    Returns:
        Shape and dtype of `x`.

    Raises:
        UsageError: a known rate outside [0, 1).
    """
    return _apply_mask(_draw_mask(key, rate, shape), x, 1.0 / (1.0 - jnp.asarray(rate, jnp.float32)))


def mixed_dropout(kind: ArrayLike, key: Array, x: Float[Array, "b *s c"], rate: ArrayLike) -> Float[Array, "b *s c"]:
    """Applies plain, spatial or alpha dropout, chosen by an index that may be traced.

        y = scale x + shift where m, else dropped
        plain and spatial: scale 1 / (1 - rate), shift 0, dropped 0;   alpha: scale a, shift b, dropped a f + b

    Args:
        kind: index into `DROPOUTS`, an int32 scalar.
        key: a random key.
        x: maps [b, h, w, c], or values [b, c].
        rate: probability of being dropped in [0, 1), possibly traced.

    Returns:
        Shape and dtype of `x`; that of the chosen kind for the same key.

    Raises:
        UsageError: a known rate outside [0, 1), or a known kind that does not exist.
    """
    check_rate(rate)
    if violates(kind, is_whole_in(0, len(DROPOUTS))):
        raise UsageError(f"kind of dropout {kind} is not a position in {', '.join(DROPOUTS)}")
    keep = 1.0 - jnp.asarray(rate, jnp.float32)
    alpha = jnp.asarray(kind) == DROPOUTS.index("alpha")
    numbers = [jnp.where(alpha, a, b) for a, b in zip(_alpha_constants(keep), (1.0 / keep, 0.0, 0.0), strict=True)]
    kept = lax.cond(
        jnp.asarray(kind) == DROPOUTS.index("spatial"),
        lambda key, rate: jnp.broadcast_to(_draw_mask(key, rate, _channels(x)), x.shape),
        lambda key, rate: _draw_mask(key, rate, x.shape),
        key,
        jnp.asarray(rate, jnp.float32),
    )
    return _apply_mask(kept, x, *numbers)


def _channels(x: Array) -> tuple[int, ...]:
    """Shape of a mask with one draw for each example and channel."""
    return (x.shape[0], *(1 for _ in x.shape[1:-1]), x.shape[-1])


def _draw_mask(key: Array, rate: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Draws a mask of `shape`, True for what is kept; UsageError for a known rate outside [0, 1)."""
    check_rate(rate)
    # Drawn in a row, which gives the same bits: XLA's CPU backend unrolls short loops over axes, and the generator in
    # them is long. Maps [16, 16, 16, 16] take 7.5 s to compile, as a row 0.7 s.
    return jax.random.bernoulli(key, 1.0 - jnp.asarray(rate, jnp.float32), (prod(shape),)).reshape(shape)


def _alpha_constants(keep: Array) -> tuple[Array, Array, Array]:
    """Computes a, b and a f + b of `alpha_dropout`."""
    scale = 1.0 / jnp.sqrt(keep * (1 + SELU_FLOOR**2 * (1 - keep)))
    shift = -scale * SELU_FLOOR * (1 - keep)
    return scale, shift, scale * SELU_FLOOR + shift


def _apply_mask(kept: Array, x: Array, scale: Array, shift: Array | float = 0.0, dropped: ArrayLike = 0.0) -> Array:
    """Applies a mask: `scale x + shift` where `kept`, else `dropped`."""
    # A product: what XLA makes of a quotient, its own rounding or that of a reciprocal, hangs on the code around it.
    y = x * scale.astype(x.dtype)
    if isinstance(shift, Array):
        y = y + shift.astype(x.dtype)
    return jnp.where(kept, y, jnp.asarray(dropped, x.dtype))


def apply_in_training(
    function: Callable, rate: ArrayLike, new_key: Callable, x: Array, train: bool, active: ArrayLike | None = None
) -> Array:
    """Applies `function(key, x, rate)` in training; the identity in evaluation and, exactly, at rate 0.

    A Python 0 draws nothing and needs no key; a traced 0 is a branch that draws nothing either, as long as the rate is
    not vectorized by `jax.vmap`, or `active` is given and is not.

    Args:
        function: pure, `f(key, x, rate) -> y`.
        rate: in [0, 1), a Python number or a traced scalar.
        new_key: `f() -> key`, called where a key is needed.
        x: any shape.
        train: whether to do anything.
        active: whether the rate is above 0, a scalar bool; None: the rate itself is looked at.

    Returns:
        Shape and dtype of `x`.

    Raises:
        UsageError: a known rate outside [0, 1).
    """
    check_rate(rate)
    if isinstance(rate, int | float):
        return function(new_key(), x, rate) if train and rate else x
    if not train:
        return x
    active = cast(Array, rate) > 0 if active is None else active
    return lax.cond(active, function, lambda key, x, rate: x, new_key(), x, rate)


def check_rate(rate: ArrayLike, what: str = "dropout rate") -> None:
    """Refuses a known rate outside [0, 1); a traced one passes.

    Raises:
        UsageError: `rate` is outside [0, 1).
    """
    if violates(rate, lambda rate: (rate >= 0) & (rate < 1)):
        raise UsageError(f"{what} must be in [0, 1), got {rate}")


class Dropout(nn.Module):
    """Dropout module: `dropout` in training, the identity in evaluation; rng stream "dropout".

    A rate of 0 is exactly the identity, see `apply_in_training`.

    Args:
        rate: probability of zero in [0, 1), a Python number or a traced scalar.
        active: as for `apply_in_training`.

    Raises:
        UsageError: a Python rate outside [0, 1), when called.

    Example:
        >>> x = jnp.ones((2, 100))
        >>> layer, rngs = Dropout(rate=0.5), {"dropout": jax.random.key(0)}
        >>> bool((layer.apply({}, x, train=False) == x).all())
        True
        >>> sorted(set(layer.apply({}, x, train=True, rngs=rngs).ravel().tolist()))
        [0.0, 2.0]
    """

    rate: ArrayLike
    active: ArrayLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "..."], train: bool) -> Float[Array, "..."]:
        """Applies dropout to `x` of any shape when `train` is true."""
        return apply_in_training(dropout, self.rate, partial(self.make_rng, "dropout"), x, train, self.active)


class SpatialDropout(nn.Module):
    """Spatial dropout module: `spatial_dropout` in training; fields, rng stream and errors as for `Dropout`."""

    rate: ArrayLike

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Drops channels of `x` [b, h, w, c] or entries of [b, c] when `train` is true."""
        return apply_in_training(spatial_dropout, self.rate, partial(self.make_rng, "dropout"), x, train)


class AlphaDropout(nn.Module):
    """Alpha dropout module: `alpha_dropout` in training; fields, rng stream and errors as for `Dropout`."""

    rate: ArrayLike

    @nn.compact
    def __call__(self, x: Float[Array, "..."], train: bool) -> Float[Array, "..."]:
        """Applies alpha dropout to `x` of any shape when `train` is true."""
        return apply_in_training(alpha_dropout, self.rate, partial(self.make_rng, "dropout"), x, train)


class MixedDropout(nn.Module):
    """Dropout module whose kind is an index that may be traced; rng stream and rate 0 as for `Dropout`.

    Args:
        kind: index into `DROPOUTS`, a Python int or a traced int32 scalar.
        rate: probability of being dropped in [0, 1), a Python number or a traced scalar.
        active: as for `apply_in_training`.

    Raises:
        UsageError: when called: a Python rate outside [0, 1), or a Python kind that does not exist.
    """

    kind: ArrayLike
    rate: ArrayLike
    active: ArrayLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Drops channels or entries of `x` [b, h, w, c] or [b, c] when `train` is true."""
        if isinstance(self.kind, int) and not 0 <= self.kind < len(DROPOUTS):
            raise UsageError(f"kind of dropout must be an index into {', '.join(DROPOUTS)}, got {self.kind}")
        function, new_key = partial(mixed_dropout, self.kind), partial(self.make_rng, "dropout")
        return apply_in_training(function, self.rate, new_key, x, train, self.active)
