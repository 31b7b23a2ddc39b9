"""Keeps compiled programs on disk, so that the same sweep starts at once the second time."""

import hashlib
import importlib.util
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fishnet.host.cache import cache_dir, no_cache_note
from fishnet.sweep.run.progress import Display

SECONDS = 0.3  # programs that compile faster are not kept
BYTES = 2**31  # of all programs of one kind of machine; the least recently used go first


def enable_cache() -> Path | None:
    """Turns JAX's persistent compilation cache on, in a folder of this kind of machine and these versions.

    A kept program is the machine code itself: results are those of a fresh one. Who has chosen a cache of their own
    (`JAX_COMPILATION_CACHE_DIR`), or none (`JAX_ENABLE_COMPILATION_CACHE=false`), keeps their choice.

    Returns:
        The folder; None where the choice is the user's, or where there is no place for one.
    """
    import jax

    settings: Any = jax.config  # its options are made at run time, which a type checker does not see
    if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return None
    place = cache_dir()
    if place is None:
        return None
    folder = place / "programs" / machine_key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if importlib.util.find_spec("filelock"):  # what JAX needs to throw old programs away
        jax.config.update("jax_compilation_cache_max_size", BYTES)
    return folder


def note_missing_cache(display: Display) -> None:
    """Notes that programs are not kept, and the next start is as slow, where no cache folder can be written."""
    if cache_dir() is None:
        display.note(no_cache_note("compiled programs"))


def machine_key() -> str:
    """Versions and processor features in a few characters: code for one processor may crash another."""
    features = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass
    of = [version("jax"), version("jaxlib"), platform.machine(), features, os.environ.get("XLA_FLAGS", "")]
    return f"jax-{of[0]}-{hashlib.sha256(' '.join(of).encode()).hexdigest()[:12]}"
