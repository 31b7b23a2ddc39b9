"""Cache folder of the user."""

import os
from pathlib import Path

from fishnet.host.paths import home_folder


def cache_dir() -> Path | None:
    """Cache folder, `$XDG_CACHE_HOME/fishnet` or `~/.cache/fishnet`; it is not created here.

    Returns:
        The folder; None where the variable is unset and this user has no home folder: nothing is cached then, which
        `no_cache_note` says.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG standard has relative ones ignored
        return Path(base) / "fishnet"
    place = home_folder()
    return None if place is None else place / ".cache" / "fishnet"


def no_cache_note(what: str) -> str:
    """Note for the user that something (in the plural) cannot be cached."""
    return f"{what} are not kept for the next time: this user has no home folder (set XDG_CACHE_HOME to a folder)"
