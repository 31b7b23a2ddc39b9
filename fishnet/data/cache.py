"""The user's cache folder."""

import os
from pathlib import Path

from fishnet.data.paths import home_folder


def cache_dir() -> Path | None:
    """`$XDG_CACHE_HOME/fishnet`, or `~/.cache/fishnet` where that variable is unset; not created here.

    Returns:
        The folder; None where the variable is unset and this user has no home folder: whatever is kept there is then
        done without, which `no_cache_note` says.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG standard has relative ones ignored
        return Path(base) / "fishnet"
    place = home_folder()
    return None if place is None else place / ".cache" / "fishnet"


def no_cache_note(what: str) -> str:
    """A note that something, in the plural, cannot be kept."""
    return f"{what} are not kept for the next time: this user has no home folder (set XDG_CACHE_HOME to a folder)"
