"""A network of depthwise-separable convolutions."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Num

from fishnet.nn.activations import relu
from fishnet.nn.blocks import at, own_bias, site
from fishnet.nn.dropout import Dropout
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import BatchNorm
from fishnet.nn.pooling import max_pool
from fishnet.nn.standardize import Standardize


class Separable(nn.Module):
    """A 3x3 stem; for each width `depth` pairs of depthwise 3x3 and pointwise convolution, then pooling; linear head.

    Every convolution has its norm and activation.

    Args:
        classes: number of classes k.
        widths: channels of the stages; the stem has the first.
        depth: depthwise-pointwise pairs a stage.
        act: `f(x) -> y`, or one a site.
        norm: factory of norms, called as `norm(name=...)`, or one a site; a site is a convolution, from 0.
        conv: lowering, as `jax.lax.conv_general_dilated`.
        pool: `f(x [b, h, w, c]) -> [b, h // 2, w // 2, c]`.
        kernel_init: `f(key, shape, dtype)`.
        dropout: rate before the head, possibly traced.
        norm_position: "pre" or "post" the activation; with "pre" the norm's shift is the only bias.
        dtype: of the computation; parameters and logits are float32.

    Source: Howard et al., "MobileNets", arXiv:1704.04861.
    """

    classes: int
    widths: tuple[int, ...] = (16, 32, 64)
    depth: int = 1
    act: Callable | Sequence[Callable] = relu
    norm: Callable | Sequence[Callable] = BatchNorm
    conv: Callable = lax.conv_general_dilated
    pool: Callable = max_pool
    kernel_init: Callable = INITIALIZERS["he_normal"]
    dropout: ArrayLike = 0.0
    norm_position: str = "pre"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Num[Array, "b h w c"], train: bool) -> Float[Array, "b k"]:
        """Logits [b, classes] float32 of images [b, h, w, c], uint8 or floats in 0..255."""
        bias = own_bias(self.norm_position)
        i = 0

        def unit(x: Array, width: int, size: int, groups: int = 1) -> Array:
            nonlocal i
            conv = nn.Conv(
                width,
                (size, size),
                feature_group_count=groups,
                use_bias=bias,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                conv_general_dilated=self.conv,
                name=f"conv_{i}",
            )
            x = site(conv(x), at(self.norm, i)(name=f"norm_{i}"), at(self.act, i), self.norm_position, train)
            i += 1
            return x

        x = Standardize(self.dtype, name="standardize")(images)
        x = unit(x, self.widths[0], 3)
        for width in self.widths:
            for _ in range(self.depth):
                x = unit(x, x.shape[-1], 3, groups=x.shape[-1])
                x = unit(x, width, 1)
            if min(x.shape[1:3]) >= 2:
                x = self.pool(x)
        x = x.mean((1, 2), dtype=jnp.float32)
        x = Dropout(self.dropout, name="dropout_head")(x, train)
        return nn.Dense(self.classes, dtype=jnp.float32, kernel_init=self.kernel_init, name="head")(x)
