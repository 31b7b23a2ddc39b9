"""Corruptions of one image, from uint8 to uint8, the same on every machine.

Values are computed in float64 and rounded to the nearest integer, halves to even.
"""

import math

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image
from scipy import ndimage

Image8 = UInt8[np.ndarray, "h w c"]

# Largest changes of `vary_image` at strength 1.
TURN = 45.0  # degrees
ZOOM = 1.5
HUE = 60.0  # degrees
LIGHT = 0.2  # of the range from black to white


def gaussian_blur(image: Image8, sigma: float) -> Image8:
    """Gaussian blur of every channel, the edge repeated.

    `out = sum_d g(d) image[p + d]`, g proportional to exp(-|d|^2 / (2 sigma^2)), cut off at 4 sigma in each direction.

    Args:
        image: [h, w, c] uint8.
        sigma: standard deviation in pixels, above 0.

    Returns:
        [h, w, c] uint8.

    Source: a corruption of Hendrycks and Dietterich, arXiv:1903.12261.
    """
    return _round_pixels(
        ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="nearest", truncate=4.0)
    )


def pixelate(image: Image8, side: int) -> Image8:
    """Lowers the resolution of an image: reduces it by area averaging and enlarges it again.

    `small[i, j] = mean of image over [i h/side, (i+1) h/side) x [j w/side, (j+1) w/side)`, pixels counting by the part
    of them that lies inside; it is enlarged with LANCZOS, the filter of `images.prepare_image`.

    Args:
        image: [h, w, c] uint8.
        side: of the small image in pixels, below h and w.

    Returns:
        [h, w, c] uint8.

    Source: a corruption (pixelate) of Hendrycks and Dietterich, arXiv:1903.12261; enlarged as above.
    """
    h, w, channels = image.shape
    # Integers: halves are frequent in means of few pixels, and must be rounded alike everywhere.
    total = np.einsum("ih,hwc,jw->ijc", _overlaps(h, side), image.astype(np.int64), _overlaps(w, side))
    small = ((2 * total + h * w) // (2 * h * w)).astype(np.uint8)
    enlarged = [
        np.asarray(Image.fromarray(small[..., channel]).resize((w, h), Image.Resampling.LANCZOS))
        for channel in range(channels)
    ]
    return np.stack(enlarged, axis=-1)


def blend_images(image: Image8, other: Image8, share: float) -> Image8:
    """Blends two images: `out = (1 - share) image + share other`.

    Args:
        image: [h, w, c] uint8.
        other: [h, w, c] uint8.
        share: of `other`, in 0..1.

    Returns:
        [h, w, c] uint8.

    Source: the mixture of Zhang et al. (mixup), arXiv:1710.09412, of the images alone.
    """
    return _round_pixels((1 - share) * image + share * other)


def vary_image(image: Image8, strength: float, drawn: Float64[np.ndarray, "4"]) -> Image8:
    """Rotates and zooms an image, and changes its hue and brightness.

        view[p] = image[m + R(-angle) (p - m) / zoom],   out = H(hue) view + light

    with m the center, p = (row, column), between pixels by bilinear interpolation, the edge repeated. H turns the
    colors about the grey axis, by which the mean of the channels stays; grey images have no hue. At strength 1 the
    angle is up to 45 degrees, the zoom 1.5^(-1) to 1.5, the hue up to 60 degrees and the light up to 0.2 of the range
    from black to white; angle, hue, light and the logarithm of the zoom grow with the strength.

    Args:
        image: [h, w, c] uint8.
        strength: 0 leaves the image as it is.
        drawn: angle, zoom, hue and light, each in -1..1 of what the strength allows.

    Returns:
        [h, w, c] uint8.

    Source: geometric and light operations of Cubuk et al. (RandAugment), arXiv:1909.13719; hue: Haeberli, "Matrix
    Operations for Image Processing", 1993.
    """
    angle, zoom = math.radians(TURN * strength * drawn[0]), ZOOM ** (strength * drawn[1])
    hue, light = math.radians(HUE * strength * drawn[2]), 255 * LIGHT * strength * drawn[3]
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / zoom
    center = (np.array(image.shape[:2]) - 1) / 2
    view = np.stack(
        [
            ndimage.affine_transform(channel, turn, center - turn @ center, order=1, mode="nearest")
            for channel in np.moveaxis(image.astype(np.float64), -1, 0)
        ],
        axis=-1,
    )
    if image.shape[-1] == 3:
        view = view @ hue_matrix(hue).T
    return _round_pixels(view + light)


def hue_matrix(angle: float) -> Float64[np.ndarray, "3 3"]:
    """Rotation of (red, green, blue) about (1, 1, 1) by an angle in radians; 2 pi / 3 turns red into green."""
    a = math.cos(angle) + (1 - math.cos(angle)) / 3
    b = (1 - math.cos(angle)) / 3 + math.sin(angle) / math.sqrt(3)
    c = (1 - math.cos(angle)) / 3 - math.sin(angle) / math.sqrt(3)
    return np.array([[a, c, b], [b, a, c], [c, b, a]])


def change_brightness(image: Image8, amount: float) -> Image8:
    """Changes brightness: `out = image + 255 amount`, cut off at black and white.

    Args:
        image: [h, w, c] uint8.
        amount: -1 (black) to 1 (white).

    Source: a corruption of Hendrycks and Dietterich, arXiv:1903.12261.
    """
    return _round_pixels(image + 255.0 * amount)


def change_contrast(image: Image8, amount: float) -> Image8:
    """Changes contrast: `out = mean + (1 + amount) (image - mean)`, with the mean of each channel over the image.

    Args:
        image: [h, w, c] uint8.
        amount: -1 (no contrast is left) or more.

    Source: a corruption of Hendrycks and Dietterich, arXiv:1903.12261.
    """
    mean = image.mean(axis=(0, 1), dtype=np.float64)
    return _round_pixels(mean + (1 + amount) * (image - mean))


def add_noise(image: Image8, amount: float, random: np.random.RandomState) -> Image8:
    """Adds sensor noise: `out = image + 255 amount z`, z standard normal and independent in every pixel and channel.

    Args:
        image: [h, w, c] uint8.
        amount: standard deviation as a part of the range from black to white.
        random: where z is drawn from.

    Source: a corruption of Hendrycks and Dietterich, arXiv:1903.12261.
    """
    return _round_pixels(image + 255.0 * amount * random.standard_normal(image.shape))


def _round_pixels(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _overlaps(size: int, cells: int) -> np.ndarray:
    # [cells, size] the part of each pixel in each cell, in units of 1/cells of a pixel; every row sums to size.
    low, pixel = size * np.arange(cells)[:, None], cells * np.arange(size)
    return np.maximum(0, np.minimum(low + size, pixel + cells) - np.maximum(low, pixel))
