"""The output folder: who may use it, and `sweep.json`, which says what is in it."""

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fishnet.errors import UserError
from fishnet.sweep.recipe import format_value
from fishnet.sweep.records import write_whole

SWEEP_FILE = "sweep.json"
LOCK_FILE = ".lock"


def read_sweep_file(out: Path) -> dict[str, Any] | None:
    """`sweep.json` of an output folder; None where there is none.

    Raises:
        UserError: it is there and cannot be read.
    """
    path = out / SWEEP_FILE
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UserError(f"{out} is not a folder") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def write_sweep_file(out: Path, content: Mapping[str, Any]) -> None:
    """Writes `sweep.json`, whole or not at all."""
    text = json.dumps(content, indent=2, default=str) + "\n"
    write_whole(out / SWEEP_FILE, lambda path: path.write_text(text))


def check_same_sweep(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses to go on in a folder that holds another sweep.

    Args:
        out: the folder.
        found: its `sweep.json`.
        wanted: the same keys for the sweep that was asked for.

    Raises:
        UserError: they differ; the message says in what.
    """
    if found.get("spec_hash") == wanted["spec_hash"]:
        return
    differences = []
    for part in ("recipe", "axes"):
        old, new = found.get(part, {}), wanted[part]
        for name in [*new, *(n for n in old if n not in new)]:
            if old.get(name) != new.get(name):
                label = name if part == "recipe" else f"axis {name}"
                differences.append(f"{label} {_text(old.get(name))} there, {_text(new.get(name))} here")
    if found.get("seeds") != wanted["seeds"]:
        differences.append(f"seeds {_text(found.get('seeds'))} there, {_text(wanted['seeds'])} here")
    differences = differences or ["other data options or functions of the user's own"]
    raise UserError(f"{out} holds another sweep ({'; '.join(differences)}): choose another --out")


@contextmanager
def locked(out: Path):
    """Makes the folder if need be and holds its lock, which the operating system frees when the process dies.

    Raises:
        UserError: the folder cannot be written to, or another live process holds the lock.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / LOCK_FILE, "a+")  # noqa: SIM115 - held open for as long as the lock is held
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{out} is not a folder") from error
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip()
            raise UserError(f"{out} is in use by another process{f' ({holder})' if holder else ''}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def _text(value: Any) -> str:
    if value is None:
        return "absent"
    return ",".join(map(format_value, value)) if isinstance(value, list) else format_value(value)
