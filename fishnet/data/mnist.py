"""MNIST: 70,000 handwritten digits, 28x28 grey, from its four official IDX files.

Y. LeCun, C. Cortes, C. J. C. Burges, http://yann.lecun.com/exdb/mnist/; CC BY-SA 3.0. The test split is the official
10,000; validation is 5,000 of the official 60,000 training images, stratified, and training the other 55,000.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fishnet.data.download import DownloadError, fetch
from fishnet.data.idx import read_checked, read_idx
from fishnet.data.splits import stratified_order
from fishnet.data.task import Task, make_task
from fishnet.errors import UserError
from fishnet.host.cache import cache_dir
from fishnet.host.paths import expand_home

CLASSES = tuple("0123456789")
CREDIT = (
    "MNIST handwritten digits by Yann LeCun, Corinna Cortes and Christopher J. C. Burges "
    "(http://yann.lecun.com/exdb/mnist/), CC BY-SA 3.0."
)
MIRRORS = ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")
VALIDATION = 5_000  # images of the official training files

SHA256 = {  # of the official .gz files, whose published MD5 follow; the unpacked form without .gz is accepted too
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",  # f68b3c2d...
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",  # d53e105e...
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",  # 9fb629c4...
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",  # ec29112d...
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
STEMS = tuple(name for name in SHA256 if not name.endswith(".gz"))


def load_mnist(data_dir: str | os.PathLike | None = None, mirrors: Sequence[str] = MIRRORS) -> Task:
    """Loads MNIST as a task: 55,000 / 5,000 / 10,000 images [28, 28, 1].

    Looked for in `data_dir`, else in `$FISHNET_DATA`, else in the user's cache; what is absent there is fetched into
    the cache. In a folder the files may also lie in `mnist/` or (torchvision's habit) `MNIST/raw/`.

    Args:
        data_dir: the folder that holds the files; it must, if it is given.
        mirrors: URL prefixes to fetch from.

    Raises:
        UserError: a file is missing, has a wrong checksum, or could not be fetched; the message names it and says
            what to do.
    """
    folder = find_mnist(data_dir)
    if folder is None:
        folder = _fetch_missing(_place(), mirrors)
    images, labels, test_images, test_labels = (read_verified(folder, stem) for stem in STEMS)
    order = stratified_order(labels, "mnist")
    return make_task(
        "mnist",
        np.concatenate([images, test_images])[..., None],
        np.concatenate([labels, test_labels]),
        {
            "train": order[VALIDATION:],
            "val": order[:VALIDATION],
            "test": len(images) + np.arange(len(test_images)),
        },
        CLASSES,
        credit=CREDIT,
    )


def check_mnist(data_dir: str | os.PathLike | None = None) -> None:
    """Checks local MNIST files and their checksums (0.02 s) as `load_mnist` does, without unpacking or fetching."""
    folder = find_mnist(data_dir)
    if folder is not None:
        for stem in STEMS:
            path = _path(folder, stem)
            assert path is not None, "`find_mnist` gives complete folders"
            read_checked(path, SHA256[path.name])


def find_mnist(data_dir: str | os.PathLike | None = None) -> Path | None:
    """Finds the folder that holds all four files; None: they must be fetched.

    Raises:
        UserError: `data_dir` is given and lacks a file, or a folder holds some of the files but not all.
    """
    if data_dir is not None:
        data_dir = expand_home(data_dir)
        if not data_dir.is_dir():
            raise UserError(f"mnist: {data_dir} is not a folder")
        return _complete(data_dir) or _absent(data_dir, STEMS)
    variable = os.environ.get("FISHNET_DATA")
    if variable and (folder := _complete(expand_home(variable))):
        return folder
    folder = _place()
    return folder if all(_path(folder, stem) for stem in STEMS) else None


def read_verified(folder: Path, stem: str) -> UInt8[np.ndarray, "..."]:
    """Reads one of the four arrays, from the .gz or the unpacked file, after checking its SHA-256."""
    path = _path(folder, stem) or _absent(folder, [stem])
    return read_idx(path, SHA256[path.name])


def _place() -> Path:
    place = cache_dir()
    if place is None:
        raise UserError(
            "mnist: there is no place for its files, as this user has no home folder: name the folder that holds them "
            "with --data-dir or $FISHNET_DATA, set XDG_CACHE_HOME to a folder, or use the embedded mnist-mini"
        )
    return place / "mnist"


def _complete(root: Path) -> Path | None:
    for folder in (root, root / "mnist", root / "MNIST" / "raw"):
        absent = [stem for stem in STEMS if not _path(folder, stem)]
        if not absent:
            return folder
        if len(absent) < len(STEMS):
            _absent(folder, absent)
    return None


def _path(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _absent(folder: Path, stems: Sequence[str]) -> Path:
    raise UserError(
        f"mnist: {folder} lacks {', '.join(f'{stem}.gz' for stem in stems)}; put the file there, name another folder, "
        "or leave out the data folder to use the cache or the public mirrors"
    )


def _fetch_missing(folder: Path, mirrors: Sequence[str]) -> Path:
    for stem in STEMS:
        name = f"{stem}.gz"
        if _path(folder, stem) is None:
            try:
                fetch([mirror.rstrip("/") + "/" + name for mirror in mirrors], folder / name, SHA256[name])
            except DownloadError as error:
                variable = os.environ.get("FISHNET_DATA")
                looked = f" ($FISHNET_DATA, {variable}, holds none of the files either)" if variable else ""
                wanted = ", ".join(f"{stem}.gz" for stem in STEMS)
                raise UserError(
                    f"mnist: {error}{looked}. Without a network: copy {wanted} into {folder}, or name the folder that "
                    "holds them with --data-dir or $FISHNET_DATA, or use the embedded mnist-mini"
                ) from error
    return folder
