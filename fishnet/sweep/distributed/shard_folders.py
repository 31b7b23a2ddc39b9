"""Folders of shards: who is at work in them, which are finished, and what may be done by one process at a time."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from fishnet.host.files import write_whole
from fishnet.host.folder_lock import InUse, wait_for_lock
from fishnet.host.interrupt import Interrupt
from fishnet.host.names import with_flag
from fishnet.sweep.distributed.shard import Shard
from fishnet.sweep.store.checkpoint_store import CHECKPOINTS, OLD_SHARDS, SHARDS, parts_in
from fishnet.sweep.store.folder import SWEEP_FILE, locked

FINISHED_FILE = "finished.json"  # of a shard: the spec hash of the sweep whose runs it has trained
LOOK_SECONDS = 2.0
AGAIN = "nothing is lost: the same command goes on from here"


@contextmanager
def shard_lock(out: Path, shard: Shard, interrupt: Interrupt) -> Iterator[None]:
    """Holds the lock of what a process writes to: the folder of its shard, or the whole output folder.

    Raises:
        InUse: another process holds it, or a process trains a shard of the sweep that is to be trained whole.
    """
    # Others hold the lock of a shard for a moment when they look whether anybody does.
    seconds = 0.0 if shard.whole else LOOK_SECONDS
    with wait_for_lock(shard.folder(out), SWEEP_FILE, seconds, partial(interrupt.check, AGAIN)):
        if shard.whole:
            check_idle(out, allowed=[])
        yield


@contextmanager
def one_at_a_time(out: Path, shard: Shard, interrupt: Interrupt) -> Iterator[None]:
    """Waits for its turn: shards plan and merge one after the other.

    Raises:
        InUse: a process trains the whole sweep, or shards of another number.
    """
    if shard.whole:  # which holds the lock of the folder
        yield
        return
    with wait_for_lock(out / SHARDS, SWEEP_FILE, math.inf, partial(interrupt.check, AGAIN)):
        with locked(out):  # held for long by a process that trains the whole sweep
            pass
        check_idle(out, allowed=shard.siblings())
        yield


def check_idle(out: Path, allowed: Sequence[Shard]) -> None:
    """Refuses (`InUse`) to begin while a process trains shards but those allowed, whose runs would be trained twice."""
    for folder in sorted(set(parts_in(out)) - {shard.folder(out) for shard in allowed}):
        with locked(folder):
            pass


def mark_finished(folder: Path, spec_hash: str) -> None:
    """Notes that all runs of a shard are trained, tested and saved."""
    write_whole(folder / FINISHED_FILE, (json.dumps({"spec_hash": spec_hash}) + "\n").encode())


def is_finished(folder: Path, spec_hash: str) -> bool:
    """Tells whether all runs of a shard are trained."""
    with suppress(OSError, ValueError):
        return json.loads((folder / FINISHED_FILE).read_text()) == {"spec_hash": spec_hash}
    return False


def missing_shards(out: Path, count: int, spec_hash: str) -> list[str]:
    """Shards out of `count` that are not finished, each in words: `shard 2/4 (at work)`."""
    missing = []
    for shard in Shard(1, count).siblings():
        folder, state = shard.folder(out), "not begun"
        if is_finished(folder, spec_hash):
            continue
        if folder.exists():
            try:
                with locked(folder):
                    state = "stopped"
            except InUse:
                state = "at work"
        missing.append(f"shard {shard} ({state})")
    return missing


def resume_text(missing: list[str], command: str) -> str:
    """Text on shards that are missing for a merge, with the command that trains one; `command` is that of any shard."""
    waiting = [text for text in missing if not text.endswith("(at work)")]
    text = f"not finished: {', '.join(missing)}"
    if not waiting:
        return f"{text}; the last one to finish merges the tables"
    return f"{text}; to go on: {with_flag(command, '--shard', waiting[0].split()[1])}"


def clear_shards(out: Path) -> None:
    """Removes the folders of all shards, which have been merged."""
    for name in (SHARDS, OLD_SHARDS):
        shutil.rmtree(out / name, ignore_errors=True)
    for folder in (out / CHECKPOINTS).glob("cohort_*_*"):  # what earlier starts have left of pretraining
        shutil.rmtree(folder, ignore_errors=True)
