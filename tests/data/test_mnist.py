import gzip
import hashlib
import shutil

import numpy as np
import pytest

from fishnet.data import load_task
from fishnet.data.mnist import SHA256, STEMS, check_mnist, load_mnist
from fishnet.data.mnist_mini import ASSETS, SIZES, load_mnist_mini, main
from fishnet.errors import UserError

GZ = [f"{stem}.gz" for stem in STEMS]


@pytest.fixture(scope="module")
def mnist(mnist_source):
    return load_mnist(mnist_source)


@pytest.fixture
def copy(mnist_source, tmp_path):
    """A writable copy of the four files."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for name in GZ:
        shutil.copyfile(mnist_source / name, folder / name)
    return folder


def counts(task):
    return {name: np.bincount(task.labels[rows]) for name, rows in task.splits.items()}


def test_the_official_set(mnist):
    assert mnist.images.shape == (70_000, 28, 28, 1) and mnist.classes == tuple("0123456789")
    assert {name: len(rows) for name, rows in mnist.splits.items()} == {"train": 55_000, "val": 5_000, "test": 10_000}
    np.testing.assert_array_equal(mnist.splits["test"], np.arange(60_000, 70_000))
    np.testing.assert_allclose(mnist.mean / 255, 0.1307, atol=2e-4)  # the figures everybody uses
    np.testing.assert_allclose(mnist.std / 255, 0.3081, atol=2e-4)
    assert mnist.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert "CC BY-SA 3.0" in mnist.credit


def test_validation_is_stratified_and_pinned(mnist):
    found = counts(mnist)
    share = (found["train"] + found["val"]) / 12
    assert np.abs(found["val"] - share).max() <= 1
    assert mnist.fingerprint == "26bdc3281d3961afa665c5256ac09eade1e3bbd83db33a4b98c6a49a87edfab4"


@pytest.mark.parametrize("inside", ["", "mnist", "MNIST/raw"])
def test_found_through_the_environment(mnist_source, tmp_path, monkeypatch, inside):
    (tmp_path / inside).parent.mkdir(parents=True, exist_ok=True)
    if inside:
        (tmp_path / inside).symlink_to(mnist_source)
    monkeypatch.setenv("FISHNET_DATA", str(tmp_path if inside else mnist_source))
    assert len(load_mnist(mirrors=[]).labels) == 70_000


def test_found_in_the_cache_and_fetched_into_it(mnist_source, own_cache, mnist):
    task = load_mnist(mirrors=[mnist_source.as_uri()])
    assert task.fingerprint == mnist.fingerprint
    assert sorted(path.name for path in (own_cache / "mnist").iterdir()) == sorted(GZ)
    (own_cache / "mnist" / GZ[0]).unlink()
    assert load_mnist(mirrors=[mnist_source.as_uri() + "/"]).fingerprint == mnist.fingerprint
    check_mnist()
    assert load_mnist(mirrors=[]).fingerprint == mnist.fingerprint


def test_unpacked_files_are_read_too(copy, mnist):
    for name in GZ:
        (copy / name.removesuffix(".gz")).write_bytes(gzip.decompress((copy / name).read_bytes()))
        (copy / name).unlink()
    assert load_task("mnist", data_dir=copy).fingerprint == mnist.fingerprint


def test_corrupt_and_missing_files_are_named(copy):
    for name in GZ:
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[:2_000] + bytes([data[2_000] ^ 1]) + data[2_001:])
        with pytest.raises(UserError, match=f"{name} is corrupt or another file: its SHA-256 checksum"):
            load_mnist(copy)
        (copy / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(UserError, match=f"{name} is corrupt"):
            check_mnist(copy)
        (copy / name).unlink()
        with pytest.raises(UserError, match=f"lacks {name}; put the file there"):
            check_mnist(copy)
        (copy / name).write_bytes(data)
    check_mnist(copy)


def test_a_folder_that_was_named_must_hold_the_files(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=f"{tmp_path} lacks train-images-idx3-ubyte.gz, "):
        load_mnist(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        load_mnist(tmp_path / "absent")
    (tmp_path / GZ[1]).write_bytes(b"")
    monkeypatch.setenv("FISHNET_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"lacks train-images-idx3-ubyte.gz, t10k-images"):
        load_mnist()


def test_without_a_network_the_message_says_what_to_do(own_cache, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("FISHNET_DATA", "/no/such/folder")
    check_mnist()  # nothing local: nothing to check, and nothing is fetched
    with pytest.raises(UserError) as caught:
        load_mnist(mirrors=["http://127.0.0.1:9/mnist/", "file:///nowhere/"])
    message = str(caught.value)
    for part in (
        *GZ, "http://127.0.0.1:9/mnist/train-images-idx3-ubyte.gz", "--data-dir", "$FISHNET_DATA", "mnist-mini",
        str(own_cache / "mnist"), "/no/such/folder",
    ):  # fmt: skip
        assert part in message
    assert "\n" not in message and caught.value.exit_code == 1


def test_checksums_are_of_the_official_files(mnist_source):
    lines = (mnist_source / "NOTICE.txt").read_text().splitlines()[-4:]
    published = {name: md5 for md5, name in map(str.split, lines)}
    for name in GZ:
        data = (mnist_source / name).read_bytes()
        assert hashlib.md5(data).hexdigest() == published[name]
        assert hashlib.sha256(data).hexdigest() == SHA256[name]
        assert hashlib.sha256(gzip.decompress(data)).hexdigest() == SHA256[name.removesuffix(".gz")]


def test_mini_is_embedded_small_and_pinned():
    task = load_task("mnist-mini")
    assert task.images.shape == (8_000, 28, 28, 1)
    assert {name: len(rows) for name, rows in task.splits.items()} == SIZES
    assert task.fingerprint == "514ca0e080fef6db4931c66a0ab3d286cd911df5f34f9e6d5fe6b7d36d12ef77"
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 2.5e6
    assert "CC BY-SA 3.0" in (ASSETS / "NOTICE.txt").read_text()


def test_mini_is_a_stratified_subset_split_by_split(mnist):
    mini = load_mnist_mini()
    for name, rows in mini.splits.items():
        whole = {(mnist.images[i].tobytes(), int(mnist.labels[i])) for i in mnist.splits[name]}
        assert all((mini.images[i].tobytes(), int(mini.labels[i])) in whole for i in rows)
        share = counts(mnist)[name] * len(rows) / len(mnist.splits[name])
        assert np.abs(counts(mini)[name] - share).max() <= 1


def test_the_command_makes_the_embedded_files(mnist_source, tmp_path, capsys):
    main(mnist_source, tmp_path)
    assert "8,000 images" in capsys.readouterr().out
    assert load_mnist_mini(tmp_path).fingerprint == load_mnist_mini().fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in ASSETS.iterdir())


def test_a_damaged_embedded_file_is_named(tmp_path):
    shutil.copytree(ASSETS, tmp_path / "mini")
    file = tmp_path / "mini" / "val-images-idx3-ubyte.gz"
    data = file.read_bytes()
    file.write_bytes(data[:5_000] + b"\0\0\0\0" + data[5_004:])
    with pytest.raises(UserError, match=r"val-images-idx3-ubyte.gz is corrupt"):
        load_mnist_mini(tmp_path / "mini")
    file.unlink()
    with pytest.raises(UserError, match=r"cannot read .*val-images-idx3-ubyte.gz"):
        load_mnist_mini(tmp_path / "mini")
