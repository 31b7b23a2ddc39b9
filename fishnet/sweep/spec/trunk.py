"""Reads the recipe field `trunk`: the earlier runs with whose backbones a run begins."""

import re
from pathlib import Path

from fishnet.errors import UsageError
from fishnet.host.paths import resolve_path

TRUNK = re.compile(r"(.+):(\d{1,9})(?:-(\d{1,9}))?", re.DOTALL)  # FOLDER:RUN, or FOLDER:FIRST-LAST


def normal_trunk(text: str) -> str:
    """A `trunk` in the one form that it has however its folder was typed; what is none is left to be refused."""
    match = TRUNK.fullmatch(text)
    if match is None:
        return text
    folder, first, last = match.groups()
    runs = f"{int(first)}" if last is None or int(last) == int(first) else f"{int(first)}-{int(last)}"
    return f"{resolve_path(folder)}:{runs}"


def parse_trunk(text: str, seed: int = 0) -> tuple[Path, int]:
    """The folder and the run that a `trunk` names: of FOLDER:FIRST-LAST run FIRST + seed, from FIRST again after LAST.

    Raises:
        UsageError: it is not of that form.
    """
    match = TRUNK.fullmatch(text)
    folder, first, last = match.groups() if match else ("", "0", None)
    if not folder or int(last or first) < int(first):
        raise UsageError(f"trunk: {text!r} is not FOLDER:RUN, as in runs/a:0, or FOLDER:FIRST-LAST")
    return Path(folder), int(first) + seed % (int(last or first) - int(first) + 1)
