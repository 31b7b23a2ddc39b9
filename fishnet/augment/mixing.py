"""Mixing the images of a batch (mixup, cutmix) and cutting out of them, inside the compiled step.

Images are uint8; `cutmix` and `cutout`, which replace whole pixels, take any numeric type.

Mixed examples have two labels, so the loss is `share loss(labels) + (1 - share) loss(labels[partner])`. All arithmetic
is in integers, as in images.py: floats would round differently in another program. Shares are looked up in a table made
on the host, because a draw from a beta distribution with a traced parameter would need a loop of rejections.
"""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float32, Int32, Num, PRNGKeyArray, UInt8, UInt32
from scipy.special import betaincinv

from fishnet.augment.images import check_uint8
from fishnet.checks.traced import is_whole_in, violates
from fishnet.errors import UsageError

# The side of a box whose area is 1 - share of the image's: all in units of 1/256, position = share.
SIDES = np.round(256 * np.sqrt(1 - np.arange(257) / 256)).astype(np.int32)

PARTNER, SHARE, ROW, COLUMN, CUT_ROW, CUT_COLUMN, COIN = range(7)  # uses of the columns of a batch's random bits

Mixed = tuple[Num[Array, "b h w c"], Int32[Array, " b"], Float32[Array, " b"]]


def beta_table(alpha: int | float) -> np.ndarray:
    """Table of shares: a uniformly drawn entry has the distribution Beta(alpha, alpha).

    Position i holds the quantile at `(i + 1/2) / 257`, in units of 1/256; the table is symmetric, so its mean is 1/2.

    Args:
        alpha: above 0: small values give shares near 0 and 1, 1 is uniform, large ones near 1/2; 0 stands for off, a
            share of 1 everywhere.

    Returns:
        [257] int32, from 0 to 256, ascending.

    Raises:
        UsageError: `alpha` is negative or not finite.
    """
    if not 0 <= alpha < np.inf:
        raise UsageError(f"the parameter of a beta distribution of shares must be 0 (off) or more, got {alpha}")
    if alpha == 0:
        return np.full(257, 256, np.int32)
    low = np.round(256 * betaincinv(alpha, alpha, (np.arange(128) + 0.5) / 257)).astype(np.int32)
    return np.concatenate([low, np.array([128], np.int32), 256 - low[::-1]])


def mixup(key: PRNGKeyArray, images: Num[Array, "b h w c"], shares: ArrayLike) -> Mixed:
    """Mixup: blends each image with another of the batch.

        out = l image + (1 - l) images[partner], rounded;   l ~ Beta(alpha, alpha), the share

    One permutation of the batch gives the partners; each image draws its own share.

    Args:
        key: a random key.
        images: [b, h, w, c] uint8.
        shares: [257] int32, as from `beta_table`, possibly traced.

    Returns:
        Images [b, h, w, c] uint8; partner [b] int32, positions in the batch, an image's own where its share is 1;
        share [b] float32 of an image's own label, a multiple of 1/256.

    Raises:
        UsageError: images that are not uint8, or known shares that are no table of `beta_table`.

    Example:
        >>> images = jnp.zeros((4, 8, 8, 3), jnp.uint8)
        >>> mixed, partner, share = mixup(jax.random.key(0), images, beta_table(0.2))
        >>> mixed.shape, partner.shape, share.shape
        ((4, 8, 8, 3), (4,), (4,))

    Source: Zhang et al. 2018, https://arxiv.org/abs/1710.09412
    """
    check_uint8("mixup", images)
    check_table(shares)
    return _mixup(_bits(key, images), images, jnp.asarray(shares, jnp.int32))


def cutmix(key: PRNGKeyArray, images: Num[Array, "b h w c"], shares: ArrayLike) -> Mixed:
    """CutMix: replaces a box of each image by the same box of another of the batch.

        out = images[partner] in a box of h sqrt(1 - l) by w sqrt(1 - l) pixels, image elsewhere
        l ~ Beta(alpha, alpha)

    The box is rounded down and lies around a pixel drawn uniformly. The part beyond the image's edge is lost, and the
    share that is returned is the fraction of pixels kept. One permutation of the batch gives the partners; each image
    draws its own box (the authors' code draws one for each batch).

    Args:
        key: a random key.
        images: [b, h, w, c] of any numeric type, of fewer than 2^24 pixels each.
        shares: [257] int32, as from `beta_table`, possibly traced.

    Returns:
        Images [b, h, w, c] of the same type; partner [b] int32, positions in the batch, an image's own where its
        share is 1; share [b] float32 of an image's own label, a multiple of 2^-16.

    Raises:
        UsageError: known shares that are no table of `beta_table`.

    Source: Yun et al. 2019, https://arxiv.org/abs/1905.04899
    """
    check_table(shares)
    return _cutmix(_bits(key, images), images, jnp.asarray(shares, jnp.int32))


def cutout(
    key: PRNGKeyArray, images: Num[Array, "b h w c"], size: ArrayLike, fill: ArrayLike | Sequence
) -> Num[Array, "b h w c"]:
    """Cutout: paints over a square with sides of `size` pixels, which may reach beyond the image's edge.

        out = fill in a square around a pixel drawn uniformly, image elsewhere

    Args:
        key: a random key.
        images: [b, h, w, c] of any numeric type.
        size: in pixels, an integer, possibly traced; 0 changes nothing.
        fill: [c] in the units of the images, such as the mean of the training split.

    Returns:
        Images [b, h, w, c] of the same type.

    Raises:
        UsageError: a known `size` that is no whole number from 0 on, or a known `fill` that is no pixel of the images.

    Source: DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552
    """
    check_cutout(size)
    return _cutout(_bits(key, images), images, jnp.asarray(size, jnp.int32), _pixel(fill, images.dtype))


def mix(
    key: PRNGKeyArray,
    images: Num[Array, "b h w c"],
    mixup_table: ArrayLike,
    cutmix_table: ArrayLike,
    cutout_size: ArrayLike,
    fill: ArrayLike | Sequence,
) -> Mixed:
    """Applies `cutout`, then `mixup` or `cutmix`; where both are on, each batch takes one with probability 1/2.

    Cutout comes first, as one of the augmentations of single images: after cutmix it would hide parts that the shares
    count. Each gives what it gives alone with the same key. With everything off (tables of `beta_table(0)`, size 0)
    images and labels are exactly those that came in. What is off is not computed, unless `jax.vmap` runs over tables
    and sizes.

    Args:
        key: a random key.
        images: [b, h, w, c] uint8.
        mixup_table: [257] int32, of `beta_table`, possibly traced.
        cutmix_table: [257] int32, of `beta_table`, possibly traced.
        cutout_size: in pixels, an integer, possibly traced.
        fill: [c] uint8, of cutout.

    Returns:
        Images [b, h, w, c] uint8; partner [b] int32, positions in the batch, an image's own where its share is 1;
        share [b] float32 of an image's own label.

    Raises:
        UsageError: images that are not uint8, or what `cutout`, `mixup` and `cutmix` refuse.

    Source: see `mixup`, `cutmix` and `cutout`; the choice for each batch is timm's.
    """
    check_uint8("mix", images)
    check_cutout(cutout_size)
    check_table(mixup_table)
    check_table(cutmix_table)
    bits, fill = _bits(key, images), _pixel(fill, images.dtype)
    size, mixup_table, cutmix_table = (jnp.asarray(a, jnp.int32) for a in (cutout_size, mixup_table, cutmix_table))
    images = jax.lax.cond(size != 0, _cutout, lambda bits, images, *_: images, bits, images, size, fill)
    mixes, cuts, coin = mixup_table.min() < 256, cutmix_table.min() < 256, bits[0, COIN] >> 31 == 1
    choice = jnp.where(cuts & ~(mixes & coin), 2, mixes.astype(jnp.int32))
    branches = (
        _unmixed,
        lambda bits, images, shares, _: _mixup(bits, images, shares),
        lambda bits, images, _, shares: _cutmix(bits, images, shares),
    )
    return jax.lax.switch(choice, branches, bits, images, mixup_table, cutmix_table)


def check_cutout(size: ArrayLike) -> None:
    """Refuses a known size of the square that is not a whole number from 0 on.

    Raises:
        UsageError: it is negative, not whole, or too large for int32.
    """
    if violates(size, is_whole_in(0, 2**31)):
        raise UsageError(f"cutout of {size} pixels: must be a whole number, 0 or more")


def check_table(shares: ArrayLike) -> None:
    """Refuses known shares that are not a table of `beta_table`.

    Raises:
        UsageError: not [257], or a value that is no whole number from 0 to 256.
    """
    if jnp.shape(shares) != (257,) or violates(shares, is_whole_in(0, 257)):
        raise UsageError(
            "shares must be a table of fishnet.augment.mixing.beta_table: [257] whole numbers from 0 to 256"
        )


def _pixel(fill: ArrayLike | Sequence, dtype: jnp.dtype) -> Num[Array, " c"]:
    if jnp.issubdtype(dtype, jnp.integer):
        low, high = jnp.iinfo(dtype).min, jnp.iinfo(dtype).max
        if violates(cast(ArrayLike, fill), is_whole_in(low, high + 1)):
            raise UsageError(f"fill {fill} is no pixel of images of {dtype}: whole numbers from {low} to {high}")
    return jnp.asarray(fill, dtype)


def _unmixed(bits: UInt32[Array, "b 7"], images: UInt8[Array, "b h w c"], *tables: jax.Array) -> Mixed:
    b = images.shape[0]
    return images, jnp.arange(b, dtype=jnp.int32), jnp.ones(b, jnp.float32)


def _mixup(bits: UInt32[Array, "b 7"], images: UInt8[Array, "b h w c"], shares: Int32[Array, "257"]) -> Mixed:
    share = shares[_uniform(bits[:, SHARE], 257)]
    partner = _partners(bits, share < 256)
    own, other, part = images.astype(jnp.int32), images[partner].astype(jnp.int32), share[:, None, None, None]
    blended = (part * own + (256 - part) * other + 128) >> 8
    return blended.astype(jnp.uint8), partner, share.astype(jnp.float32) / 256


def _cutmix(bits: UInt32[Array, "b 7"], images: Num[Array, "b h w c"], shares: Int32[Array, "257"]) -> Mixed:
    _, h, w, _ = images.shape
    side = jnp.asarray(SIDES)[shares[_uniform(bits[:, SHARE], 257)]]
    row, column = _uniform(bits[:, ROW], h), _uniform(bits[:, COLUMN], w)
    box = _box(row, column, (side * h) >> 8, (side * w) >> 8, h, w)
    kept = h * w - box.sum((1, 2), dtype=jnp.int32)
    partner = _partners(bits, kept < h * w)
    return jnp.where(box[..., None], images[partner], images), partner, _fraction(kept.astype(jnp.uint32), h * w)


def _cutout(
    bits: UInt32[Array, "b 7"], images: Num[Array, "b h w c"], size: Int32[Array, ""], fill: Num[Array, " c"]
) -> Num[Array, "b h w c"]:
    b, h, w, _ = images.shape
    row, column, size = _uniform(bits[:, CUT_ROW], h), _uniform(bits[:, CUT_COLUMN], w), jnp.broadcast_to(size, (b,))
    return jnp.where(_box(row, column, size, size, h, w)[..., None], fill, images)


def _bits(key: PRNGKeyArray, images: Num[Array, "b h w c"]) -> UInt32[Array, "b 7"]:
    """Draws all random bits of a batch at once, because compiling the generator takes longer than all else here."""
    return jax.random.bits(key, (images.shape[0], 7))


def _uniform(bits: UInt32[Array, " b"], choices: int) -> Int32[Array, " b"]:
    """Uniform integers on 0 ... choices - 1 (below 2^16), to 1 part in 2^16."""
    return ((bits >> 16) * np.uint32(choices) >> 16).astype(jnp.int32)


def _partners(bits: UInt32[Array, "b 7"], mixed: Bool[Array, " b"]) -> Int32[Array, " b"]:
    """Permutation of the batch; images that are not mixed are their own partners."""
    return jnp.where(mixed, jnp.argsort(bits[:, PARTNER]), jnp.arange(bits.shape[0])).astype(jnp.int32)


def _box(
    row: Int32[Array, " b"],
    column: Int32[Array, " b"],
    tall: Int32[Array, " b"],
    wide: Int32[Array, " b"],
    h: int,
    w: int,
) -> Bool[Array, "b h w"]:
    """Mask of the box of `tall` by `wide` pixels around (row, column)."""
    y = jnp.arange(h) - (row - (tall >> 1))[:, None]
    x = jnp.arange(w) - (column - (wide >> 1))[:, None]
    rows, columns = (y >= 0) & (y < tall[:, None]), (x >= 0) & (x < wide[:, None])
    return rows[:, :, None] & columns[:, None, :]


def _fraction(part: UInt32[Array, " b"], whole: int) -> Float32[Array, " b"]:
    """Divides `part / whole`, rounded down to a multiple of 2^-16, in integers: float division varies by program."""
    first, rest = part * 256 // whole, part * 256 % whole
    return (first * 256 + rest * 256 // whole).astype(jnp.float32) / 65536
