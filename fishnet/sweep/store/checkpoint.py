"""Checkpoints of one cohort through Orbax, with a digest that tells a damaged one from a sound one."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fishnet.errors import UserError
from fishnet.host.machine import versions
from fishnet.host.orbax import LATE, error_line, plain_path, silence_logs, without_late_complaints

FORMAT = 4  # of what is saved and how: raise it when `LaneState`, `History`, `PretrainState` or the record change


def digest(tree: Any) -> str:
    """Digest (sha256) over the paths, shapes, types and bytes of the arrays of `tree`."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}\n".encode())
        total.update(leaf.data if leaf.size else b"")
    return total.hexdigest()


class OtherFormat(UserError):
    """Refusal because the newest checkpoint is of another version of fishnet; it is left."""


def identity(spec_hash: str, name: str) -> dict[str, str]:
    """Identity of the checkpoints of a cohort or, in pretraining, of its objective; their arrays say of which runs."""
    return {"sweep": spec_hash, "name": name}


class NoneSound(UserError):
    """Refusal because there are checkpoints and none of them can be used."""


class Checkpoints:
    """Checkpoints of a cohort: the last two are kept, numbered upwards.

    A tree of NumPy arrays is written in the background; it must not be changed afterwards.

    Args:
        folder: where they live; made when first saved to.
        of: their `identity`: those of something else are passed over; None: any.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any] | None = None) -> None:
        silence_logs()
        self.folder, self.of = folder.absolute(), of
        self._manager: ocp.CheckpointManager | None = None
        self._number, self._tree = 0, None  # last written, or being written
        self._quiet = ExitStack()

    def save(self, tree: Any) -> None:
        """Starts to write `tree`; waits for the one before it first.

        Raises:
            UserError: it cannot be written; what was there stays.
        """
        self._try_to(lambda: self._begin(tree))

    def finish(self) -> None:
        """Waits until everything is on disk.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        if self._manager is not None:
            try:
                self._try_to(self._close)
            finally:
                self._manager = self._tree = None
                self._quiet.close()

    def _try_to(self, step: Callable[[], None]) -> None:
        """Takes a step of writing, and once more where Orbax gave up because the clock was set forward."""
        try:
            try:
                step()
            except TimeoutError:
                self._manager = None
                if self._tree is not None:
                    self._begin(self._tree)
                step()
        except (OSError, ValueError, RuntimeError) as error:
            time.sleep(LATE)
            raise UserError(f"cannot write a checkpoint to {self.folder}: {error_line(error)}") from error

    def _begin(self, tree: Any) -> None:
        manager = self._open()
        manager.wait_until_finished()
        # What was given up may still be written to: its number is not taken again.
        self._number = max([self._number, *manager.all_steps()]) + 1
        self._tree = tree
        about = ocp.args.JsonSave(record(digest(tree), self.of))
        manager.save(self._number, args=ocp.args.Composite(state=ocp.args.StandardSave(tree), digest=about))

    def _close(self) -> None:
        manager = self._open()
        manager.wait_until_finished()
        manager.close()

    def give_up(self) -> None:
        """Waits for what is being written, whatever comes of it: for the way out after another error."""
        with suppress(UserError):
            self.finish()

    def restore(self, warn: Callable[[str], None]) -> Any | None:
        """Reads the newest sound checkpoint; None where there is none at all.

        `warn` is told of every damaged checkpoint that was passed over.

        Raises:
            NoneSound: there are checkpoints, and none of them is sound.
            OtherFormat: the newest is of another version.
        """
        if not self.folder.is_dir():
            return None
        numbers = sorted((int(p.name) for p in self.folder.iterdir() if p.name.isdigit()), reverse=True)
        with plain_path(self.folder) as plain:
            for number in numbers:
                try:
                    return self._read(plain / str(number), self.folder / str(number))
                except OtherFormat:
                    raise
                except Exception as error:  # Orbax, TensorStore and JSON each raise their own
                    warn(f"checkpoint {self.folder / str(number)} is damaged and was passed over: {error_line(error)}")
        if numbers:
            raise NoneSound(
                f"no checkpoint in {self.folder} can be read; remove that folder to start this part of the sweep again"
            )
        return None

    def _read(self, plain: Path, folder: Path) -> Any:
        """Checkpoint in a folder, read at its plain path."""
        checkpointer = ocp.Checkpointer(ocp.JsonCheckpointHandler())
        recorded = checkpointer.restore(plain / "digest", args=ocp.args.JsonRestore())
        check_record(recorded, self.of, folder)
        with without_late_complaints(), ocp.StandardCheckpointer() as reader:
            found = reader.metadata(plain / "state").item_metadata
            if found is None:
                raise ValueError("its list of arrays cannot be read")
            as_numpy = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), found.tree)
            tree = reader.restore(plain / "state", target=as_numpy)
        if digest(tree) != recorded["sha256"]:
            raise ValueError("its content does not match its digest")
        return tree

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._quiet.enter_context(without_late_complaints())
            self.folder.mkdir(parents=True, exist_ok=True)
            plain = self._quiet.enter_context(plain_path(self.folder))
            options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True, create=True)
            self._manager = ocp.CheckpointManager(plain, options=options)
        return self._manager


def record(sha256: str, of: Mapping[str, Any] | None) -> dict[str, Any]:
    """Record that is kept beside arrays with this digest, in JSON values, with a digest of its own."""
    content = {"sha256": sha256, "format": FORMAT, "fishnet": versions()["fishnet"], "of": of}
    return content | {"record_sha256": _record_digest(content)}


def check_record(recorded: Mapping[str, Any], of: Mapping[str, Any] | None, folder: Path) -> None:
    """Refuses the checkpoint in a folder by its `record`, made now or in another version; `of` as in `Checkpoints`.

    Raises:
        OtherFormat: it was written by another version of fishnet.
        ValueError: it is damaged, or of something else.
    """
    content = {name: value for name, value in recorded.items() if name != "record_sha256"}
    early = content["format"] == 1 and "record_sha256" not in recorded  # it had no digest of its own
    if not early and recorded["record_sha256"] != _record_digest(content):
        raise ValueError("its record does not match its digest")
    if content["format"] != FORMAT:
        raise OtherFormat(
            f"{folder} was written by another version of fishnet ({content.get('fishnet', 'an early one')}, checkpoint "
            f"format {content['format']}; this one reads {FORMAT}): only that version can use it; for this version "
            "train the sweep again, into another folder"
        )
    if of is not None and content["of"] != of:
        raise ValueError("it is of another sweep or of another part of it")


def _record_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
