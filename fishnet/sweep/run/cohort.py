"""Trains one cohort on the host's side: what is on disk, compilation, pretraining, training, the last test."""

import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from fishnet.host.interrupt import Interrupt
from fishnet.host.machine import Device
from fishnet.metrics import classification as metrics
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.plan.networks import transfer_trunk
from fishnet.sweep.run.pretraining import PretrainingPhase
from fishnet.sweep.run.progress import Display
from fishnet.sweep.run.supervised import SupervisedPhase
from fishnet.sweep.spec.history import SUMMARY, History
from fishnet.sweep.spec.stopping import ArmStopper
from fishnet.sweep.store.checkpoint_store import CheckpointStore
from fishnet.sweep.store.records import empty_measures


class CohortRunner:
    """Runner of one cohort, from the state on disk (if any) to the test metrics of its runs.

    Args:
        layout: of the cohort.
        devices: there are.
        checkpoints: of the runs of this cohort.
        interrupt: looked at between calls.
        display: shown progress and warnings.
        on_save: called with this runner whenever a checkpoint is about to be written: writes the tables.
        on_advance: called with this runner after every call.
        stopper: ends arms early; None: all go on to their own end.
    """

    def __init__(
        self,
        layout: Layout,
        devices: list[Device],
        checkpoints: CheckpointStore,
        interrupt: Interrupt,
        display: Display,
        on_save: Callable[["CohortRunner"], None],
        on_advance: Callable[["CohortRunner"], None],
        stopper: ArmStopper | None = None,
    ) -> None:
        self.layout, self.cohort, self.display = layout, layout.cohort, display
        cohort = self.cohort
        count, classes = len(cohort.runs), len(cohort.task.classes)
        history = History.empty(count, cohort.epochs, classes, cohort.pretrain_epochs, probes=empty_measures(cohort))
        self.program = layout.bind(devices, cohort.functions)
        self.training = SupervisedPhase(
            *(self.program, layout, history, checkpoints, interrupt),
            *(partial(on_save, self), partial(on_advance, self), stopper),
        )
        self.test_metrics = np.full((count, len(SUMMARY)), np.nan)  # at the best epoch of each run
        self.compile_seconds = 0.0

    @property
    def history(self) -> History:
        """Curves and progress of the runs."""
        return self.training.history

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of this session by what took them."""
        training, probing = self.training, {}
        if self.cohort.config.probes("epoch"):
            probing = {"probing": training.probe_pacer.taken}
        spent = {"training": training.pacer.taken, "evaluating": training.evaluation_pacer.taken}
        return {"compiling": self.compile_seconds} | spent | probing

    @property
    def steps_made(self) -> int:
        """Steps of training in this session, of the device that had most groups."""
        return self.training.pacer.made

    def prepare(self) -> None:
        """Reads the newest states, compiles what is still needed, and makes the initial ones that there were not."""
        training = self.training
        restored = training.restore(self.display.warn)
        fresh = np.flatnonzero(~restored.found) if restored else np.arange(len(self.cohort.runs))
        if restored:
            training.history = History.of(restored.over("history", training.history.arrays()))
        names = ["train", "evaluate", "keep"] if len(training.active) else ["evaluate"]
        names += ["init"] if len(fresh) else []
        names += ["probe"] if self.cohort.config.probes("epoch") and len(training.active) else []
        began = time.perf_counter()
        self.program.compile(names, training.interrupt)
        self.compile_seconds = time.perf_counter() - began
        if len(fresh):
            training.states = self.program.init()
        if restored:
            training.place_states(restored)
        self.insert_trunks(fresh)
        self.pretrain(fresh)
        if training.stopper:
            training.stopper.learn([run.arm for run in self.cohort.runs], training.history)
        training.saved_at = time.monotonic()

    def insert_trunks(self, fresh: np.ndarray) -> None:
        """Puts the trunks of earlier runs into the fresh lanes that begin with one."""
        cohort, states = self.cohort, self.training.states
        for run in fresh:
            recipe = cohort.runs[run].recipe
            if recipe.trunk == "none":
                continue
            device, lane = divmod(int(self.layout.position[run]), self.layout.lanes_per_device)
            variables = states[device].params, states[device].statistics
            params, statistics = jax.tree.map(lambda leaf, lane=lane: leaf[lane], variables)
            begun = transfer_trunk(recipe, params, statistics, cohort.trunks[recipe.trunk])
            inserted = jax.tree.map(lambda leaf, new, lane=lane: leaf.at[lane].set(new), variables, begun)
            states[device] = states[device].with_initial(*inserted)

    def pretrain(self, fresh: np.ndarray) -> None:
        """Pretrains the fresh runs that ask for it, objective after objective, and keeps the trunks."""
        wanted = {self.cohort.runs[run].recipe.pretrain for run in fresh}
        phases = [
            PretrainingPhase(name, self.training, fresh, self.display.stage)
            for name in self.cohort.objectives
            if name in wanted
        ]
        for phase in phases:
            try:
                self.training.states = phase.pretrain(self.training.states, self.display.warn)
            finally:
                phase.checkpoints.give_up()
        if phases:
            self.training.save()
            self.training.checkpoints.finish()
        for phase in phases:
            phase.checkpoints.forget()

    def train(self) -> None:
        """Trains every run to its end."""
        self.training.run()

    def test(self) -> np.ndarray:
        """Tests all runs at their selected epochs and waits for the last checkpoint.

        Returns:
            Test logits [run, image, class]; NaN for a run without a selected epoch.
        """
        logits = self.training.test()
        selected = np.flatnonzero(self.history.best_epoch)
        if len(selected):
            labels = self.cohort.task.labels[self.cohort.task.splits["test"]]
            summary = metrics.summary(labels, logits[selected])
            self.test_metrics[selected] = np.stack([summary[name] for name in SUMMARY], axis=-1)
        self.training.checkpoints.finish()
        return logits
