"""What a command writes never takes the place of something that it has not written."""

import os

import pytest

from experiments import ablation, benchmark, capacity, claims, lr_range, train
from fishnet.cli.main import main
from fishnet.cli.own_files import check_own_file
from fishnet.errors import UserError
from fishnet.study.question import Question, check_folder
from fishnet.sweep.store.finished import check_no_sweep

TINY = ["--task", "synthetic", "--model", "mlp", "--widths", "8", "--epochs", "1", "--quiet"]


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("mine.md", "was not written by this command"),
        ("link", "was not written by this command"),
        ("folder", "is a folder"),
        ("mine.md/x", "is not a folder"),
        ("mine.md/x/y", "is not a folder"),
        ("/dev/null", "is no regular file"),
        ("dangling/x", "is not a folder"),
    ],
)
def test_files_of_others_stay(tmp_path, name, part):
    (tmp_path / "mine.md").write_text("# Mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("mine.md")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(UserError, match=part):
        check_own_file("--out", tmp_path / name, ("# Ours", "x"), make_folder=True)


def test_own_files_may_be_written_again(tmp_path):
    (tmp_path / "ours.md").write_text("# Ours and more")
    (tmp_path / "empty.md").touch()
    for name in ("ours.md", "empty.md", "new.md", "new folder/deeper/new.md"):
        check_own_file("--out", tmp_path / name, ("# Theirs", "# Ours"), make_folder=True)
    with pytest.raises(UserError, match="is not a folder"):
        check_own_file("--out", tmp_path / "new folder" / "new.md", ("# Ours",))


@pytest.mark.parametrize("name", ["mine.md", ".", "/dev/null"])
def test_the_ledger_takes_the_place_of_nothing_else(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.md").write_text("# Mine")
    monkeypatch.setattr(claims, "train", None)  # it is refused before anything is run
    before = snapshot(tmp_path)
    assert claims.main(["--run", "--out", name]) == 1
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.startswith("error: --out: cannot write ")
    assert text.err.count("\n") == 1
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["benchmark.md", "benchmark.json"])
def test_a_benchmark_takes_the_place_of_nothing_else(tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).write_text("[1, 2]\n")
    monkeypatch.setattr(benchmark, "measure", None)
    monkeypatch.setattr(benchmark, "machine", lambda: {"device": "cpu"})
    before = snapshot(tmp_path)
    assert benchmark.main(["--quick", "--out", str(tmp_path)]) == 1
    assert "was not written by this command" in capsys.readouterr().err
    assert snapshot(tmp_path) == before
    (tmp_path / name).unlink()
    (tmp_path / "file").write_text("x")
    assert benchmark.main(["--quick", "--out", str(tmp_path / "file")]) == 1
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.html", "figures", "runs.parquet", "checkpoints", "probes.parquet"])
@pytest.mark.parametrize("experiment", [train.EXPERIMENT, ablation.EXPERIMENT, lr_range.EXPERIMENT])
def test_a_sweep_takes_the_place_of_nothing_else(tmp_path, capsys, experiment, name):
    if name in ("figures", "checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "overview.png").write_bytes(b"mine")
    else:
        (tmp_path / name).write_text("mine")
    before = snapshot(tmp_path)
    command = lr_range.main if experiment is lr_range.EXPERIMENT else lambda words: main(experiment, words)
    assert command([*TINY, "--out", str(tmp_path)]) == 1
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.count("\n") == 1
    assert f"holds {name}, but no sweep.json" in text.err
    assert snapshot(tmp_path) == before


def test_other_files_in_the_folder_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "a").mkdir()
    check_no_sweep(tmp_path)
    check_no_sweep(tmp_path / "absent")


def test_an_experiment_takes_the_place_of_no_other_answer(tmp_path):
    question: Question = capacity.question()
    check_folder(question, tmp_path / "absent")
    check_folder(question, tmp_path)
    (tmp_path / "answer.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds answer.json, which are not of capacity: choose another --out"):
        check_folder(question, tmp_path)
    (tmp_path / question.plans[0].name).mkdir()
    (tmp_path / question.plans[0].name / "sweep.json").write_text("{}")
    check_folder(question, tmp_path)
    assert os.listdir(tmp_path / question.plans[0].name) == ["sweep.json"]
