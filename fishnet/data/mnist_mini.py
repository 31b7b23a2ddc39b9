"""Task mnist-mini: 8,000 of the MNIST digits, embedded in the package as IDX files, for quick runs without a network.

Stratified subsets of the splits of `mnist` (6,000 of its train, 1,000 of its val, 1,000 of its test), so nothing that
one of the two tasks is tested on is trained on in the other. The command

    python -m fishnet.data.mnist_mini --source FOLDER_WITH_MNIST [--out FOLDER]

re-creates the embedded files, byte for byte with the same zlib. CC BY-SA 3.0, as MNIST itself; see NOTICE.txt there.
"""

import sys
from pathlib import Path

import numpy as np

from fishnet.data.idx import encode_idx, read_idx
from fishnet.data.mnist import CLASSES, CREDIT, load_mnist
from fishnet.data.splits import SPLITS, stratified_order
from fishnet.data.task import Task, make_task
from fishnet.errors import UserError
from fishnet.host.files import write_whole

ASSETS = Path(__file__).parent / "assets" / "mnist_mini"
SIZES = {"train": 6_000, "val": 1_000, "test": 1_000}

NOTICE = """\
mnist-mini: 8,000 of the 70,000 MNIST handwritten digits, 28x28 grey, 10 classes, in the idx format (gzip).
Original authors: Yann LeCun, Corinna Cortes, Christopher J.C. Burges. Copyright: Yann LeCun and Corinna Cortes.
Original page: http://yann.lecun.com/exdb/mnist/
Licence: Creative Commons Attribution-Share Alike 3.0 (CC BY-SA 3.0), https://creativecommons.org/licenses/by-sa/3.0/
(as stated in the Keras documentation of keras.datasets.mnist). These files are under the same licence.
Changes made: a subset, stratified by digit: train (6,000) and val (1,000) from the official training files, test
(1,000) from the official test files. The images themselves are unmodified.
"""


def load_mnist_mini(folder: Path = ASSETS) -> Task:
    """Loads the embedded subset of MNIST as a task: 6,000 / 1,000 / 1,000 images [28, 28, 1].

    Args:
        folder: where the six IDX files are.

    Raises:
        UserError: a file is missing or corrupt.
    """
    images = [read_idx(folder / f"{split}-images-idx3-ubyte.gz") for split in SPLITS]
    labels = [read_idx(folder / f"{split}-labels-idx1-ubyte.gz") for split in SPLITS]
    ends = np.cumsum([len(part) for part in labels])
    splits = {split: np.arange(end - len(part), end) for split, part, end in zip(SPLITS, labels, ends, strict=True)}
    return make_task(
        "mnist-mini", np.concatenate(images)[..., None], np.concatenate(labels), splits, CLASSES, credit=CREDIT
    )


def main(source: Path, out: Path = ASSETS) -> None:
    """Re-creates the embedded subset of MNIST.

    Args:
        source: folder that holds the four official MNIST files.
        out: folder that the six IDX files and the licence notice are written to.
    """
    task, total = load_mnist(source), 0
    for split, size in SIZES.items():
        rows = task.splits[split]
        chosen = np.sort(rows[stratified_order(task.labels[rows], "mnist-mini")[:size]])
        for kind, array in (("images-idx3", task.images[chosen, :, :, 0]), ("labels-idx1", task.labels[chosen])):
            data = encode_idx(array.astype(np.uint8))
            write_whole(out / f"{split}-{kind}-ubyte.gz", data, make_folder=True)
            total += len(data)
    write_whole(out / "NOTICE.txt", NOTICE.encode())
    print(f"{out}: {sum(SIZES.values()):,} images, {total / 1e6:.2f} MB")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m fishnet.data.mnist_mini")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
