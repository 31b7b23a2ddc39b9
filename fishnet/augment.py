"""Augmentation of uint8 image batches inside the compiled step: f(key, images) -> images.

Draws depend on the key and the batch shape alone, so a lane's images do not change with its neighbours.
"""

from collections.abc import Callable

import dm_pix as pix
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, PRNGKeyArray, UInt8

from fishnet.errors import UsageError

TURN = 0.3  # radians, of `strong`
ZOOM = 1.25
LIGHT = 0.15
CONTRAST = 1.25

Augmentation = Callable[[PRNGKeyArray, UInt8[Array, "b h w c"]], UInt8[Array, "b h w c"]]


def none(key: PRNGKeyArray, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """The images as they are; `key` is unused."""
    return images


def flip(key: PRNGKeyArray, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """Mirrors each image left to right with probability 1/2.

    Args:
        key: a random key.
        images: [b, h, w, c] uint8.

    Returns:
        Images [b, h, w, c] uint8.
    """
    coin = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(coin, images[:, :, ::-1], images)


def shift(key: PRNGKeyArray, images: UInt8[Array, "b h w c"], pixels: int | None = None) -> UInt8[Array, "b h w c"]:
    """Moves each image by whole pixels, the edge repeated: a random crop of the edge-padded image.

    `out[i, j] = image[clip(i + dy), clip(j + dx)]`, dy and dx drawn for each image, uniform on -pixels ... pixels.

    Args:
        key: a random key.
        images: [b, h, w, c] uint8.
        pixels: the largest move, in pixels; an eighth of the height when not given.

    Returns:
        Images [b, h, w, c] uint8.

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


def flip_shift(key: PRNGKeyArray, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """`flip`, then `shift` by up to an eighth of the height, with independent keys.

    Args:
        key: a random key.
        images: [b, h, w, c] uint8.

    Returns:
        Images [b, h, w, c] uint8.
    """
    flip_key, shift_key = jax.random.split(key)
    return shift(shift_key, flip(flip_key, images))


def strong(key: PRNGKeyArray, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """A random affine view with changed light, for photographs of few subjects.

    Each image is mirrored with probability 1/2, turned by up to `TURN` radians, zoomed by up to `ZOOM` in each
    direction apart, and moved by up to an eighth of its side, with bilinear interpolation and the edge repeated; then
    its brightness changes by up to `LIGHT` (of the full range) and its contrast by up to `CONTRAST`. All are uniform,
    zoom and contrast on a logarithmic scale.

    Args:
        key: a random key.
        images: [b, h, w, c] uint8.

    Returns:
        Images [b, h, w, c] uint8.

    Source: brightness and contrast by dm-pix, interpolation by `jax.scipy.ndimage.map_coordinates`.
    """
    b, h, w, _ = images.shape
    y, x = jnp.meshgrid(jnp.arange(h) - (h - 1) / 2, jnp.arange(w) - (w - 1) / 2, indexing="ij")

    def view(key: jax.Array, image: jax.Array) -> jax.Array:
        turn, zoom, mirror, move, light, contrast = jax.random.split(key, 6)
        angle = jax.random.uniform(turn, (), minval=-TURN, maxval=TURN)
        zooms = jnp.exp(jax.random.uniform(zoom, (2,), minval=-jnp.log(ZOOM), maxval=jnp.log(ZOOM)))
        moves = jax.random.uniform(move, (2,), minval=-1 / 8, maxval=1 / 8) * jnp.array([h, w])
        across = jnp.where(jax.random.bernoulli(mirror), -x, x)
        rows = zooms[0] * (jnp.cos(angle) * y - jnp.sin(angle) * across) + moves[0] + (h - 1) / 2
        columns = zooms[1] * (jnp.sin(angle) * y + jnp.cos(angle) * across) + moves[1] + (w - 1) / 2

        def sampled(channel: jax.Array) -> jax.Array:
            return map_coordinates(channel, [rows, columns], order=1, mode="nearest")

        seen = jax.vmap(sampled, in_axes=-1, out_axes=-1)(image.astype(jnp.float32) / 255)
        seen = pix.adjust_brightness(seen, jax.random.uniform(light, (), minval=-LIGHT, maxval=LIGHT))
        log = jnp.log(CONTRAST)
        seen = pix.adjust_contrast(seen, jnp.exp(jax.random.uniform(contrast, (), minval=-log, maxval=log)))
        return jnp.round(jnp.clip(seen, 0, 1) * 255).astype(jnp.uint8)

    return jax.vmap(view)(jax.random.split(key, b), images)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": none,
    "flip": flip,
    "shift": shift,
    "flip_shift": flip_shift,
    "strong": strong,
}
