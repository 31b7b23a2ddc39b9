"""Folders, however they are typed: one task, one sweep, one cache; and users without a home folder."""

import json
import os
import pwd
from pathlib import Path

import jax
import pytest

from fishnet.cli.compilation_cache import enable_cache
from fishnet.data import load_task
from fishnet.data.corruption_spec import folder_task, normalize_task, split_name, task_folder
from fishnet.data.folder import load_folder
from fishnet.data.mnist import load_mnist
from fishnet.errors import UsageError, UserError
from fishnet.host.cache import cache_dir, no_cache_note
from fishnet.host.json_cache import JsonCache
from fishnet.host.paths import expand_home, home_folder, is_within, resolve_path
from fishnet.sweep import DataOptions, Recipe, Sweep
from fishnet.sweep.run.inputs import describe
from fishnet.sweep.spec.trunk import parse_trunk
from fishnet.sweep.spec.validation import check_out


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home folder and working folder with `photos` in it, and a link to that."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "results").mkdir()
    (tmp_path / "photos" / "cat").symlink_to(tmp_path / "results")
    (tmp_path / "photos" / "gone").symlink_to("nowhere")
    (tmp_path / "photos" / "self").symlink_to("self")
    return tmp_path


WAYS = ["{0}/photos", "{0}/photos/", "{0}/./photos", "{0}//photos//", "photos", "./photos/", "~/photos", "link",
        "{0}/elsewhere/../photos", "elsewhere/up", "elsewhere/up/../link/."]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_is_one_sweep_however_it_is_typed(place, way):
    typed, photos = way.format(place), f"{place}/photos"
    assert resolve_path(typed) == os.path.realpath(Path(typed).expanduser()) == photos
    for behind in ("", "?train=0.5&noise=0.1"):
        one, other = f"folder:{photos}{behind}", f"folder:{typed}{behind}"
        assert normalize_task(other) == one
        pairs = [(Sweep(Recipe(task=name)), Sweep(axes={"task": [name, "reef"]})) for name in (one, other)]
        for a, b in zip(*pairs, strict=True):
            assert a.hash() == b.hash()
            assert json.dumps(describe(a, DataOptions())) == json.dumps(describe(b, DataOptions()))
    with pytest.raises(UsageError, match="twice"):
        Sweep(axes={"task": [f"folder:{photos}", f"folder:{typed}/"]})
    trunks = [Sweep(Recipe(trunk=f"{folder}:{runs}")) for folder, runs in ((photos, "3"), (typed, "03-3"))]
    assert trunks[0].hash() == trunks[1].hash()
    assert parse_trunk(trunks[1].recipe.trunk) == (Path(photos), 3)


def test_other_tasks_and_folders_stay_others(place):
    for name in ("reef", "mnist-mini?train=0.5", "synthetic", "folder:", "folder", "none"):
        assert normalize_task(name) == name
    names = [f"folder:{place}/{part}" for part in ("a", "A", "a b", "a/b", "a?b", "a?train=0.5", "a?train=0.5/", "a,b")]
    assert len({normalize_task(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["a?train=1", "?", "a?b=c", "only=a?only=a+b", "b?train=0.5&few=x:2", " spaces "])
def test_a_folder_may_be_called_like_modifiers(place, photos, name):
    root = photos({"cat": 4, "dog": 4}, root=place / name)
    task = folder_task(root)
    assert resolve_path(task_folder(task)) == str(root)
    assert split_name(task)[1] is None
    assert normalize_task(task) == task
    assert load_task(task).name == load_folder(name).name == task
    planted = normalize_task(f"folder:{name}/?few=cat:1")
    assert split_name(planted) == (f"folder:{root}", "few=cat:1")
    assert load_task(planted).name == planted


def test_two_ways_share_the_cache(photos, own_cache, monkeypatch):
    root = photos({"cat": 4, "dog": 4})
    monkeypatch.chdir(root.parent)
    (root.parent / "link").symlink_to(root)
    tasks = [load_task(f"folder:{path}") for path in (root, "photos/", "link/../photos", "link")]
    assert len({task.fingerprint for task in tasks}) == len({task.name for task in tasks}) == 1
    assert len(list((own_cache / "folder").iterdir())) == 1


@pytest.mark.parametrize("text", ["runs/a", ":0", "runs/a:x", "runs/a:1-", "runs/a:3-1", f"a:{'9' * 5000}", "a:²"])
def test_what_is_no_trunk_is_refused(text):
    with pytest.raises(UsageError, match="is not FOLDER:RUN"):
        parse_trunk(Sweep(Recipe(trunk=text)).recipe.trunk)


OUTS = [
    *[(name, True) for name in ("photos", "photos/runs", "photos/cat/a", ".", "link/runs", "elsewhere/up/runs")],
    *[(name, True) for name in ("results", "results/a")],  # which photos/cat is a link to
    *[(name, False) for name in ("runs", "results2", "photos and more", "elsewhere", "self", "nowhere2")],
]


@pytest.mark.parametrize(("out", "refused"), OUTS)
def test_no_output_among_the_photographs(place, out, refused):
    sweeps = [Sweep(Recipe(task="folder:link")), Sweep(axes={"task": ["reef", "folder:photos?train=0.5"]})]
    for sweep in sweeps:
        if refused:
            with pytest.raises(UsageError, match="within the"):
                check_out(sweep, out)
        else:
            check_out(sweep, out)
    check_out(Sweep(), out)


def test_within_is_a_matter_of_folders_not_of_letters(place):
    assert is_within("photos", "photos")
    assert is_within("link/x/y", "photos")
    assert not is_within("photos2", "photos")
    assert not is_within("photos/..", "photos")
    assert is_within("photos", "/")


@pytest.fixture(params=["unset", "empty", "relative"])
def homeless(request, monkeypatch):
    """A user id that the system does not know, without HOME and XDG_CACHE_HOME."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if request.param != "unset":
        monkeypatch.setenv("HOME", {"empty": "", "relative": "here"}[request.param])


def test_without_a_home_folder_nothing_is_kept_and_that_is_said(homeless, photos):
    assert home_folder() is None
    assert cache_dir() is None
    task = load_folder(photos({"cat": 4, "dog": 4}))
    assert task.notes == (no_cache_note("decoded photographs"),)
    assert len(task.images) == 8
    kept = JsonCache("x.json")
    kept.keep("a", {"b": 1})
    assert kept.find("a") is None
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert enable_cache() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    with pytest.raises(UserError, match=r"no home folder: name the folder .* or use the embedded mnist-mini"):
        load_mnist()


def test_a_tilde_without_a_home_folder_is_told(homeless):
    for path in ("~", "~/photos"):
        with pytest.raises(UserError, match="no home folder is known for ~"):
            load_task(f"folder:{path}")
        with pytest.raises(UserError, match="no home folder is known for ~"):
            Sweep(Recipe(task=f"folder:{path}"))


def test_a_tilde_of_nobody_is_told(place):
    with pytest.raises(UserError, match="no home folder is known for ~no_such_user"):
        expand_home("~no_such_user/photos")
    assert expand_home("~/x") == place / "x"
    assert expand_home("a/~") == Path("a/~")


def test_paths_that_are_none(place, monkeypatch):
    with pytest.raises(UserError, match="is no path"):
        resolve_path("a\0b")
    (place / "gone").mkdir()
    monkeypatch.chdir(place / "gone")
    (place / "gone").rmdir()
    with pytest.raises(UserError, match="is no path"):
        resolve_path("photos")
    monkeypatch.chdir(place)  # for the fixture, which goes back from here
