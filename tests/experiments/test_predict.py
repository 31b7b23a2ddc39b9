"""`--mc-dropout` of experiments.predict, on a run with dropout and one without."""

import os
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import entropy

from experiments import predict
from fishnet.data import load_task
from fishnet.models import MLP
from fishnet.study.prediction import BATCH, predict_in_batches
from fishnet.sweep import Sweep, load_run, run_sweep
from tests.sweep.conftest import TINY

WITHOUT, WITH = 0, 1  # numbers of the runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep of a run without dropout and one with it."""
    sweep = Sweep(TINY, axes={"dropout": [0.0, 0.5]}, seeds=1)
    return run_sweep(sweep, tmp_path_factory.mktemp("runs") / "a", devices=1).out


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i, pixels in enumerate(load_task("synthetic").images[:3]):
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(folder / f"{i}.png")
    return folder


def test_means_entropy_and_mutual_information(trained, photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    tables = [tmp_path / name for name in ("a.csv", "b.csv")]
    base = ["--run", str(trained), "--index", str(WITH), "--mc-dropout", "20"]
    assert predict.main([*base, "--images", str(photographs), "--csv", str(tables[0])]) == 0
    text = capsys.readouterr().out
    loaded = load_run(trained, WITH)
    images = np.stack([predict.read_photograph(photographs / f"{i}.png", loaded) for i in range(3)])
    network = loaded.model.clone(monte_carlo=True)

    @jax.jit
    def one(image, t):
        rngs = {"dropout": jax.random.fold_in(jax.random.key(0), t)}
        return jax.nn.softmax(network.apply(loaded.variables, image[None], train=False, rngs=rngs)[0])

    p = np.float64([[one(image, t) for image in images] for t in range(20)])
    mean_entropy, information = entropy(p.mean(0), axis=-1), entropy(p.mean(0), axis=-1) - entropy(p, axis=-1).mean(0)
    table = pd.read_csv(tables[0])
    assert list(table)[3:] == [*(f"p_{name}" for name in loaded.classes), "predictive_entropy", "mutual_information"]
    np.testing.assert_allclose(table.iloc[:, 3:-2], p.mean(0), atol=2e-6)
    np.testing.assert_allclose(table["predictive_entropy"], mean_entropy, atol=1e-5)
    np.testing.assert_allclose(table["mutual_information"], information, atol=1e-5)
    assert information.max() > 0.002
    lines = text.splitlines()
    assert "Monte-Carlo dropout, 20 passes" in lines[0]
    assert len(lines) == 4
    for line, h, i in zip(lines[1:], table["predictive_entropy"], table["mutual_information"], strict=True):
        assert f"predictive entropy {h:.3f} nats, mutual information {i:.3f} nats" in line
        assert line.count("%") == 3

    # Fixed draws: the same figures for a photograph by itself.
    assert predict.main([*base, "--images", str(photographs / "2.png"), "--csv", str(tables[1])]) == 0
    alone = pd.read_csv(tables[1])
    np.testing.assert_allclose(alone.iloc[0, 2:].astype(float), table.iloc[2, 2:].astype(float), atol=2e-6)


def test_without_the_flag_nothing_is_random(trained, photographs, tmp_path, capsys):
    table = tmp_path / "plain.csv"
    words = ["--run", str(trained), "--index", str(WITH), "--images", str(photographs), "--csv", str(table)]
    assert predict.main(words) == 0
    text = capsys.readouterr().out
    assert "entropy" not in text
    assert "Monte" not in text
    loaded = load_run(trained, WITH)
    assert list(pd.read_csv(table))[3:] == [f"p_{name}" for name in loaded.classes]
    images = np.stack([predict.read_photograph(photographs / f"{i}.png", loaded) for i in range(3)])
    expected = jax.nn.softmax(loaded.model.apply(loaded.variables, images, train=False))
    np.testing.assert_allclose(pd.read_csv(table).iloc[:, 3:], expected, atol=2e-6)


@pytest.mark.parametrize("passes", ["0", "-1", "2.5", "1e2", "many", "99999999999"])
def test_what_is_no_number_of_passes_is_refused_at_once(passes, capsys):
    assert predict.main(["--run", "/no/such", "--images", "/no/such.png", "--mc-dropout", passes]) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err == f"error: --mc-dropout: {passes!r} is not a number of passes (1, 2, ...)\n"


def test_a_run_without_dropout_is_refused_before_photographs_are_read(trained, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    words = ["--run", str(trained), "--index", str(WITHOUT), "--images", str(broken), "--mc-dropout", "5"]
    assert predict.main(words) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.count("\n") == 1
    assert "run 0 was trained without dropout" in text.err


@pytest.mark.parametrize("input_norm", ["standardize", "batch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_those_of_the_network(input_norm, channels):
    model = MLP(classes=2, widths=(3,), input_norm=input_norm)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 2, 2, channels), np.uint8), False))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
    assert predict.count_channels(SimpleNamespace(variables=variables)) == channels


@pytest.mark.parametrize("photographs", [1, BATCH, BATCH + 5])
def test_batches_are_of_one_size_and_their_padding_is_lost(photographs):
    images = np.arange(1, photographs + 1, dtype=np.uint8)[:, None, None, None].repeat(2, 1)
    sizes = []

    def answer(batch):
        sizes.append(len(batch))
        assert np.isin(batch, images).all()  # photographs fill it up: where a batch is normalised together, they count
        return {"mean": batch.mean((1, 2, 3)), "first": batch[:, :, 0, 0]}

    found = predict_in_batches(answer, images)
    assert len(set(sizes)) == 1
    np.testing.assert_array_equal(found["mean"], np.arange(1, photographs + 1))
    np.testing.assert_array_equal(found["first"], images[:, :, 0, 0])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("photo.png", "was not written by this command"),
        ("table.csv", "was not written by this command"),
        ("link.csv", "was not written by this command"),
        ("folder", "is a folder"),
        ("folder/", "is a folder"),
        ("no such folder/a.csv", "is not a folder"),
        ("pipe", "is no regular file"),
        ("{run}/runs.parquet", "was not written by this command"),
        ("{run}/sweep.json", "was not written by this command"),
        ("{run}/checkpoints", "is a folder"),
        ("{run}/report.html", "would be taken for a file of the run"),
        ("{run}/../{last}/probes.parquet", "would be taken for a file of the run"),
        ("linked run/probes.parquet", "would be taken for a file of the run"),
        ("/dev/null", "is no regular file"),
    ],
)
def test_the_table_takes_the_place_of_nothing_else(trained, photographs, tmp_path, capsys, name, part):
    photo = tmp_path / "photo.png"
    photo.write_bytes((photographs / "0.png").read_bytes())
    (tmp_path / "table.csv").write_text("image,label\n0.png,cod\n")
    (tmp_path / "link.csv").symlink_to(photo)
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked run").symlink_to(trained)
    os.mkfifo(tmp_path / "pipe")
    places = [tmp_path, trained]
    before = [{p: p.stat().st_mtime_ns for p in place.rglob("*")} for place in places]
    path = os.path.join(tmp_path, name.format(run=trained, last=trained.name))
    assert predict.main(["--run", str(trained), "--images", str(photo), "--csv", path]) == 1
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.count("\n") == 1
    assert part in text.err
    assert [{p: p.stat().st_mtime_ns for p in place.rglob("*")} for place in places] == before


def test_the_table_takes_the_place_of_an_earlier_one(trained, photographs, tmp_path, capsys):
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")
    (tmp_path / "empty.csv").touch()
    for name in ("table.csv", "table.csv", "link.csv", "empty.csv"):
        table = tmp_path / name
        words = ["--run", str(trained), "--images", str(photographs / "1.png"), "--csv", str(table)]
        assert predict.main(words) == 0, capsys.readouterr().err
        assert pd.read_csv(table)["image"].tolist() == [str(photographs / "1.png")]
    assert (tmp_path / "link.csv").is_symlink()
    assert predict.main([*words[:-1], str(trained / "names.csv")]) == 0
    (trained / "names.csv").unlink()


@pytest.mark.parametrize("flag", ["--images", "--run", "--csv", "--mc-dropout", "--index"])
def test_an_empty_value_is_refused_at_once(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # which has photographs that nobody has asked about
    Image.new("RGB", (9, 9)).save("a.png")
    words = {"--run": "runs", "--images": "a.png"} | {flag: ""}
    assert predict.main([word for pair in words.items() for word in pair]) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.count("\n") == 1
    assert flag in text.err
