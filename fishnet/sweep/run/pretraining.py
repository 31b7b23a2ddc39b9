"""Pretrains the runs of a cohort on the host's side: epochs in slices, checkpoints, trunks handed over."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax.serialization import from_state_dict, to_state_dict

from fishnet.host.interrupt import Interrupt
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.memory import tree_bytes
from fishnet.sweep.program.pretrain_step import PretrainState, apply_pretrained, init_pretrain, pretrain_groups
from fishnet.sweep.program.program import Program, abstract
from fishnet.sweep.program.state import LaneState
from fishnet.sweep.run.call_pacer import CallPacer
from fishnet.sweep.spec.history import DIVERGED, PRETRAIN_CURVES, History
from fishnet.sweep.store.checkpoint_store import CheckpointStore


class Pretraining:
    """The runs of a cohort that one objective is for, from the state on disk (if any) to their trunks.

    Args:
        name: of the objective.
        layout: of the cohort's lanes.
        program: of the cohort.
        history: of the cohort; its curves of pretraining are filled in.
        fresh: the runs of the cohort that have not begun to train; those of them that the objective is for are taught.
        checkpoints: of its own, which are removed by `forget`.
        interrupt: looked at between calls.
        stage: told in a line what is being done.
        warn: told of damaged checkpoints.
        call_seconds: how long a call of the program should take.
        checkpoint_seconds: at most one checkpoint in this time.
    """

    def __init__(
        self,
        name: str,
        layout: Layout,
        program: Program,
        history: History,
        fresh: np.ndarray,
        checkpoints: CheckpointStore,
        interrupt: Interrupt,
        stage: Callable[[str], None],
        warn: Callable[[str], None],
        call_seconds: float,
        checkpoint_seconds: float,
    ) -> None:
        self.name, self.layout, self.program, self.history = name, layout, program, history
        self.checkpoints, self.interrupt, self.stage, self.warn = checkpoints, interrupt, stage, warn
        self.pace, self.checkpoint_seconds = CallPacer(call_seconds), checkpoint_seconds
        runs = layout.cohort.runs
        self.runs = np.array([run for run in fresh if runs[run].recipe.pretrain == name], np.int64)
        self.epochs = np.array([run.recipe.pretrain_epochs for run in runs])
        self.steps = np.zeros(len(runs), np.int64)
        self.pupils: list[PretrainState] = []  # one a device

    def teach(self, lanes: list[LaneState]) -> list[LaneState]:
        """Pretrains from the trunks in `lanes`, or goes on from the last checkpoint, and hands the trunks over.

        Args:
            lanes: of each device, before their first step; given up.

        Returns:
            The lanes with pretrained trunks; runs whose pretraining met a value that is not finite count as diverged.
        """
        self._prepare(lanes)
        for epoch in range(int(self.epochs[self.runs].max())):
            self._epoch(epoch)
        self._save()
        bad = self.layout.gather([pupils.first_bad_step for pupils in self.pupils], self.runs)
        self.history.status[self.runs[bad >= 0]] = DIVERGED
        self.history.first_bad_step[self.runs[bad >= 0]] = 0
        members = self.layout.mask(self.runs)
        hand_over = jax.jit(partial(apply_pretrained, self.program.config))
        return [hand_over(*of) for of in zip(lanes, self.pupils, members, strict=True)]

    def forget(self) -> None:
        """Removes the checkpoints: what they were for is kept elsewhere."""
        self.checkpoints.forget()

    def _prepare(self, lanes: list[LaneState]) -> None:
        """Compiles what is needed; the state is the last checkpoint's or a fresh one."""
        program, shape = self.program, self.program.config
        init = jax.jit(partial(init_pretrain, shape, self.name))
        like = jax.eval_shape(init, program.traced[0], lanes[0], program.data[0])
        runs = len(self.layout.cohort.runs)
        whole = {
            "pupils": jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((runs, *leaf.shape[1:]), leaf.dtype), to_state_dict(like)
            ),
            "steps": jax.ShapeDtypeStruct(self.steps.shape, self.steps.dtype),
            "curves": jax.ShapeDtypeStruct(self.history.pretrain_curves.shape, np.float64),
        }
        restored = self.checkpoints.restore(whole, self.warn)
        train = jax.jit(partial(pretrain_groups, shape, self.name), donate_argnums=1)
        groups = (program.lanes, shape.lane_width)

        def lower(name: str, device: int) -> jax.stages.Lowered:
            place, traced, pixels = program.devices[device], program.traced[device], program.data[device]
            if name == "init":
                return init.lower(traced, lanes[device], pixels)
            pupils = jax.tree.map(lambda leaf: abstract(place, leaf.shape, leaf.dtype), like)
            rest = (abstract(place, groups), abstract(place, (2,)), abstract(place, (2,)))
            return train.lower(traced, pupils, pixels, *rest)

        complete = restored is not None and restored.found[self.runs].all()
        names = ["train"] if complete else ["train", "init"]
        self.stage(f"compiling pretraining: {self.name}")
        lowered = {name: partial(lower, name) for name in names}
        self._call = program.compile(lowered, self.interrupt, beside=tree_bytes(like))
        if not complete:
            arguments = enumerate(zip(program.traced, lanes, program.data, strict=True))
            self.pupils = list(self._call["init"](dict(arguments)).values())
        if restored is not None:
            self.steps = restored.over("steps", self.steps)
            curves = restored.over("curves", self.history.pretrain_curves)
            self.history.pretrain_curves[self.runs] = curves[self.runs]
            pupils = restored.tree["pupils"] if complete else restored.over("pupils", self._by_run())
            self.pupils = program.split(from_state_dict(like, self.layout.scatter(pupils)))
        self._saved = time.monotonic()

    def _epoch(self, epoch: int) -> None:
        """Takes every run that is not further yet to the end of an epoch."""
        per_epoch = self.program.config.steps_per_epoch
        end = (epoch + 1) * per_epoch
        recorded = np.isfinite(self.history.pretrain_curves[self.runs, epoch, PRETRAIN_CURVES.index("loss")])
        steps = self.steps[self.runs]
        done = (steps > end) | (recorded & (steps == end))
        members = self.runs[(self.epochs[self.runs] > epoch) & ~done]
        if not len(members):
            return
        self.stage(f"pretraining: {self.name}, epoch {epoch + 1} of {int(self.epochs[self.runs].max())}")
        # A signal after its last step leaves an epoch finished, but not recorded.
        for start in sorted(set(self.steps[members]) - {end}):
            groups, counts = self.layout.groups([run for run in members if self.steps[run] == start])
            for window, at, stop in self.pace.calls(counts, start, end):
                self._train(groups, window, at, stop)
        self._record(members, epoch)
        if time.monotonic() - self._saved >= self.checkpoint_seconds:
            self._save()

    def _train(self, groups: np.ndarray, window: np.ndarray, start: int, stop: int) -> None:
        """One call: the groups in `window`, from step `start` to `stop`."""
        began = time.perf_counter()
        program, steps = self.program, np.asarray([start, stop], np.int32)
        arguments = {
            device: (
                program.traced[device],
                self.pupils[device],
                program.data[device],
                groups[device],
                window[device],
                steps,
            )
            for device in np.flatnonzero(window[:, 1] > window[:, 0])
        }
        for device, pupils in self._call["train"](arguments).items():
            self.pupils[device] = pupils
        took = time.perf_counter() - began
        self.pace.measured(window, stop - start, took)
        runs = self.layout.members(groups, window)
        self.steps[runs] = stop
        self.history.seconds[runs] += took / len(runs)
        if self.interrupt.number is not None:
            self._save()
            self.checkpoints.finish()
            self.interrupt.check("saved: the same command goes on from here")

    def _record(self, runs: np.ndarray, epoch: int) -> None:
        """Fills in the curves of one epoch."""
        totals = [(pupils.steps, pupils.loss, pupils.solved) for pupils in self.pupils]
        steps, loss, solved = (leaf.astype(np.float64) for leaf in self.layout.gather(totals, runs))
        with np.errstate(invalid="ignore", divide="ignore"):
            figures = {"loss": loss / steps, "solved": solved / steps}
        for name, values in figures.items():
            self.history.pretrain_curves[runs, epoch, PRETRAIN_CURVES.index(name)] = values

    def _save(self) -> None:
        self.checkpoints.save(
            {"pupils": self._by_run(), "steps": self.steps.copy(), "curves": self.history.pretrain_curves.copy()}
        )
        self._saved = time.monotonic()

    def _by_run(self) -> Any:
        """The state of all pupils in run order."""
        return to_state_dict(self.layout.gather(self.pupils, np.arange(len(self.layout.cohort.runs))))
