"""Folders of shards: who is at work in them, which are finished, and what may be done by one process at a time."""

import json
import math
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fishnet.host.files import write_whole
from fishnet.host.interrupt import Interrupt
from fishnet.sweep.distributed.shard import Shard
from fishnet.sweep.store.checkpoint_store import CHECKPOINTS, OLD_SHARDS, SHARDS, parts_in
from fishnet.sweep.store.folder import InUse, locked

FINISHED_FILE = "finished.json"  # of a shard: the spec hash of the sweep whose runs it has trained
POLL_SECONDS, LOOK_SECONDS = 0.1, 2.0
AGAIN = "nothing is lost: the same command goes on from here"


@contextmanager
def shard_lock(out: Path, shard: Shard, interrupt: Interrupt) -> Iterator[None]:
    """Holds the lock of what a process writes to: the folder of its shard, or the whole output folder.

    Raises:
        InUse: another process holds it, or a process trains a shard of the sweep that is to be trained whole.
    """
    with ExitStack() as stack:
        # Others hold the lock of a shard for a moment when they look whether anybody does.
        wait_for_lock(stack, shard.folder(out), interrupt, seconds=0.0 if shard.whole else LOOK_SECONDS)
        if shard.whole:
            check_idle(out, but=0)
        yield


@contextmanager
def one_at_a_time(out: Path, shard: Shard, interrupt: Interrupt) -> Iterator[None]:
    """Waits for its turn: shards plan and merge one after the other.

    Raises:
        InUse: a process trains the whole sweep, or shards of another number.
    """
    with ExitStack() as stack:
        if not shard.whole:  # which holds the lock of the folder
            wait_for_lock(stack, out / SHARDS, interrupt, seconds=math.inf)
            with locked(out):  # held for long by a process that trains the whole sweep
                pass
            check_idle(out, but=shard.count)
        yield


def wait_for_lock(stack: ExitStack, folder: Path, interrupt: Interrupt, seconds: float) -> None:
    """Takes the lock of a folder for as long as `stack` is open.

    Raises:
        InUse: another process has held it for so many seconds.
    """
    began = time.monotonic()
    while True:
        try:
            stack.enter_context(locked(folder))
            return
        except InUse:
            if time.monotonic() - began >= seconds:
                raise
        interrupt.check(AGAIN)
        time.sleep(POLL_SECONDS)


def check_idle(out: Path, but: int) -> None:
    """Refuses to begin while a process trains shards of another number, whose runs would be trained twice.

    Args:
        out: the output folder.
        but: the number of shards that may be at work.

    Raises:
        UserError: with the folder that is in use.
    """
    own = {shard.folder(out) for shard in Shard(1, but).siblings()} if but else set()
    for folder in parts_in(out):
        if folder not in own:
            with locked(folder):
                pass


def mark_finished(folder: Path, spec_hash: str) -> None:
    """Notes that all runs of a shard are trained, tested and saved."""
    write_whole(folder / FINISHED_FILE, (json.dumps({"spec_hash": spec_hash}) + "\n").encode())


def is_finished(folder: Path, spec_hash: str) -> bool:
    """Whether all runs of a shard are trained."""
    with suppress(OSError, ValueError):
        return json.loads((folder / FINISHED_FILE).read_text()) == {"spec_hash": spec_hash}
    return False


def missing_shards(out: Path, count: int, spec_hash: str) -> list[str]:
    """Shards that are not finished, each in words: `shard 2/4 (at work)`.

    Args:
        out: the output folder.
        count: how many there are.
        spec_hash: of the sweep.
    """
    missing = []
    for shard in Shard(1, count).siblings():
        folder = shard.folder(out)
        if is_finished(folder, spec_hash):
            continue
        state = "stopped" if folder.exists() else "not begun"
        if folder.exists():
            try:
                with locked(folder):
                    pass
            except InUse:
                state = "at work"
        missing.append(f"shard {shard} ({state})")
    return missing


def resume_text(missing: list[str], command: str) -> str:
    """What is missing before a sweep can be merged, and the command that trains it.

    Args:
        missing: as from `missing_shards`.
        command: of any of the shards.
    """
    waiting = [text for text in missing if not text.endswith("(at work)")]
    text = f"not finished: {', '.join(missing)}"
    if not waiting:
        return f"{text}; the last one to finish merges the tables"
    return f"{text}; to go on: {shard_command(command, waiting[0].split()[1])}"


def shard_command(command: str, shard: str) -> str:
    """A command line with `--shard` set to another one."""
    with suppress(ValueError):
        words = shlex.split(command)
        kept = [
            word
            for i, word in enumerate(words)
            if not word.startswith("--shard=") and word != "--shard" and words[max(i - 1, 0)] != "--shard"
        ]
        return shlex.join([*kept, "--shard", shard])
    return f"{command} --shard {shard}"


def clear_shards(out: Path) -> None:
    """Removes the folders of all shards, which have been merged."""
    for name in (SHARDS, OLD_SHARDS):
        shutil.rmtree(out / name, ignore_errors=True)
    for folder in (out / CHECKPOINTS).glob("cohort_*_*"):  # what earlier starts have left of pretraining
        shutil.rmtree(folder, ignore_errors=True)
