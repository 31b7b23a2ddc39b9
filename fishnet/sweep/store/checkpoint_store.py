"""The checkpoints of a cohort's runs: those of all shards of a sweep, and the furthest state of each run among them.

A process that trains a whole sweep keeps everything in the output folder itself. One that trains a shard has a folder
there, `shards/1-of-2`, with checkpoints and tables of its own runs. A run's state depends on nothing but the run, so it
goes on from where it is furthest, whichever shards an earlier start had.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fishnet.sweep.store.checkpoint import Checkpoints, NoneSound, identity

CHECKPOINTS = "checkpoints"
SHARDS, OLD_SHARDS = "shards", "parts"  # folders with a folder a shard; the second as an earlier version named it
SHARED = ("pixels",)  # entries of a state that have no run axis


def parts_in(out: Path) -> list[Path]:
    """Folders of all shards that there are, of every number of shards."""
    return sorted([*(out / SHARDS).glob("*-of-*"), *(out / OLD_SHARDS).glob("of_*/process_*")])


@dataclass(frozen=True)
class RestoredState:
    """States of some runs, as far as there are any."""

    tree: Any  # leaves [run, ...]; where a run was not found, those of another
    found: np.ndarray  # [run] bool

    def over(self, name: str, fresh: Any) -> Any:
        """Entry `name` of these states, with that of `fresh` for the runs that were not found."""

        def rows(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.where(self.found.reshape(-1, *[1] * (old.ndim - 1)), old, new)

        return jax.tree.map(rows, self.tree[name], fresh)


class CheckpointStore:
    """Checkpoints of the runs of a cohort: saved to one folder, read from those of all shards.

    Args:
        out, spec_hash: of the sweep.
        part: the folder that this process writes to, a shard's or `out`.
        name: of the folder of checkpoints.
        runs: numbers of the runs, in the order of a state's run axis.
    """

    def __init__(self, out: Path, part: Path, name: str, runs: Sequence[int] | np.ndarray, spec_hash: str) -> None:
        self.out, self.part, self.name, self.spec_hash = out, part, name, spec_hash
        self.runs = np.array(runs, np.int64)
        self.own = self._in(part)

    def beside(self, suffix: str) -> "CheckpointStore":
        """Other states of the same runs."""
        return CheckpointStore(self.out, self.part, f"{self.name}_{suffix}", self.runs, self.spec_hash)

    @property
    def begun(self) -> bool:
        """Tells whether any shard has saved some of it, its pretraining included."""
        folders = [part / CHECKPOINTS for part in [self.out, *parts_in(self.out)]]
        return any((folder / self.name).exists() or any(folder.glob(f"{self.name}_*")) for folder in folders)

    def save(self, tree: Any) -> None:
        """Starts to write the state of all runs; see `Checkpoints.save`."""
        self.own.save(tree | {"runs": self.runs.copy()})

    def finish(self) -> None:
        """Waits until everything is on disk."""
        self.own.finish()

    def give_up(self) -> None:
        """Waits for what is being written, whatever comes of it; see `Checkpoints.give_up`."""
        self.own.give_up()

    def forget(self) -> None:
        """Removes what this process has saved."""
        self.finish()
        shutil.rmtree(self.own.folder, ignore_errors=True)

    def restore(self, abstract: Any, warn: Callable[[str], None]) -> RestoredState | None:
        """Reads the furthest state of each run in any shard; None where there is none of any.

        Args:
            abstract: the expected tree, as `jax.ShapeDtypeStruct`; None: as it was saved.
            warn: told of every damaged checkpoint that was passed over.

        Raises:
            NoneSound: a shard has checkpoints and none of them is sound, or they are of another sweep.
            OtherFormat: they are of another version.
        """
        best: Any = None
        progress = np.full((len(self.runs), 3), -1)  # of the furthest state of each run, as by `progress_of`
        for part in [self.out, *parts_in(self.out)]:
            checkpoints = self._in(part)
            tree = checkpoints.restore(warn)
            if tree is None:
                continue
            at = {int(run): row for row, run in enumerate(tree.pop("runs", ()))}
            if not at or (abstract is not None and layout_of(tree) != layout_of(abstract)):
                raise NoneSound(
                    f"the arrays in {checkpoints.folder} are not those of this sweep; remove that folder to start "
                    "this part of the sweep again"
                )
            there = progress_of(tree)
            rows = np.array([at.get(int(run), -1) for run in self.runs])
            further = np.array([row >= 0 and tuple(there[row]) > tuple(progress[i]) for i, row in enumerate(rows)])
            if best is None:
                best = map_runs(partial(np.take, indices=np.maximum(rows, 0), axis=0), tree)
            elif further.any():
                new = map_runs(partial(np.take, indices=rows[further], axis=0), tree)
                best = map_runs(partial(put, further), best, new)
            progress[further] = there[rows[further]]
        found = progress[:, 0] >= 0
        return RestoredState(best, found) if found.any() else None

    def _in(self, part: Path) -> Checkpoints:
        """Checkpoints in a folder."""
        return Checkpoints(part / CHECKPOINTS / self.name, identity(self.spec_hash, self.name))


def progress_of(tree: Any) -> np.ndarray:
    """Progress of each run of a state, to be compared lexicographically, [run, 3] int64."""
    progress = tree.get("history", tree)  # in pretraining there is no history
    steps = progress["steps"]
    # The status is RUNNING (0) until a run has ended.
    ended = progress.get("status", np.zeros(len(steps), np.int64)) > 0
    return np.stack([steps, progress["epochs"], ended], axis=-1).astype(np.int64)


def map_runs(function: Callable[..., np.ndarray], *states: Any) -> Any:
    """Maps a function over the arrays [run, ...] of states; what they share is that of the last one."""
    return {
        name: states[-1][name] if name in SHARED else jax.tree.map(function, *(state[name] for state in states))
        for name in states[0]
    }


def put(rows: np.ndarray, values: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Puts `new` into these rows of `values`, which it returns."""
    values[rows] = new
    return values


def layout_of(state: Any) -> Any:
    """Structure, shapes and types of a state, however many runs it is of."""
    return jax.tree.map(lambda leaf: (leaf.shape[1:], np.dtype(leaf.dtype)), state)
