"""The commands as a user runs them, on a task that takes a second."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import ablation, predict, train
from fishnet.cli.main import default_folder, main
from fishnet.cli.sweep_flags import parse_request
from fishnet.data import load_task
from fishnet.sweep import DataOptions

TINY = ["--task", "synthetic", "--model", "mlp", "--widths", "8", "--epochs", "2", "--quiet"]
ROOT = Path(__file__).parents[2]


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep of two arms and two seeds, made by the command."""
    out = tmp_path_factory.mktemp("runs") / "a"
    assert main(ablation.EXPERIMENT, [*TINY, "--axis", "activation=relu,elu", "--seeds", "2", "--out", str(out)]) == 0
    return out


def test_the_folder_has_everything(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"sweep.json", "runs.parquet", "curves.parquet", "per_class.parquet", "class_curves.parquet",
            "predictions.parquet", "report.html", "figures", "checkpoints"} <= names  # fmt: skip
    assert {path.suffix for path in (finished / "figures").iterdir()} == {".png", ".svg"}


def test_a_finished_sweep_prints_its_table_and_changes_nothing(finished, capsys):
    before = snapshot(finished)
    words = [*TINY, "--axis", "activation=relu,elu", "--seeds", "2", "--out", str(finished)]
    assert main(ablation.EXPERIMENT, words) == 0
    text = capsys.readouterr()
    assert "finished before" in text.err
    assert str(finished / "report.html") in text.out
    assert sum(line.startswith("* ") for line in text.out.splitlines()) == 1
    assert snapshot(finished) == before


def test_a_report_that_was_lost_or_emptied_is_made_anew(finished, tmp_path, capsys):
    out = shutil.copytree(finished, tmp_path / "out")
    page, figures = (out / "report.html").read_bytes(), sorted(path.name for path in (out / "figures").iterdir())
    (out / "report.html").write_bytes(b"")
    shutil.rmtree(out / "figures")
    words = [*TINY, "--axis", "activation=relu,elu", "--seeds", "2", "--out", str(out)]
    assert main(ablation.EXPERIMENT, words) == 0
    assert "finished before" in capsys.readouterr().err
    assert (out / "report.html").read_bytes() == page
    assert sorted(path.name for path in (out / "figures").iterdir()) == figures


def test_another_sweep_in_its_folder_is_refused(finished, capsys):
    before = snapshot(finished)
    code = main(ablation.EXPERIMENT, [*TINY, "--axis", "activation=relu,selu", "--seeds", "2", "--out", str(finished)])
    error = capsys.readouterr().err
    assert code != 0
    assert "selu" in error
    assert error.count("\n") == 1
    assert snapshot(finished) == before


def test_without_out_the_folder_is_named_after_the_specification(finished):
    def folder(*words, **options):
        return default_folder(parse_request(ablation.EXPERIMENT, [*TINY, *words]), DataOptions(**options))

    words = ["--axis", "activation=relu,elu", "--seeds", "2"]
    digest = json.loads((finished / "sweep.json").read_text())["spec_hash"]
    assert folder(*words) == os.path.join("runs", f"ablation-{digest[:10]}")
    assert folder(*words, "--devices", "1", "--data-dir", "x") == folder(*words)
    assert len({folder(*words), folder(*words, "--lr", "0.3"), folder(*words, strict=True)}) == 3


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--task", "reff"], ["'reff'", "reef"]),
        (["--axis", "activation=relu,swishh"], ["'swishh'", "silu"]),
        (["--dropout", "15e-1"], ["dropout", "'15e-1'"]),
        (["--model", "cmn"], ["'cmn'", "'cnn'"]),
        (["--lowering", "ftt"], ["'ftt'"]),
    ],
)
def test_bad_values_are_refused_before_anything_is_made(tmp_path, capsys, words, parts):
    assert main(ablation.EXPERIMENT, [*words, "--out", str(tmp_path / "a")]) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.startswith("error: ")
    assert text.err.count("\n") == 1
    assert all(part in text.err for part in parts), text.err
    assert not (tmp_path / "a").exists()


def test_help_and_typing_errors_do_not_wait_for_jax():
    code = "import sys, experiments.ablation, experiments.train, experiments.predict; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_predict_names_what_is_on_photographs(finished, tmp_path, capsys):
    task = load_task("synthetic")
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(3):
        pixels = task.images[i].repeat(2, 0).repeat(2, 1)
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("no photograph")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    table = tmp_path / "names.csv"
    words = ["--run", str(finished), "--images", str(folder), str(broken), "--csv", str(table)]
    assert predict.main(words) == 0
    text = capsys.readouterr()
    assert text.err.count("\n") == 2
    assert str(broken) in text.err
    assert str(folder / "notes.txt") in text.err
    assert text.out.count("%") == 9  # three guesses for each of three photographs
    names = pd.read_csv(table)
    assert names["image"].tolist() == [str(folder / f"{i}.png") for i in range(3)]
    probabilities = names[[f"p_{name}" for name in task.classes]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-4)
    assert names["species"].tolist() == [task.classes[k] for k in probabilities.argmax(1)]
    runs = pd.read_parquet(finished / "runs.parquet")
    best = runs.sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    assert text.out.startswith(f"run {best.run}: {best.arm}, seed {best.seed}")
    assert predict.main([*words, "--index", "1"]) == 0
    assert capsys.readouterr().out.startswith("run 1: ")


@pytest.mark.slow
def test_planted_defects_go_through_from_the_flag_to_the_report(tmp_path, capsys):
    planted, out = "synthetic?few=Rising:40&only=horizontal+rising", tmp_path / "a"
    words = ["--task", planted, *TINY[2:6], "--epochs", "1", "--quiet", "--out", str(out)]
    assert main(train.EXPERIMENT, words) == 0
    text = capsys.readouterr()
    assert "planted only=horizontal+rising: 2 of 4 classes, 192 of 384 images" in text.err
    assert "planted few=rising:40: 40 of 64 training images of rising were kept" in text.err
    assert json.loads((out / "sweep.json").read_text())["classes"] == {planted: ["horizontal", "rising"]}
    predictions = pd.read_parquet(out / "predictions.parquet")
    mine, task = predictions[predictions["split"] == "test"], load_task(planted)
    assert mine["example"].tolist() == task.splits["test"].tolist()
    assert mine["label"].tolist() == task.labels[task.splits["test"]].tolist()
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "synthetic?few=Rising:40&amp;only=horizontal+rising" in report and "planted few=rising:40" in report
    Image.fromarray(task.images[0]).save(tmp_path / "a.png")
    assert predict.main(["--run", str(out), "--images", str(tmp_path / "a.png")]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in task.classes) and "falling" not in text


def test_paths_lose_what_they_share():
    assert predict.strip_common_folder(["/a/b/x.png", "/a/c/y.png"]) == ("/a", ["b/x.png", "c/y.png"])
    assert predict.strip_common_folder(["a/x.png"]) == ("a", ["x.png"])
    assert predict.strip_common_folder(["x.png", "y.png"]) == ("", ["x.png", "y.png"])
    assert predict.strip_common_folder(["x.png", "/y.png"]) == ("", ["x.png", "/y.png"])


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["--images", "x.png"], 2, "--run"),
        (["--run", "{}", "--images", "/no/such.png"], 1, "none of the images"),
        (["--run", "/no/such", "--images", "x.png"], 1, "/no/such"),
        (["--run", "{}", "--index", "99", "--images", "x.png"], 2, "99"),
        (["--run", "{}", "--index", "first", "--images", "x.png"], 2, "'first'"),
        (["--run", "{}", "--images", "x.png", "--csv", "/no/such/names.csv"], 1, "/no/such/names.csv"),
    ],
)
def test_predict_refuses_what_it_cannot_do(finished, capsys, words, code, part):
    assert predict.main([word.format(finished) for word in words]) == code
    text = capsys.readouterr()
    assert text.out == ""
    assert part in text.err
    assert "Traceback" not in text.err
