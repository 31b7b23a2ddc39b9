"""TFDS builder of `reef`, from the source folder (photographs and index.csv) to a prepared ArrayRecord dataset."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from fishnet.data.images import read_image
from fishnet.data.splits import SPLITS
from fishnet.errors import UserError
from fishnet.host.files import read_regular_file

SIDE = 64  # pixels
QUALITY = 95  # with 4:4:4 subsampling 10.0 MB; 96 would be 11.2 MB
COLUMNS = ("file", "species", "track", "group", "split")
SPECIES = (
    "Abudefduf vaigiensis",
    "Acanthurus nigrofuscus",
    "Amphiprion clarkii",
    "Canthigaster valentini",
    "Chaetodon lunulatus",
    "Chaetodon trifascialis",
    "Chromis chrysura",
    "Dascyllus reticulatus",
    "Hemigymnus fasciatus",
    "Hemigymnus melapterus",
    "Myripristis kuntee",
    "Neoniphon sammara",
    "Plectroglyphidodon dickii",
    "Pomacentrus moluccensis",
    "Zebrasoma scopas",
)

DESCRIPTION = """\
Real under-water photographs of reef fish, 15 species with a real long tail: a subsample of the Fish4Knowledge fish
recognition ground truth (3,290 of 27,370 images; at most 3 frames per trajectory and 500 images per species). Frames of
one trajectory are near-copies, so the splits were made by group (a trajectory, or several that look alike), never by
frame. The central square of each photograph was resized to 64x64 (LANCZOS) and stored as JPEG, quality 95, 4:4:4.
"""
LICENCE = """\
Permission is granted for anyone to copy, use, modify, or distribute this data and accompanying documents for any
purpose, provided this copyright notice is retained and prominently displayed, along with a note saying that the
original data are available from the authors' web page; without any warranty. See NOTICE.txt beside the data.
"""
CITATION = """\
@inproceedings{boom2012supporting,
  author = {Boom, Bastiaan J. and Huang, Phoenix X. and He, Jiyin and Fisher, Robert B.},
  title = {Supporting Ground-Truth annotation of image datasets using clustering},
  booktitle = {International Conference on Pattern Recognition (ICPR)},
  year = {2012},
  note = {Believed to be reference [2] of the licence notice.},
}
"""


class Reef(tfds.core.GeneratorBasedBuilder):
    """Builder of reef: Fish4Knowledge fish, 64x64, split by track group; `manual_dir` is the folder of photographs."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "15 species, 2,327 / 485 / 478 images."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder with index.csv (file, species, track, group, split) and the photographs."
    # Nothing is downloaded; to look for checksums, TFDS 4.9 would import a package that it does not require.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        return tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=SPECIES),
                    "file": text(doc="Path of the photograph in the source folder."),
                    "track": text(doc="Trajectory in the film: one fish followed over some frames."),
                    "group": text(doc="Trajectories that look alike; never in more than one split."),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://groups.inf.ed.ac.uk/f4k/GROUNDTRUTH/RECOG/",
            citation=CITATION,
            license=LICENCE,
            disable_shuffling=True,  # in the order of index.csv
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        source = Path(dl_manager.manual_dir)
        rows = read_index(source)
        return {split: self._generate_examples(source, [r for r in rows if r["split"] == split]) for split in SPLITS}

    def _generate_examples(self, source: Path, rows: list[dict[str, str]]) -> Iterator[tuple[int, dict]]:
        for key, row in enumerate(rows):
            image, jpeg = read_image(source / row["file"], SIDE), io.BytesIO()
            Image.fromarray(image).save(jpeg, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
            jpeg.seek(0)
            features = {name: row[name] for name in ("file", "track", "group")}
            yield key, {"image": jpeg, "label": row["species"], **features}


def read_index(source: Path) -> list[dict[str, str]]:
    """Reads and checks `source`/index.csv: known species and splits, existing files, no group in two splits.

    Raises:
        UserError: the folder or the index is missing, or a row is wrong; the message names it.
    """
    path = Path(source) / "index.csv"
    try:
        rows = list(csv.DictReader(io.StringIO(read_regular_file(path).decode("utf-8"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    split_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if any(not row.get(column) for column in COLUMNS):
            raise UserError(f"{path}, line {number}: needs the columns {', '.join(COLUMNS)}")
        if row["species"] not in SPECIES or row["split"] not in SPLITS:
            raise UserError(f"{path}, line {number}: unknown species or split: {row['species']}, {row['split']}")
        if not (path.parent / row["file"]).is_file():
            raise UserError(f"{path}, line {number}: no such file: {row['file']}")
        if split_of.setdefault(row["group"], row["split"]) != row["split"]:
            raise UserError(f"{path}, line {number}: group {row['group']} is in two splits")
    for split in SPLITS:
        if split not in split_of.values():
            raise UserError(f"{path}: no row of the {split} split")
    return rows
