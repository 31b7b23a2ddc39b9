"""The ways through fishnet that a user takes, with these versions: stopped and gone on, command line, photographs.

python -m pytest tests/smoke
"""

import csv
import dataclasses

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import predict, train
from fishnet.cli.main import main
from fishnet.data import load_task
from fishnet.probes import PROBES
from fishnet.sweep import Interrupted, Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.run import phase
from tests.sweep.conftest import Stopper, assert_same_run

pytestmark = pytest.mark.smoke
BASE = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=32, epochs=2, norm="batch")


def test_every_probe_measures(tmp_path):
    more = {"probes": tuple(PROBES), "probe_every": 3, "probe_images": 64, "lr": 0.1, "schedule": "constant"}
    recipe = dataclasses.replace(BASE, **more)
    out = run_sweep(Sweep(recipe, seeds=2), tmp_path / "out").out
    found = pd.read_parquet(out / "probes.parquet")
    figures = {name for probe in PROBES.values() if probe.kind != "failure" for name in probe.gives}
    assert set(found["probe"]) == figures
    unknown = found[~np.isfinite(found["value"])]
    assert set(unknown["step"]) == {0} and set(unknown["probe"]) == {"gradient_cosine", "layer_gradient_cosine"}
    np.testing.assert_allclose(found["value"][found["probe"] == "two_over_lr"], 2 / 0.1, rtol=1e-6)


def test_a_sweep_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)
    recipe = dataclasses.replace(BASE, optimizer="adam", dropout=0.2, epochs=3)
    sweep = Sweep(recipe, axes={"norm": ["none", "batch"]}, seeds=2)
    whole = run_sweep(sweep, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run_sweep(sweep, tmp_path / "out", display=Stopper(5.0))
    assert run_sweep(sweep, tmp_path / "out").runs["status"].eq("ok").all()
    for run in range(4):
        assert_same_run(tmp_path / "out", run, whole.out, run)


def test_fish_from_the_command_line_to_the_names_of_photographs(tmp_path, capsys):
    """Reads the embedded photographs (ArrayRecord), writes table and report, names what is on a picture file."""
    out, photo, names = tmp_path / "out", tmp_path / "photo.png", tmp_path / "names.csv"
    two = "Chromis_chrysura+Zebrasoma_scopas"
    of = ["--task", f"reef?only={two}&train=0.2", "--image-size", "32", "--model", "mlp", "--widths", "8"]
    assert main(train.EXPERIMENT, [*of, "--epochs", "1", "--seeds", "1", "--quiet", "--out", str(out)]) == 0
    assert "<svg" in (out / "report.html").read_text(encoding="utf-8")
    trained = load_run(out)
    image = load_task("reef", 32).images[3]
    Image.fromarray(image).save(photo)
    assert predict.main(["--run", str(out), "--images", str(photo), "--csv", str(names)]) == 0
    with names.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    logits = np.asarray(trained.model.apply(trained.variables, image[None], train=False)[0], np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose([float(row[f"p_{name}"]) for name in trained.classes], expected, atol=2e-4)
    assert trained.classes[int(expected.argmax())] in capsys.readouterr().out
