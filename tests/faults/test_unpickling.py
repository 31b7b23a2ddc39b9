"""Nothing that is loaded is unpickled: a folder from somebody else can hold no code."""

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fishnet.data import load_task
from fishnet.report.html import write_report
from fishnet.sweep import Interrupted, Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.run import phase
from tests.sweep.conftest import Stopper

pytestmark = pytest.mark.fault
ROOT = Path(__file__).parents[2]
BASE = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=32, epochs=3)


@pytest.fixture
def no_pickles(monkeypatch):
    """Every way to unpickle raises."""

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)


def test_a_pickle_cannot_be_read_under_the_fixture(no_pickles, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    with pytest.raises(AssertionError, match="was unpickled"):
        np.load(tmp_path / "objects.npy", allow_pickle=True)


def test_going_on_loading_and_reporting_unpickle_nothing(tmp_path, monkeypatch, no_pickles):
    monkeypatch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)
    out, sweep = tmp_path / "out", Sweep(BASE, seeds=2)
    with pytest.raises(Interrupted):
        run_sweep(sweep, out, display=Stopper(3.0))
    load_run(out, 1)
    run_sweep(sweep, out)
    assert run_sweep(sweep, shutil.copytree(out, tmp_path / "copy")).finished
    write_report(out)
    for task in ("reef", "mnist-mini"):
        load_task(task)


def test_nothing_in_the_source_could_unpickle():
    words = re.compile(r"\b(c?pickle|cloudpickle|dill|joblib|shelve|marshal)\b|read_pickle|allow_pickle\s*=\s*True")
    files = [path for part in ("fishnet", "experiments", "configs") for path in (ROOT / part).rglob("*.py")]
    assert len(files) > 100
    found = [f"{path}: {line}" for path in files for line in path.read_text().splitlines() if words.search(line)]
    found = [line for line in found if "allow_pickle=False" not in line]
    assert not found
    calls = [call for path in files for call in re.findall(r"np\.load\([^\n]*", path.read_text())]
    assert calls and all("allow_pickle=False" in call for call in calls)
