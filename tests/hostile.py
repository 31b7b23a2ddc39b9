"""Tries bad command lines, environments and folders: each ends soon, in one clear line, and changes nothing.

    python -m tests.hostile                     # all of them, two at a time
    python -m tests.hostile --only seeds csv    # those whose names contain one of these words
    python -m tests.hostile --list

Every case is a process of its own, in a scratch folder with photographs (`photos`), a finished sweep (`done`), another
one (`other`) and one that was stopped (`begun`). A case passes if its exit code and its message are the right ones,
neither a traceback, a Python warning nor "unexpected" is printed, a refusal is a single line, the process hardly waits
and takes at most twice the CPU seconds of the first, smallest sweep, which nothing is wrong with (machines differ, and
the same one from hour to hour), and every file and folder is as it was before, but for those that a case is expected
to mend. Exit code 1 if a case fails.
"""

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
CPU_RATIO = 2  # most CPU seconds that a case may take, as a multiple of the first sweep's, which compiles everything
WAITING = 10  # most seconds that a case may do nothing, beyond those in which the other processes compute
SECONDS = 60  # after which a process counts as hanging, unless --seconds says otherwise
TINY = [
    "--task", "synthetic", "--model", "mlp", "--widths", "4", "--norm", "none", "--epochs", "2", "--batch-size", "32",
    "--quiet",
]  # fmt: skip
SWEEP = ["ablation", *TINY, "--axis", "activation=relu,elu", "--seeds", "2"]
LONG_SWEEP = ["ablation", *TINY[:8], *TINY[10:], "--axis", "activation=relu,elu", "--seeds", "2", "--epochs", "200"]
PHOTOS = [
    "ablation", "--task", "folder:photos", "--image-size", "8", "--model", "mlp", "--widths", "4",
    "--axis", "norm=none", "--epochs", "1", "--batch-size", "8", "--seeds", "1", "--quiet",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Args:
        name: in a few words.
        words: what follows `python -m experiments.`, with `{root}` for the scratch folder.
        says: a regular expression that standard error must contain; for exit code 0 standard error or output.
        code: the exit code.
        environ: variables to set; None unsets one.
        first: a command that is run beforehand, and succeeds.
        prepare: spoils the scratch folder after that.
        stdout: "pipe", "closed" or "full" (`/dev/full`).
        mends: paths that the process is expected to write, relative to the scratch folder.
        check: looks at the scratch folder afterwards and returns what is wrong; "" if nothing.
        cwd: where the process runs, relative to the scratch folder.
        late: whether the process fails at work, so that its plan and progress precede the message.
    """

    name: str
    words: Sequence[str]
    says: str
    code: int = 2
    environ: Mapping[str, str | None] = field(default_factory=dict)
    first: Sequence[str] = ()
    prepare: Callable[[Path], None] | None = None
    stdout: str = "pipe"
    mends: Sequence[str] = ()
    check: Callable[[Path], str] | None = None
    cwd: str = "."
    late: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `problems` is empty if it passed."""

    case: Case
    problems: tuple[str, ...]
    cpu_seconds: float
    seconds: float
    message: str  # last line of standard error


# What spoils a folder


def replace_in_json(path: str, **changes: object) -> Callable[[Path], None]:
    """Sets entries of a JSON file."""

    def spoil(root: Path) -> None:
        content = json.loads((root / path).read_text())
        (root / path).write_text(json.dumps(content | changes))

    return spoil


def write(path: str, content: bytes) -> Callable[[Path], None]:
    """Writes a file."""

    def spoil(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    return spoil


def remove(*paths: str) -> Callable[[Path], None]:
    """Removes files or folders."""

    def spoil(root: Path) -> None:
        for path in paths:
            target = root / path
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    return spoil


def halve(path: str) -> Callable[[Path], None]:
    """Cuts a file off in the middle."""

    def spoil(root: Path) -> None:
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: len(content) // 2])

    return spoil


def keep_rows(path: str, rows: int) -> Callable[[Path], None]:
    """Keeps the first rows of a Parquet file, which stays a sound one."""

    def spoil(root: Path) -> None:
        import pandas as pd

        pd.read_parquet(root / path).head(rows).to_parquet(root / path)

    return spoil


def copy(source: str, target: str) -> Callable[[Path], None]:
    """Copies a file over another."""

    def spoil(root: Path) -> None:
        shutil.copy(root / source, root / target)

    return spoil


def fifo(path: str) -> Callable[[Path], None]:
    """Makes a pipe that nobody writes to."""

    def spoil(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(root / path)

    return spoil


def folder(path: str) -> Callable[[Path], None]:
    """Makes a folder, and those above it."""

    def spoil(root: Path) -> None:
        (root / path).mkdir(parents=True)

    return spoil


def both(*spoilers: Callable[[Path], None]) -> Callable[[Path], None]:
    """One after the other."""

    def spoil(root: Path) -> None:
        for each in spoilers:
            each(root)

    return spoil


def remove_tables(root: Path) -> None:
    """Removes what a stopped sweep has written for its reader."""
    for path in (root / "begun").glob("*.parquet"):
        path.unlink()


def link(path: str, target: str) -> Callable[[Path], None]:
    """Makes a symbolic link."""

    def spoil(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)

    return spoil


def folders(*names: str | bytes) -> Callable[[Path], None]:
    """Gives the photographs to classes of other names."""

    def spoil(root: Path) -> None:
        for old, new in zip(sorted((root / "photos").iterdir()), names, strict=True):
            os.rename(os.fsencode(old), os.path.join(os.fsencode(root), b"photos", os.fsencode(new)))

    return spoil


def with_ledger(path: str, content: bytes) -> Callable[[Path], None]:
    """Copies the project's ledger, and writes a file."""

    def spoil(root: Path) -> None:
        shutil.copytree(ROOT / "docs", root / "docs")
        write(path, content)(root)

    return spoil


# What is looked at afterwards


def same_tables(root: Path) -> str:
    """Every table of `done` is as it was before it was spoiled."""
    import pandas as pd

    for name in ("runs", "curves", "class_curves", "per_class", "predictions"):
        mended, right = (pd.read_parquet(root / folder / f"{name}.parquet") for folder in ("done", "right"))
        if not mended.drop(columns="train_seconds", errors="ignore").equals(
            right.drop(columns="train_seconds", errors="ignore")
        ):
            return f"{name}.parquet is not what it was"
    return ""


def whole_run(out: Path) -> str:
    """Every run has all its epochs, each once."""
    import pandas as pd

    epochs = pd.read_parquet(out / "curves.parquet").groupby("run")["epoch"].apply(list)
    return (
        "" if all(run == list(range(1, len(run) + 1)) and len(run) == 200 for run in epochs) else "epochs are missing"
    )


def mended_by(name: str, spoil: Callable[[Path], None], *paths: str) -> Case:
    """A finished sweep that is spoiled; the same command makes its tables, and the files `paths`, anew."""

    def check(root: Path) -> str:
        missing = [path for path in paths if not (root / path).exists() or not (root / path).stat().st_size]
        return f"{', '.join(missing)} not made anew" if missing else same_tables(root)

    return Case(name, [*SWEEP, "--out", "done"], "activation", 0, prepare=spoil, mends=["done"], check=check)


LONG = "9" * 5000
CASES = [
    # Words that are no values
    Case("unknown name", ["ablation", "--activation", "rellu"], "did you mean 'relu'"),
    Case("unknown flag", ["ablation", "--activatoin", "relu"], "unknown flag.*did you mean"),
    Case("unknown axis", ["ablation", "--axis", "activatoin=relu"], "activatoin"),
    Case("stray word", ["ablation", "relu"], "relu"),
    *[
        Case(f"empty {flag}", ["ablation", flag, ""], f"{flag}.*is empty")
        for flag in ("--out", "--target", "--shard", "--ray", "--seeds", "--seed",
                     "--data-dir", "--group-regex", "--lane-width", "--lowering", "--devices", "--halving", "--rung",
                     "--axis", "--sample", "--task", "--lr", "--widths", "--hard-classes")
    ],
    Case("blank --out", ["ablation", "--out", "  "], "--out.*is empty"),
    Case("axis without values", ["ablation", "--axis", "lr="], "no values"),
    Case("axis with an empty value", ["ablation", "--axis", "lr=0.1,,0.2"], "empty value"),
    *[
        Case(f"{flag} twice", ["ablation", flag, one, flag, two], f"{flag}.*(twice|more than once|repeated)")
        for flag, one, two in (("--lr", "0.1", "0.2"), ("--out", "a", "b"), ("--seeds", "2", "3"),
                               ("--task", "reef", "synthetic"), ("--target", "val_accuracy>=0.5", "val_accuracy>=0.6"))
    ],
    Case("two spellings of a flag", ["ablation", "--batch-size", "8", "--batch_size=16"], "batch.size"),
    Case("predict, --run twice", ["predict", "--run", "done", "--run", "other", "--images", "photos"], "--run"),
    Case("seed and seeds", ["train", "--seed", "1", "--seeds", "2"], "both"),
    # Numbers
    *[
        Case(f"{flag} with 5,000 digits", ["ablation", flag, LONG], flag.strip("-").replace("-", "[-_ ]"))
        for flag in ("--seeds", "--seed", "--epochs", "--lr", "--widths", "--devices", "--draws", "--rung",
                     "--lane-width", "--batch-size", "--image-size")
    ],
    Case("2 to the 32 seeds", ["ablation", "--seeds", "4294967296"], "seeds"),
    Case("ten million seeds", ["ablation", "--seeds", "10000000"], "seeds|runs"),
    Case("a negative number of seeds", ["ablation", "--seeds", "-3"], "seeds"),
    Case("a billion draws", ["ablation", "--sample", "lr=0.01..0.1", "--draws", "1000000000"], "draws|runs"),
    Case("a grid of a billion arms",
         ["ablation", *(word for name in ("lr", "momentum", "weight_decay", "l1", "l2", "dropout")
                        for word in ("--axis", f"{name}={','.join(f'0.{i:03d}' for i in range(1, 51))}"))],
         "runs|arms"),
    Case("a billion devices", [*SWEEP, "--devices", "1000000000"], "devices"),
    Case("devices as a float", [*SWEEP, "--devices", "1e9"], "devices"),
    Case("a billion units", ["ablation", "--model", "mlp", "--widths", "1000000000"], "widths|memory", code=2),
    Case("a rate that float32 has not", ["ablation", "--lr", "1e-46"], "lr.*1e-46"),
    Case("a rate that is infinite in float32", ["ablation", "--clip", "1e39"], "clip"),
    Case("lr nan", ["ablation", "--lr", "nan"], "lr.*nan"),
    Case("lr inf", ["ablation", "--lr", "inf"], "lr.*inf"),
    Case("a range to infinity", ["ablation", "--sample", "lr=0.1..1e999"], "lr"),
    Case("epochs 0", ["ablation", "--epochs", "0"], "epochs.*0"),
    Case("batch of one with batch norm", ["train", *TINY[:6], "--norm", "batch", "--batch-size", "1"],
         "batch_size|batch of 1|one value"),
    Case("ghost batches of one", ["train", *TINY[:6], "--norm", "batch", "--ghost-batch", "1"],
         "ghost_batch|one value"),
    # Options that would have no effect
    Case("--strict without files", ["train", "--strict"], "strict"),
    Case("--data-dir without files", ["train", "--data-dir", "{root}"], "data folder.*no effect"),
    Case("--group-regex without files", ["train", "--group-regex", "(.*)_"], "group.regex"),
    Case("halving of one arm", ["train", "--halving", "3"], "halving"),
    Case("median of one arm", ["train", "--median-stop"], "median"),
    Case("a rung beyond the epochs", [*SWEEP, "--halving", "2", "--rung", "5"], "rung"),
    Case("a rung without rungs", [*SWEEP, "--rung", "2"], "rung"),
    Case("probes after the last epoch", [*SWEEP, "--probes", "dead_units", "--probe-epochs", "9"], "probe_epochs"),
    Case("a focal exponent without focal loss", ["train", "--focal-gamma", "3"], "focal_gamma"),
    Case("describe, a size for optimizers", ["describe", "--part", "optimizers", "--image-size", "8"], "image.size"),
    Case("draws of nothing", ["ablation", "--draws", "8"], "draws"),
    Case("a flag that is no more", ["train", "--processes", "2"], "no more: give --shard I/N"),
    Case("a shard that there is not", ["train", "--shard", "3/2"], "3/2.*from 1 to N"),
    # Metrics that do not exist
    Case("selection by a metric of missing classes",
         [*PHOTOS, "--select-by", "val_macro_auc"], "val_macro_auc",
         prepare=lambda root: one_class_in_validation(root)),
    Case("target of an unknown metric", [*SWEEP, "--target", "val_acuracy>=0.5"], "val_acuracy|val_accuracy"),
    # Environments
    *[
        Case(f"{name}={value!r}, finished sweep", [*SWEEP, "--out", "done"], "activation", 0, environ={name: value})
        for name, value in (("COLUMNS", "abc"), ("COLUMNS", "0"), ("COLUMNS", "-7"), ("TERM", ""),
                            ("PYTHONIOENCODING", "ascii"), ("LC_ALL", "C"), ("MPLBACKEND", "nonsense"),
                            ("JAX_ENABLE_X64", "1"), ("JAX_THREEFRY_PARTITIONABLE", "0"),
                            ("JAX_NUMPY_DTYPE_PROMOTION", "strict"), ("JAX_NUMPY_RANK_PROMOTION", "raise"))
    ],
    Case("a number of Slurm tasks that is none", [*SWEEP, "--out", "done"], "SLURM_STEP_NUM_TASKS",
         environ={"SLURM_STEP_NUM_TASKS": "many"}),
    *[
        Case(f"{name}={value!r}, new sweep", [*SWEEP, "--out", "new"], "activation", 0, environ={name: value},
             mends=["new"], check=lambda root: same_runs(root, "new"))
        for name, value in (("JAX_NUMPY_DTYPE_PROMOTION", "strict"), ("JAX_NUMPY_RANK_PROMOTION", "raise"),
                            ("JAX_ENABLE_X64", "1"), ("JAX_THREEFRY_PARTITIONABLE", "0"), ("COLUMNS", "abc"))
    ],
    Case("JAX_PLATFORMS=cuda without a GPU", [*SWEEP, "--out", "new"], "JAX_PLATFORMS", 1,
         environ={"JAX_PLATFORMS": "cuda"}),
    Case("JAX_PLATFORMS=nonsense", [*SWEEP, "--out", "new"], "JAX_PLATFORMS", 1,
         environ={"JAX_PLATFORMS": "nonsense"}),
    Case("a cache that is a file", [*SWEEP, "--out", "done"], "activation", 0, environ={"XDG_CACHE_HOME": "/dev/null"}),
    Case("closed output, finished sweep", [*SWEEP, "--out", "done"], "output", 1, stdout="closed"),
    Case("full output, finished sweep", [*SWEEP, "--out", "done"], "space|output", 1, stdout="full"),
    Case("closed output, new sweep", [*SWEEP, "--out", "new"], "output", 1, stdout="closed",
         mends=["new"], check=lambda root: same_runs(root, "new")),
    Case("full output of describe", ["describe", "--part", "losses"], "space|output", 1, stdout="full"),
    # Output folders
    Case("a file in place of the folder", [*SWEEP, "--out", "photos.txt"], "not a folder", 1,
         prepare=write("photos.txt", b"mine")),
    Case("a file above the folder", [*SWEEP, "--out", "photos.txt/a"], "not a folder", 1,
         prepare=write("photos.txt", b"mine")),
    Case("another sweep in the folder", [*SWEEP[:-1], "3", "--out", "done"], "holds another sweep.*seeds", 1),
    Case("an output folder among the photographs", [*PHOTOS, "--out", "photos/run"], "photos", 2),
    Case("sweep.json, seeds of another type", [*SWEEP, "--out", "done"], "sweep.json", 1,
         prepare=replace_in_json("done/sweep.json", seeds=[["a"]])),
    Case("sweep.json, axes of another type", [*SWEEP, "--out", "done"], "sweep.json|another sweep", 1,
         prepare=replace_in_json("done/sweep.json", axes={"activation": 3})),
    Case("sweep.json, axes edited by hand", [*SWEEP, "--out", "done"], "sweep.json|another sweep", 1,
         prepare=replace_in_json("done/sweep.json", axes={"activation": ["relu", "gelu"]})),
    Case("sweep.json, a recipe of another type", [*SWEEP, "--out", "done"], "sweep.json", 1,
         prepare=replace_in_json("done/sweep.json", recipe={"lr": []})),
    Case("sweep.json, cut off", [*SWEEP, "--out", "done"], "sweep.json", 1, prepare=halve("done/sweep.json")),
    Case("sweep.json, not UTF-8", [*SWEEP, "--out", "done"], "sweep.json", 1,
         prepare=write("done/sweep.json", b"\xff\xfe{}")),
    Case("sweep.json, a list", [*SWEEP, "--out", "done"], "sweep.json", 1, prepare=write("done/sweep.json", b"[]")),
    Case("sweep.json, empty", [*SWEEP, "--out", "done"], "sweep.json", 1, prepare=write("done/sweep.json", b"")),
    *[
        mended_by(f"{name}.parquet deleted", remove(f"done/{name}.parquet"))
        for name in ("runs", "curves", "per_class", "class_curves", "predictions")
    ],
    mended_by("runs.parquet halved", halve("done/runs.parquet")),
    mended_by("runs.parquet empty", write("done/runs.parquet", b"")),
    mended_by("runs.parquet with too few rows", keep_rows("done/runs.parquet", 1)),
    mended_by("runs.parquet of another sweep", copy("other/runs.parquet", "done/runs.parquet")),
    mended_by("runs.parquet is another table", copy("done/curves.parquet", "done/runs.parquet")),
    mended_by("curves.parquet halved", halve("done/curves.parquet")),
    mended_by("an empty report", write("done/report.html", b""), "done/report.html"),
    mended_by("no report and no figures", remove("done/report.html", "done/figures"), "done/report.html"),
    Case("a folder in the place of a table", [*SWEEP, "--out", "done"], "curves.parquet: Is a directory", 1,
         prepare=both(remove("done/curves.parquet"), folder("done/curves.parquet/mine")), mends=["done"], late=True),
    mended_by("a table is a pipe", both(remove("done/curves.parquet"), fifo("done/curves.parquet"))),
    Case("predict where a table is damaged", ["predict", "--run", "done", "--images", "photos"], "runs.parquet", 1,
         prepare=halve("done/runs.parquet")),
    Case("predict where all checkpoints are gone", ["predict", "--run", "done", "--images", "photos"], "checkpoint", 1,
         prepare=remove("done/checkpoints")),
    Case("predict of a sweep of an older version", ["predict", "--run", "done", "--images", "photos"], "version", 1,
         prepare=replace_in_json("done/sweep.json", format=1)),
    Case("predict where there is no sweep", ["predict", "--run", "photos", "--images", "photos"], "no sweep", 1),
    Case("no sweep.json beside checkpoints", [*SWEEP, "--out", "done"], "checkpoints.*no sweep.json", 1,
         prepare=remove("done/sweep.json")),
    Case("a finished sweep that was moved", [*SWEEP, "--out", "elsewhere"], "activation", 0,
         prepare=lambda root: (root / "done").rename(root / "elsewhere")),
    Case("a stopped sweep goes on after its tables are gone", [*LONG_SWEEP, "--out", "begun"], "activation", 0,
         prepare=remove_tables, mends=["begun"], check=lambda root: whole_run(root / "begun")),
    Case("a stopped sweep in the place of another", [*SWEEP, "--out", "begun"], "holds another sweep", 1),
    # Photographs
    Case("a folder that is not there", ["train", "--task", "folder:nowhere"], "nowhere", 1),
    Case("a folder without classes", ["train", "--task", "folder:photos/ray"], "class", 1),
    Case("sub-folders that are splits", ["train", "--task", "folder:photos"], "split", 1,
         prepare=folders("Test Set", "Training Set", "Validation Set")),
    Case("a pipe among the photographs", [*PHOTOS, "--out", "new"], "new", 0, mends=["new"],
         prepare=fifo("photos/ray/pipe.jpg")),
    Case("a link to a device among the photographs", [*PHOTOS, "--out", "new"], "new", 0, mends=["new"],
         prepare=link("photos/ray/zero.jpg", "/dev/zero")),
    Case("a class called like a color", [*PHOTOS, "--out", "new"], "new", 0, mends=["new"],
         prepare=folders("#0072b2", "b\x1b[31m\x07", "a & <b>"), check=lambda root: sound_pages(root / "new")),
    Case("a wrong group regex", [*PHOTOS, "--group-regex", "(["], "group"),
    Case("predict of nothing", ["predict", "--run", "done", "--images", ""], "images"),
    Case("predict of a pipe", ["predict", "--run", "photo-run", "--images", "photos/ray/pipe.jpg"], "pipe.jpg", 1,
         prepare=fifo("photos/ray/pipe.jpg")),
    Case("predict of a loop of links", ["predict", "--run", "done", "--images", "loop"], "loop", 1,
         prepare=link("loop", "loop")),
    Case("predict over its own photograph",
         ["predict", "--run", "done", "--images", "photos/ray/0.png", "--csv", "photos/ray/0.png"], "csv", 1),
    Case("predict over a table of the run",
         ["predict", "--run", "done", "--images", "photos/ray/0.png", "--csv", "done/runs.parquet"], "csv", 1),
    Case("predict into a pipe",
         ["predict", "--run", "done", "--images", "photos/ray/0.png", "--csv", "pipe"], "csv", 1, prepare=fifo("pipe")),
    Case("predict of a run that is not there", ["predict", "--run", "done", "--index", LONG, "--images", "photos"],
         "index"),
    Case("changed photographs, finished sweep", [*PHOTOS, "--out", "seen"], "data.*changed", 1,
         first=[*PHOTOS, "--out", "seen"], prepare=remove("photos/ray/0.png")),
    # Trunks, plants, ledger
    Case("a trunk that is not there", ["train", "--trunk", "nowhere:0"], "nowhere", 1),
    Case("a plant of an unknown class", ["train", "--task", "synthetic?only=nobody+nothing"], "nobody"),
    Case("a plant that does not exist", ["train", "--task", "synthetic?what=1"], "what"),
    Case("an answer that is none", ["claims", "--runs", "runs", "--out", "docs/claims.md"], "capacity.*answer.json", 1,
         prepare=with_ledger("runs/capacity-full/answer.json", b'{"claims": 3}'), mends=["docs/claims.md"]),
]  # fmt: skip


def one_class_in_validation(root: Path) -> None:
    """Leaves a folder whose validation split holds images of one class alone."""
    names = sorted((root / "photos").iterdir())
    for folder in names[1:]:
        for photo in sorted(folder.iterdir())[2:]:
            photo.unlink()


def same_runs(root: Path, folder: str) -> str:
    """A sweep that was trained under odd circumstances has the numbers of one that was not."""
    import pandas as pd

    here, there = (pd.read_parquet(root / name / "runs.parquet").drop(columns="train_seconds")
                   for name in (folder, "right"))  # fmt: skip
    return "" if here.equals(there) else "other numbers than without"


def sound_pages(out: Path) -> str:
    """Every SVG is XML, and nothing holds a terminal escape."""
    from xml.etree import ElementTree

    for path in sorted(out.glob("figures/*.svg")):
        try:
            ElementTree.parse(path)
        except ElementTree.ParseError as error:
            return f"{path.name}: {error}"
    return "a terminal escape in the report" if b"\x1b" in (out / "report.html").read_bytes() else ""


def make_scratch(root: Path, programs: Path) -> float:
    """Makes photographs of three classes, a finished sweep of `SWEEP` (twice), a stopped one and one of photographs.

    Returns:
        CPU seconds of the first sweep, which finds no compiled program.
    """
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, name in enumerate(("angel", "parrot", "ray")):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
            pixels[..., label] //= 4
            Image.fromarray(pixels).save(root / "photos" / name / f"{number}.png")
    first_cpu = run_first([*SWEEP, "--out", "done"], root, programs)
    run_first([*SWEEP[:-1], "1", "--out", "other"], root, programs)
    run_first([*PHOTOS, "--out", "photo-run"], root, programs)
    shutil.copytree(root / "done", root / "right")
    with subprocess.Popen(
        command_of([*LONG_SWEEP, "--out", "begun"]), cwd=root, env=environment(programs), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while process.poll() is None and not list((root / "begun").glob("checkpoints/*/[0-9]*")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
    if process.returncode != 143:
        raise RuntimeError(f"a sweep that was to be stopped ended with exit code {process.returncode}")
    return first_cpu


def command_of(words: Sequence[str]) -> list[str]:
    """The command line of an experiment."""
    return [sys.executable, "-m", f"experiments.{words[0]}", *words[1:]]


def environment(programs: Path) -> dict[str, str]:
    """This process's, with this tree and a cache of its own."""
    return os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(programs)}


def run_first(words: Sequence[str], root: Path, programs: Path) -> float:
    """Runs a command that has to succeed; returns its CPU seconds.

    Raises:
        RuntimeError: it failed, or did not end.
    """
    code, cpu, _, _, complaints = execute(command_of(words), root, environment(programs), "pipe", 10 * SECONDS)
    if code:
        raise RuntimeError(f"{' '.join(words)} failed: {complaints}")
    if code is None:
        raise RuntimeError(f"{' '.join(words)} was still running after {10 * SECONDS} s")
    return cpu


def snapshot(root: Path, but: Sequence[str]) -> dict[str, str]:
    """What is in a folder, apart from some paths: links as their targets, files as hashes."""
    found = {}
    for folder, folders, names in os.walk(os.fsencode(root)):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            shown = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            if any(shown == other or shown.startswith(f"{other}/") for other in but) or shown.endswith(".lock"):
                continue
            if os.path.islink(path):
                found[shown] = f"link to {os.readlink(path)}"
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[shown] = hashlib.sha256(file.read()).hexdigest()
            elif os.path.isdir(path):
                found[shown] = "folder"
            else:
                found[shown] = "special"
    return found


def run_case(case: Case, scratch: Path, programs: Path, limit: float, most_cpu: float) -> Outcome:
    """Runs a case in a copy of the scratch folder.

    Args:
        case: what to try.
        scratch: is copied.
        programs: where compiled programs are kept.
        limit: seconds after which the process counts as hanging.
        most_cpu: CPU seconds that it may take.
    """
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        root = Path(folder) / "here"
        shutil.copytree(scratch, root, symlinks=True)
        if case.first:
            run_first(case.first, root, programs)
        if case.prepare is not None:
            case.prepare(root)
        before = snapshot(root, case.mends)
        environ = {name: v for name, v in (environment(programs) | case.environ).items() if v is not None}
        command = command_of([word.replace("{root}", str(root)) for word in case.words])
        if case.stdout == "closed":
            command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        code, cpu, seconds, output, complaints = execute(command, root / case.cwd, environ, case.stdout, limit)
        problems = []
        if code is None:
            problems.append(f"still running after {limit:g} s")
        elif code != case.code:
            problems.append(f"exit code {code}, not {case.code}")
        if limit == SECONDS and seconds > WAITING + 3 * cpu:
            problems.append(f"took {seconds:.1f} s for {cpu:.1f} CPU seconds: it waited")
        if cpu > most_cpu:
            problems.append(f"{cpu:.1f} CPU seconds, more than {most_cpu:.1f}")
        if found := re.search(r"Traceback|unexpected \w+|\w+Warning: ", output + complaints):
            problems.append(f"prints {found.group()!r}")
        told = [line for line in complaints.strip().splitlines() if not line.startswith("skipped: ")]
        if case.code and len(told) > 1 and case.stdout == "pipe" and not case.late:
            problems.append(f"{len(told)} lines on standard error")
        if not re.search(case.says, complaints + ("" if case.code else output), re.DOTALL):
            problems.append(f"does not say {case.says!r}")
        if (after := snapshot(root, case.mends)) != before:
            changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            problems.append(f"changes {', '.join(changed[:5])}")
        if case.check is not None and code == case.code and (wrong := case.check(root)):
            problems.append(wrong)
        lines = complaints.strip().splitlines() or [""]
        return Outcome(case, tuple(problems), cpu, seconds, lines[-1][:300])


def execute(
    command: Sequence[str], cwd: Path, environ: Mapping[str, str], stdout: str, limit: float
) -> tuple[int | None, float, float, str, str]:
    """Runs a process to its end, or kills it after `limit` seconds.

    Returns:
        Its exit code (None: it was killed), CPU seconds, seconds, standard output and standard error.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        target = open("/dev/full", "wb") if stdout == "full" else output  # noqa: SIM115 - closed below
        process = subprocess.Popen(
            command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=target, stderr=complaints,
            start_new_session=True,
        )  # fmt: skip
        killed = False
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.perf_counter() - began > limit and not killed:
                os.killpg(process.pid, signal.SIGKILL)
                killed = True
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
        if target is not output:
            target.close()
        texts = []
        for file in (output, complaints):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    code = None if killed else process.returncode
    return code, usage.ru_utime + usage.ru_stime, time.perf_counter() - began, *texts


def main(argv: Sequence[str] | None = None) -> int:
    """Tries all cases and prints those that fail; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases whose names contain one of these")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default 2)")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"a process hangs after so many (default {SECONDS})"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--verbose", action="store_true", help="print what every case said")
    flags = parser.parse_args(argv)
    cases = [case for case in CASES if not flags.only or any(word in case.name for word in flags.only)]
    if flags.list:
        print(*(case.name for case in cases), sep="\n")
        return 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        scratch, programs = Path(folder) / "scratch", Path(folder) / "cache"
        scratch.mkdir()
        most_cpu = CPU_RATIO * make_scratch(scratch, programs)
        with ThreadPoolExecutor(flags.jobs) as pool:
            outcomes = list(pool.map(lambda case: run_case(case, scratch, programs, flags.seconds, most_cpu), cases))
    failed = [outcome for outcome in outcomes if outcome.problems]
    for outcome in outcomes if flags.verbose else failed:
        word = "FAILED" if outcome.problems else "passed"
        print(f"{word} {outcome.case.name} ({outcome.cpu_seconds:.1f} CPU s, {outcome.seconds:.1f} s)")
        print(f"       {outcome.message}")
        for problem in outcome.problems:
            print(f"       - {problem}")
    slowest = max(outcomes, key=lambda outcome: outcome.cpu_seconds)
    print(
        f"{len(outcomes) - len(failed)} passed, {len(failed)} failed, in {time.perf_counter() - began:.0f} s; "
        f"the slowest took {slowest.cpu_seconds:.1f} of at most {most_cpu:.1f} CPU s ({slowest.case.name})"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
