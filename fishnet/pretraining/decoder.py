"""Decoder from a backbone's maps or features to images."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fishnet.nn.mixed_activation import ActivationByIndex, activate


class Decoder(nn.Module):
    """Decoder that mirrors a backbone, called as `decoder(x, train)`.

        maps:     x = act(norm(conv(up(x)))) a stage, the last one x = conv(up(x))
        features: x = act(norm(W x)) a stage, the last one x = W x, as an image

    `up` doubles the sides of maps (see `upsample`). There are as many stages as it takes from the maps to the image, or
    one a width for features; they have the backbone's widths in reverse, without the last, then the image's channels. A
    stage without norm has a bias.

    Args:
        image_shape: (h, w, c) of the images.
        widths: of the backbone's stages.
        act: an activation of any form.
        conv: convolution lowering, called as `jax.lax.conv_general_dilated`.
        kernel_init: `f(key, shape, dtype) -> kernel` of all layers.
        norm: factory of norms, called as `norm(name=...)`; None for no norm.
        dtype: of the computation.

    Source: nearest upsampling before a convolution: Odena et al., "Deconvolution and Checkerboard Artifacts", 2016,
    https://distill.pub/2016/deconv-checkerboard
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    act: Callable | ActivationByIndex
    conv: Callable
    kernel_init: Callable
    norm: Callable | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *s f"], train: bool) -> Float[Array, "b h w c"]:
        """Decodes maps [b, h', w', f] or features [b, f] to images [b, h, w, c] without bounds."""
        h, w, c = self.image_shape
        sizes = stage_sizes((h, w), (x.shape[1], x.shape[2])) if x.ndim == 4 else ((1, 1),) * len(self.widths)
        widths = self.widths[-2::-1] or self.widths
        for i, size in enumerate(sizes):
            last = i == len(sizes) - 1
            options = {
                "use_bias": last or self.norm is None,
                "dtype": self.dtype,
                "kernel_init": self.kernel_init,
                "name": f"layer_{i}",
            }
            width = widths[min(i, len(widths) - 1)]
            if x.ndim == 4:
                conv = nn.Conv(c if last else width, (3, 3), conv_general_dilated=self.conv, **options)
                x = conv(upsample(x, size))
            else:
                x = nn.Dense(h * w * c if last else width, **options)(x)
            if not last:
                x = x if self.norm is None else self.norm(name=f"norm_{i}")(x, train)
                x = activate(self.act, x, train, f"act_{i}")
        return x.reshape(-1, h, w, c)


def stage_sizes(image: tuple[int, int], maps: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Sides of the maps after each stage of a decoder, each twice those before, up to the image's.

        (h // 2^(n-1), w // 2^(n-1)), ..., (h // 2, w // 2), (h, w),   n = round(log2(image / maps)), at least 1

    Args:
        image: height and width, in pixels.
        maps: height and width of the maps to begin with.
    """
    stages = max(1, *(round(math.log2(full / small)) for full, small in zip(image, maps, strict=True)))
    return tuple((max(image[0] >> k, 1), max(image[1] >> k, 1)) for k in reversed(range(stages)))


def upsample(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Enlarges maps by whole factors, repeating pixels; then crops them, or repeats their edge, to `size`.

    Args:
        x: [b, h, w, c].
        size: height and width of the result.

    Returns:
        [b, *size, c].
    """
    for axis, side in zip((1, 2), size, strict=True):
        x = jnp.repeat(x, max(1, round(side / x.shape[axis])), axis)
        missing = max(0, side - x.shape[axis])
        if missing:
            x = jnp.pad(x, [(0, missing if a == axis else 0) for a in range(4)], mode="edge")
    return x[:, : size[0], : size[1]]
