"""Kinds of norm, the inputs that each accepts, and how each mixes moments: functions without parameters."""

from math import prod

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from fishnet.errors import UsageError

KINDS = ("none", "batch", "layer", "group", "instance", "rms", "layer_channel", "weight", "weight_standardized")
WEIGHT_KINDS = ("weight", "weight_standardized")
EPS = 1e-5
MORE_VALUES = {
    "batch": "more images a batch (or ghost batch) or larger maps",
    "layer": "more channels or larger maps",
    "rms": "more channels or larger maps",
    "group": "more channels a group or larger maps",
    "instance": "maps of two pixels or more",
    "layer_channel": "more channels",
}


def values_per_moment(kind: str, shape: tuple[int, ...], groups: int = 8, ghost: int = 0) -> int | None:
    """Number of values over which a norm takes each mean; None for norms that take no mean.

    Args:
        kind, shape, groups, ghost: as for `check_norm`.
    """
    b, *pixels, c = shape
    over = {
        "batch": (ghost or b, *pixels),
        "layer": (*pixels, c),
        "rms": (*pixels, c),
        "group": (*pixels, c // groups),
        "instance": pixels,
        "layer_channel": (c,),
    }
    return prod(over[kind]) if kind in over else None


def check_norm(kind: str, shape: tuple[int, ...], groups: int = 8, ghost: int = 0, train: bool = True) -> None:
    """Refuses a norm that is not defined for inputs of `shape`.

    Args:
        kind: one of `KINDS`.
        shape: (b, h, w, c) or (b, c).
        groups: groups of channels of the group norm.
        ghost: samples of a sub-batch of the batch norm; 0: the whole batch.
        train: whether batch norm takes the moments of its input, and not its running ones.

    Raises:
        UsageError: `groups` does not divide the channels of a group norm; a batch that `ghost` does not divide; moments
            over a single value, whose result says nothing of the input and passes no gradient on.
    """
    if kind == "group" and (groups < 1 or shape[-1] % groups):
        raise UsageError(f"group norm needs groups that divide the channels: {groups} groups, {shape[-1]} channels")
    if kind == "batch" and not train:
        return
    if kind == "batch" and ghost and shape[0] % ghost:
        raise UsageError(f"ghost batches of {ghost} do not divide a batch of {shape[0]}")
    if values_per_moment(kind, shape, groups, ghost) == 1:
        raise UsageError(
            f"{kind} norm over a single value: with inputs {tuple(shape)} each mean is of one value, so that the "
            f"result says nothing of them and no layer before it learns; it needs {MORE_VALUES[kind]}"
        )


def mix_moments(
    kind: str, mean: Float[Array, "b c"], var: Float[Array, "b c"], groups: int = 8, ghost: int = 0
) -> tuple[Array, Array]:
    """Mixes the moments of each sample and channel into those by which a kind of norm normalizes.

        M = pool(mean),   V = pool(var + (mean - M)^2);   rms: M = 0

    `pool` is the mean over the batch (or sub-batches of it), over all channels, over groups of channels, or nothing. V
    is the law of total variance: a sum of squares, so nothing cancels and V is never negative.

    Args:
        kind: one of `KINDS` but "layer_channel"; "none" and the norms of weights give M = 0 and V = 1.
        mean: [b, c].
        var: [b, c].
        groups: groups of channels of "group".
        ghost: samples of a sub-batch of "batch", neighbors in the batch; 0: the whole batch.

    Returns:
        `(M, V)`, both [b, c].
    """
    b, c = mean.shape

    def pool(m: Array) -> Array:
        if kind == "batch" and ghost:
            return jnp.repeat(m.reshape(b // ghost, ghost, c).mean(1), ghost, axis=0)
        if kind == "batch":
            return jnp.broadcast_to(m.mean(0, keepdims=True), m.shape)
        if kind in ("layer", "rms"):
            return jnp.broadcast_to(m.mean(1, keepdims=True), m.shape)
        if kind == "group":
            return jnp.repeat(m.reshape(b, groups, c // groups).mean(-1), c // groups, axis=-1)
        return m

    if kind in ("none", *WEIGHT_KINDS):
        return jnp.zeros_like(mean), jnp.ones_like(var)
    center = jnp.zeros_like(mean) if kind == "rms" else pool(mean)
    return center, pool(var + jnp.square(mean - center))


def mix_moments_traced(
    kind: Int[Array, ""], mean: Float[Array, "b c"], var: Float[Array, "b c"], groups: int = 8, ghost: int = 0
) -> tuple[Array, Array]:
    """Mixes moments as `mix_moments` does, for a traced kind; undefined for "none" and the norms of weights.

    Sums are products with a vector of ones (or a matrix that says which samples belong together) and with a [c, groups]
    matrix that says which channels belong together (all of them for "layer" and "rms"). A choice among five reductions
    would be fused by XLA's CPU backend into every user of the result, recomputed there, and compiled at length; a
    product is not.

    Args:
        kind: index into `KINDS`.
        mean: [b, c].
        var: [b, c].
        groups: groups of channels of "group".
        ghost: samples of a sub-batch of "batch", neighbors in the batch; 0: the whole batch.

    Returns:
        `(M, V)`, both [b, c].
    """
    b, c = mean.shape
    batch, layer, group, rms = (kind == KINDS.index(name) for name in ("batch", "layer", "group", "rms"))
    layer = layer | rms
    block = jnp.where(layer, c, max(c // groups, 1))
    member = (jnp.arange(c)[:, None] // block == jnp.arange(groups)).astype(mean.dtype)
    if ghost:
        together = jnp.asarray(jnp.arange(b)[:, None] // ghost == jnp.arange(b) // ghost, mean.dtype)
    else:
        together = jnp.ones((1, b), mean.dtype)

    def pool(m: Array) -> Array:
        over_batch = jnp.matmul(together, m, precision=lax.Precision.HIGHEST) / (ghost or b)
        blocks = jnp.matmul(m, member, precision=lax.Precision.HIGHEST) / block
        normalize_channels = jnp.matmul(blocks, member.T, precision=lax.Precision.HIGHEST)
        return jnp.where(batch, over_batch, jnp.where(layer | group, normalize_channels, m))

    center = jnp.where(rms, 0.0, pool(mean))
    return center, pool(var + jnp.square(mean - center))


def normalize_channels(
    x: Float[Array, "b *s c"], scale: Float[Array, " c"], bias: Float[Array, " c"]
) -> Float[Array, "b *s c"]:
    """Normalizes each pixel over its channels: `scale (x - mean_c x) / sqrt(var_c x + eps) + bias`.

    Args:
        x: maps [b, h, w, c] or values [b, c].
        scale, bias: [c].

    Returns:
        Shape and dtype of `x`.
    """
    t = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centered = t - t.mean(-1, keepdims=True)
    return (centered * lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + EPS) * scale + bias).astype(x.dtype)
