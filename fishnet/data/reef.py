"""Task reef: 3,290 photographs of 15 species of reef fish, embedded in the package as a prepared TFDS dataset.

A subsample of the Fish4Knowledge ground truth (Phoenix X. Huang, Bastiaan B. Boom, Robert B. Fisher, University of
Edinburgh; http://groups.inf.ed.ac.uk/f4k/GROUNDTRUTH/RECOG/); licence and changes: assets/reef/NOTICE.txt. The command

    python -m fishnet.data.reef --source FOLDER_WITH_INDEX_CSV [--out FOLDER]

re-creates the embedded dataset from the source photographs. TensorFlow is needed for neither.
"""

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from fishnet.data.images import prepare_image
from fishnet.data.splits import SPLITS
from fishnet.data.task import Task, make_task
from fishnet.errors import UserError

ASSETS = Path(__file__).parent / "assets"
CREDIT = (
    "Reef fish: Fish4Knowledge ground truth by Phoenix X. Huang, Bastiaan B. Boom and Robert B. Fisher, University of "
    "Edinburgh; the original data are available from http://groups.inf.ed.ac.uk/f4k/GROUNDTRUTH/RECOG/. "
    "Resized subsample, without any warranty; see NOTICE.txt beside the data."
)
CHANGES = """
Changes made for the copy in fishnet (reef, a prepared TensorFlow Datasets dataset in ArrayRecord form): the central
square of each photograph was resized to 64x64 pixels (LANCZOS) and stored as JPEG (quality 95, 4:4:4); species, tracks,
near-duplicate groups and splits are those of index.csv.
"""


def load_reef(image_size: int = 32, folder: Path = ASSETS) -> Task:
    """Loads the embedded photographs as a task: 2,327 / 485 / 478 images [s, s, 3]; no group of tracks in two splits.

    32 px are made from the stored 64 px by LANCZOS, the filter that `predict` uses on photographs: it comes within 0.8
    of 255 of preparing the original at 32 px, where an exact 2x2 mean would be off by 2.4.

    Args:
        image_size: s, 64 or 32.
        folder: data folder in TFDS's layout, `folder`/reef/1.0.0.

    Raises:
        UserError: the dataset is missing or damaged.
    """
    names, records = read_records(folder)
    images, labels, files, splits = [], [], [], {}
    for split, rows in records.items():
        splits[split] = np.arange(len(images), len(images) + len(rows))
        for row in rows:
            with Image.open(io.BytesIO(row["image"])) as image:
                ready = image.size == (image_size, image_size)
                images.append(np.asarray(image) if ready else prepare_image(image, image_size))
            labels.append(row["label"])
            files.append(row["file"].decode())
    return make_task("reef", np.stack(images), np.array(labels), splits, names, files=files, credit=CREDIT)


def reef_classes(folder: Path = ASSETS) -> tuple[str, ...]:
    """Names of the classes, by label, read without TFDS.

    Args:
        folder: data folder in TFDS's layout.

    Raises:
        UserError: the dataset is missing.
    """
    try:
        return tuple((folder / "reef" / "1.0.0" / "label.labels.txt").read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise UserError(f"the reef dataset in {folder / 'reef'} is missing or damaged: {error}") from error


def read_records(folder: Path = ASSETS) -> tuple[tuple[str, ...], dict[str, list[dict]]]:
    """Reads the stored examples with TFDS, leaving the JPEG bytes as they are (`tfds.decode.SkipDecoding`).

    The images are left to Pillow, so that they do not depend on whether OpenCV is installed, which TFDS would prefer.

    Returns:
        the names of the classes, and for each split its examples in stored order: dictionaries of `image` (bytes),
        `label` (int), `file`, `track`, `group` (bytes).

    Raises:
        UserError: the dataset is missing or damaged.
    """
    with quiet_tfds() as tfds:
        try:
            builder = tfds.builder_from_directory(folder / "reef" / "1.0.0")
            skip = {"image": tfds.decode.SkipDecoding()}
            sources = {split: builder.as_data_source(split, decoders=skip) for split in SPLITS}
            records = {split: list(source.__getitems__(range(len(source)))) for split, source in sources.items()}
        except ImportError:
            raise
        except Exception as error:  # TFDS, protobuf and ArrayRecord each have their own
            reason = " ".join(str(error).split())
            raise UserError(f"the reef dataset in {folder / 'reef'} is missing or damaged: {reason}") from error
    return tuple(builder.info.features["label"].names), records


def build_reef(source: Path, out: Path) -> Path:
    """Builds the dataset from the source folder and puts it, with the notice, in place of `out`/reef.

    Args:
        source: folder with index.csv, NOTICE.txt and the photographs.
        out: data folder in TFDS's layout.

    Returns:
        the folder of the prepared dataset, `out`/reef/1.0.0.

    Raises:
        UserError: something in the source folder is missing or wrong; `out` is then as it was.
    """
    with quiet_tfds() as tfds:
        from fishnet.data.reef_builder import Reef, read_index

        read_index(source)
        notice = source / "NOTICE.txt"
        if not notice.is_file():
            raise UserError(f"{notice} is missing: the licence allows copies only together with it")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".reef-") as temporary:
            builder = Reef(data_dir=temporary, file_format="array_record")
            config = tfds.download.DownloadConfig(manual_dir=source)
            tfds.disable_progress_bar()
            with redirect_stdout(io.StringIO()):  # TFDS announces a download that does not happen
                builder.download_and_prepare(download_config=config)
            made = Path(temporary) / "reef"
            (made / "NOTICE.txt").write_text(notice.read_text(encoding="utf-8") + CHANGES, encoding="utf-8")
            if (out / "reef").exists():
                (out / "reef").rename(Path(temporary) / "old")
            shutil.move(made, out / "reef")
    return out / "reef" / "1.0.0"


@contextmanager
def quiet_tfds() -> Iterator:
    """Imports TFDS and mutes its log messages below errors for the duration; yields the module."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        import tensorflow_datasets as tfds

        yield tfds
    finally:
        logging.set_verbosity(level)


def main(source: Path, out: Path = ASSETS) -> None:
    """Re-creates the embedded reef dataset from the source photographs.

    Args:
        source: folder with index.csv, NOTICE.txt and the photographs.
        out: data folder that reef/1.0.0 is written to, in place of an older one.
    """
    made = build_reef(source, out)
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    counts = {split: len(rows) for split, rows in read_records(out)[1].items()}
    print(f"{made}: {', '.join(f'{split} {n:,}' for split, n in counts.items())} images, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m fishnet.data.reef")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
