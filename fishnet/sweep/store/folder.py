"""The output folder: who may use it, and `sweep.json`, which says what is in it."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fishnet.checks.value_types import format_value
from fishnet.errors import UserError, first_line
from fishnet.host import folder_lock
from fishnet.host.files import read_regular_file, write_whole
from fishnet.sweep.spec.random_search import differences as sample_differences

SWEEP_FILE = "sweep.json"
FORMAT = 2  # of sweep.json and the tables: raise it when an earlier version of fishnet could not go on from them
NEEDED = {"recipe": dict, "axes": dict, "seeds": list, "spec_hash": str}  # of sweep.json, to tell sweeps apart
STATEFUL = (
    "a component that changes its own state while it runs, such as a cache, stays the same only with an attribute "
    "__fishnet_version__"
)
ELSEWHERE = "train the sweep again, into another folder"  # whoever reads the folder, with --out or without
DIGEST = "sha256"  # the key under which sweep.json has that of all the rest of it

locked = partial(folder_lock.locked, keep_with=SWEEP_FILE)  # holds the lock of an output folder, or of a shard's


def read_sweep_file(out: Path) -> dict[str, Any] | None:
    """Reads `sweep.json` of an output folder; None where there is none.

    Raises:
        UserError: it is there and cannot be read, is not as fishnet wrote it, or another version of fishnet wrote it.
    """
    path = out / SWEEP_FILE
    try:
        content = json.loads(read_regular_file(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UserError(f"{folder_lock.file_in_the_way(out)} is not a folder") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}): {ELSEWHERE}") from error
    check_content(path, content)
    return content


def check_content(path: Path, content: Any) -> None:
    """Refuses the content of a `sweep.json` that this version of fishnet did not write just so.

    Its digest stands for the types and values of all that is in it, so that nothing which reads it checks them again.
    """
    found = content if isinstance(content, dict) else {}
    version = found.get("format")
    if isinstance(version, int) and version != FORMAT:
        versions = found.get("versions")
        wrote = versions.get("fishnet", "unknown") if isinstance(versions, dict) else "unknown"
        raise UserError(
            f"{path} was written by another version of fishnet ({wrote}, format {version}; this one reads {FORMAT}): "
            f"only that version can read it or go on with it; for this version {ELSEWHERE}"
        )
    if not all(isinstance(found.get(name), kind) for name, kind in NEEDED.items()):
        raise UserError(f"{path} is damaged (it lacks {', '.join(NEEDED)}): {ELSEWHERE}")
    if found.get(DIGEST) != digest(found):
        raise UserError(f"{path} is damaged or was changed by hand (its {DIGEST} differs): {ELSEWHERE}")


def check_recipes(out: Path, content: Mapping[str, Any]) -> None:
    """Refuses a folder whose runs no recipe describes: an experiment has trained them with code of its own."""
    if not content["recipe"]:
        raise UserError(f"{out} holds runs that an experiment trained with code of its own: there is no network in it")


def digest(content: Mapping[str, Any]) -> str:
    """Digest of the JSON of a `sweep.json`, in the order of its keys, without the digest itself."""
    rest = {name: value for name, value in content.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(rest).encode()).hexdigest()


def times(out: Path, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Time at which a sweep began, and seconds since then in which nobody was at work on it, for its `sweep.json`.

    `found` is the `sweep.json` of an earlier session that did not end; None: there was none.
    """
    now = datetime.now(UTC)
    fresh = {"started": now.isoformat(timespec="seconds"), "paused": 0.0, "finished": None}
    if found is None:
        return fresh
    left = 0.0
    for path in out.iterdir():
        # Hidden files are the lock of this session and what another process is writing: gone before it is looked at.
        if not path.name.startswith(".") and path.is_file():
            with suppress(FileNotFoundError):
                left = max(left, path.stat().st_mtime)
    paused = found.get("paused", 0.0) + max(0.0, now.timestamp() - left)
    return fresh | {"started": found.get("started") or fresh["started"], "paused": paused}


def write_sweep_file(out: Path, content: Mapping[str, Any]) -> None:
    """Writes `sweep.json` with its format and digest, whole or not at all; one that says the same is not touched."""
    plain = json.loads(json.dumps({**content, "format": FORMAT}, default=str))
    path, text = out / SWEEP_FILE, json.dumps(plain | {DIGEST: digest(plain)}, indent=2) + "\n"
    if not (path.exists() and path.read_text(encoding="utf-8") == text):
        write_whole(path, text.encode())


def check_same_order(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses to go on with the same axes in another order: checkpoints hold the runs in theirs."""
    if list(found["axes"]) != list(wanted["axes"]):
        raise UserError(f"{out} was begun with the axes in the order {', '.join(found['axes'])}: give them so again")


def check_same_sweep(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses a folder that holds another sweep than the wanted one; says in which of their values they differ."""
    if found.get("spec_hash") == wanted["spec_hash"]:
        return  # it knows no order of the axes
    samples = [content.get("samples") or {} for content in (found, wanted)]
    varied = {*found["axes"], *wanted["axes"], *(name for spec in samples for name in spec.get("space", ()))}
    differences = []
    parts = {"recipe": "", "axes": "axis ", "stopping": "", "data_options": "", "functions": "function "}
    for part, label in parts.items():
        old, new = found.get(part) or {}, wanted.get(part) or {}
        for name in [*new, *(n for n in old if n not in new)]:
            if part == "recipe" and name in varied:
                continue  # the axis or the sample takes its place
            text = _values if part == "axes" else _value
            if old.get(name) != new.get(name):
                differences.append(f"{label}{name} {text(old.get(name))} there, {text(new.get(name))} here")
    both = [content.get("functions") or {} for content in (found, wanted)]
    hint = f"; {STATEFUL}" if any(both[1].get(name, old) != old for name, old in both[0].items()) else ""
    differences += sample_differences(*samples)
    if found["seeds"] != wanted["seeds"]:
        differences.append(f"seeds {_values(found['seeds'])} there, {_values(wanted['seeds'])} here")
    differences = differences or ["a function of the user's own has changed, or a value is written out that was auto"]
    raise UserError(f"{out} holds another sweep ({'; '.join(differences)}): choose another --out{hint}")


def changed_setting(found: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Differences in words between the versions and device of a `sweep.json` as it was begun and as it would be now."""
    pairs = [(name, old, content["versions"].get(name)) for name, old in found.get("versions", {}).items()]
    changes = [f"{name} {old} (now {now})" for name, old, now in pairs if now != old]
    # Lanes do not depend on the number of devices, only on what they are.
    kinds = [re.sub(r" x \d+", "", setting.get("device", "")) for setting in (found, content)]
    return ", ".join(changes + ([f"{kinds[0]} (now {kinds[1]})"] if kinds[0] and kinds[0] != kinds[1] else []))


def _value(value: Any) -> str:
    return "absent" if value is None else format_value(value)


def _values(values: Any) -> str:
    return "absent" if values is None else ",".join(map(format_value, values))
