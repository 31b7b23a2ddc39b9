"""Augmentation of image batches inside the compiled step: f(key, images) -> images.

Functions that move whole pixels take images of any type. Those that compute new values take uint8 and refuse floats,
whose range is unknown. Draws depend on the key and the batch shape alone, so a lane's images do not change with its
neighbors.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Num, PRNGKeyArray, UInt8

from fishnet.errors import UsageError
from fishnet.lookup import Table

TURN = 0.3  # radians, of `strong`
ZOOM = 1.25
LIGHT = 0.15
CONTRAST = 1.25

_STEPS = np.linspace(-1, 1, 257)
COSINES = np.round(2**14 * np.cos(TURN * _STEPS)).astype(np.int32)
SINES = np.round(2**14 * np.sin(TURN * _STEPS)).astype(np.int32)
ZOOMS = np.round(2**8 * ZOOM**_STEPS).astype(np.int32)
CONTRASTS = np.round(2**8 * CONTRAST**_STEPS).astype(np.int32)

Augmentation = Callable[[PRNGKeyArray, Num[Array, "b h w c"]], Num[Array, "b h w c"]]


def none(key: PRNGKeyArray, images: Num[Array, "b h w c"]) -> Num[Array, "b h w c"]:
    """Returns the images unchanged."""
    return images


def flip(key: PRNGKeyArray, images: Num[Array, "b h w c"]) -> Num[Array, "b h w c"]:
    """Mirrors each image left to right with probability 1/2.

    Args:
        key: a random key.
        images: [b, h, w, c] of any numeric type.

    Returns:
        Images [b, h, w, c] of the same type.

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012.
    """
    coin = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(coin, images[:, :, ::-1], images)


def shift(key: PRNGKeyArray, images: Num[Array, "b h w c"], pixels: int | None = None) -> Num[Array, "b h w c"]:
    """Moves each image by whole pixels, the edge repeated: a random crop of the edge-padded image.

    `out[i, j] = image[clip(i + dy), clip(j + dx)]`, dy and dx drawn for each image, uniform on -pixels ... pixels.

    Args:
        key: a random key.
        images: [b, h, w, c] of any numeric type.
        pixels: the largest move, in pixels; an eighth of the height when not given.

    Returns:
        Images [b, h, w, c] of the same type.

    Raises:
        UsageError: `pixels` is negative.

    Source: He et al. 2016, section 4.2 (4 pixels of 32), https://arxiv.org/abs/1512.03385; here the edge, not zeros.
    """
    b, h, w, c = images.shape
    pixels = h // 8 if pixels is None else pixels
    if pixels < 0:
        raise UsageError(f"shift by {pixels} pixels: must be 0 or more")
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (b, 2), 0, 2 * pixels + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))

    return jax.vmap(crop)(padded, corners)


def flip_shift(key: PRNGKeyArray, images: Num[Array, "b h w c"]) -> Num[Array, "b h w c"]:
    """Applies `flip`, then `shift` by up to an eighth of the height, with independent keys.

    Args:
        key: a random key.
        images: [b, h, w, c] of any numeric type.

    Returns:
        Images [b, h, w, c] of the same type.

    Example:
        >>> images = jnp.zeros((4, 16, 16, 3), jnp.uint8)
        >>> flip_shift(jax.random.key(0), images).shape
        (4, 16, 16, 3)
    """
    flip_key, shift_key = jax.random.split(key)
    return shift(shift_key, flip(flip_key, images))


def affine(image: Num[Array, "h w c"], matrix: Int32[Array, "2 2"], move: Int32[Array, "2"]) -> UInt8[Array, "h w c"]:
    """Maps the coordinates of an image affinely, by bilinear interpolation, the edge repeated.

    `out[p] = image[m + matrix (p - m) + move]` with m the center of the image and p = (row, column). Places between
    pixels count to 1/256. Integers throughout: a float would be rounded otherwise in another program, and a lane's
    images would depend on its neighbors.

    Args:
        image: [h, w, c] uint8.
        matrix: [2, 2] int32, in units of 2^-14; rows are (row, column) of the place in `image`.
        move: [2] int32, in units of 2^-8 pixels.

    Returns:
        The view, [h, w, c] uint8, within one level of exact interpolation.

    Raises:
        UsageError: `image` is not uint8.
    """
    check_uint8("affine", image)
    h, w, _ = image.shape
    y, x = 2 * jnp.arange(h)[:, None] - (h - 1), 2 * jnp.arange(w) - (w - 1)

    def place(row: jax.Array, move: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Finds the pixel before the place, the one after it, and the weight of the latter out of 256, each [h, w]."""
        fixed = jnp.clip(((row[0] * y + row[1] * x) >> 7) + move + 128 * (size - 1), 0, 256 * (size - 1))
        return fixed >> 8, jnp.minimum((fixed >> 8) + 1, size - 1), (fixed & 255)[..., None]

    top, bottom, down = place(matrix[0], move[0], h)
    left, right, across = place(matrix[1], move[1], w)
    wide = image.astype(jnp.int32)
    upper = wide[top, left] * (256 - across) + wide[top, right] * across
    lower = wide[bottom, left] * (256 - across) + wide[bottom, right] * across
    return ((upper * (256 - down) + lower * down + (1 << 15)) >> 16).astype(jnp.uint8)


def relight(image: Num[Array, "h w c"], light: Int32[Array, ""], contrast: Int32[Array, ""]) -> UInt8[Array, "h w c"]:
    """Changes brightness and contrast: `out = clip(mean + contrast (image - mean) + light, 0, 255)`.

    The mean is each channel's over the image, rounded down; integers throughout, as in `affine`.

    Args:
        image: [h, w, c] uint8.
        light: [] int32, in levels of 255.
        contrast: [] int32, a factor in units of 2^-8.

    Returns:
        [h, w, c] uint8.

    Raises:
        UsageError: `image` is not uint8.
    """
    check_uint8("relight", image)
    wide = image.astype(jnp.int32)
    mean = wide.sum((0, 1)) // (image.shape[0] * image.shape[1])
    return jnp.clip(mean + light + ((contrast * (wide - mean) + 128) >> 8), 0, 255).astype(jnp.uint8)


def strong(key: PRNGKeyArray, images: Num[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """Strong augmentation: a random affine view with changed brightness and contrast.

    Each image is mirrored with probability 1/2, turned by up to `TURN` radians, zoomed by up to `ZOOM` in each
    direction apart, and moved by up to an eighth of its side (see `affine`); then its brightness changes by up to
    `LIGHT` (of the full range) and its contrast by up to `CONTRAST` (see `relight`). All are uniform, zoom and contrast
    on a logarithmic scale, in steps of 1/256 of their range.

    Args:
        key: a random key.
        images: [b, h, w, c] uint8.

    Returns:
        Images [b, h, w, c] uint8.

    Raises:
        UsageError: `images` are not uint8.

    Source: the transforms and magnitudes of RandAugment's geometric and light operations, Cubuk et al. 2020,
    https://arxiv.org/abs/1909.13719, all applied at once.
    """
    check_uint8("strong", images)
    b, h, w, _ = images.shape
    level = round(255 * LIGHT)
    choices = np.array([2, 257, 257, 257, h * 64 + 1, w * 64 + 1, 2 * level + 1, 257], np.uint32)
    bits = jax.random.bits(key, (b, len(choices)))
    drawn = ((bits >> 16) * choices >> 16).astype(jnp.int32)  # uniform on 0 ... choices - 1, to 1 part in 2^16

    def view(drawn: jax.Array, image: jax.Array) -> jax.Array:
        mirror, angle, tall, wide, down, across, light, contrast = drawn
        cosine, sine = jnp.asarray(COSINES)[angle], jnp.asarray(SINES)[angle]
        sign = 1 - 2 * mirror
        zooms = jnp.asarray(ZOOMS)[jnp.stack([tall, wide])][:, None]
        matrix = (zooms * jnp.stack([cosine, -sine * sign, sine, cosine * sign]).reshape(2, 2)) >> 8
        seen = affine(image, matrix, jnp.stack([down - h * 32, across - w * 32]))
        return relight(seen, light - level, jnp.asarray(CONTRASTS)[contrast])

    return jax.vmap(view)(drawn, images)


def check_uint8(name: str, images: Num[Array, "..."]) -> None:
    """Refuses images that are not uint8; floats in 0..1, rounded to integers, would be black.

    Raises:
        UsageError: they are not uint8.
    """
    if images.dtype != jnp.uint8:
        raise UsageError(f"{name} takes uint8 images, 0 to 255, not {images.dtype}: it works in integers")


AUGMENTATIONS: Table[Augmentation] = Table(
    {
        "none": none,
        "flip": flip,
        "shift": shift,
        "flip_shift": flip_shift,
        "strong": strong,
    }
)
