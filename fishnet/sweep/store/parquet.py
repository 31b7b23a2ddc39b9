"""Parquet files that say which sweep they belong to and how many rows they have, and are checked when they are read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fishnet.errors import UserError, first_line
from fishnet.host.files import read_regular_file, write_whole

KEY = b"fishnet"  # of what a file says of itself, in the metadata of its schema


class BadTable(UserError):
    """A table that is missing, damaged, cut short, or of another sweep."""


def write_table(path: Path, table: pd.DataFrame, spec_hash: str) -> str:
    """Writes a Parquet file, whole or not at all.

    Args:
        path: of the file; its stem is the name of the table.
        table: what is written, without its index.
        spec_hash: of the sweep that it belongs to.

    Returns:
        The sha256 of the file.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    about = {"sweep": spec_hash, "table": path.stem, "rows": len(table)}
    content = content.replace_schema_metadata((content.schema.metadata or {}) | {KEY: json.dumps(about).encode()})
    buffer = pa.BufferOutputStream()
    pq.write_table(content, buffer, write_page_checksum=True)
    data = buffer.getvalue()
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def read_table(path: Path, spec_hash: str, sha256: str | None = None) -> pd.DataFrame:
    """A table that `write_table` wrote.

    Args:
        path: of the file.
        spec_hash: of the sweep that it has to belong to.
        sha256: of the file; None: it is not known, as the sweep goes on.

    Raises:
        BadTable: it is not such a table; in one line.
    """
    data = _bytes(path, sha256)
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        about = json.loads((table.schema.metadata or {}).get(KEY, b"null"))
        found = {"sweep": spec_hash, "table": path.stem, "rows": table.num_rows}
        frame = table.to_pandas()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadTable(f"{path} is damaged ({first_line(error)[:200]})") from error
    if not isinstance(about, dict) or any(about.get(name) != found[name] for name in ("sweep", "table")):
        raise BadTable(f"{path} is not a table of this sweep")
    if about.get("rows") != found["rows"]:
        raise BadTable(f"{path} has {found['rows']:,} rows in place of {about.get('rows')}")
    return frame


def check_table(path: Path, sha256: str) -> None:
    """Refuses a table that is not as it was written; arguments and errors as `read_table`."""
    _bytes(path, sha256)


def bad_table(out: Path, found: Mapping[str, Any]) -> BadTable | None:
    """What is wrong with the first table of a finished sweep that is not as the sweep wrote it; None: all are.

    Args:
        out: the folder.
        found: its `sweep.json`.
    """
    for name, sha256 in found["tables"].items():
        try:
            check_table(out / f"{name}.parquet", sha256)
        except BadTable as error:
            return error
    return None


def _bytes(path: Path, sha256: str | None) -> Any:
    try:
        data = read_regular_file(path)
    except FileNotFoundError as error:
        raise BadTable(f"{path} is missing") from error
    except OSError as error:
        raise BadTable(f"{path} cannot be read ({error.strerror or error})") from error
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise BadTable(f"{path} is damaged or not of this sweep (it is not as the sweep wrote it)")
    return data
