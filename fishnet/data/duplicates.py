"""Duplicates and near-duplicates among images; across splits they make test metrics too good."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt8, UInt64
from PIL import Image

from fishnet.data.splits import SPLITS

NEAR_BITS = 2  # of the 64 of the difference hash
NEAR_COLOR = 12.0  # mean difference of 8x8 thumbnails in 0..255: on reef the hash alone takes different fish for one
MOST_CANDIDATES = 64  # images of like hash that one image is compared with in color
MISSED = "re-encoded or brighter copies are often missed, shifted ones mostly, crops and mirror images always"
MOST_PAIRS = 1_000_000_000  # comparisons of hashes, about 5 s; beyond that a part of the images is looked at


@dataclass(frozen=True)
class Duplicates:
    """Pairs (i, j) of image indices, i < j; each image that repeats an earlier one is listed once, with that one."""

    same_split: tuple[tuple[int, int], ...]  # equal pixels, both in one split
    across: tuple[tuple[int, int], ...]  # equal pixels, in two splits
    labels_differ: tuple[tuple[int, int], ...]  # equal pixels, two classes (whatever the splits)
    near: tuple[tuple[int, int], ...]  # near-copies in two splits: each val and test image once, with its nearest
    looked_at: float  # part of the val and test images whose near-copies were looked for, in 0..1


def find_duplicates(
    images: UInt8[np.ndarray, "n s s 3"], labels: Integer[np.ndarray, "n"], splits: dict[str, Integer[np.ndarray, "_"]]
) -> Duplicates:
    """Finds exact copies anywhere, and some of the near-copies across splits.

    Exact: the prepared pixels are equal. Near: the 64-bit difference hashes differ in at most `NEAR_BITS` and the
    8x8 color thumbnails by at most `NEAR_COLOR` on average. That finds part of the near-copies only, so finding none
    does not show that there are none. Of 200 reef photographs at 32 px (`python -m benchmarks.near_copies`) it finds
    JPEG, quality 90: 148; JPEG, quality 50: 105; 2 % brighter: 157; 10 % brighter: 83; halved and enlarged: 163;
    shifted by a pixel: 49; cropped by 10 % a side: 0; mirrored: 0; and it takes another photograph for a copy: 0.

    Args:
        images: [n, s, s, 3] uint8.
        labels: [n] integers.
        splits: as in `Task`; images that are in none are not looked at.

    Source: N. Krawetz, "Kind of Like That" (difference hash), hackerfactor.com, 2013.
    """
    split_of = np.full(len(images), -1)
    for number, name in enumerate(SPLITS):
        split_of[splits[name]] = number
    content = _content(images)
    first: dict[int, dict[tuple[str, int], int]] = {}  # of each content: the first image of every split and class
    same, across, differ = [], [], []
    for i in np.flatnonzero(split_of >= 0).tolist():
        seen = first.setdefault(content[i], {})
        elsewhere = [j for (kind, value), j in seen.items() if kind == "split" and value != split_of[i]]
        clash = [j for (kind, value), j in seen.items() if kind == "label" and value != labels[i]]
        if elsewhere:
            across.append((elsewhere[0], i))
        elif seen:
            same.append((seen["split", split_of[i]], i))
        if clash:
            differ.append((clash[0], i))
        seen.setdefault(("split", split_of[i]), i)
        seen.setdefault(("label", labels[i]), i)
    near, looked_at = _near(images, content, splits)
    return Duplicates(tuple(same), tuple(across), tuple(differ), near, looked_at)


def difference_hash(
    images: UInt8[np.ndarray, "n s s 3"],
) -> tuple[UInt64[np.ndarray, "n"], UInt8[np.ndarray, "n 192"]]:
    """Difference hash of each image (signs of gray-value differences), and its 8x8 color thumbnail.

    Args:
        images: [n, s, s, 3] uint8.

    Returns:
        hashes [n] uint64, a bit for each of 8x8 left-right comparisons of the 9x8 grey image; thumbnails
        [n, 192] uint8, the 8x8 RGB image.
    """
    bits = np.empty((len(images), 64), dtype=bool)
    thumbnails = np.empty((len(images), 8 * 8 * 3), dtype=np.uint8)
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
        bits[i] = (grey[:, 1:] > grey[:, :-1]).ravel()
        thumbnails[i] = np.asarray(image.resize((8, 8), Image.Resampling.BOX)).ravel()
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0], thumbnails


def _content(images: np.ndarray) -> np.ndarray:
    digests = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest() for image in images]
    return np.unique(digests, return_inverse=True)[1]


def _near(
    images: np.ndarray, content: np.ndarray, splits: dict[str, np.ndarray]
) -> tuple[tuple[tuple[int, int], ...], float]:
    hashes, thumbnails = difference_hash(images)
    pairs, looked = [], 0
    for name, others in (("val", ("train",)), ("test", ("train", "val"))):
        pool = np.concatenate([splits[other] for other in others])
        rows = splits[name][: max(1, MOST_PAIRS // 2 // len(pool))]
        looked += len(rows)
        step = max(1, 4_000_000 // len(pool))  # 32 MB for the distances of one chunk
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            apart = np.bitwise_count(hashes[chunk][:, None] ^ hashes[pool][None, :])
            i, j = np.nonzero(apart <= NEAR_BITS)
            i, j = _first(i, chunk[i], pool[j])
            other = content[i] != content[j]  # exact copies have a report of their own
            pairs += _nearest(thumbnails, i[other], j[other])
    total = len(splits["val"]) + len(splits["test"])
    return tuple(sorted(pairs)), looked / max(1, total)


def _first(row: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Images without texture all have the same hash: a limit per row keeps the work linear.
    begins = np.flatnonzero(np.diff(row, prepend=-1))
    keep = np.arange(len(row)) - np.repeat(begins, np.diff(begins, append=len(row))) < MOST_CANDIDATES
    return i[keep], j[keep]


def _nearest(thumbnails: np.ndarray, i: np.ndarray, j: np.ndarray) -> list[tuple[int, int]]:
    color = np.abs(thumbnails[i].astype(np.int16) - thumbnails[j]).mean(axis=1)
    best: dict[int, tuple[float, int]] = {}
    for k in np.flatnonzero(color <= NEAR_COLOR):
        best[int(i[k])] = min(best.get(int(i[k]), (np.inf, -1)), (float(color[k]), int(j[k])))
    return [(min(a, b), max(a, b)) for a, (_, b) in best.items()]


def describe_duplicates(found: Duplicates, files: Sequence[str]) -> list[str]:
    """Describes duplicates in sentences for `Task.notes`; no duplicates give no sentence.

    Args:
        found: what `find_duplicates` returned.
        files: [n] names of the images.
    """

    def named(pairs: Sequence[tuple[int, int]]) -> str:
        shown = ", ".join(f"{files[i]} = {files[j]}" for i, j in pairs[:3])
        return shown + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")

    notes = []
    if found.across:
        notes.append(f"{_count(found.across)} of another across splits: {named(found.across)}")
    if found.same_split:
        notes.append(f"{_count(found.same_split)} of another in the same split: {named(found.same_split)}")
    if found.labels_differ:
        notes.append(f"{_count(found.labels_differ)} of one in another class: {named(found.labels_differ)}")
    if found.near:
        many = len(found.near)
        verb = "images are near duplicates" if many > 1 else "image is a near duplicate"
        notes.append(f"{many} {verb} of another across splits: {named(found.near).replace(' = ', ' ~ ')}; {MISSED}")
    if found.looked_at < 1:
        notes.append(f"near duplicates were looked for among {found.looked_at:.0%} of the val and test images only")
    return notes


def _count(pairs: Sequence) -> str:
    return f"{len(pairs)} images are exact duplicates" if len(pairs) > 1 else "1 image is an exact duplicate"
