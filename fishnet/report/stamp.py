"""Integrity stamp of report.html: digests of the page, its figures and its `sweep.json`."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fishnet.sweep.store.folder import DIGEST, read_sweep_file

PAGE = "report.html"
BEGIN, END = b"<!-- fishnet ", b" -->\n"
KINDS = ("svg", "png")  # of the files of a figure


def stamp(out: Path, sweep: Mapping[str, Any], text: bytes, figures: Iterable[str]) -> bytes:
    """Makes the comment at the end of a page: the digests of the page, of its figures and of what it was made from.

    Args:
        out: the folder.
        sweep: its `sweep.json`, which has the digests of the tables.
        text: the page without the comment.
        figures: stems of the files in figures/ that belong to it.
    """
    folder = out / "figures"
    files = {name: [_digest((folder / f"{name}.{kind}").read_bytes()) for kind in KINDS] for name in figures}
    return BEGIN + json.dumps({"sweep": sweep[DIGEST], "page": _digest(text), "figures": files}).encode() + END


def is_current(out: str | Path) -> bool:
    """Whether page and figures are there, as they were written, and from what the folder holds now."""
    out = Path(out)
    page, sweep = out / PAGE, read_sweep_file(out)
    if sweep is None or not page.is_file():
        return False
    text, begin, rest = page.read_bytes().rpartition(BEGIN)
    try:
        said = json.loads(rest.removesuffix(END))
        return begin + rest == stamp(out, sweep, text, said["figures"])
    except (OSError, ValueError, LookupError, TypeError):  # a figure is gone, or the page was not written so
        return False


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
