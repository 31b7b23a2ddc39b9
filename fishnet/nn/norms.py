"""Batch, layer, group, instance or no normalisation: one formula, which differs only in how moments are mixed.

All are called as `module(x, train)` with x [b, h, w, c] or [b, c]. Statistics are computed in float32 or better,
parameters are float32, the result has the dtype of x. `eps` is 1e-5; variances are biased (divided by the count).
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from fishnet.errors import UsageError
from fishnet.nn.moments import affine, moments

KINDS = ("none", "batch", "layer", "group", "instance")
EPS = 1e-5
KEEP = 0.9


def check_norm(kind: str, shape: tuple[int, ...], groups: int = 8) -> None:
    """Refuses a norm that makes no sense for inputs of `shape`.

    Args:
        kind: one of `KINDS`.
        shape: (b, h, w, c) or (b, c).
        groups: groups of channels of the group norm.

    Raises:
        UsageError: `groups` does not divide the channels of a group norm; an instance norm over a single value.
    """
    if kind == "group" and (groups < 1 or shape[-1] % groups):
        raise UsageError(f"group norm needs groups that divide the channels: {groups} groups, {shape[-1]} channels")
    if kind == "instance" and all(n == 1 for n in shape[1:-1]):
        raise UsageError(
            f"instance norm needs maps of two pixels or more: over the single value of inputs {tuple(shape)} "
            "its variance is zero"
        )


def mix(kind: str, mean: Float[Array, "b c"], var: Float[Array, "b c"], groups: int = 8) -> tuple[Array, Array]:
    """Moments of each sample and channel to the moments that a kind of norm normalises with.

        M = pool(mean),   V = pool(var + (mean - M)^2)

    `pool` is the mean over the batch, over all channels, over groups of channels, or nothing. V is the law of total
    variance: a sum of squares, so nothing cancels and V is never negative.

    Args:
        kind: one of `KINDS`; "none" gives M = 0 and V = 1.
        mean: [b, c].
        var: [b, c].
        groups: groups of channels of "group".

    Returns:
        `(M, V)`, both [b, c].
    """
    b, c = mean.shape

    def pool(m: Array) -> Array:
        if kind == "batch":
            return jnp.broadcast_to(m.mean(0, keepdims=True), m.shape)
        if kind == "layer":
            return jnp.broadcast_to(m.mean(1, keepdims=True), m.shape)
        if kind == "group":
            return jnp.repeat(m.reshape(b, groups, c // groups).mean(-1), c // groups, axis=-1)
        return m

    if kind == "none":
        return jnp.zeros_like(mean), jnp.ones_like(var)
    centre = pool(mean)
    return centre, pool(var + jnp.square(mean - centre))


def mix_traced(
    kind: Int[Array, ""], mean: Float[Array, "b c"], var: Float[Array, "b c"], groups: int = 8
) -> tuple[Array, Array]:
    """`mix` for a traced kind; what it gives for "none" has no meaning.

    Sums are products with a vector of ones and with a [c, groups] matrix that says which channels belong together (all
    of them for "layer"). A choice among five reductions would be fused by XLA's CPU backend into every user of the
    result, recomputed there, and compiled at length; a product is not.

    Args:
        kind: index into `KINDS`.
        mean: [b, c].
        var: [b, c].
        groups: groups of channels of "group".

    Returns:
        `(M, V)`, both [b, c].
    """
    b, c = mean.shape
    batch, layer, group = (kind == KINDS.index(name) for name in ("batch", "layer", "group"))
    block = jnp.where(layer, c, max(c // groups, 1))
    member = (jnp.arange(c)[:, None] // block == jnp.arange(groups)).astype(mean.dtype)
    everyone = jnp.ones((1, b), mean.dtype)

    def pool(m: Array) -> Array:
        over_batch = jnp.matmul(everyone, m, precision=lax.Precision.HIGHEST) / b
        blocks = jnp.matmul(m, member, precision=lax.Precision.HIGHEST) / block
        over_channels = jnp.matmul(blocks, member.T, precision=lax.Precision.HIGHEST)
        return jnp.where(batch, over_batch, jnp.where(layer | group, over_channels, m))

    centre = pool(mean)
    return centre, pool(var + jnp.square(mean - centre))


class _Norm(nn.Module):
    """What the modules share: parameters, running statistics, the affine pass."""

    def scale_and_bias(self, c: int) -> tuple[Array, Array]:
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        return scale, self.param("bias", nn.initializers.zeros, (c,), jnp.float32)

    def running(self, c: int) -> tuple[nn.Variable, nn.Variable]:
        mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        return mean, self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)

    def update(self, batch: bool | Bool[Array, ""], old: nn.Variable, new: Array) -> None:
        """Moves a running statistic [c] towards `new` [b, c], all rows of which are alike, where `batch` holds."""
        if not self.is_initializing():
            old.value = jnp.where(batch, KEEP * old.value + (1 - KEEP) * new[0].astype(jnp.float32), old.value)


class MomentNorm(_Norm):
    """Batch, layer, group, instance or no norm, chosen by a number that may be traced.

        y = scale (x - M) / sqrt(V + eps) + bias, M and V as in `mix`;   none: y = x + bias

    In kind none the scale has no effect and an exactly zero gradient. The running statistics change in kind batch and
    in training only. The variables restricted to the leaves of a static module (`BatchNorm` and kin) give its outputs.

    Args:
        kind: index into `KINDS`, a Python int or a traced int32 scalar.
        groups: groups of channels of the group norm.

    Raises:
        UsageError: when called with a Python int as `kind`: `groups` does not divide the channels of a group norm, or
            an instance norm of one pixel (a traced kind cannot be seen: `check_norm` tells before).
    """

    kind: int | Array
    groups: int = 8

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Normalises `x` [b, h, w, c] or [b, c]."""
        if isinstance(self.kind, int):
            check_norm(KINDS[self.kind], x.shape, self.groups)
        kind = jnp.asarray(self.kind, jnp.int32)
        none, batch = kind == KINDS.index("none"), kind == KINDS.index("batch")
        c = x.shape[-1]
        scale, bias = self.scale_and_bias(c)
        running_mean, running_var = self.running(c)
        mean, var = moments(x)
        centre, spread = mix_traced(kind, mean, var, self.groups)
        if train:
            self.update(batch, running_mean, centre)
            self.update(batch, running_var, spread)
        else:
            centre = jnp.where(batch, running_mean.value, centre)
            spread = jnp.where(batch, running_var.value, spread)
        gain = jnp.where(none, 1.0, lax.rsqrt(jnp.where(none, 1.0, spread) + EPS) * scale)
        return affine(x, jnp.where(none, 0.0, centre), gain, jnp.broadcast_to(bias, gain.shape))


class NoNorm(_Norm):
    """A learned shift and no normalisation.

    y = x + bias
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Shifts `x` [b, h, w, c] or [b, c]."""
        return (x + self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)).astype(x.dtype)


class BatchNorm(_Norm):
    """Over batch, height and width, a channel at a time; evaluation uses running statistics.

        y = scale (x - M) / sqrt(V + eps) + bias
        training: M, V of the batch, running = 0.9 running + 0.1 (M, V);   evaluation: M, V = running

    0.9 is the fraction kept, called momentum in Flax (PyTorch's is the fraction replaced); the variance that is kept
    is the biased one, as in Flax (PyTorch keeps the unbiased one).

    Source: Ioffe and Szegedy, arXiv:1502.03167.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Normalises `x` [b, h, w, c] or [b, c]."""
        shape = x.shape[0], x.shape[-1]
        scale, bias = self.scale_and_bias(shape[1])
        running_mean, running_var = self.running(shape[1])
        if train:
            mean, var = mix("batch", *moments(x))
            self.update(True, running_mean, mean)
            self.update(True, running_var, var)
        else:
            mean, var = (jnp.broadcast_to(s.value, shape) for s in (running_mean, running_var))
        return affine(x, mean, lax.rsqrt(var + EPS) * scale, jnp.broadcast_to(bias, shape))


class _SampleNorm(_Norm):
    """A norm of each sample by itself, the same in training and evaluation."""

    groups: int = 8
    kind: ClassVar[str]

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Normalises `x` [b, h, w, c] or [b, c]."""
        check_norm(self.kind, x.shape, self.groups)
        scale, bias = self.scale_and_bias(x.shape[-1])
        mean, var = mix(self.kind, *moments(x), self.groups)
        return affine(x, mean, lax.rsqrt(var + EPS) * scale, jnp.broadcast_to(bias, mean.shape))


class LayerNorm(_SampleNorm):
    """Over height, width and channels of each sample, as in the paper (not over the channels of each pixel).

        y = scale (x - M) / sqrt(V + eps) + bias

    Source: Ba, Kiros and Hinton, arXiv:1607.06450.
    """

    kind: ClassVar[str] = "layer"


class GroupNorm(_SampleNorm):
    """Over height, width and the channels of each of `groups` groups of a sample.

        y = scale (x - M) / sqrt(V + eps) + bias

    Args:
        groups: groups of neighbouring channels, which they must divide.

    Raises:
        UsageError: when called: they do not.

    Source: Wu and He, arXiv:1803.08494.
    """

    kind: ClassVar[str] = "group"


class InstanceNorm(_SampleNorm):
    """Over height and width, a sample and channel at a time.

        y = scale (x - M) / sqrt(V + eps) + bias

    The mean of each map is `bias` afterwards, so a global mean straight behind it sees nothing of the image.

    Raises:
        UsageError: when called: there is only one pixel, or x is [b, c].

    Source: Ulyanov, Vedaldi and Lempitsky, arXiv:1607.08022.
    """

    kind: ClassVar[str] = "instance"


NORMS: dict[str, Callable[..., nn.Module]] = {
    "none": NoNorm,
    "batch": BatchNorm,
    "layer": LayerNorm,
    "group": GroupNorm,
    "instance": InstanceNorm,
}
