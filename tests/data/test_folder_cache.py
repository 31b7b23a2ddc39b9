import os

import numpy as np
import pytest
from PIL import Image

from fishnet.data import folder_cache
from fishnet.data.folder import load_folder


@pytest.fixture
def decodings(monkeypatch):
    """Counts how often the folder is really decoded."""
    calls = []
    decode = folder_cache.decode
    monkeypatch.setattr(folder_cache, "decode", lambda *args: calls.append(1) or decode(*args))
    return calls


def stored(own_cache):
    return sorted((own_cache / "folder").iterdir())


def test_the_second_time_nothing_is_decoded(photos, own_cache, decodings):
    root = photos({"cat": 5, "dog": 5})
    first = load_folder(root, 16)
    assert load_folder(root, 16).fingerprint == first.fingerprint and len(decodings) == 1
    assert load_folder(root, 16, group_regex="(.)[.]").images.shape == first.images.shape and len(decodings) == 1
    assert load_folder(root, 24).images.shape[1] == 24 and len(decodings) == 2
    assert len(stored(own_cache)) == 2


def test_a_change_of_any_kind_is_noticed(photos, own_cache, decodings):
    root = photos({"cat": 5, "dog": 5})
    file = root / "cat" / "cat_000.png"
    load_folder(root)
    before = file.stat()
    other = (root / "dog" / "dog_000.png").read_bytes()
    file.write_bytes(other + bytes(before.st_size - len(other)) if len(other) < before.st_size else other)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # even if the time of change is put back
    changed = load_folder(root)
    assert len(decodings) == 2 and any("exact duplicate" in note for note in changed.notes)
    file.rename(root / "cat" / "renamed.png")
    assert "cat/renamed.png" in load_folder(root).files and len(decodings) == 3
    file.with_name("renamed.png").unlink()
    assert len(load_folder(root).files) == 9 and len(decodings) == 4
    assert len(stored(own_cache)) == 1  # older states are not kept


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage", "empty", "other layout"])
def test_a_damaged_cache_is_made_anew(photos, own_cache, decodings, damage):
    root = photos({"cat": 5, "dog": 5})
    first = load_folder(root)
    (path,) = stored(own_cache)
    data = path.read_bytes()
    if damage == "other layout":
        with np.load(path) as content:
            key = content["key"]
        np.savez(path, key=key, images=np.zeros(3))
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"cut": data[:middle], "flipped": flipped, "garbage": b"garbage", "empty": b""}[damage])
    assert load_folder(root).fingerprint == first.fingerprint and len(decodings) == 2
    assert load_folder(root).fingerprint == first.fingerprint and len(decodings) == 2


def test_without_a_place_for_the_cache_it_goes_on_and_says_so(photos, tmp_path, monkeypatch):
    (tmp_path / "in_the_way").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "in_the_way"))
    (note,) = load_folder(photos({"cat": 4, "dog": 4})).notes
    assert note.startswith("the decoded images could not be kept in ")


def test_order_and_result_do_not_depend_on_the_number_of_threads(photos, tmp_path, monkeypatch):
    root = photos({"cat": 12, "dog": 12})
    for i in range(4):  # large ones, which take longer, among the small
        Image.new("RGB", (1_500, 1_500), (40 * i, 0, 0)).save(root / "cat" / f"a{i}.png")
    fingerprints = set()
    for cores in (1, 2, 8):
        monkeypatch.setattr(folder_cache.os, "cpu_count", lambda cores=cores: cores)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(cores)))
        fingerprints.add(load_folder(root).fingerprint)
    assert len(fingerprints) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_in_place_of_the_cache_does_not_block(photos, own_cache, decodings):
    root = photos({"cat": 6, "dog": 6})
    first = load_folder(root)
    (kept,) = (own_cache / "folder").iterdir()
    kept.unlink()
    os.mkfifo(kept)
    assert load_folder(root).fingerprint == first.fingerprint and kept.is_file()
