"""Supervised phase: prepares the lanes, trains, validates, selects the best epoch, ends runs early, and tests."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fishnet.host.interrupt import Interrupt
from fishnet.host.machine import Device
from fishnet.metrics import classification as metrics
from fishnet.optim.plateau import PlateauState, update_plateau
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.plan.networks import transfer_trunk
from fishnet.sweep.program.compile import GroupWindow
from fishnet.sweep.program.program import CompiledProgram
from fishnet.sweep.program.state import ProbeState
from fishnet.sweep.run.evaluation import evaluate_runs, probe_runs
from fishnet.sweep.run.phase import Phase
from fishnet.sweep.run.pretraining import pretrain
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.history import CLASS_CURVES, CURVES, DIVERGED, FAILURE, OK, RUNNING, SUMMARY, History
from fishnet.sweep.spec.stopping import ArmStopper
from fishnet.sweep.store.checkpoint_store import CheckpointStore
from fishnet.sweep.store.records import empty_measures


class SupervisedPhase(Phase):
    """Training of a cohort on labels, from the state on disk (if any) to the test metrics of its runs.

    Args:
        on_save: called with this phase before a checkpoint is written: writes the tables.
        on_advance: called with this phase after every call.
        stopper: ends arms early; None: all go on to their own end.
    """

    state_name = "lanes"
    program: CompiledProgram

    def __init__(
        self,
        layout: Layout,
        devices: list[Device],
        checkpoints: CheckpointStore,
        interrupt: Interrupt,
        display: Display,
        on_save: Callable[["SupervisedPhase"], None],
        on_advance: Callable[["SupervisedPhase"], None],
        stopper: ArmStopper | None = None,
    ) -> None:
        cohort = layout.cohort
        count, classes = len(cohort.runs), len(cohort.task.classes)
        history = History.empty(count, cohort.epochs, classes, cohort.pretrain_epochs, probes=empty_measures(cohort))
        program = layout.bind(devices, cohort.functions)
        super().__init__(program, layout, history, checkpoints, interrupt, display)
        self.on_save, self.on_advance, self.stopper = on_save, on_advance, stopper
        self.runs, self.arms = np.arange(count), [run.arm for run in cohort.runs]
        self.steps, self.epochs = history.steps, history.epochs
        self.planned = np.array([run.recipe.epochs for run in cohort.runs])  # epochs after which each run ends anyway
        self.test_metrics = np.full((count, len(SUMMARY)), np.nan)  # at the best epoch of each run

    @property
    def active(self) -> np.ndarray:
        """Runs still in training."""
        return np.flatnonzero(self.history.status == RUNNING)

    @property
    def run_epochs(self) -> float:
        """Epochs done, over all runs; a run that ended early counts as done."""
        done = np.minimum(self.steps / self.program.config.steps_per_epoch, self.planned)
        return float(np.where(self.history.status == RUNNING, done, self.planned).sum())

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of this session by what took them."""
        return {"compiling": self.compile_seconds} | {what: pacer.taken for what, pacer in self.pacers.items()}

    def functions(self) -> list[str]:
        """Names of the functions of the program that are still needed, beside `init`."""
        if not len(self.active):
            return ["evaluate"]
        return ["train", "evaluate", "keep"] + (["probe"] if self.program.config.probes("epoch") else [])

    def prepare(self) -> np.ndarray:
        """Prepares as any phase does; gives fresh runs the trunks that they begin with and pretrains them."""
        fresh = super().prepare()
        self.insert_trunks(fresh)
        pretrain(self, fresh)
        if self.stopper:
            self.stopper.learn(self.arms, self.history)
        return fresh

    def insert_trunks(self, fresh: np.ndarray) -> None:
        """Puts the trunks of earlier runs into the fresh lanes that begin with one."""
        for run in fresh:
            recipe = self.cohort.runs[run].recipe
            if recipe.trunk == "none":
                continue
            device, lane = divmod(int(self.layout.position[run]), self.layout.lanes_per_device)
            variables = self.states[device].params, self.states[device].statistics
            params, statistics = jax.tree.map(lambda leaf, lane=lane: leaf[lane], variables)
            begun = transfer_trunk(recipe, params, statistics, self.cohort.trunks[recipe.trunk])
            inserted = jax.tree.map(lambda leaf, new, lane=lane: leaf.at[lane].set(new), variables, begun)
            self.states[device] = self.states[device].with_initial(*inserted)

    def call_train(self, work: GroupWindow, start: int, stop: int) -> list[Any]:
        """States of each device after a call of the training program."""
        return self.program.train(self.states, self.layout.by_device(self.history.rate), work, start, stop)

    def train_call(self, work: GroupWindow, start: int, stop: int) -> None:
        """Makes one call, counts executed lane-steps and shows progress."""
        super().train_call(work, start, stop)
        self.history.executed[self.layout.members(work)] += self.layout.executed(work) * (stop - start)
        self.on_advance(self)

    def finish_epoch(self, runs: np.ndarray, epoch: int) -> None:
        """Validates, probes, keeps the best variables and ends the runs that are to end."""
        bad = self.record_training(runs, epoch)
        sound = runs[bad < 0]
        if len(sound):
            began = time.perf_counter()
            # What obeys signals comes first: it is made anew after a stop, which must find the rest undone.
            self.validate(sound, epoch)
            self.probe(sound, epoch)
            self.history.seconds[sound] += (time.perf_counter() - began) / len(sound)
            self.follow_plateau(sound, epoch)
        self.history.epochs[runs] = epoch + 1
        self.history.status[runs[bad >= 0]] = DIVERGED
        better = [run for run in sound if self.select_epoch(run, epoch)]
        for run in sound:
            self.end_run(run, epoch)
        self.states = self.program.keep(self.states, self.layout.mask(better))
        if self.stopper:
            self.stopper.judge(self.arms, self.history, self.planned.tolist())
        self.on_advance(self)

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
        history, labels = self.history, self.cohort.task.labels[self.cohort.task.splits["val"]]
        logits = self.evaluate("val", runs)
        summary = metrics.summary(labels, logits)
        for name in SUMMARY:
            history.curves[runs, epoch, CURVES.index(f"val_{name}")] = summary[name]
        by_class = metrics.class_metrics(labels, logits)
        history.class_curves[runs, epoch, :, CLASS_CURVES.index("val_auc")] = by_class["auc"]
        history.class_curves[runs, epoch, :, CLASS_CURVES.index("val_loss")] = by_class["loss"]

    def probe(self, runs: np.ndarray, epoch: int) -> None:
        """Fills in the measures of the epoch probes, where they are due."""
        config = self.program.config
        if config.probes("epoch") and (epoch + 1) % config.recipe.probe_epochs == 0:
            for name, values in probe_runs(self, runs, steps=(epoch + 1) * config.steps_per_epoch).items():
                self.history.probes[name][runs, epoch] = values

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
        return evaluate_runs(self, variables, self.cohort.task.splits[split], runs)

    def test(self) -> np.ndarray:
        """Test logits [run, image, class] at the best epochs, NaN for a run without one; fills in `test_metrics`."""
        task, selected = self.cohort.task, np.flatnonzero(self.history.best_epoch)
        positions = task.splits["test"]
        logits = np.full((len(self.runs), len(positions), len(task.classes)), np.nan, np.float32)
        if len(selected):
            logits[selected] = self.evaluate("test", selected, best=True)
            summary = metrics.summary(task.labels[positions], logits[selected])
            self.test_metrics[selected] = np.stack([summary[name] for name in SUMMARY], axis=-1)
        self.checkpoints.finish()
        return logits

    def save(self) -> None:
        """Tables first, then the checkpoint in the background."""
        self.on_save(self)
        super().save()

    def records(self) -> dict[str, Any]:
        """History, and the pixel statistics, so that a run can be loaded without its data."""
        task = self.cohort.task
        return {"history": self.history.arrays(), "pixels": {"mean": np.array(task.mean), "std": np.array(task.std)}}
