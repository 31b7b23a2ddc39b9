"""Epochs of training on the host's side: calls of about two seconds, saved on the way, signals obeyed in between."""

import time
from typing import Any

import jax
import numpy as np
from flax.serialization import from_state_dict, to_state_dict

from fishnet.host.interrupt import Interrupt
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.compile import GroupWindow
from fishnet.sweep.run.call_pacer import CallPacer
from fishnet.sweep.spec.history import History
from fishnet.sweep.store.checkpoint_store import CheckpointStore, RestoredState

CALL_SECONDS = 2.0  # how long one call of a compiled program should take, so that signals are obeyed
CHECKPOINT_SECONDS = 10.0  # at most one checkpoint in this time


def new_pacer() -> CallPacer:
    """Pacer of calls that each take about `CALL_SECONDS`."""
    return CallPacer(CALL_SECONDS)


class Phase:
    """Takes runs of a cohort through their epochs, all at the same epoch or waiting for the others.

    A subclass says what one call trains, how an epoch is recorded and what is saved beside the states.

    Args:
        program: whose `train` the calls are.
        layout: of the cohort's lanes.
        history: of the cohort.
        checkpoints: of this phase.
        interrupt: looked at between calls.
    """

    state_name: str  # of the states of the lanes in a checkpoint
    steps: np.ndarray  # [run] int64, steps that each run has made
    epochs: np.ndarray  # [run] int32, epochs that each run has finished

    def __init__(
        self,
        program: Any,
        layout: Layout,
        history: History,
        checkpoints: CheckpointStore,
        interrupt: Interrupt,
    ) -> None:
        self.program, self.layout, self.history = program, layout, history
        self.checkpoints, self.interrupt = checkpoints, interrupt
        self.pacer = new_pacer()
        self.states: list[Any] = []  # of each device
        self.saved_at = time.monotonic()

    @property
    def active(self) -> np.ndarray:
        """Runs that still train in this phase, [run] int64."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first call of an epoch, from 0."""

    def train_groups(self, work: GroupWindow, start: int, stop: int) -> list[Any]:
        """States of each device after training lane groups from step `start` to step `stop`."""
        raise NotImplementedError

    def finish_call(self, work: GroupWindow, runs: np.ndarray, steps: int) -> None:
        """Called after a call that made so many steps of `runs`."""

    def finish_epoch(self, runs: np.ndarray, epoch: int) -> None:
        """Records an epoch, from 0, that `runs` have trained, and counts it in `epochs`."""
        raise NotImplementedError

    def records(self) -> dict[str, Any]:
        """Arrays that a checkpoint holds beside the states, by name."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """Epoch in progress, from 0; of a finished phase the number of its epochs."""
        active = self.active
        return int(self.epochs[active].min()) if len(active) else int(self.epochs.max())

    @property
    def current(self) -> np.ndarray:
        """Active runs at the epoch in progress; runs that are further ahead wait."""
        active = self.active
        return active[self.epochs[active] == self.epoch]

    def run(self) -> None:
        """Trains every run to its end, epoch by epoch, saving on the way."""
        while len(self.active):
            runs, epoch = self.current, self.epoch
            self.begin_epoch(epoch)
            self.train_epoch(runs, epoch)
            self.finish_epoch(runs, epoch)
            if time.monotonic() - self.saved_at >= CHECKPOINT_SECONDS or not len(self.active):
                self.save()

    def train_epoch(self, runs: np.ndarray, epoch: int) -> None:
        """Takes runs to the end of an epoch, in calls of about `CALL_SECONDS`."""
        per_epoch = self.program.config.steps_per_epoch
        end = (epoch + 1) * per_epoch
        # A signal after its last step leaves an epoch trained, but not recorded.
        for start in sorted(set(self.steps[runs]) - {end}):
            groups, counts = self.layout.groups([run for run in runs if self.steps[run] == start])
            for window, at, stop in self.pacer.calls(counts, start, end):
                self.train_call(GroupWindow(groups, window), at, stop)

    def train_call(self, work: GroupWindow, start: int, stop: int) -> None:
        """Makes one call and counts its steps and seconds."""
        runs = self.layout.members(work)
        began = time.perf_counter()
        self.states = self.train_groups(work, start, stop)
        took = time.perf_counter() - began
        self.pacer.measured(work.window, stop - start, took)
        self.steps[runs] = stop
        self.history.seconds[runs] += took / len(runs)
        self.finish_call(work, runs, stop - start)
        self.obey()

    def obey(self) -> None:
        """Saves and stops if a signal has come: between calls, also those of an evaluation, which is then made anew."""
        if self.interrupt.number is not None:
            self.save()
            self.checkpoints.finish()
            self.interrupt.check("saved: the same command goes on from here")

    def save(self) -> None:
        """Starts to write a checkpoint in the background."""
        self.checkpoints.save({self.state_name: self.states_by_run(), **jax.tree.map(np.copy, self.records())})
        self.saved_at = time.monotonic()

    def restore(self, warn: Any) -> RestoredState | None:
        """Newest states of the runs that any checkpoint has; `warn` is told of damaged ones."""
        runs = len(self.layout.cohort.runs)
        states = to_state_dict(self.program.abstract_state)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((runs, *leaf.shape[1:]), leaf.dtype), states)
        records = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.records())
        return self.checkpoints.restore({self.state_name: shapes, **records}, warn)

    def place_states(self, restored: RestoredState) -> None:
        """Puts restored states on the devices, in place of the fresh ones that there are of those runs."""
        tree = restored.tree[self.state_name]
        if self.states:
            tree = restored.over(self.state_name, self.states_by_run())
        self.states = self.program.split(from_state_dict(self.program.abstract_state, self.layout.scatter(tree)))

    def states_by_run(self) -> Any:
        """States of all lanes on the host, in run order."""
        return to_state_dict(self.layout.gather(self.states, np.arange(len(self.layout.cohort.runs))))
