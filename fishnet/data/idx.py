"""IDX format of MNIST: reader with all checks, and writer.

A file is two zero bytes, a type code (8 = uint8), the number of dimensions, each dimension as a big-endian 32-bit
integer, then the values in C order; often gzipped. Format: http://yann.lecun.com/exdb/mnist/ (end of the page).
"""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fishnet.errors import UserError
from fishnet.host.files import read_regular_file

MAX_BYTES = 2**30  # of a file; the largest of MNIST has 47 million

_UINT8 = 8


def read_idx(path: Path, sha256: str | None = None) -> UInt8[np.ndarray, "..."]:
    """Reads the array in an IDX file of uint8, gzipped or not (recognized by content).

    Args:
        path: the file.
        sha256: checksum that the file as it lies on disk must have, in hexadecimal; None skips the check.

    Returns:
        uint8 array of the shape that the file states.

    Raises:
        UserError: the file is missing or unreadable, has another checksum, or is no complete IDX file of uint8; the
            message names the file and what is wrong.
    """
    data = read_checked(path, sha256)
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} is corrupt: {error}") from error
    return _parse(path, data)


def read_checked(path: Path, sha256: str | None = None) -> bytes:
    """Reads a file and checks its SHA-256; UserError, naming the file, if it cannot be read or differs."""
    try:
        data = read_regular_file(path, MAX_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, found):
        raise UserError(
            f"{path} is corrupt or another file: its SHA-256 checksum is {found[:16]}... ({len(data):,} bytes), "
            f"it should be {sha256[:16]}...; delete it to have it fetched again, or replace it"
        )
    return data


def encode_idx(array: np.ndarray) -> bytes:
    """Encodes a uint8 array as gzipped IDX; equal arrays give equal bytes (no time or name is stored)."""
    if array.dtype != np.uint8:
        raise ValueError(f"IDX is written for uint8 only, not {array.dtype}")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, _UINT8, array.ndim, *array.shape)
    return gzip.compress(header + np.ascontiguousarray(array).tobytes(), compresslevel=6, mtime=0)


def _parse(path: Path, data: bytes) -> np.ndarray:
    if len(data) < 4 or data[:2] != b"\0\0":
        raise UserError(f"{path} is not an IDX file: it begins with {data[:4]!r}")
    if data[2] != _UINT8:
        raise UserError(f"{path} holds IDX type 0x{data[2]:02x}; only uint8 (0x08) is read")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise UserError(f"{path} is corrupt: it ends within its header")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    size = int(np.prod(shape, dtype=object))
    if len(data) - start != size:
        raise UserError(f"{path} is corrupt: {len(data) - start:,} values, its header {shape} promises {size:,}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
