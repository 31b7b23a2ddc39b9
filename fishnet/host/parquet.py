"""Parquet files that say what they belong to and how many rows they have, and are checked when they are read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fishnet.errors import UserError, first_line
from fishnet.host.files import read_regular_file, write_whole

KEY = b"fishnet"  # of what a file says of itself, in the metadata of its schema


class BadTable(UserError):
    """Table that is missing, damaged, cut short, or belongs to something else."""


def write_table(path: Path, table: pd.DataFrame, owner: Mapping[str, str]) -> str:
    """Writes a Parquet file, whole or not at all, without the table's index.

    Args:
        path: of the file; its stem is the name of the table.
        table: what is written.
        owner: what it belongs to and a digest of that, such as `{"sweep": spec_hash}`.

    Returns:
        The sha256 of the file.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    about = {**owner, "table": path.stem, "rows": len(table)}
    content = content.replace_schema_metadata((content.schema.metadata or {}) | {KEY: json.dumps(about).encode()})
    buffer = pa.BufferOutputStream()
    pq.write_table(content, buffer, write_page_checksum=True)
    data = buffer.getvalue()
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def read_table(path: Path, owner: Mapping[str, str], sha256: str | None = None) -> pd.DataFrame:
    """Reads a table that `write_table` wrote for the same owner; `sha256`: of the file, None where it is not known.

    Raises:
        BadTable: it is not such a table; in one line.
    """
    data = read_bytes(path, sha256)
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        about = json.loads((table.schema.metadata or {}).get(KEY, b"null"))
        frame = table.to_pandas()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadTable(f"{path} is damaged ({first_line(error)[:200]})") from error
    expected = {**owner, "table": path.stem}
    if not isinstance(about, dict) or any(about.get(name) != value for name, value in expected.items()):
        raise BadTable(f"{path} is not a table of this {' and '.join(owner)}")
    if about.get("rows") != table.num_rows:
        raise BadTable(f"{path} has {table.num_rows:,} rows in place of {about.get('rows')}")
    return frame


def read_bytes(path: Path, sha256: str | None) -> bytes:
    """Reads the bytes of a table's file and compares their sha256, where it is known; raises as `read_table`."""
    try:
        data = read_regular_file(path)
    except FileNotFoundError as error:
        raise BadTable(f"{path} is missing") from error
    except OSError as error:
        raise BadTable(f"{path} cannot be read ({error.strerror or error})") from error
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise BadTable(f"{path} is damaged or belongs to something else (it is not as it was written)")
    return data
