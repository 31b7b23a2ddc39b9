"""Task: labeled images in memory with their splits and statistics."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from fishnet.checks.arrays import check_whole_numbers
from fishnet.data.splits import SPLITS
from fishnet.host.names import escape_name, escape_text, is_escaped

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Task:
    """Task: labeled images, all splits in one read-only array; `make_task` computes the derived fields."""

    name: str
    images: np.ndarray  # [n, h, w, c] uint8, all splits
    labels: np.ndarray  # [n] int32
    splits: dict[str, np.ndarray]  # "train" "val" "test" -> int32 indices into images, sorted, disjoint
    classes: tuple[str, ...]
    mean: np.ndarray  # [c] float32 over the train split, in 0..255
    std: np.ndarray  # [c] float32 over the train split, in 0..255; 1 for a channel that never changes
    fingerprint: str  # sha256 hex of images, labels, splits, classes
    notes: tuple[str, ...] = ()  # what the user should be told (skipped files, duplicates across splits ...)
    files: tuple[str, ...] = ()  # where each image came from, [n]; empty when the images never were files
    credit: str = ""  # whose data this is and under what licence, to be shown with any picture of it

    def split_labels(self, split: str) -> np.ndarray:
        """Labels of the images of a split, [image] int32."""
        return np.asarray(self.labels)[self.splits[split]]

    def describe_split(self, split: str) -> str:
        """Describes which classes a split holds and lacks."""
        counts = np.bincount(self.split_labels(split), minlength=len(self.classes))
        held = ", ".join(name for name, count in zip(self.classes, counts, strict=True) if count)
        missing = ", ".join(name for name, count in zip(self.classes, counts, strict=True) if not count)
        lacks = f" and none of {missing}" if missing else ""
        return f"the {SPLIT_NAMES[split]} split of {self.name} holds images of {held} only{lacks}"


def make_task(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    splits: Mapping[str, np.ndarray],
    classes: Sequence[str],
    notes: Sequence[str] = (),
    files: Sequence[str] = (),
    credit: str = "",
) -> Task:
    """Makes a `Task` from arrays: checks them, computes statistics and fingerprint, and makes them read-only.

    Args:
        name: of the task.
        images: [n, h, w, c] uint8.
        labels: [n] whole numbers in 0..k-1; of a floating type only if they are whole.
        splits: "train", "val" and "test" to disjoint, non-empty indices into images, whole numbers too; a mask is none.
        classes: k names, by label; those that cannot be shown are escaped as by `fishnet.host.names.escape_name`.
        notes: sentences for the user, likewise.
        files: n names, likewise, or none.
        credit: origin and licence in one line.

    Raises:
        ValueError: the arrays contradict each other or are of another type, a label or index is no whole number or out
            of range, a split is empty, two splits share an image, or two classes have one name.
    """
    images, labels = _check_images(name, images), _integers(labels, f"{name}: labels", len(classes))
    splits = _check_splits(name, splits, len(images))
    classes, files = _shown(name, classes), _shown(name, files)
    _check(name, images, labels, classes, files)
    mean, std = channel_statistics(images, splits["train"])
    for array in (images, labels, mean, std, *splits.values()):
        array.setflags(write=False)
    return Task(
        name, images, labels, splits, classes, mean, std, fingerprint(images, labels, splits, classes),
        tuple(map(escape_text, notes)), files, credit,
    )  # fmt: skip


def channel_statistics(
    images: UInt8[np.ndarray, "n h w c"], rows: Integer[np.ndarray, "m"]
) -> tuple[Float32[np.ndarray, "c"], Float32[np.ndarray, "c"]]:
    """Mean and (biased) standard deviation of each channel over some images, exact to the last bit of float32.

    From the histogram h of the 256 values: mean = sum v h / n, var = sum (v - mean)^2 h / n, in float64; no order of
    summation can change the result.

    Args:
        images: [n, h, w, c] uint8.
        rows: indices of the images to count.

    Returns:
        mean [c] and std [c], float32, in 0..255; std is 1 where a channel never changes, so dividing by it is safe.
    """
    values = np.arange(256, dtype=np.float64)
    histogram = np.zeros((images.shape[-1], 256), dtype=np.int64)
    for chunk in np.array_split(rows, max(1, len(rows) // 4096)):
        pixels = images[chunk]
        for channel in range(images.shape[-1]):
            histogram[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    total = histogram.sum(axis=1)
    mean = histogram @ values / total
    var = (histogram * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean.astype(np.float32), np.where(var > 0, np.sqrt(var), 1.0).astype(np.float32)


def fingerprint(
    images: UInt8[np.ndarray, "n h w c"],
    labels: Integer[np.ndarray, "n"],
    splits: Mapping[str, Integer[np.ndarray, "_"]],
    classes: Sequence[str],
) -> str:
    """SHA-256 of everything that training sees: shapes, pixels, labels, splits and class names.

    Returns:
        64 hexadecimal digits, the same on every platform.
    """
    digest = hashlib.sha256(repr((images.shape, tuple(classes))).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, dtype="<i4").data)
    for split in SPLITS:
        digest.update(f"{split} {len(splits[split])}".encode())
        digest.update(np.ascontiguousarray(splits[split], dtype="<i4").data)
    return digest.hexdigest()


def _shown(task: str, names: Sequence[str]) -> tuple[str, ...]:
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{task}: names of classes and files must be text, not {list(names)[:3]}")
    return tuple(name if is_escaped(name) else escape_name(name) for name in names)


def _check_images(name: str, images: np.ndarray) -> np.ndarray:
    images = np.ascontiguousarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        advice = "; floats in 0..1: np.rint(255 * images).astype(np.uint8)" if images.dtype.kind == "f" else ""
        raise ValueError(f"{name}: images must be [n, h, w, c] uint8, not {images.shape} {images.dtype}{advice}")
    return images


def _check_splits(name: str, splits: Mapping[str, np.ndarray], images: int) -> dict[str, np.ndarray]:
    if set(splits) != set(SPLITS):
        raise ValueError(f"{name}: the splits must be {', '.join(SPLITS)}, not {', '.join(map(str, splits)) or 'none'}")
    rows = {split: _integers(splits[split], f"{name}: {split} indices", images) for split in SPLITS}
    for split in SPLITS:
        if rows[split].ndim != 1 or not len(rows[split]):
            shape = "empty" if not rows[split].size else f"of shape {rows[split].shape}, not a list of indices"
            raise ValueError(f"{name}: the {split} split is {shape}")
    used = np.concatenate(list(rows.values()))
    if len(np.unique(used)) != len(used):
        raise ValueError(f"{name}: splits overlap, or name an image twice")
    return {split: np.sort(of_split) for split, of_split in rows.items()}


def _integers(values: np.ndarray, what: str, high: int) -> np.ndarray:
    return np.ascontiguousarray(check_whole_numbers(values, what, 0, high), dtype=np.int32)


def _check(name, images, labels, classes, files) -> None:
    if labels.shape != images.shape[:1] or (files and len(files) != len(images)):
        raise ValueError(f"{name}: {len(images)} images, but labels {labels.shape} and {len(files)} files")
    if len(set(classes)) < len(classes):
        raise ValueError(f"{name}: two classes have one name, among {', '.join(classes)}")
