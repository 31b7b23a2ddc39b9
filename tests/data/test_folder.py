import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from fishnet.data import load_task
from fishnet.data.folder import check_folder, load_folder
from fishnet.data.group_regex import file_groups, parse_group_regex
from fishnet.data.images import prepare_image
from fishnet.errors import UsageError, UserError


def split_of(task):
    return {task.files[i]: name for name, rows in task.splits.items() for i in rows}


def test_a_folder_becomes_a_task(photos):
    root = photos({"cat": 20, "dog": 10, "yak": 3})
    task = load_task(f"folder:{root}", image_size=16)
    assert task.name == f"folder:{root}" and task.classes == ("cat", "dog", "yak") and task.notes == ()
    assert task.images.shape == (33, 16, 16, 3) and np.bincount(task.labels).tolist() == [20, 10, 3]
    assert list(task.files) == sorted(task.files) and task.files[0] == "cat/cat_000.png"
    for file, image in zip(task.files, task.images, strict=True):
        np.testing.assert_array_equal(image, prepare_image(Image.open(root / file), 16))
    found = {name: np.bincount(task.labels[rows], minlength=3).tolist() for name, rows in task.splits.items()}
    assert found == {"train": [14, 8, 1], "val": [3, 1, 1], "test": [3, 1, 1]}


def test_the_split_follows_the_content_not_the_names_or_the_size(photos, tmp_path):
    root = photos({"cat": 20, "dog": 10})
    before = load_folder(root)
    assert split_of(load_folder(root, image_size=8)) == split_of(before)
    for i, file in enumerate(sorted((root / "cat").iterdir(), reverse=True)):
        file.rename(root / "cat" / f"renamed {i}.png")
    moved = shutil.move(root, tmp_path / "elsewhere")
    after = load_folder(moved)
    content = [{before.images[i].tobytes() for i in before.splits[name]} for name in ("train", "val", "test")]
    assert content == [{after.images[i].tobytes() for i in after.splits[name]} for name in ("train", "val", "test")]


def test_faulty_files_are_counted_and_named(photos):
    root = photos({"cat": 8, "dog": 8})
    data = (root / "cat" / "cat_000.png").read_bytes()
    (root / "cat" / "cut.png").write_bytes(data[: len(data) // 2])
    (root / "cat" / "empty.jpg").write_bytes(b"")
    (root / "dog" / "notes.txt").write_text("not a photograph")
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    for i in range(5):
        Image.new("RGB", (4, 40)).save(root / "dog" / f"tiny{i}.png")
    task = load_folder(root)
    assert len(task.images) == 16
    assert task.notes == (
        "skipped 3 of 25 files as unreadable, no image, damaged, or not to be opened: cat/empty.jpg (empty file), "
        "dog/gone.png (no such file), dog/notes.txt (not an image)",
        f"skipped 1 of 25 files as truncated, the end of the file is missing: cat/cut.png ({reason(task, 'cut.png')})",
        "skipped 5 of 25 files as tiny, a side under 8 pixels: dog/tiny0.png (4x40 pixels; the least is 8 a side), "
        "dog/tiny1.png (4x40 pixels; the least is 8 a side), dog/tiny2.png (4x40 pixels; the least is 8 a side) "
        "and 2 more",
    )
    assert load_folder(root).notes == task.notes  # from the cache too
    with pytest.raises(UserError, match=r"9 of 25 files cannot be used: cat/cut.png \(truncated.* and 6 more$"):
        load_folder(root, strict=True)


def reason(task, name):
    return next(note for note in task.notes if name in note).split("(")[1].rstrip(")")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_what_is_no_regular_file_is_counted_and_never_opened(photos):
    root = photos({"cat": 6, "dog": 6})
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "cat" / "link.jpg").symlink_to(root / "cat" / "pipe.jpg")
    (root / "dog" / "zeros.jpg").symlink_to("/dev/zero")
    (root / "dog" / "ring.jpg").symlink_to(root / "dog" / "ring.jpg")
    (root / "dog" / "empty.jpg").touch()
    (root / "dog" / "folder.jpg").mkdir()
    task = load_folder(root)
    assert len(task.images) == 12
    (note,) = task.notes
    assert note.startswith("skipped 5 of 17 files as unreadable") and "and 2 more" in note
    with pytest.raises(UserError, match=r"5 of 17 files cannot be used.*not a regular file"):
        load_folder(root, strict=True)


def test_oversized_files_are_refused_before_decoding(photos, monkeypatch):
    root = photos({"cat": 4, "dog": 4})
    Image.new("RGB", (50, 50)).save(root / "cat" / "huge.png")
    monkeypatch.setattr("fishnet.data.images.MAX_PIXELS", 2_000)
    task = load_folder(root)
    assert task.notes == (
        "skipped 1 of 9 files as oversized, too many pixels or bytes: cat/huge.png (50x50 pixels; the limit is 2,000)",
    )


def test_what_systems_leave_behind_is_passed_over(photos):
    root = photos({"cat": 4, "dog": 4})
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._cat_000.png"):
        (root / "cat" / name).write_bytes(b"x")
        (root / name).write_bytes(b"x")
    for name in (".cache", "__MACOSX", "@eaDir"):
        (root / name).mkdir()
        (root / "dog" / name).mkdir()
        (root / "dog" / name / "x.png").write_bytes(b"x")
    told = "passed over, as hidden or made by the system: .cache, @eaDir, __MACOSX and 3 more"
    assert load_folder(root, strict=True).notes == (told,)
    (root / "readme.md").write_text("beside the classes")
    assert load_folder(root).notes == (told, "not used, as they lie beside the class folders: readme.md")


def test_sub_folders_belong_to_the_class_and_loops_end(photos):
    root = photos({"cat": 4, "dog": 4})
    photos({"deep": 3}, root=root / "cat" / "more")
    (root / "cat" / "more" / "up").symlink_to(root / "cat")
    (root / "cat" / "all").symlink_to(root)
    (root / "dog" / "self").symlink_to(root / "dog" / "self")
    task = load_folder(root)
    assert "cat/more/deep/deep_000.png" in task.files
    cats = [file for file in task.files if file.startswith("cat/")]
    assert len(cats) == len({os.path.realpath(root / file) for file in cats}) == 4 + 3 + 4  # the dogs through the link
    assert any("dog/self" in note for note in task.notes)


def test_groups_stay_in_one_split(tmp_path, noise):
    rng = np.random.RandomState(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for group in range(12):
            for shot in range(4):
                noise(rng).save(tmp_path / name / f"site{group:02d}_{shot}.png")
    task = load_task(f"folder:{tmp_path}", group_regex=r"^(site\d+)_")
    where = {}
    for file, split in split_of(task).items():
        assert where.setdefault(file.split("/")[1][:6], split) == split
    assert task.notes == (r"split by 12 groups from the file names (^(site\d+)_)",)
    assert [len(task.splits[name]) for name in ("train", "val", "test")] == [64, 16, 16]
    (tmp_path / "cat" / "odd.png").write_bytes((tmp_path / "cat" / "site00_0.png").read_bytes())
    assert load_folder(tmp_path, group_regex=r"site\d+|odd").splits["val"].size == 16  # without parentheses: all of it
    with pytest.raises(UserError, match=r"cat/odd.png: the file name does not match the group regex '\^\(site"):
        load_folder(tmp_path, group_regex=r"^(site\d+)_")
    with pytest.raises(UserError, match="no val split can be made; at least one class needs 3 different groups"):
        load_folder(tmp_path, group_regex="(png)$")


@pytest.mark.parametrize("wrong", ["(", "*", "", "x*", "(site)?", "^", "(?P<g>a)|", "a{99999999999}", "(?<=a+)b"])
def test_a_group_regex_that_says_nothing_is_refused(photos, wrong):
    with pytest.raises(UsageError, match="group regex"):
        check_folder(photos({"cat": 1, "dog": 1}), group_regex=wrong)


def test_a_group_is_never_empty():
    with pytest.raises(UserError, match=r"a/x_1.png: the group regex .* finds an empty group"):
        file_groups(parse_group_regex(r"(\d*)_"), ["a/7_1.png", "a/x_1.png"])
    assert file_groups(parse_group_regex(r"g\d+"), ["g9/g10_1.png", "g11.png"]) == ["g10", "g11"]
    assert file_groups(parse_group_regex(r"(?:g)(\d+)"), ["g10_1.png"]) == ["10"]


def test_a_group_regex_that_takes_for_ever_is_ended(monkeypatch):
    monkeypatch.setattr("fishnet.data.group_regex.SECONDS", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(UsageError, match=r"takes more than 0\.2 s"):
        file_groups(parse_group_regex("(a+)+$"), ["a" * 40 + "!.png"])
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_groups_are_found_where_the_system_has_no_alarms(monkeypatch):
    for name in ("setitimer", "getitimer", "ITIMER_REAL", "SIGALRM"):  # not on Windows
        monkeypatch.delattr(signal, name)
    assert file_groups(parse_group_regex(r"g\d+"), ["g9/g10_1.png", "g11.png"]) == ["g10", "g11"]


def test_small_classes_are_told(photos):
    task = load_folder(photos({"cat": 9, "elk": 2, "owl": 1}))
    where = split_of(task)
    assert sorted(where[f"elk/elk_00{i}.png"] for i in range(2)) == ["test", "train"]
    assert where["owl/owl_000.png"] == "train"
    assert task.notes == ("too few images for a val image of elk, owl", "too few images for a test image of owl")


def test_equal_files_stay_together_and_are_reported(photos):
    root = photos({"cat": 20, "dog": 20})
    for i in range(6):
        shutil.copyfile(root / "cat" / "cat_003.png", root / "cat" / f"again{i}.png")
    task = load_folder(root)
    where = split_of(task)
    assert len({where[file] for file in where if "again" in file or file == "cat/cat_003.png"}) == 1
    (note,) = task.notes
    assert note.startswith("6 images are exact duplicates of another in the same split: cat/again0.png = cat/again1")


def test_equal_pictures_in_other_files_are_reported_across_splits(photos):
    root = photos({"cat": 20, "dog": 20})
    for file in sorted((root / "cat").iterdir()):
        Image.open(file).save(root / "cat" / f"{file.stem}.bmp")
    across, same, advice = load_folder(root).notes
    assert "--group-regex" in advice
    assert "images are exact duplicates of another across splits: cat/cat_" in across
    assert "images are exact duplicates of another in the same split: cat/cat_" in same
    assert int(across.split()[0]) + int(same.split()[0]) == 20


def test_a_class_of_copies_is_still_in_every_split(tmp_path):
    for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("RGB", (20, 20), colour).save(tmp_path / name / f"{i}.png")
    task = load_folder(tmp_path)
    assert all(set(task.labels[rows]) == {0, 1} for rows in task.splits.values())
    assert any("exact duplicates of another across splits" in note for note in task.notes)


def test_folders_that_cannot_be_a_task(photos, tmp_path):
    def refused(root, message):
        for attempt in (load_folder, lambda root: load_task(f"folder:{root}")):
            with pytest.raises(UserError, match=message) as caught:
                attempt(root)
            assert "\n" not in str(caught.value)

    refused(tmp_path / "absent", "no such folder")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is not a folder")
    refused(photos({"cat": 3}, root=tmp_path / "one"), "at least 2 sub-folders, one a class; it has only 'cat'")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "it has none")
    refused(
        photos({"train": 3, "Test": 3}, root=tmp_path / "split"),
        "holds splits, .* .Test, train., not .*split/train;",
    )
    root = photos({"cat": 3, "dog": 3}, root=tmp_path / "two")
    (root / "elk").mkdir()
    (root / "elk" / ".DS_Store").write_text("x")
    refused(root, "elk: this class is empty")
    (root / "elk" / "a.png").write_text("no image")
    refused(root, r"class 'elk' has no usable image \(elk/a.png: not an image\)")
    refused(photos({"cat": 2, "dog": 2}, root=tmp_path / "few"), "no val split can be made; .* 3 different images")


def test_a_tilde_is_the_home_folder(photos, tmp_path, monkeypatch):
    photos({"cat": 4, "dog": 4})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_task("folder:~/photos").images) == 8


def test_classes_that_a_reader_takes_for_one_are_told(photos):
    root = photos({"Cod": 3, "cod": 3, "caf\u00e9": 3, "cafe\u0301": 3, "eel": 3})
    task = load_folder(root)
    assert len(set(task.classes)) == 5
    alike = [note for note in task.notes if note.startswith("classes of nearly the same name")]
    assert len(alike) == 2
    assert "'Cod', 'cod'" in alike[0]
    assert r"'cafe\u0301', 'caf\xe9'" in alike[1]
