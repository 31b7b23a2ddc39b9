"""Normalization of activations and weights: one formula, which differs only in how moments are mixed.

All are called as `module(x, train)` with x [b, h, w, c] or [b, c]. Statistics are computed in float32 or better,
parameters are float32, the result has the dtype of x. `eps` is 1e-5; variances are biased (divided by the count).
Norms of the weights also have `kernel`, which a model applies to the kernel of the layer before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from fishnet.lookup import Table
from fishnet.nn.cpu.deferred import Maps, to_array
from fishnet.nn.moments import affine, moments
from fishnet.nn.norm_formulas import (
    EPS,
    KINDS,
    WEIGHT_KINDS,
    check_norm,
    mix_moments,
    mix_moments_traced,
    normalize_channels,
)
from fishnet.nn.weight_norms import normalize_kernel, normalize_kernel_by_kind, standardize_kernel

BATCH_NORM_MOMENTUM = 0.9


class _Norm(nn.Module):
    """Base of the norms: parameters, running statistics, the affine pass."""

    def scale_and_bias(self, c: int) -> tuple[Array, Array]:
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        return scale, self.param("bias", nn.initializers.zeros, (c,), jnp.float32)

    def running(self, c: int) -> tuple[nn.Variable, nn.Variable]:
        mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        return mean, self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)

    def update(self, batch: bool | Bool[Array, ""], old: nn.Variable, new: Array, ghost: int) -> None:
        """Moves a running statistic [c] towards `new` [b, c], the same for all of a (ghost) batch, if `batch`."""
        if not self.is_initializing():
            new = (new.mean(0) if ghost else new[0]).astype(jnp.float32)
            old.value = jnp.where(batch, BATCH_NORM_MOMENTUM * old.value + (1 - BATCH_NORM_MOMENTUM) * new, old.value)


class MomentNorm(_Norm):
    """Norm of any kind, chosen by an index that may be traced.

        y = scale (x - M) / sqrt(V + eps) + bias, M and V as in `mix_moments`;   none: y = x + bias
        weight, weight_standardized: y = scale x + bias, behind a kernel as in `weight_norms`

    In kind none the scale has no effect and an exactly zero gradient. The running statistics change in kind batch and
    in training only. The variables restricted to the leaves of a static module (`BatchNorm` and kin) give its outputs.

    Args:
        kind: index into `KINDS`, a Python int or a traced int32 scalar.
        groups: groups of channels of the group norm.
        ghost: samples of a sub-batch of the batch norm; 0: the whole batch.
        pixels: whether `kind` may be layer_channel. Its statistics have another shape than those of all others, so that
            it is a branch of its own, which costs where it is not needed.
        frozen: whether a batch norm trains as it evaluates: it normalizes with its running statistics, which stay;
            possibly traced.

    Raises:
        UsageError: when called with a Python int as `kind`: `check_norm` refuses the input (a traced kind cannot be
            seen: ask it before).
    """

    kind: int | Array
    groups: int = 8
    ghost: int = 0
    pixels: bool = True
    frozen: Bool[Array, ""] | bool = False

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Normalizes `x` [b, h, w, c] or [b, c]."""
        train = train and self.frozen is not True
        if isinstance(self.kind, int):
            check_norm(KINDS[self.kind], x.shape, self.groups, self.ghost, train and not self.is_initializing())
        kind = jnp.asarray(self.kind, jnp.int32)
        none, batch = kind == KINDS.index("none"), kind == KINDS.index("batch")
        weights = (kind == KINDS.index("weight")) | (kind == KINDS.index("weight_standardized"))
        c = x.shape[-1]
        scale, bias = self.scale_and_bias(c)
        running_mean, running_var = self.running(c)

        def by_moments(x: Maps, scale: Array, bias: Array, mean: Array, var: Array) -> tuple[Maps, Array, Array]:
            own_mean, own_var = moments(x)
            center, spread = mix_moments_traced(kind, own_mean, own_var, self.groups, self.ghost if train else 0)
            if not train or self.frozen is not False:
                kept = batch & self.frozen if train else batch
                center, spread = jnp.where(kept, mean, center), jnp.where(kept, var, spread)
            plain = none | weights
            inverse = lax.rsqrt(jnp.where(plain, 1.0, spread) + EPS)
            gain = jnp.where(none, 1.0, jnp.where(weights, 1.0, inverse) * scale)
            y = affine(x, jnp.where(plain, 0.0, center), gain, jnp.broadcast_to(bias, gain.shape))
            return y, center, spread

        def by_pixel(x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> tuple[Array, Array, Array]:
            nothing = jnp.zeros((x.shape[0], c), jnp.promote_types(x.dtype, jnp.float32))
            return normalize_channels(x, scale, bias), nothing, nothing

        arguments = x, scale, bias, running_mean.value, running_var.value
        if self.pixels:
            arguments = to_array(x), *arguments[1:]
            y, center, spread = lax.cond(kind == KINDS.index("layer_channel"), by_pixel, by_moments, *arguments)
        else:
            y, center, spread = by_moments(*arguments)
        if train:
            moves = batch if self.frozen is False else batch & ~self.frozen
            self.update(moves, running_mean, center, self.ghost)
            self.update(moves, running_var, spread, self.ghost)
        return y


@dataclass(frozen=True)
class NormByKind:
    """Factory of `MomentNorm`, with the transform of the preceding layer's kernel that its kind asks for.

    Args:
        kind: index into `KINDS`, a Python int or a traced int32 scalar.
        groups, ghost, pixels: as for `MomentNorm`.
        weights: whether `kind` may be one of `WEIGHT_KINDS`.
    """

    kind: int | Array
    groups: int = 8
    ghost: int = 0
    pixels: bool = True
    weights: bool = True

    def __call__(self, name: str | None = None, frozen: bool | Array = False) -> MomentNorm:
        """Builds the module for one site."""
        options = {"groups": self.groups, "ghost": self.ghost, "pixels": self.pixels, "frozen": frozen}
        return MomentNorm(kind=self.kind, name=name, **options)

    @property
    def kernel(self) -> Callable[[Array], Array] | None:
        """Transform of the kernel [i, o] or [kh, kw, i, o] of the preceding layer; None for none."""
        if not self.weights:
            return None
        return partial(normalize_kernel_by_kind, jnp.asarray(self.kind), *map(KINDS.index, WEIGHT_KINDS))


class NoNorm(_Norm):
    """Learned shift without normalization.

    y = x + bias
    """

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Shifts `x` [b, h, w, c] or [b, c]."""
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return (to_array(x) + bias).astype(x.dtype)


class BatchNorm(_Norm):
    """Batch norm: over batch, height and width of each channel; evaluation uses running statistics.

        y = scale (x - M) / sqrt(V + eps) + bias
        training: M, V of the batch, running = 0.9 running + 0.1 (M, V);   evaluation: M, V = running

    0.9 is the fraction kept, called momentum in Flax (PyTorch's is the fraction replaced); the variance that is kept
    is the biased one, as in Flax (PyTorch keeps the unbiased one).

    Args:
        ghost: samples of a sub-batch, neighbors in the batch, which has statistics of its own in training ("ghost
            batch norm"; the running ones move towards the mean of all sub-batches'); 0: the whole batch.
        frozen: whether it trains as it evaluates: with its running statistics, which stay; possibly traced.

    Raises:
        UsageError: when called in training: `ghost` does not divide the batch, or there is a single value a channel.

    Example:
        >>> norm, x = BatchNorm(), jnp.arange(16.0).reshape(2, 2, 2, 2)
        >>> variables = norm.init(jax.random.key(0), x, train=True)
        >>> y, new = norm.apply(variables, x, train=True, mutable=["batch_stats"])
        >>> print(y.shape, abs(y.mean((0, 1, 2))).max() < 1e-5, sorted(new["batch_stats"]))
        (2, 2, 2, 2) True ['mean', 'var']

    Source: Ioffe and Szegedy, arXiv:1502.03167; ghost batches: Hoffer, Hubara and Soudry, arXiv:1705.08741.
    """

    ghost: int = 0
    frozen: Bool[Array, ""] | bool = False

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Normalizes `x` [b, h, w, c] or [b, c]."""
        train = train and self.frozen is not True
        check_norm("batch", x.shape, ghost=self.ghost, train=train and not self.is_initializing())
        shape = x.shape[0], x.shape[-1]
        scale, bias = self.scale_and_bias(shape[1])
        running_mean, running_var = self.running(shape[1])
        kept = tuple(jnp.broadcast_to(s.value, shape) for s in (running_mean, running_var))
        if train:
            own = mix_moments("batch", *moments(x), ghost=self.ghost)
            frozen = jnp.asarray(self.frozen)
            mean, var = own if self.frozen is False else jax.tree.map(partial(jnp.where, frozen), kept, own)
            self.update(~frozen, running_mean, own[0], self.ghost)
            self.update(~frozen, running_var, own[1], self.ghost)
        else:
            mean, var = kept
        return affine(x, mean, lax.rsqrt(var + EPS) * scale, jnp.broadcast_to(bias, shape))


class _SampleNorm(_Norm):
    """Base of the norms of single samples, which are the same in training and evaluation."""

    groups: int = 8
    kind: ClassVar[str]

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Normalizes `x` [b, h, w, c] or [b, c]."""
        check_norm(self.kind, x.shape, self.groups)
        scale, bias = self.scale_and_bias(x.shape[-1])
        own_mean, own_var = moments(x)
        mean, var = mix_moments(self.kind, own_mean, own_var, self.groups)
        return affine(x, mean, lax.rsqrt(var + EPS) * scale, jnp.broadcast_to(bias, mean.shape))


class LayerNorm(_SampleNorm):
    """Layer norm over height, width and channels of each sample, as in the paper (not over each pixel's channels).

        y = scale (x - M) / sqrt(V + eps) + bias

    Source: Ba, Kiros and Hinton, arXiv:1607.06450.
    """

    kind: ClassVar[str] = "layer"


class GroupNorm(_SampleNorm):
    """Group norm: over height, width and the channels of each of `groups` groups of a sample.

        y = scale (x - M) / sqrt(V + eps) + bias

    Args:
        groups: groups of neighboring channels, which they must divide.

    Raises:
        UsageError: when called: they do not.

    Example:
        >>> norm, x = GroupNorm(groups=2), jnp.arange(16.0).reshape(1, 2, 2, 4)
        >>> y = norm.apply(norm.init(jax.random.key(0), x, train=False), x, train=False)
        >>> print(y.shape, abs(y[..., :2].mean()) < 1e-5)
        (1, 2, 2, 4) True

    Source: Wu and He, arXiv:1803.08494.
    """

    kind: ClassVar[str] = "group"


class InstanceNorm(_SampleNorm):
    """Instance norm: over height and width of each sample and channel.

        y = scale (x - M) / sqrt(V + eps) + bias

    The mean of each map is `bias` afterwards, so a global mean right after it sees nothing of the image.

    Raises:
        UsageError: when called: there is only one pixel, or x is [b, c]. All norms of samples refuse a single value.

    Source: Ulyanov, Vedaldi and Lempitsky, arXiv:1607.08022.
    """

    kind: ClassVar[str] = "instance"


class RMSNorm(_SampleNorm):
    """RMS norm: divides by the root mean square over height, width and channels of each sample; the mean stays.

        y = scale x / sqrt(mean(x^2) + eps) + bias

    With a bias, as all norms here (the paper has none).

    Source: Zhang and Sennrich, arXiv:1910.07467.
    """

    kind: ClassVar[str] = "rms"


class LayerChannelNorm(_Norm):
    """Layer norm over the channels of each pixel, as in Transformers and ConvNeXt.

    y = scale (x - mean_c x) / sqrt(var_c x + eps) + bias

    Source: Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545.
    """

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Normalizes `x` [b, h, w, c] or [b, c]."""
        check_norm("layer_channel", x.shape)
        return normalize_channels(to_array(x), *self.scale_and_bias(x.shape[-1]))


class WeightNorm(_Norm):
    """Weight norm: `w = g v / |v|` for each unit, with g the norm's scale and v the layer's kernel.

        y = scale x + bias, with x from a kernel of unit length

    The scale starts at 1; `initial_scale` gives the one at which the network begins as without norm.

    Source: Salimans and Kingma, arXiv:1602.07868.
    """

    kernel = staticmethod(normalize_kernel)

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Scales and shifts `x` [b, h, w, c] or [b, c], the output of a layer whose kernel `kernel` has normalized."""
        scale, bias = self.scale_and_bias(x.shape[-1])
        return (to_array(x) * scale + bias).astype(x.dtype)


class WeightStandardizedNorm(WeightNorm):
    """Weight standardization: weight norm of centered weights, `w = g (v - mean v) / |v - mean v|`.

    The scaled form: divided by the length, not by the standard deviation as in Qiao et al., so that g means the same
    as in `WeightNorm`; the two differ by the factor sqrt(fan in).

    Source: Qiao et al., arXiv:1903.10520; scaled: Brock, De and Smith, arXiv:2101.08692.
    """

    kernel = staticmethod(standardize_kernel)


NORMS: Table[Callable[..., nn.Module]] = Table(
    {
        "none": NoNorm,
        "batch": BatchNorm,
        "layer": LayerNorm,
        "group": GroupNorm,
        "instance": InstanceNorm,
        "rms": RMSNorm,
        "layer_channel": LayerChannelNorm,
        "weight": WeightNorm,
        "weight_standardized": WeightStandardizedNorm,
    }
)
