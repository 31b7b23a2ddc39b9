"""Entries that programs keep for later ones of the same user, in a JSON file of the user's cache."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fishnet.errors import UserError
from fishnet.host.cache import cache_dir
from fishnet.host.files import read_regular_file, write_whole

MOST = 1000  # entries of a file; the oldest go first


class JsonCache:
    """File of entries, each a JSON object under a key, with the time it was written as `date`.

    It is only ever a help: one that is missing, damaged or not writable is an empty one, and so is an entry that lacks
    a field or holds something else in it.

    Args:
        name: of the file in the cache.
        fields: of every entry -> their types, or the fields of an object inside; entries may have more.
    """

    def __init__(self, name: str, fields: Mapping[str, Any] | None = None) -> None:
        self.name, self.fields = name, {"date": str, **(fields or {})}

    def entries(self) -> dict[str, dict[str, Any]]:
        """Entries by key, the latest last."""
        with suppress(OSError, ValueError, RecursionError):
            found = json.loads(read_regular_file(path).decode()) if (path := self._path()) else None
            if isinstance(found, dict):
                return {key: entry for key, entry in found.items() if _holds(entry, self.fields)}
        return {}

    def find(self, key: str) -> dict[str, Any] | None:
        """Finds an entry; None where there is none."""
        return self.entries().get(key)

    def keep(self, key: str, entry: Mapping[str, Any]) -> None:
        """Writes an entry, in place of an older one of its key."""
        entries = self.entries()
        entries.pop(key, None)
        entries[key] = {**entry, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        text = json.dumps(dict(list(entries.items())[-MOST:]), indent=1) + "\n"
        if (path := self._path()) is not None:
            with suppress(UserError):
                write_whole(path, text.encode(), make_folder=True)

    def _path(self) -> Path | None:
        place = cache_dir()
        return None if place is None else place / "measured" / self.name


def _holds(entry: Any, fields: Mapping[str, Any]) -> bool:
    """Whether an entry is an object with these fields, of these types and, where they are numbers, finite."""

    def fits(value: Any, kind: Any) -> bool:
        if isinstance(kind, Mapping):
            return _holds(value, kind)
        if kind is float:
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))

    return isinstance(entry, dict) and all(name in entry and fits(entry[name], fields[name]) for name in fields)
