"""The Python loop over epochs: calls the compiled program for about two seconds at a time, saves, stops on signals."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax.serialization import from_state_dict, to_state_dict

from fishnet.host.interrupt import Interrupt
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.compile import GroupWindow
from fishnet.sweep.run.call_pacer import CallPacer
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.history import History
from fishnet.sweep.store.checkpoint_store import CheckpointStore, map_runs, put

CALL_SECONDS = 2.0  # how long one call of a compiled program should take, so that signals are obeyed
CHECKPOINT_SECONDS = 10.0  # at most one checkpoint in this time


class Phase:
    """Training of runs of a cohort, epoch by epoch; a run that is ahead, as after a resume, waits for the others.

    A subclass says what is compiled, what one call trains, how an epoch is recorded and what is saved beside the
    states. All phases of a cohort write to one `history`; each has its own `checkpoints`.
    """

    state_name: str  # of the states of the lanes in a checkpoint
    runs: np.ndarray  # [n] int64, runs of the cohort that have this phase
    steps: np.ndarray  # [run] int64, steps that each run of the cohort has made
    epochs: np.ndarray  # [run] int32, epochs that each run of the cohort has finished

    def __init__(
        self,
        program: Any,
        layout: Layout,
        history: History,
        checkpoints: CheckpointStore,
        interrupt: Interrupt,
        display: Display,
    ) -> None:
        self.program, self.layout, self.cohort, self.history = program, layout, layout.cohort, history
        self.checkpoints, self.interrupt, self.display = checkpoints, interrupt, display
        self.pacers = defaultdict(lambda: CallPacer(CALL_SECONDS))  # "training", "evaluating" or "probing" -> pacer
        self.states: list[Any] = []  # of each device
        self.compile_seconds = 0.0

    @property
    def active(self) -> np.ndarray:
        """Runs that still train in this phase, [run] int64."""
        raise NotImplementedError

    def functions(self) -> list[str]:
        """Names of the functions of the program that are still needed, beside `init`."""
        return ["train"]

    def init_states(self) -> list[Any]:
        """States of each device before the first step."""
        return self.program.init()

    def call_train(self, work: GroupWindow, start: int, stop: int) -> list[Any]:
        """States of each device after training lane groups from step `start` to step `stop`."""
        return self.program.train(self.states, work, start, stop)

    def finish_epoch(self, runs: np.ndarray, epoch: int) -> None:
        """Records an epoch, from 0, that `runs` have trained, and counts it in `epochs`."""
        raise NotImplementedError

    def records(self) -> dict[str, Any]:
        """Arrays that a checkpoint holds beside the states, by name: those that this phase writes into."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """Epoch in progress, from 0; of a finished phase the number of its epochs."""
        active = self.active
        return int(self.epochs[active].min()) if len(active) else int(self.epochs.max())

    def prepare(self) -> np.ndarray:
        """Restores runs from the newest checkpoint, compiles, and initializes the runs without one; returns those."""
        shapes = to_state_dict(self.program.abstract_state)
        restored = self.checkpoints.restore({self.state_name: shapes, **self.records()}, self.display.warn)
        fresh = self.runs
        if restored is not None:
            found, fresh = self.runs[restored.found[self.runs]], self.runs[~restored.found[self.runs]]
            map_runs(lambda now, saved: put(found, now, saved[found]), self.records(), restored.tree)
        began = time.perf_counter()
        self.program.compile(self.functions() + (["init"] if len(fresh) else []), self.interrupt)
        self.compile_seconds = time.perf_counter() - began
        if len(fresh):
            self.states = self.init_states()
        if restored is not None:
            tree = restored.tree[self.state_name]
            if len(fresh):
                tree = restored.over(self.state_name, self.states_by_run())
            self.states = self.program.split(from_state_dict(self.program.abstract_state, self.layout.scatter(tree)))
        self.saved_at = time.monotonic()
        return fresh

    def run(self) -> None:
        """Trains every run to its end, epoch by epoch, saving on the way."""
        while len(self.active):
            epoch = self.epoch
            runs = self.active[self.epochs[self.active] == epoch]  # those that are further ahead wait
            self.train_epoch(runs, epoch)
            self.finish_epoch(runs, epoch)
            if time.monotonic() - self.saved_at >= CHECKPOINT_SECONDS or not len(self.active):
                self.save()

    def train_epoch(self, runs: np.ndarray, epoch: int) -> None:
        """Takes runs to the end of an epoch, in calls of about `CALL_SECONDS`."""
        end = (epoch + 1) * self.program.config.steps_per_epoch
        # Runs at `end` were trained by a session that was stopped before it recorded the epoch: they need no call.
        for start in sorted(set(self.steps[runs]) - {end}):
            groups, counts = self.layout.groups([run for run in runs if self.steps[run] == start])
            for window, at, stop in self.pacers["training"].calls(counts, start, end):
                self.train_call(GroupWindow(groups, window), at, stop)
                self.stop_if_asked()

    def train_call(self, work: GroupWindow, start: int, stop: int) -> None:
        """Calls the compiled training function once, for steps `start` to `stop`, and records steps and seconds."""
        runs = self.layout.members(work)
        began = time.perf_counter()
        self.states = self.call_train(work, start, stop)
        took = time.perf_counter() - began
        self.pacers["training"].measured(work.window, stop - start, took)
        self.steps[runs] = stop
        self.history.seconds[runs] += took / len(runs)

    def call_groups(
        self,
        what: str,
        runs: np.ndarray,
        steps: int,
        call: Callable[[GroupWindow], dict[int, Any]],
        most: int | None = None,
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Calls a function that changes no state on the groups of `runs`; yields runs [n] and their results [n, ...].

        Args:
            what: the key of its pacer.
            runs: to call it on, [run].
            steps: of each lane group in a call.
            call: gives the results of each device, leaves [group, width, ...].
            most: groups of a device in one call.
        """
        groups, counts = self.layout.groups(runs)
        pacer = self.pacers[what]
        for window in pacer.windows(counts, steps, most):
            began = time.perf_counter()
            found = call(GroupWindow(groups, window))
            pacer.measured(window, steps, time.perf_counter() - began)
            for device, results in found.items():
                members = self.layout.runs_in(device, groups[device, slice(*window[device])])  # [group, width]
                yield members[members >= 0], jax.tree.map(lambda leaf, real=members >= 0: leaf[real], results)
            self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Saves and stops if a signal has come: between calls, also those of an evaluation, which is then made anew."""
        if self.interrupt.number is not None:
            self.save()
            self.checkpoints.finish()
            self.interrupt.check("saved: the same command goes on from here")

    def save(self) -> None:
        """Starts to write a checkpoint in the background."""
        self.checkpoints.save({self.state_name: self.states_by_run(), **jax.tree.map(np.copy, self.records())})
        self.saved_at = time.monotonic()

    def states_by_run(self) -> Any:
        """States of all lanes on the host, in run order."""
        return to_state_dict(self.layout.gather(self.states, np.arange(len(self.cohort.runs))))
