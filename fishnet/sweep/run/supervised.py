"""Supervised phase: trains, validates, selects the best epoch, ends runs early, and tests at the end."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fishnet.host.interrupt import Interrupt
from fishnet.metrics import classification as metrics
from fishnet.optim.plateau import PlateauState, update_plateau
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.compile import GroupWindow
from fishnet.sweep.program.program import CompiledProgram
from fishnet.sweep.program.state import ProbeState
from fishnet.sweep.run.evaluation import evaluate_runs, probe_runs
from fishnet.sweep.run.phase import Phase, new_pacer
from fishnet.sweep.spec.history import CLASS_CURVES, CURVES, DIVERGED, FAILURE, OK, RUNNING, SUMMARY, History
from fishnet.sweep.spec.stopping import ArmStopper
from fishnet.sweep.store.checkpoint_store import CheckpointStore


class SupervisedPhase(Phase):
    """Training of the runs of a cohort on labels.

    Args:
        program, layout, history, checkpoints, interrupt: as for `Phase`.
        on_save: called before a checkpoint is written: writes the tables.
        on_advance: called after every call.
        stopper: ends arms early; None: all go on to their own end.
    """

    state_name = "lanes"
    program: CompiledProgram

    def __init__(
        self,
        program: CompiledProgram,
        layout: Layout,
        history: History,
        checkpoints: CheckpointStore,
        interrupt: Interrupt,
        on_save: Callable[[], None],
        on_advance: Callable[[], None],
        stopper: ArmStopper | None = None,
    ) -> None:
        super().__init__(program, layout, history, checkpoints, interrupt)
        self.cohort, self.on_save, self.on_advance, self.stopper = layout.cohort, on_save, on_advance, stopper
        self.evaluation_pacer, self.probe_pacer = new_pacer(), new_pacer()

    @property
    def steps(self) -> np.ndarray:
        """Steps that each run has made, [run] int64."""
        return self.history.steps

    @property
    def epochs(self) -> np.ndarray:
        """Epochs that each run has finished, [run] int32."""
        return self.history.epochs

    @property
    def active(self) -> np.ndarray:
        """Runs still in training."""
        return np.flatnonzero(self.history.status == RUNNING)

    @property
    def run_epochs(self) -> float:
        """Epochs done, over all runs; a run that ended early counts as done."""
        planned = np.array([run.recipe.epochs for run in self.cohort.runs])
        done = np.minimum(self.steps / self.program.config.steps_per_epoch, planned)
        return float(np.where(self.history.status == RUNNING, done, planned).sum())

    def train_groups(self, work: GroupWindow, start: int, stop: int) -> list[Any]:
        """States of each device after a call of the training program."""
        return self.program.train(self.states, self.layout.by_device(self.history.rate), work, start, stop)

    def finish_call(self, work: GroupWindow, runs: np.ndarray, steps: int) -> None:
        """Counts executed lane-steps and shows progress."""
        self.history.executed[runs] += self.layout.executed(work) * steps
        self.on_advance()

    def finish_epoch(self, runs: np.ndarray, epoch: int) -> None:
        """Validates, probes, keeps the best variables and ends the runs that are to end."""
        bad = self.record_training(runs, epoch)
        sound = runs[bad < 0]
        if len(sound):
            # What obeys signals comes first: it is made anew after a stop, which must find the rest undone.
            self.validate(sound, epoch)
            self.probe(sound, epoch)
            self.follow_plateau(sound, epoch)
        self.history.epochs[runs] = epoch + 1
        self.history.status[runs[bad >= 0]] = DIVERGED
        better = [run for run in sound if self.select_epoch(run, epoch)]
        for run in sound:
            self.end_run(run, epoch)
        self.states = self.program.keep(self.states, self.layout.mask(better))
        if self.stopper:
            members = self.cohort.runs
            epochs = [run.recipe.epochs for run in members]
            self.stopper.judge([run.arm for run in members], self.history, epochs)
        self.on_advance()

    def record_training(self, runs: np.ndarray, epoch: int) -> np.ndarray:
        """Fills in what training and the step probes gave in an epoch; returns the first bad step of each run."""
        history = self.history
        states = self.layout.gather([(state.epoch, state.first_bad_step, state.lr) for state in self.states], runs)
        sums, bad, lr = jax.tree.map(lambda leaf: leaf.astype(np.float64), states)
        with np.errstate(invalid="ignore", divide="ignore"):
            trained = {
                "train_loss": sums.loss / sums.steps,
                "train_accuracy": sums.correct / (sums.steps * self.program.config.batch_size),
                "lr": lr,
                "grad_norm": sums.grad_norm / sums.steps,
                "clipped": sums.clipped / sums.steps,
            }
            class_loss = sums.class_loss / sums.class_count
        for name, values in trained.items():
            history.curves[runs, epoch, CURVES.index(name)] = values
        history.class_curves[runs, epoch, :, CLASS_CURVES.index("train_loss")] = class_loss
        history.first_bad_step[runs] = bad
        if isinstance(self.states[0].probed, ProbeState):
            probed = [(state.probed.steps, state.probed.failure) for state in self.states]
            measures, failure = self.layout.gather(probed, runs)
            for name, values in measures.items():
                history.probes[name][runs, epoch] = values
            if FAILURE in history.probes:
                history.probes[FAILURE][runs] = failure
        return bad

    def validate(self, runs: np.ndarray, epoch: int) -> None:
        """Fills in the validation metrics of an epoch."""
        began, history = time.perf_counter(), self.history
        labels = self.cohort.task.labels[self.cohort.task.splits["val"]]
        logits = self.evaluate("val", runs)
        summary = metrics.summary(labels, logits)
        for name in SUMMARY:
            history.curves[runs, epoch, CURVES.index(f"val_{name}")] = summary[name]
        by_class = metrics.class_metrics(labels, logits)
        history.class_curves[runs, epoch, :, CLASS_CURVES.index("val_auc")] = by_class["auc"]
        history.class_curves[runs, epoch, :, CLASS_CURVES.index("val_loss")] = by_class["loss"]
        history.seconds[runs] += (time.perf_counter() - began) / len(runs)

    def probe(self, runs: np.ndarray, epoch: int) -> None:
        """Fills in the measures of the epoch probes, where they are due."""
        config = self.program.config
        if not config.probes("epoch") or (epoch + 1) % config.recipe.probe_epochs:
            return
        began, steps = time.perf_counter(), (epoch + 1) * config.steps_per_epoch
        found = probe_runs(self.layout, self.program, self.states, runs, steps, self.probe_pacer, self.obey)
        for name, values in found.items():
            self.history.probes[name][runs, epoch] = values
        self.history.seconds[runs] += (time.perf_counter() - began) / len(runs)

    def follow_plateau(self, runs: np.ndarray, epoch: int) -> None:
        """Cuts the rate of the runs with schedule plateau whose validation loss has stopped falling."""
        history = self.history
        for run in runs:
            recipe = self.cohort.runs[run].recipe
            if recipe.schedule == "plateau":
                numbers: Any = (history.plateau_best[run], history.plateau_bad[run], history.rate[run])
                state = PlateauState(*numbers)
                loss = history.curves[run, epoch, CURVES.index("val_loss")]
                lowest = recipe.lr_min / recipe.lr
                state = update_plateau(state, loss, recipe.plateau_factor, recipe.plateau_patience, lowest)
                history.plateau_best[run], history.plateau_bad[run] = state.best, state.bad_epochs
                history.rate[run] = state.multiplier

    def select_epoch(self, run: int, epoch: int) -> bool:
        """Selects an epoch of a run if it is the best so far, and says whether it is."""
        better = self.history.is_better(run, epoch, self.cohort.runs[run].recipe.select_by)
        if better:
            self.history.best_epoch[run] = epoch + 1
        return better

    def end_run(self, run: int, epoch: int) -> None:
        """Ends a run after its last epoch, or when its patience is over."""
        history, recipe = self.history, self.cohort.runs[run].recipe
        waited = epoch + 1 - history.best_epoch[run]
        if epoch + 1 == recipe.epochs or (recipe.patience and waited >= recipe.patience):
            # An update that overflowed shows in the loss of the next step; after the last one it shows only here.
            sound_to_the_end = np.isfinite(history.curves[run, epoch, CURVES.index("val_loss")])
            history.status[run] = OK if sound_to_the_end else DIVERGED
            history.first_bad_step[run] = -1 if sound_to_the_end else history.steps[run]

    def evaluate(self, split: str, runs: np.ndarray, best: bool = False) -> np.ndarray:
        """Logits [run, image, class] of runs on the images of a split, now or at their best epochs."""
        variables = [
            (state.best_params, state.best_statistics) if best else (state.evaluated, state.evaluated_statistics)
            for state in self.states
        ]
        positions = self.cohort.task.splits[split]
        pacer = self.evaluation_pacer
        return evaluate_runs(self.layout, self.program, variables, positions, runs, pacer, self.obey)

    def test(self) -> np.ndarray:
        """Logits [run, image, class] of all runs on the test split at their best epochs; NaN for a run without one."""
        positions, history = self.cohort.task.splits["test"], self.history
        logits = np.full((len(self.cohort.runs), len(positions), self.program.config.classes), np.nan, np.float32)
        selected = np.flatnonzero(history.best_epoch)
        if len(selected):
            logits[selected] = self.evaluate("test", selected, best=True)
        return logits

    def save(self) -> None:
        """Tables first, then the checkpoint in the background."""
        self.on_save()
        super().save()

    def records(self) -> dict[str, Any]:
        """History, and the pixel statistics, so that a run can be loaded without its data."""
        task = self.cohort.task
        return {"history": self.history.arrays(), "pixels": {"mean": np.array(task.mean), "std": np.array(task.std)}}
