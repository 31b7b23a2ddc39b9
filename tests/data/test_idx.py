import gzip
import hashlib
import os
import struct

import numpy as np
import pytest

from fishnet.data.idx import encode_idx, read_idx
from fishnet.errors import UserError


@pytest.mark.parametrize("shape", [(5,), (0,), (3, 4), (2, 28, 28)])
@pytest.mark.parametrize("packed", [True, False])
def test_round_trip(tmp_path, shape, packed):
    array = np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8)
    data = encode_idx(array)
    path = tmp_path / "array"
    path.write_bytes(data if packed else gzip.decompress(data))
    np.testing.assert_array_equal(read_idx(path, hashlib.sha256(path.read_bytes()).hexdigest()), array)
    assert encode_idx(array) == data


def test_the_header_is_the_published_one():
    data = gzip.decompress(encode_idx(np.zeros((2, 28, 28), np.uint8)))
    assert data[:16] == struct.pack(">IIII", 0x00000803, 2, 28, 28) and len(data) == 16 + 2 * 28 * 28


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-9], "corrupt"),  # the gzip stream ends early
        (lambda data: data[:30] + b"\xff" + data[31:], "corrupt"),
        (lambda data: b"PNG" + data, "not an IDX file"),
        (lambda data: b"", "not an IDX file"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "783 values, its header .1, 28, 28. promises 784"),
        (lambda data: gzip.compress(gzip.decompress(data) + b"x"), "785 values"),
        (lambda data: gzip.compress(gzip.decompress(data)[:9]), "within its header"),
        (lambda data: gzip.compress(b"\0\0\x0d\x01" + bytes(8)), "0x0d"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    path = tmp_path / "digits.gz"
    path.write_bytes(damage(encode_idx(np.random.RandomState(0).randint(0, 256, (1, 28, 28), dtype=np.uint8))))
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_checksum_and_absence_are_named(tmp_path):
    path = tmp_path / "digits.gz"
    with pytest.raises(UserError, match=r"cannot read .*digits.gz: No such file"):
        read_idx(path)
    path.mkdir()
    with pytest.raises(UserError, match=r"cannot read .*digits.gz: a folder, not a file"):
        read_idx(path)
    path.rmdir()
    path.write_bytes(encode_idx(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match=r"digits.gz is corrupt or another file: its SHA-256 checksum"):
        read_idx(path, "0" * 64)


def test_only_uint8_is_written():
    with pytest.raises(ValueError, match="float64"):
        encode_idx(np.zeros(3))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "digits.gz")
    with pytest.raises(UserError, match=r"cannot read .*digits.gz: not a regular file"):
        read_idx(tmp_path / "digits.gz")
