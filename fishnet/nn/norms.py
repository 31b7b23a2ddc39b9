"""Batch, layer, group, instance or no normalisation: one formula, which differs only in how moments are mixed."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fishnet.errors import UsageError
from fishnet.nn.moments import affine, moments

KINDS = ("none", "batch", "layer", "group", "instance")


def check(kind: str, shape: tuple[int, ...], groups: int) -> None:
    """Refuses a norm that makes no sense for inputs of `shape` [b, h, w, c] or [b, c].

    Raises:
        UsageError: `groups` does not divide the channels of a group norm; an instance norm of single values.
    """
    if kind == "group" and shape[-1] % groups:
        raise UsageError(f"group norm needs groups that divide the channels: {groups} groups, {shape[-1]} channels")
    if kind == "instance" and len(shape) == 2:
        raise UsageError("instance norm needs maps [b, h, w, c]: over a single value its variance is zero")


def _identity(m: Array) -> Array:
    return m


def _over_batch(m: Array) -> Array:
    return jnp.broadcast_to(m.mean(0, keepdims=True), m.shape)


def _over_channels(m: Array) -> Array:
    return jnp.broadcast_to(m.mean(1, keepdims=True), m.shape)


def _over_groups(m: Array, groups: int) -> Array:
    b, c = m.shape
    mixed = m.reshape(b, groups, c // groups).mean(-1, keepdims=True)
    return jnp.broadcast_to(mixed, (b, groups, c // groups)).reshape(b, c)


def mix(kind: str | Array, mean: Array, var: Array, groups: int) -> tuple[Array, Array]:
    """Moments of each sample and channel to the moments that a kind of norm normalises with.

        M = pool(mean),   V = pool(var + (mean - M)^2)

    where `pool` is the mean over the batch, all channels, groups of channels, or nothing: the law of total variance,
    in which nothing cancels.

    Args:
        kind: one of `KINDS` without "none", or a traced index into `KINDS`.
        mean: [b, c]
        var: [b, c]
        groups: number of groups of channels.

    Returns:
        `(M, V)`, both [b, c].
    """
    pools = {
        "none": jnp.zeros_like,
        "batch": _over_batch,
        "layer": _over_channels,
        "group": lambda m: _over_groups(m, groups),
        "instance": _identity,
    }
    if isinstance(kind, str):
        pool = pools[kind]
    else:
        pool = lambda m: lax.select_n(kind, *[pools[k](m) for k in KINDS])  # noqa: E731
    centre = pool(mean)
    return centre, pool(var + jnp.square(mean - centre))


class MomentNorm(nn.Module):
    """Batch, layer, group, instance or no norm, chosen by a number that may be traced. See `BatchNorm` and kin.

        y = scale (x - M) / sqrt(V + eps) + bias;   none: y = x + bias

    Args:
        kind: index into `KINDS`, a Python int or a traced int32 scalar.
        groups: groups of channels of the group norm.
        eps: added to the variance.
        keep: fraction of the running statistics that is kept in a training step.

    Raises:
        UsageError: `groups` does not divide the channels; instance norm of [b, c], when `kind` is a Python int.
    """

    kind: int | Array
    groups: int = 8
    eps: float = 1e-5
    keep: float = 0.9

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Normalises `x` [b, h, w, c] or [b, c]."""
        static = isinstance(self.kind, int)
        check(KINDS[self.kind] if static else "group", x.shape, self.groups)
        kind = jnp.asarray(self.kind)
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        mean, var = moments(x)
        centre, spread = mix(kind, mean, var, self.groups)
        centre, spread = _running(self, kind == KINDS.index("batch"), centre, spread, train)
        none = kind == KINDS.index("none")
        gain = jnp.where(none, 1.0, lax.rsqrt(jnp.where(none, 1.0, spread + self.eps)) * scale)
        return affine(x, centre, gain, jnp.broadcast_to(bias, gain.shape))


def _running(module: nn.Module, batch: bool | Array, mean: Array, var: Array, train: bool) -> tuple[Array, Array]:
    """The running statistics of `module`, updated in training, used in evaluation, where `batch` holds."""
    c = mean.shape[-1]
    kept_mean = module.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
    kept_var = module.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
    if not train:
        return jnp.where(batch, kept_mean.value, mean), jnp.where(batch, kept_var.value, var)
    if not module.is_initializing():
        keep = jnp.where(batch, module.keep, 1.0)
        for kept, new in ((kept_mean, mean), (kept_var, var)):
            kept.value = jnp.where(batch, keep * kept.value + (1 - keep) * new[0], kept.value)
    return mean, var


class NoNorm(nn.Module):
    """A learned shift and no normalisation.

        y = x + bias
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Shifts `x` [b, h, w, c] or [b, c]."""
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return x + bias.astype(x.dtype)


class BatchNorm(nn.Module):
    """Over batch, height and width, a channel at a time; evaluation uses running statistics.

    Source: Ioffe and Szegedy, arXiv:1502.03167.
    """

    eps: float = 1e-5
    keep: float = 0.9

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Normalises `x` [b, h, w, c] or [b, c]."""
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        if train:
            mean, var = mix("batch", *moments(x), 1)
        else:
            mean, var = jnp.zeros((x.shape[0], c)), jnp.ones((x.shape[0], c))
        mean, var = _running(self, True, mean, var, train)
        mean, var = jnp.broadcast_to(mean, (x.shape[0], c)), jnp.broadcast_to(var, (x.shape[0], c))
        return affine(x, mean, lax.rsqrt(var + self.eps) * scale, jnp.broadcast_to(bias, mean.shape))


class _PerSample(nn.Module):
    eps: float = 1e-5
    groups: int = 8
    kind = "layer"

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Normalises `x` [b, h, w, c] or [b, c]."""
        check(self.kind, x.shape, self.groups)
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        mean, var = mix(self.kind, *moments(x), self.groups)
        return affine(x, mean, lax.rsqrt(var + self.eps) * scale, jnp.broadcast_to(bias, mean.shape))


class LayerNorm(_PerSample):
    """Over height, width and channels of each sample (not over the channels of each pixel).

    Source: Ba, Kiros and Hinton, arXiv:1607.06450.
    """

    kind = "layer"


class GroupNorm(_PerSample):
    """Over height, width and the channels of each of `groups` groups of a sample.

    Source: Wu and He, arXiv:1803.08494.
    """

    kind = "group"


class InstanceNorm(_PerSample):
    """Over height and width, a sample and channel at a time.

    Source: Ulyanov, Vedaldi and Lempitsky, arXiv:1607.08022.
    """

    kind = "instance"


NORMS: dict[str, Callable[..., nn.Module]] = {
    "none": NoNorm,
    "batch": BatchNorm,
    "layer": LayerNorm,
    "group": GroupNorm,
    "instance": InstanceNorm,
}
