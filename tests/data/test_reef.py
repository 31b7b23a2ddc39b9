import collections
import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fishnet.data import load_task
from fishnet.data.duplicates import find_duplicates
from fishnet.data.images import read_image
from fishnet.data.reef import ASSETS, build_reef, load_reef, main, read_records
from fishnet.errors import UserError

FINGERPRINTS = {
    32: "43462e8bd4717bb4bcdc610cdc825f34bda48236a33ee4a570af539d2c2d29cc",
    64: "f2f3fe6704b62ad92035777b0f406ebee6be77c415d1f4b139e3697d9438581c",
}


@pytest.fixture(scope="module")
def records():
    return read_records()


@pytest.fixture(scope="module")
def reef():
    return load_reef(64)


@pytest.fixture(scope="module")
def small():
    return load_task("reef")


@pytest.fixture(scope="module")
def index(reef_source):
    with (reef_source / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def small_source(reef_source, index, tmp_path):
    """Every 40th photograph of the source folder, as a source folder of its own."""
    source = tmp_path / "source"
    rows = [row for split in ("train", "val", "test") for row in [r for r in index if r["split"] == split][::40]]
    for row in rows:
        (source / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reef_source / row["file"], source / row["file"])
    shutil.copyfile(reef_source / "NOTICE.txt", source / "NOTICE.txt")
    write_index(source, rows)
    return source, rows


def write_index(source, rows):
    with (source / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_sizes_splits_and_species(reef):
    assert reef.images.shape == (3_290, 64, 64, 3) and len(reef.classes) == 15
    assert {name: len(rows) for name, rows in reef.splits.items()} == {"train": 2_327, "val": 485, "test": 478}
    assert list(reef.classes) == sorted(reef.classes)
    assert np.bincount(reef.labels[reef.splits["test"]]).min() == 4
    assert "University of Edinburgh" in reef.credit and "f4k" in reef.credit


@pytest.mark.parametrize("size", [32, 64])
def test_pixels_are_the_same_everywhere(reef, small, size):
    task = reef if size == 64 else small
    assert task.images.shape[1:] == (size, size, 3) and task.fingerprint == FINGERPRINTS[size]


def test_no_track_and_no_group_is_in_two_splits(records):
    for kind in ("track", "group"):
        split_of = collections.defaultdict(set)
        for split, rows in records[1].items():
            for row in rows:
                split_of[row[kind]].add(split)
        assert max(map(len, split_of.values())) == 1
        assert len(split_of) > 2_700


def test_no_photograph_is_in_it_twice(reef):
    found = find_duplicates(reef.images, reef.labels, reef.splits)
    assert not found.across and not found.same_split and len(found.near) <= 2


def test_every_row_of_the_index_is_there(reef, records, index):
    stored = {row["file"].decode(): (split, row) for split, rows in records[1].items() for row in rows}
    assert len(stored) == len(index) == 3_290
    for row in index:
        split, record = stored[row["file"]]
        species = records[0][record["label"]]
        assert (split, species) == (row["split"], row["species"])
        assert (record["track"].decode(), record["group"].decode()) == (row["track"], row["group"])
    for split, rows in reef.splits.items():
        expected = collections.Counter(row["species"] for row in index if row["split"] == split)
        assert collections.Counter(reef.classes[label] for label in reef.labels[rows]) == expected


def test_pixels_are_the_photographs_prepared_as_any_other(reef, small, reef_source):
    far = {64: [], 32: []}
    for i in range(0, 3_290, 100):
        for task in (reef, small):
            size = task.images.shape[1]
            direct = read_image(reef_source / reef.files[i], size)
            far[size].append(np.abs(task.images[i].astype(int) - direct).mean())
    assert np.mean(far[64]) < 2.0  # what JPEG costs at quality 95
    assert np.mean(far[32]) < 1.0  # what it and the way over 64 px cost


def test_stored_as_good_jpeg_and_small(records):
    for rows in records[1].values():
        for row in rows[::50]:
            with Image.open(io.BytesIO(row["image"])) as image:
                assert image.format == "JPEG" and image.size == (64, 64)
                assert all(factors[1:3] == (1, 1) for factors in image.layer)  # 4:4:4
                assert sum(image.quantization[0]) <= 390  # quality 95; 92 would be 600
    assert sum(path.stat().st_size for path in (ASSETS / "reef").rglob("*")) < 11e6


def test_the_notice_ships_with_the_data():
    notice = (ASSETS / "reef" / "NOTICE.txt").read_text()
    for part in ("Fish4Knowledge", "Permission is granted", "original data are available from", "resized to 64x64"):
        assert part in notice


def test_read_quietly_without_tensorflow_or_network():
    code = """
import importlib.machinery, socket, sys
find = importlib.machinery.PathFinder.find_spec
def hide(name, *args): return None if name.split(".")[0] == "tensorflow" else find(name, *args)
importlib.machinery.PathFinder.find_spec = hide  # as if it were not installed
def refuse(*args): raise AssertionError("network")
socket.socket.connect = refuse
from fishnet.data import load_task
assert "tensorflow_datasets" not in sys.modules  # importing the package stays cheap
print(load_task("reef", 64).fingerprint)
from fishnet.data.reef import ASSETS, quiet_tfds
with quiet_tfds() as tfds:
    source = tfds.builder_from_directory(ASSETS / "reef" / "1.0.0").as_data_source("test")
    print(len(source), source[0]["image"].shape)
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [FINGERPRINTS[64], "478 (64, 64, 3)"]


def test_the_command_makes_the_dataset(small_source, tmp_path, capsys, reef):
    source, rows = small_source
    (tmp_path / "out" / "reef").mkdir(parents=True)
    (tmp_path / "out" / "reef" / "older").write_text("to be replaced")
    main(source, tmp_path / "out")
    assert "train 59, val 13, test 12 images" in capsys.readouterr().out
    task = load_reef(64, tmp_path / "out")
    assert list(task.files) == [row["file"] for row in rows]
    place = {file: i for i, file in enumerate(reef.files)}
    chosen = [place[file] for file in task.files]
    np.testing.assert_array_equal(task.labels, reef.labels[chosen])
    # The JPEG encoder may differ between versions of its library, the decoder may not.
    assert np.abs(task.images.astype(int) - reef.images[chosen]).mean() < 0.5
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["reef"]
    assert sorted(path.name for path in (tmp_path / "out" / "reef").iterdir()) == ["1.0.0", "NOTICE.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": "Salmo salar"}, "line 3: unknown species"),
        ({"split": "dev"}, "line 3: unknown species or split: .*dev"),
        ({"file": "images/absent.jpg"}, "line 3: no such file: images/absent.jpg"),
        ({"track": ""}, "line 3: needs the columns"),
    ],
)
def test_a_wrong_index_is_refused_and_nothing_is_touched(small_source, tmp_path, change, message):
    source, rows = small_source
    rows[1] = {**rows[1], **change}
    write_index(source, rows)
    with pytest.raises(UserError, match=message):
        build_reef(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_group_in_two_splits_or_a_missing_notice_is_refused(small_source, tmp_path):
    source, rows = small_source
    write_index(source, [*rows, {**rows[0], "split": "test"}])
    with pytest.raises(UserError, match=f"group {rows[0]['group']} is in two splits"):
        build_reef(source, tmp_path / "out")
    write_index(source, rows)
    (source / "NOTICE.txt").unlink()
    with pytest.raises(UserError, match=r"NOTICE.txt is missing"):
        build_reef(source, tmp_path / "out")
    with pytest.raises(UserError, match=r"cannot read .*index.csv"):
        build_reef(tmp_path / "absent", tmp_path / "out")


def test_a_damaged_photograph_stops_the_command(small_source, tmp_path):
    source, rows = small_source
    (source / rows[5]["file"]).write_bytes(b"no image")
    (tmp_path / "out" / "reef").mkdir(parents=True)
    with pytest.raises(UserError, match=Path(rows[5]["file"]).name):
        build_reef(source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["reef"]


def test_a_damaged_or_missing_dataset_is_one_clear_line(tmp_path):
    shutil.copytree(ASSETS / "reef", tmp_path / "reef")
    path = next((tmp_path / "reef" / "1.0.0").glob("*val.array_record*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"reef dataset in .* is missing or damaged") as caught:
        load_reef(32, tmp_path)
    assert "\n" not in str(caught.value)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="missing or damaged"):
        load_reef(32, tmp_path)
    shutil.rmtree(tmp_path / "reef")
    with pytest.raises(UserError, match="missing or damaged") as caught:
        load_reef(32, tmp_path)
    assert "\n" not in str(caught.value)
