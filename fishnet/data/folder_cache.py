"""Cache of decoded photographs: the prepared arrays of a folder, until a file changes."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fishnet.data.folder_scan import Listed
from fishnet.data.images import MAX_BYTES, MAX_PIXELS, MIN_SIDE, ImageError, decode_image, quiet_pillow, read_bytes
from fishnet.errors import UserError
from fishnet.host.cache import cache_dir, no_cache_note
from fishnet.host.files import open_regular_file, write_whole

VERSION = 2  # of the preparation and of the cache's layout: raise it when either changes


@dataclass(frozen=True)
class Decoded:
    """Decoded images of a folder, and the files that cannot be used."""

    images: np.ndarray  # [n, s, s, 3] uint8
    labels: np.ndarray  # [n] int32
    files: tuple[str, ...]  # [n] relative to the folder, with slashes
    digests: tuple[str, ...]  # [n] SHA-256 of the files' content
    skipped: tuple[tuple[str, str, str], ...]  # file, kind of fault, reason
    notes: tuple[str, ...] = ()


def decode_cached(root: Path, listed: Sequence[Listed], image_size: int) -> Decoded:
    """Decodes the files, or reads the cached result if no path, size or time of change differs.

    A cache file that cannot be read is made anew. Where none can be written, a note says so. There is at most one for
    each folder and image size.

    Args:
        root: the folder.
        listed: its files.
        image_size: s, the side of the prepared images in pixels.
    """
    limits = (VERSION, MIN_SIDE, MAX_PIXELS, MAX_BYTES)
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    key = hashlib.sha256(repr((limits, place, image_size, [tuple(item) for item in listed])).encode()).hexdigest()
    cache = cache_dir()
    if cache is None:
        return replace(decode(root, listed, image_size), notes=(no_cache_note("decoded photographs"),))
    path = cache / "folder" / f"{place}-{image_size}.npz"
    known = _load(path, key, image_size)
    if known is not None:
        return known
    decoded = decode(root, listed, image_size)
    try:
        write_whole(path, lambda file: _save(file, key, decoded), make_folder=True)
    except UserError as error:
        note = f"the decoded images could not be kept in the cache: {error}"
        return replace(decoded, notes=(note,))
    return decoded


def decode(root: Path, listed: Sequence[Listed], image_size: int) -> Decoded:
    """Decodes every file, in threads (Pillow lets go of the interpreter while it works); the order stays.

    Args:
        root: the folder.
        listed: its files.
        image_size: s, the side of the prepared images in pixels.
    """

    def one(item: Listed) -> tuple[np.ndarray, str] | ImageError:
        try:
            data = read_bytes(root / item.file, name=item.file)
            return decode_image(data, image_size, item.file), hashlib.sha256(data).hexdigest()
        except ImageError as error:
            return error

    images, labels, files, digests, skipped = [], [], [], [], []
    # No more than 8: each may hold one photograph of MAX_PIXELS.
    with quiet_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            results = list(pool.map(one, listed))
        except BaseException:  # Ctrl-C: leaving the block would first decode everything that waits
            pool.shutdown(cancel_futures=True)
            raise
    for item, result in zip(listed, results, strict=True):
        if isinstance(result, ImageError):
            skipped.append((item.file, result.kind, result.reason))
        else:
            images.append(result[0])
            digests.append(result[1])
            labels.append(item.label)
            files.append(item.file)
    stacked = np.stack(images) if images else np.zeros((0, image_size, image_size, 3), np.uint8)
    return Decoded(stacked, np.array(labels, np.int32), tuple(files), tuple(digests), tuple(skipped))


def _save(file, key: str, decoded: Decoded) -> None:
    np.savez(
        file,
        key=np.array(key),
        images=decoded.images,
        labels=decoded.labels,
        files=np.array(decoded.files, dtype=np.str_),
        digests=np.array(decoded.digests, dtype=np.str_),
        skipped=np.array(decoded.skipped, dtype=np.str_).reshape(-1, 3),
    )


def _load(path: Path, key: str, image_size: int) -> Decoded | None:
    try:
        with open_regular_file(path) as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            images, labels = stored["images"], stored["labels"]
            files, digests = stored["files"].tolist(), stored["digests"].tolist()
            skipped = [tuple(row) for row in stored["skipped"].tolist()]
    except Exception:  # absent, of an older layout or damaged (every member carries a CRC-32): make it anew
        return None
    if images.shape != (len(labels), image_size, image_size, 3) or images.dtype != np.uint8:
        return None
    return Decoded(images, labels, tuple(files), tuple(digests), tuple(skipped))
