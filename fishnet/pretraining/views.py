"""Random views of images for contrastive learning."""

import math
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from fishnet.augment.images import affine

AREA = 0.2  # smallest fraction of the image that a crop shows
RATIO = 4 / 3  # the largest ratio of the crop's sides, each in units of the image's
JITTER = 0.4  # brightness, contrast and saturation change by factors in 1 +- JITTER
JITTERED = 0.8  # probability of a change of colors
GREY = 0.2  # probability of a view without colors
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


def random_view(key: PRNGKeyArray, images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Draws a random view of each image: a crop enlarged to full size, with other colors.

    The crop shows a fraction of the image that is uniform on `AREA` ... 1, its sides are in a ratio of up to `RATIO`
    (uniform on a logarithmic scale) and its place is uniform; see `crop`. Half the views are mirrored. With probability
    `JITTERED` the colors change, see `recolor`, by factors uniform on 1 - `JITTER` ... 1 + `JITTER`; with probability
    `GREY` the view loses its colors. Images of three channels are taken as red, green and blue. Others keep their
    saturation, and images of one channel (handwriting) are not mirrored.

    Args:
        key: a random key.
        images: [b, h, w, c] uint8.

    Returns:
        [b, h, w, c] float32 in 0..255.

    Source: Chen et al., arXiv:2002.05709, appendix A and (small images, no blur) B.9, without changes of hue; the least
    area is that of He et al., arXiv:1911.05722, since a crop of 8 % of a small image shows next to nothing.
    """
    b, c = images.shape[0], images.shape[-1]
    # All at once and in a row: compiling the random generator takes longer than all else here.
    draws = (jax.random.bits(key, (10 * b,)) >> 8).astype(jnp.float32).reshape(10, b) * np.float32(2**-24)
    area, ratio, *place, coin, brightness, contrast, saturation, jittered, grey = draws
    area, ratio = AREA + (1 - AREA) * area, jnp.exp(math.log(RATIO) * (2 * ratio - 1))
    sides = jnp.minimum(jnp.sqrt(jnp.stack([area * ratio, area / ratio], 1)), 1.0)
    mirror = (coin < 0.5) & (c > 1)
    views = jax.vmap(crop)(images, sides, jnp.stack(place, 1), mirror).astype(jnp.float32)
    factors = 1 + JITTER * (2 * jnp.stack([brightness, contrast, saturation], 1) - 1)
    factors = jnp.where((jittered < JITTERED)[:, None], factors, 1.0)
    if c != 3:
        return jax.vmap(recolor)(views, factors.at[:, 2].set(1.0))
    views = jax.vmap(recolor)(views, factors)
    return jnp.where((grey < GREY)[:, None, None, None], luminance(views), views)


def crop(
    image: UInt8[Array, "h w c"], sides: Float[Array, "2"], place: Float[Array, "2"], mirror: Bool[Array, ""]
) -> UInt8[Array, "h w c"]:
    """Crops a rectangle of an image and enlarges it to the image's size, by bilinear interpolation.

    Args:
        image: [h, w, c] uint8.
        sides: [2], height and width of the rectangle as fractions of the image's, in (0, 1].
        place: [2], where it lies: 0 at the top or left, 1 at the bottom or right.
        mirror: whether left and right change places.

    Returns:
        [h, w, c] uint8, within one level of exact interpolation.
    """
    room = (1 - sides) * jnp.asarray(image.shape[:2], jnp.float32)
    slopes = jnp.round(2**14 * sides).astype(jnp.int32)
    matrix = jnp.diag(slopes * jnp.stack([jnp.int32(1), 1 - 2 * mirror.astype(jnp.int32)]))
    return affine(image, matrix, jnp.round(2**8 * room * (place - 0.5)).astype(jnp.int32))


def recolor(image: Float[Array, "h w c"], factors: Float[Array, "3"]) -> Float[Array, "h w c"]:
    """Changes brightness, then contrast, then saturation, each cut to 0..255.

        x <- f_1 x;   x <- m + f_2 (x - m), m the mean luminance;   x <- l + f_3 (x - l), l each pixel's luminance

    Args:
        image: [h, w, c] float32 in 0..255.
        factors: [3], 0 or more; 1 changes nothing.

    Returns:
        [h, w, c] float32 in 0..255.
    """
    image = jnp.clip(factors[0] * image, 0, 255)
    mean = luminance(image).mean()
    image = jnp.clip(mean + factors[1] * (image - mean), 0, 255)
    grey = luminance(image)
    return jnp.clip(grey + factors[2] * (image - grey), 0, 255)


def luminance(image: Float[Array, "*s c"]) -> Float[Array, "*s 1"]:
    """Luminance [..., 1], by `LUMA` of red, green and blue; the mean of any other number of channels."""
    if image.shape[-1] != len(LUMA):
        return image.mean(-1, keepdims=True)
    return cast(Array, sum(weight * image[..., i : i + 1] for i, weight in enumerate(LUMA)))
