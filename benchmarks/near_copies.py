"""Recall of the search for near-copies: 200 reef photographs are copied in several ways, and those found are counted.

    python -m benchmarks.near_copies
    python -m benchmarks.near_copies --image-size 64

The originals (one of each of 200 groups of the reef task, 64 px) are the train split, the copies the test split,
prepared as a folder of photographs is. Prints how many of the copies `fishnet.data.duplicates.find_duplicates` reports,
and how many of 200 other photographs it takes for copies. Takes about 5 s; the counts are the same on every run.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from fishnet.data.duplicates import find_duplicates
from fishnet.data.images import prepare_image
from fishnet.data.reef import read_records

MANY = 200
LANCZOS = Image.Resampling.LANCZOS

Change = Callable[[Image.Image], Image.Image]


def as_jpeg(quality: int) -> Change:
    """Stores an image as JPEG, and reads it again."""

    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return change


def shift(image: Image.Image) -> Image.Image:
    """Moves an image to the right by a pixel, the edge repeated."""
    return Image.fromarray(np.pad(np.asarray(image), ((0, 0), (1, 0), (0, 0)), mode="edge")[:, :-1])


CHANGES: dict[str, Change] = {
    "the same pixels": lambda image: image.copy(),
    "JPEG, quality 90": as_jpeg(90),
    "JPEG, quality 50": as_jpeg(50),
    "2 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.02),
    "10 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "halved and enlarged": lambda image: image.resize((32, 32), LANCZOS).resize((64, 64), LANCZOS),
    "shifted by a pixel": shift,
    "cropped by 10 % a side": lambda image: image.crop((6, 6, 58, 58)),
    "mirrored": ImageOps.mirror,
}


def load_photographs() -> tuple[list[Image.Image], list[Image.Image]]:
    """200 photographs of the reef task, 64 px, and 200 others, all of different groups."""
    groups = {}
    for row in read_records()[1]["train"]:
        groups.setdefault(row["group"], row["image"])
    images: list[Image.Image] = [Image.open(io.BytesIO(data)) for data in list(groups.values())[: 2 * MANY]]
    return images[::2], images[1::2]


def count_found(originals: Sequence[Image.Image], copies: Sequence[Image.Image], image_size: int) -> int:
    """Number of copies that are reported as a copy or near-copy of an original.

    Args:
        originals: the train split.
        copies: the test split.
        image_size: side in pixels at which they are compared.
    """
    flat = np.zeros((1, image_size, image_size, 3), np.uint8)  # validation cannot be empty
    prepared = [prepare_image(image, image_size) for image in (*originals, *copies)]
    train, test = np.arange(len(originals)), len(originals) + np.arange(len(copies))
    splits = {"train": train, "val": np.array([len(prepared)]), "test": test}
    images = np.concatenate([np.stack(prepared), flat])
    found = find_duplicates(images, np.zeros(len(images), np.int32), splits)
    return len({j for pair in (*found.across, *found.near) for j in pair if j in test})


def main(argv: Sequence[str] | None = None) -> int:
    """Prints how many near-copies of each kind are found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.near_copies", description=__doc__)
    parser.add_argument("--image-size", type=int, default=32, metavar="PX", help="side of the prepared images")
    size = parser.parse_args(argv).image_size
    originals, others = load_photographs()
    print(f"found of {len(originals)} photographs at {size} px:")
    for name, change in CHANGES.items():
        print(f"  {name:24} {count_found(originals, [change(image) for image in originals], size):4}", flush=True)
    print(f"  {'another photograph':24} {count_found(originals, others, size):4}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
