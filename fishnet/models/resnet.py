"""A residual network of basic blocks."""

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


class ResNet(nn.Module):
    """A 3x3 stem, `depth` basic blocks a width, global mean and a linear head.

        pre:  y = act(norm(conv x)),  out = act(norm(conv y) + short x)
        post: y = norm(act(conv x)),  out = norm(act(conv y + short x))

    `short` is the identity, or a 1x1 convolution with norm (and no activation) where the shape changes: at stride 2 in
    the first block of every stage but the first, and where the width changes.

    Args:
        classes: number of classes k.
        widths: channels of the stages; the stem has the first.
        depth: basic blocks a stage.
        act: `f(x) -> y`, or one a norm site (those of the 1x1 convolutions are not used).
        norm: factory of norms, called as `norm(name=...)`, or one a site; a site is a convolution, from 0, in the order
            stem, then for each block first, second, 1x1.
        conv: lowering, as `jax.lax.conv_general_dilated`.
        pool: not used: strides make the maps smaller.
        kernel_init: `f(key, shape, dtype)`.
        dropout: rate before the head, possibly traced.
        norm_position: "pre" or "post" the activation; with "pre" the norm's shift is the only bias.
        dtype: of the computation; parameters and logits are float32.
        stem_stride: stride of the stem in pixels.

    Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
    """

    classes: int
    widths: tuple[int, ...] = (16, 32, 64)
    depth: int = 2
    act: Callable | Sequence[Callable] = relu
    norm: Callable | Sequence[Callable] = BatchNorm
    conv: Callable = lax.conv_general_dilated
    pool: Callable = max_pool
    kernel_init: Callable = INITIALIZERS["he_normal"]
    dropout: ArrayLike = 0.0
    norm_position: str = "pre"
    dtype: DTypeLike = jnp.float32
    stem_stride: int = 1

    @nn.compact
    def __call__(self, images: Num[Array, "b h w c"], train: bool) -> Float[Array, "b k"]:
        """Logits [b, classes] float32 of images [b, h, w, c], uint8 or floats in 0..255."""
        bias = own_bias(self.norm_position)
        i = -1

        def conv(x: Array, width: int, size: int, stride: int) -> Array:
            nonlocal i
            i += 1
            layer = nn.Conv(
                width,
                (size, size),
                strides=stride,
                use_bias=bias,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                conv_general_dilated=self.conv,
                name=f"conv_{i}",
            )
            return layer(x)

        def norm(index: int) -> nn.Module:
            return at(self.norm, index)(name=f"norm_{index}")

        x = Standardize(self.dtype, name="standardize")(images)
        x = conv(x, self.widths[0], 3, self.stem_stride)
        x = site(x, norm(0), at(self.act, 0), self.norm_position, train)
        for stage, width in enumerate(self.widths):
            for block in range(self.depth):
                stride = 2 if stage and not block else 1
                y = conv(x, width, 3, stride)
                y = site(y, norm(i), at(self.act, i), self.norm_position, train)
                y = conv(y, width, 3, 1)
                second = i
                if self.norm_position == "pre":
                    y = norm(second)(y, train)
                if x.shape != y.shape:
                    x = conv(x, width, 1, stride)
                    x = norm(i)(x, train)
                y = at(self.act, second)(y + x)
                x = y if self.norm_position == "pre" else norm(second)(y, train)
        x = x.mean((1, 2), dtype=jnp.float32)
        x = Dropout(self.dropout, name="dropout_head")(x, train)
        return nn.Dense(self.classes, dtype=jnp.float32, kernel_init=self.kernel_init, name="head")(x)
