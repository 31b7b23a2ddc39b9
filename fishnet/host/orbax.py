"""Adaptation to Orbax and TensorStore: paths that they can take, errors in one line, and no complaints afterwards."""

import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fishnet.errors import first_line

LATE = 0.2  # seconds in which reads and writes that were under way come to their end


def silence_logs() -> None:
    """Silences the logs of Orbax: what matters comes as an error."""
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Path to a folder that Orbax and TensorStore can take: its own, or that of a link to it.

    They read [ ] as a pattern, \\ as an escape and gs: as an address, and refuse bytes that are no UTF-8.
    """
    if re.fullmatch(r"[\w /.,+=@%#~-]*", str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="fishnet-") as place:
        link = Path(place) / "checkpoints"
        link.symlink_to(folder, target_is_directory=True)
        yield link


@contextmanager
def without_late_complaints() -> Iterator[None]:
    """Keeps reads and writes that were under way when another one failed from printing that their loop is gone."""
    usual = sys.unraisablehook

    def hook(complaint: Any) -> None:
        if "Event loop is closed" not in str(complaint.exc_value):
            usual(complaint)

    sys.unraisablehook = hook
    try:
        yield
    except Exception:
        time.sleep(LATE)
        raise
    finally:
        sys.unraisablehook = usual


def error_line(error: BaseException) -> str:
    """Text of the operating system, or the first line of an error's text, or its type."""
    # TensorStore puts it at the end of a long line.
    if found := re.search(r"(?:OS error |os_error_code=')(\d+)", str(error)):
        return os.strerror(int(found[1]))
    return first_line(error)[:300]
