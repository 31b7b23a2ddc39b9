"""Small sweeps that several tests look at, so that each program is compiled once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from fishnet.data import DataOptions
from fishnet.host.parquet import write_table
from fishnet.sweep import Interrupted, Recipe, Result, Sweep, run_sweep
from fishnet.sweep.plan.cohorts import DEFAULT_WIDTH
from fishnet.sweep.run import phase
from fishnet.sweep.run.inputs import Inputs, describe
from fishnet.sweep.run.progress import Display
from fishnet.sweep.store.checkpoint import Checkpoints
from fishnet.sweep.store.folder import write_sweep_file

FIGURES = [
    f"{split}_{name}"
    for split in ("val", "test")
    for name in ("loss", "accuracy", "balanced_accuracy", "macro_auc", "macro_f1", "ece")
]

# 256 training images in batches of 12: 21 steps an epoch.
BASE = Recipe(task="synthetic", image_size=8, model="cnn", widths=(8, 8), batch_size=12, epochs=2, dropout=0.1)

# 8 steps an epoch.
TINY = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=32, epochs=3)


def trained(out: Path, cohort: int = 0) -> dict:
    """The checkpointed state of a cohort: nested dictionaries of arrays with a leading run axis."""
    return Checkpoints(out / "checkpoints" / f"cohort_{cohort}").restore(warn=lambda text: None)


def assert_same_run(one: Path, run: int, other: Path, again: int) -> None:
    """Run `run` of folder `one` ended bit for bit as run `again` of `other`: weights, optimizer, statistics, curves."""
    a, b = trained(one), trained(other)
    for name in ("seconds", "executed", "status"):
        a["history"].pop(name), b["history"].pop(name)
    mine, theirs = jax.tree.map(lambda x: x[run], a["lanes"]), jax.tree.map(lambda x: x[again], b["lanes"])
    # A sweep keeps as many slots as its greediest optimizer needs; a run leaves those beyond its own at zero.
    for name in ("trees", "counts"):
        slots = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(s["slots"].pop(name))]) for s in (mine, theirs)]
        shared = min(map(len, slots))
        np.testing.assert_array_equal(slots[0][:shared], slots[1][:shared], err_msg=name)
        assert not any(more[shared:].any() for more in slots)
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    for name, values in a["history"].items():
        np.testing.assert_array_equal(values[run], b["history"][name][again], err_msg=name)


def assert_same_results(one: Path, other: Path) -> None:
    """The tables of two folders are equal bit for bit, but for the time that training took."""
    for name in ("runs", "curves", "class_curves", "per_class", "predictions"):
        tables = [pd.read_parquet(out / f"{name}.parquet") for out in (one, other)]
        pd.testing.assert_frame_equal(
            *(table.drop(columns="train_seconds", errors="ignore") for table in tables), check_exact=True
        )


class Stopper(Display):
    """Sends this process a signal as soon as so many run-epochs are done."""

    def __init__(self, after: float, number: int = signal.SIGTERM) -> None:
        self.after, self.number, self.warnings = after, number, []

    def advance(self, done: float, epoch: int, epochs: int, best: str | None = None, diverged: int = 0) -> None:
        if done >= self.after:
            self.after = float("inf")
            signal.raise_signal(self.number)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leave_finished(sweep: Sweep, out: Path) -> None:
    """Makes the folder of a finished sweep without training it: it has one table, and no checkpoints."""
    content = describe(sweep, DataOptions())
    content |= {"data": Inputs(sweep, DataOptions()).fingerprints, "programs": 1, "finished": "2030-01-01T00:00:00"}
    out.mkdir()
    digest = write_table(out / "runs.parquet", pd.DataFrame({"run": [0]}), {"sweep": content["spec_hash"]})
    write_sweep_file(out, content | {"tables": {"runs": digest}})


@contextmanager
def lanes_in_eights() -> Iterator[None]:
    """Put lanes of an mlp side by side as on accelerators: at most 8 runs on one device share one compiled program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DEFAULT_WIDTH["cpu"], "mlp", 8)
        yield


@pytest.fixture(scope="module", autouse=True)
def mlps_in_eights():
    """Of the tests of this folder; those of the commands are at the widths that users get."""
    with lanes_in_eights():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> tuple[Sweep, Result]:
    """Four finished runs of the smallest program; copy its folder before changing it."""
    sweep = Sweep(TINY, axes={"lr": ["auto", 0.1]}, seeds=2)
    with lanes_in_eights():
        return sweep, run_sweep(sweep, tmp_path_factory.mktemp("tiny") / "out", devices=1)


@pytest.fixture(scope="session")
def stopped(tiny, tmp_path_factory) -> Path:
    """The folder of the `tiny` sweep, stopped in its third epoch, with two checkpoints."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    with lanes_in_eights(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(Interrupted):
            run_sweep(tiny[0], out, devices=1, display=Stopper(9.0))
    return out


@pytest.fixture(scope="session")
def mixed(tmp_path_factory) -> tuple[Sweep, Result]:
    """Activations, norms, optimizers and seeds in one program over two devices at width 1."""
    sweep = Sweep(
        BASE,
        axes={"activation": ["relu", "gelu"], "norm": ["batch", "group"], "optimizer": ["momentum", "adamw"]},
        seeds=[3, 5],
    )
    return sweep, run_sweep(sweep, tmp_path_factory.mktemp("mixed") / "out")
