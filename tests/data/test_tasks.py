import time

import pytest

from fishnet.data import TASKS, check_task, default_image_size, load_task
from fishnet.data.tasks import Source
from fishnet.errors import UsageError, UserError


@pytest.mark.parametrize(
    ("name", "size"), [("reef", 32), ("mnist", 28), ("mnist-mini", 28), ("synthetic", 16), ("folder:/any/where", 32)]
)
def test_default_sizes(name, size):
    assert default_image_size(name) == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ref"}, "unknown task 'ref': valid are reef, mnist, mnist-mini, folder:PATH, synthetic; .*'reef'"),
        ({"name": "mnist_mini"}, "did you mean 'mnist-mini'"),
        ({"name": "folder"}, "unknown task 'folder': .* did you mean 'folder:PATH'"),
        ({"name": "folder:"}, "write folder:PATH"),
        ({"name": ""}, "unknown task ''"),
        ({"name": "reef", "image_size": 48}, "image size 48 is not available for reef: valid are 32, 64"),
        ({"name": "mnist", "image_size": 32}, "image size 32 is not available for mnist: valid are 28"),
        ({"name": "synthetic", "image_size": 65}, "valid are 8 to 64"),
        ({"name": "folder:x", "image_size": 0}, "image size 0 is not available for folder:x: valid are 8 to 512"),
        ({"name": "reef", "group_regex": "(a)"}, "group regex .'.a.'. applies to folder:PATH only"),
        ({"name": "folder:x", "group_regex": "("}, "not a regular expression"),
    ],
)
def test_bad_requests_are_usage_errors(arguments, message):
    for attempt in (check_task, load_task):
        with pytest.raises(UsageError, match=message) as caught:
            attempt(**arguments)
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    if set(arguments) == {"name"} and arguments["name"] != "folder:":
        with pytest.raises(UsageError, match=message):
            default_image_size(**arguments)


def test_values_of_the_wrong_type_are_usage_errors():
    for size in (32.5, "32", True):
        with pytest.raises(UsageError, match=f"image size {size!r} is not a whole number of pixels"):
            check_task("reef", size)
    with pytest.raises(UsageError, match="unknown task 'None'"):
        check_task(None)


def test_missing_folders_are_user_errors(tmp_path):
    for arguments in (
        {"name": "mnist", "data_dir": tmp_path / "absent"},
        {"name": "reef", "data_dir": tmp_path / "absent"},
        {"name": f"folder:{tmp_path / 'absent'}"},
    ):
        with pytest.raises(UserError, match="absent") as caught:
            check_task(**arguments)
        assert caught.value.exit_code == 1


def test_checking_decodes_nothing_and_is_quick(photos, monkeypatch):
    root = photos({"cat": 3, "dog": 3})
    monkeypatch.setattr("PIL.Image.open", None)
    start = time.monotonic()
    for name in ("reef", "mnist-mini", "synthetic", f"folder:{root}"):
        check_task(name)
    assert time.monotonic() - start < 2


def test_a_task_of_ones_own():
    made = load_task("synthetic", 8)
    TASKS["mine"] = Source(lambda request: made, sizes=(8,), default_size=8)
    try:
        assert load_task("mine") is made and default_image_size("mine") == 8
        with pytest.raises(UsageError, match="valid are 8"):
            check_task("mine", 16)
    finally:
        del TASKS["mine"]
