"""A finished sweep is shown only if its folder is as it was left, and its data are those that it was trained on."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fishnet.data import DataOptions
from fishnet.errors import UserError
from fishnet.host.parquet import write_table
from fishnet.report.results import load_results
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.run.inputs import Inputs
from fishnet.sweep.store.finished import bad_table, check_data
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file
from fishnet.sweep.store.tables import rows_from
from tests.sweep.conftest import TINY, contents, leave_finished

TABLES = ("runs", "curves", "class_curves", "per_class", "predictions")


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def halve(path: Path, other: Path) -> None:
    """Keeps the metadata, as a program that knows Parquet would."""
    table = pq.read_table(path)
    pq.write_table(table.slice(0, table.num_rows // 2), path)


def save_with_pandas(path: Path, other: Path) -> None:
    table = pd.read_parquet(path)
    table.iloc[:, -1] = 0.0
    table.to_parquet(path)


def flip(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def replace(path: Path, other: Path) -> None:
    shutil.copy(other / path.name, path)


def remove(path: Path, other: Path) -> None:
    path.unlink()


def make_pipe(path: Path, other: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.fixture(scope="module")
def foreign(tiny, tmp_path_factory) -> Path:
    """The tables of another sweep with the same columns."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in TABLES:
        table = pd.read_parquet(tiny[1].out / f"{name}.parquet")
        write_table(folder / f"{name}.parquet", table, {"sweep": "another sweep"})
    return folder


DAMAGE = (empty, cut, halve, save_with_pandas, flip, replace, remove, make_pipe)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_table_is_noticed_whatever_it_is(tiny, foreign, tmp_path, damage):
    out = shutil.copytree(tiny[1].out, tmp_path / "out")
    for name in TABLES:
        path = out / f"{name}.parquet"
        before = path.read_bytes()
        damage(path, foreign)
        assert str(path) in str(bad_table(out, read_sweep_file(out)))
        with pytest.raises(UserError, match=re.escape(str(path))) as refusal:
            load_results(out)
        assert "\n" not in str(refusal.value)
        path.unlink(missing_ok=True)
        path.write_bytes(before)
    assert bad_table(out, read_sweep_file(out)) is None


def test_tables_are_written_again_from_the_checkpoints(tiny, foreign, tmp_path):
    sweep, result = tiny
    out = shutil.copytree(result.out, tmp_path / "out")
    for name, damage in zip(TABLES, (save_with_pandas, remove, flip, replace, halve), strict=True):
        damage(out / f"{name}.parquet", foreign)
    again = run_sweep(sweep, out, devices=1)
    assert not again.finished
    for name in TABLES:
        one, other = (pd.read_parquet(folder / f"{name}.parquet") for folder in (out, result.out))
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert run_sweep(sweep, out, devices=1).finished


def test_tables_say_which_sweep_they_belong_to_and_how_many_rows_they_have(tiny):
    content = json.loads((tiny[1].out / "sweep.json").read_text())
    assert set(content["tables"]) == set(TABLES)
    for name in TABLES:
        path = tiny[1].out / f"{name}.parquet"
        metadata = pq.read_metadata(path)
        said = json.loads(metadata.metadata[b"fishnet"])
        assert said == {"sweep": content["spec_hash"], "table": name, "rows": metadata.num_rows}
        assert content["tables"][name] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", [empty, cut, halve, save_with_pandas, replace], ids=lambda f: f.__name__)
def test_a_table_of_a_sweep_that_goes_on_is_not_believed_either(stopped, foreign, tmp_path, damage):
    out = shutil.copytree(stopped, tmp_path / "out")
    assert len(load_results(out).curves)
    damage(out / "curves.parquet", foreign)
    with pytest.raises(UserError, match=r"curves\.parquet"):
        load_results(out)
    assert rows_from(out, "curves", range(4), read_sweep_file(out)["spec_hash"]) is None


def test_a_stopped_sweep_goes_on_without_the_tables_of_another(tiny, stopped, foreign, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "out")
    replace(out / "runs.parquet", foreign)
    halve(out / "curves.parquet", foreign)
    run_sweep(tiny[0], out, devices=1)
    for name in TABLES:
        one, other = (pd.read_parquet(folder / f"{name}.parquet") for folder in (out, tiny[1].out))
        drop = ["train_seconds"] if name == "runs" else []
        pd.testing.assert_frame_equal(one.drop(columns=drop), other.drop(columns=drop), check_exact=True)


def test_a_table_whose_checkpoints_are_gone_is_a_line(tiny, tmp_path):
    sweep, result = tiny
    out = shutil.copytree(result.out, tmp_path / "out")
    shutil.rmtree(out / "checkpoints")
    assert run_sweep(sweep, out).finished  # the tables are whole
    (out / "curves.parquet").unlink()
    before = contents(out)
    with pytest.raises(UserError, match=r"curves\.parquet is missing, and .*cohort_0 has no checkpoint"):
        run_sweep(sweep, out)
    assert contents(out) == before


def test_the_tables_of_another_order_of_axes_are_not_written_over(tiny, tmp_path):
    out = shutil.copytree(tiny[1].out, tmp_path / "out")
    content = read_sweep_file(out)
    # As it would be with a second axis of one value before it.
    write_sweep_file(out, content | {"axes": {"depth": [1], **content["axes"]}})
    (out / "curves.parquet").unlink()
    with pytest.raises(UserError, match="begun with the axes in the order depth, lr: give them so again"):
        run_sweep(tiny[0], out)


EDITS = {
    "finished": lambda c: {"finished": None if c["finished"] else "2030-01-01T00:00:00+00:00"},
    "axes": lambda c: {"axes": {"lr": ["auto", 0.2]}},
    "order": lambda c: dict(reversed(c.items())),
    "axis": lambda c: {"axes": {"lr": "auto"}},
    "seeds": lambda c: {"seeds": [["a"]]},
    "recipe": lambda c: {"recipe": c["recipe"] | {"activation": "elu"}},
    "field": lambda c: {"recipe": c["recipe"] | {"colour": 1}},
    "plan": lambda c: {"plan": None},
    "programs": lambda c: {"programs": "1"},
    "data": lambda c: {"data": ["a"]},
    "not a number": lambda c: {"paused": float("nan")},
    "versions": lambda c: {"versions": [1]},
    "format": lambda c: {"format": [2]},
    "digest": lambda c: {"sha256": 3},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("of", ["finished", "stopped"])
def test_a_sweep_file_that_was_changed_by_hand_is_not_believed(tiny, stopped, tmp_path, of, edit):
    out = shutil.copytree(tiny[1].out if of == "finished" else stopped, tmp_path / "out")
    content = json.loads((out / "sweep.json").read_text())
    changed = edit(content)
    (out / "sweep.json").write_text(json.dumps(changed if set(changed) == set(content) else content | changed))
    before = contents(out)
    for attempt in (lambda: run_sweep(tiny[0], out), lambda: load_run(out), lambda: load_results(out)):
        with pytest.raises(UserError, match=re.escape(str(out / "sweep.json"))) as refusal:
            attempt()
        assert "\n" not in str(refusal.value)
    assert contents(out) == before


def test_deep_nesting_and_pipes_are_no_sweep_file(tmp_path):
    (tmp_path / "sweep.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="is damaged"):
        read_sweep_file(tmp_path)
    (tmp_path / "sweep.json").unlink()
    os.mkfifo(tmp_path / "sweep.json")
    with pytest.raises(UserError, match="not a regular file"):
        read_sweep_file(tmp_path)


def test_a_sweep_whose_format_has_no_digest_names_its_version(tiny, tmp_path):
    out = shutil.copytree(tiny[1].out, tmp_path / "out")
    content = json.loads((out / "sweep.json").read_text())
    del content["sha256"], content["tables"]
    (out / "sweep.json").write_text(json.dumps(content | {"format": 1}))
    with pytest.raises(UserError, match=r"another version of fishnet \(0\..*, format 1; this one reads 2\)") as refusal:
        load_results(out)
    assert str(refusal.value).endswith("for this version train the sweep again, into another folder")


def test_a_sweep_file_saved_with_other_line_ends_or_a_mark_of_its_encoding_is_sound(tiny, tmp_path):
    text = (tiny[1].out / "sweep.json").read_text()
    for changed in (text.replace("\n", "\r\n").encode(), text.encode("utf-8-sig")):
        (tmp_path / "sweep.json").write_bytes(changed)
        assert read_sweep_file(tmp_path) == json.loads(text)


def photographs(folder: Path) -> Path:
    """Two classes of twelve noisy pictures."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(rng.normal(level, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_photographs_that_have_changed_are_another_sweep_even_when_it_was_finished(tmp_path):
    photos = photographs(tmp_path / "photos")
    sweep, out = Sweep(Recipe(task=f"folder:{photos}", image_size=8), seeds=1), tmp_path / "out"
    leave_finished(sweep, out)
    one = photos / "dark" / "3.png"
    before, kept = contents(out), one.read_bytes()
    assert run_sweep(sweep, out).finished
    Image.fromarray(255 - np.asarray(Image.open(one))).save(one)
    with pytest.raises(UserError, match=rf"the data of folder:{re.escape(str(photos))} at 8 have changed"):
        run_sweep(sweep, out)
    one.write_bytes(kept)
    assert run_sweep(sweep, out).finished  # the content counts, not the time
    shutil.copy(one, photos / "dark" / "another.png")
    with pytest.raises(UserError, match="have changed"):
        run_sweep(sweep, out)
    assert contents(out) == before


def test_planted_defects_and_trunks_belong_to_the_data(tiny, tmp_path):
    plain = Inputs(Sweep(TINY, seeds=1), DataOptions()).fingerprints
    planted = Inputs(Sweep(Recipe(task="synthetic?train=0.5", image_size=8), seeds=1), DataOptions()).fingerprints
    assert set(plain) == {"synthetic at 8"} and set(planted) == {"synthetic?train=0.5 at 8"}
    assert [*plain.values()] != [*planted.values()]
    begun = {"data": plain}
    check_data(tmp_path, begun, plain)
    with pytest.raises(UserError, match="have changed"):
        check_data(tmp_path, begun, planted)
    trunk = f"trunk {tiny[1].out}:0"
    found = Inputs(Sweep(Recipe(**vars(TINY) | {"trunk": f"{tiny[1].out}:0"}), seeds=1), DataOptions()).fingerprints
    other = Inputs(Sweep(Recipe(**vars(TINY) | {"trunk": f"{tiny[1].out}:1"}), seeds=1), DataOptions()).fingerprints
    with pytest.raises(UserError, match="have changed"):
        check_data(tmp_path, {"data": found}, found | {trunk: other[f"trunk {tiny[1].out}:1"]})


@pytest.mark.parametrize("name", [b"no \xff text", b"a\nb", b"quote\" '", b"#1%20", "ü".encode() * 100], ids=repr)
def test_a_finished_sweep_is_found_whatever_its_folder_is_called(tiny, tmp_path, name):
    out = shutil.copytree(tiny[1].out, tmp_path / os.fsdecode(name))
    before = contents(out)
    again = run_sweep(tiny[0], out)
    assert again.finished
    pd.testing.assert_frame_equal(again.runs, tiny[1].runs, check_exact=True)
    assert load_results(out).best_run is not None
    assert contents(out) == before
