"""Small sweeps that several tests look at, so that each program is compiled once."""

from pathlib import Path

import jax
import numpy as np
import pytest

from fishnet.sweep import Recipe, Result, Sweep, run_sweep
from fishnet.sweep.checkpoint import Checkpoints

FIGURES = [
    f"{split}_{name}"
    for split in ("val", "test")
    for name in ("loss", "accuracy", "balanced_accuracy", "macro_auc", "macro_f1", "ece")
]

# 256 training images in batches of 12: 21 steps an epoch.
BASE = Recipe(task="synthetic", image_size=8, model="cnn", widths=(8, 8), batch_size=12, epochs=2, dropout=0.1)


def trained(out: Path, cohort: int = 0) -> dict:
    """The checkpointed state of a cohort: nested dictionaries of arrays with a leading run axis."""
    return Checkpoints(out / "checkpoints" / f"cohort_{cohort}").restore(None, warn=lambda text: None)


def assert_same_run(one: Path, run: int, other: Path, again: int) -> None:
    """Run `run` of folder `one` ended bit for bit as run `again` of `other`: weights, optimizer, statistics, curves."""
    a, b = trained(one), trained(other)
    for name in ("seconds", "status"):
        a["history"].pop(name), b["history"].pop(name)
    mine, theirs = jax.tree.map(lambda x: x[run], a["lanes"]), jax.tree.map(lambda x: x[again], b["lanes"])
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    for name, values in a["history"].items():
        np.testing.assert_array_equal(values[run], b["history"][name][again], err_msg=name)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory) -> tuple[Sweep, Result]:
    """Activations, norms, optimizers and seeds in one program over two devices at width 1."""
    sweep = Sweep(
        BASE,
        axes={"activation": ["relu", "gelu"], "norm": ["batch", "group"], "optimizer": ["momentum", "adamw"]},
        seeds=[3, 5],
    )
    return sweep, run_sweep(sweep, tmp_path_factory.mktemp("mixed") / "out")
