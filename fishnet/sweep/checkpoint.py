"""Checkpoints of one cohort through Orbax, with a digest that tells a damaged one from a sound one."""

import hashlib
import logging
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fishnet.errors import UserError

FORMAT = 1
LATE = 0.2  # seconds in which a read that was under way comes to its end


def digest(tree: Any) -> str:
    """sha256 over the paths, shapes, types and bytes of the arrays of `tree`."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}\n".encode())
        total.update(leaf.data if leaf.size else b"")
    return total.hexdigest()


def same_layout(a: Any, b: Any) -> bool:
    """Whether two trees have the same structure, shapes and types."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)


class Checkpoints:
    """The checkpoints of a cohort: the last two are kept, numbered upwards.

    A tree of NumPy arrays is written in the background; it must not be changed afterwards.

    Args:
        folder: where they live; made when first saved to.
    """

    def __init__(self, folder: Path) -> None:
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what matters comes as an error
        self.folder = folder.absolute()
        self._manager: ocp.CheckpointManager | None = None

    def save(self, tree: Any) -> None:
        """Starts to write `tree`; waits for the one before it first.

        Raises:
            UserError: it cannot be written; what was there stays.
        """
        try:
            manager = self._open()
            manager.wait_until_finished()
            number = max(manager.all_steps(), default=0) + 1
            manager.save(
                number,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    digest=ocp.args.JsonSave({"sha256": digest(tree), "format": FORMAT}),
                ),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot write a checkpoint to {self.folder}: {_line(error)}") from error

    def finish(self) -> None:
        """Waits until everything is on disk.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        if self._manager is not None:
            try:
                self._manager.wait_until_finished()
                self._manager.close()
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(f"cannot write a checkpoint to {self.folder}: {_line(error)}") from error
            finally:
                self._manager = None

    def restore(self, abstract: Any, warn: Callable[[str], None]) -> Any | None:
        """The newest sound checkpoint, or None where there is none at all.

        Args:
            abstract: the expected tree, as `jax.ShapeDtypeStruct`; None: as it was saved.
            warn: told of every damaged checkpoint that was passed over.

        Raises:
            UserError: there are checkpoints, and none of them is sound.
        """
        if not self.folder.is_dir():
            return None
        numbers = sorted((int(p.name) for p in self.folder.iterdir() if p.name.isdigit()), reverse=True)
        for number in numbers:
            try:
                with _without_late_complaints():
                    return self._read(number, abstract)
            except Exception as error:  # Orbax, TensorStore and JSON each raise their own
                warn(f"checkpoint {self.folder / str(number)} is damaged and was passed over: {_line(error)}")
        if numbers:
            raise UserError(
                f"no checkpoint in {self.folder} can be read; remove that folder to start this part of the sweep again"
            )
        return None

    def _read(self, number: int, abstract: Any) -> Any:
        folder = self.folder / str(number)
        checkpointer = ocp.Checkpointer(ocp.JsonCheckpointHandler())
        recorded = checkpointer.restore(folder / "digest", args=ocp.args.JsonRestore())
        if recorded["format"] != FORMAT:
            raise ValueError(f"written by another version of fishnet (format {recorded['format']}, this one: {FORMAT})")
        with ocp.StandardCheckpointer() as reader:
            found = reader.metadata(folder / "state").item_metadata
            if found is None:
                raise ValueError("its list of arrays cannot be read")
            as_numpy = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), found.tree)
            if abstract is not None and not same_layout(as_numpy, abstract):
                raise ValueError("its arrays are not those of this sweep")
            tree = reader.restore(folder / "state", target=as_numpy)
        if digest(tree) != recorded["sha256"]:
            raise ValueError("its content does not match its digest")
        return tree

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True, create=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager


@contextmanager
def _without_late_complaints():
    """Keeps reads that were under way when another one failed from printing that their event loop is gone."""
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


def _line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
