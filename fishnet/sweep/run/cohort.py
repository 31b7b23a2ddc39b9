"""Trains one cohort on the host's side: slices of work, epochs, selection, checkpoints, the last test."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax.serialization import from_state_dict, to_state_dict

from fishnet.host.interrupt import Interrupt
from fishnet.metrics import classification as metrics
from fishnet.optim.plateau import PlateauState, update_plateau
from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.plan.layout import Layout, evaluation_chunk
from fishnet.sweep.program.program import Program
from fishnet.sweep.program.state import LaneState
from fishnet.sweep.run.call_pacer import CallPacer
from fishnet.sweep.run.evaluation import logits_of
from fishnet.sweep.run.host_probes import is_due, nothing_measured, probe_runs, take_steps
from fishnet.sweep.run.pretraining import Pretraining
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.history import CLASS_CURVES, CURVES, DIVERGED, OK, RUNNING, SUMMARY, History
from fishnet.sweep.spec.stopping import ArmStopper
from fishnet.sweep.store.backbones import transfer_trunk
from fishnet.sweep.store.checkpoint_store import CheckpointStore

CALL_SECONDS = 2.0  # how long one call of a compiled program should take, so that signals are obeyed
CHECKPOINT_SECONDS = 10.0  # at most one checkpoint in this time


class CohortRunner:
    """The runs of one cohort, from the state on disk (if any) to their test figures.

    Args:
        cohort: the runs and their layout.
        devices: as many as the cohort's layout has.
        checkpoints: of the runs of this cohort.
        interrupt: looked at between calls.
        display: shown progress and warnings.
        on_epoch: called with this runner whenever a checkpoint is about to be written: writes the tables.
        advance: called with the run-epochs done and the epoch, after every call.
        referee: ends arms early; None: all go on to their own end.
    """

    def __init__(
        self,
        cohort: Cohort,
        devices: list[jax.Device],
        checkpoints: CheckpointStore,
        interrupt: Interrupt,
        display: Display,
        on_epoch: Callable[["CohortRunner"], None],
        advance: Callable[["CohortRunner", float], None],
        referee: ArmStopper | None = None,
    ) -> None:
        self.cohort, self.checkpoints, self.interrupt, self.display = cohort, checkpoints, interrupt, display
        self.on_epoch, self.advance, self.referee = on_epoch, advance, referee
        self.program = Program(
            cohort.config,
            cohort.padded_config(),
            cohort.task,
            devices,
            chunk=evaluation_chunk(cohort),
            functions=cohort.functions,
        )
        count, classes = len(cohort.runs), len(cohort.task.classes)
        self.history = History.empty(
            count, cohort.epochs, classes, cohort.pretrain_epochs, probes=nothing_measured(cohort)
        )
        self.test = np.full((count, len(SUMMARY)), np.nan)
        self.lanes: list[LaneState] = []  # one a device
        self.layout = Layout(cohort)
        self._pace = {name: CallPacer(CALL_SECONDS) for name in ("train", "evaluate", "probe")}
        self._saved = 0.0
        self._unsaved = False
        self._compiling = 0.0  # seconds

    @property
    def epoch(self) -> int:
        """The epoch in progress, from 0."""
        active = self.active
        return int(self.history.epochs[active].min()) if len(active) else self.cohort.epochs

    @property
    def active(self) -> np.ndarray:
        """The runs still in training."""
        return np.flatnonzero(self.history.status == RUNNING)

    @property
    def _probing(self) -> bool:
        """Whether there are probes of an epoch."""
        return bool(self.cohort.config.probes("epoch"))

    @property
    def current(self) -> np.ndarray:
        """Those in the epoch in progress; a run that another number of processes trained further waits for the rest."""
        active = self.active
        return active[self.history.epochs[active] == self.epoch]

    @property
    def run_epochs(self) -> float:
        """Epochs done, over all runs; a run that ended early counts as done."""
        planned = np.array([run.recipe.epochs for run in self.cohort.runs])
        done = np.minimum(self.history.steps / self.cohort.config.steps_per_epoch, planned)
        return float(np.where(self.history.status == RUNNING, done, planned).sum())

    def prepare(self) -> None:
        """Reads the newest states, compiles what is still needed, and makes the initial ones that there were not."""
        restored = self.checkpoints.restore(self._abstract(), self.display.warn)
        fresh = np.flatnonzero(~restored.found) if restored else np.arange(len(self.cohort.runs))
        if restored:
            self.history = History.of(restored.over("history", self.history.arrays()))
        names = ["train", "evaluate", "keep"] if len(self.active) else ["evaluate"]
        names += ["init"] if len(fresh) else []
        names += ["probe"] if self._probing and len(self.active) else []
        began = time.perf_counter()
        self._call = self.program.compile({name: partial(self.program.lower, name) for name in names}, self.interrupt)
        self._compiling = time.perf_counter() - began
        if len(fresh):
            arguments = enumerate(zip(self.program.traced, self.program.data, strict=True))
            self.lanes = list(self._call["init"](dict(arguments)).values())
        if restored:
            lanes = restored.over("lanes", self._by_run()) if len(fresh) else restored.tree["lanes"]
            self.lanes = self.program.split(self._by_position(lanes))
        self._transplant(fresh)
        self._pretrain(fresh)
        if self.referee:
            self.referee.learn([run.arm for run in self.cohort.runs], self.history)
        self._saved = time.monotonic()

    def _transplant(self, fresh: np.ndarray) -> None:
        """Puts the trunks of earlier runs into the fresh lanes that begin with one."""
        cohort = self.cohort
        for run in fresh:
            member = cohort.runs[run]
            if member.recipe.trunk == "none":
                continue
            device, lane = divmod(int(cohort.position[run]), cohort.lanes_per_device)
            lanes = self.lanes[device]
            own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], (lanes.params, lanes.statistics))
            begun = transfer_trunk(member.recipe, *own, cohort.trunks[member.recipe.trunk])
            params, statistics = jax.tree.map(
                lambda leaf, new, lane=lane: leaf.at[lane].set(new), (lanes.params, lanes.statistics), begun
            )
            self.lanes[device] = lanes.with_initial(params, statistics)

    def _pretrain(self, fresh: np.ndarray) -> None:
        """Pretrains the fresh runs that ask for it, objective after objective, and keeps the trunks."""
        wanted = {self.cohort.runs[run].recipe.pretrain for run in fresh}
        stages = [
            Pretraining(
                name,
                self.layout,
                self.program,
                self.history,
                fresh,
                self.checkpoints.beside(name),
                self.interrupt,
                self.display.stage,
                self.display.warn,
                CALL_SECONDS,
                CHECKPOINT_SECONDS,
            )
            for name in self.cohort.objectives
            if name in wanted
        ]
        for stage in stages:
            try:
                self.lanes = stage.teach(self.lanes)
            finally:
                stage.checkpoints.give_up()
        if stages:
            self._save()
            self.checkpoints.finish()
        for stage in stages:
            stage.forget()

    @property
    def spent(self) -> dict[str, float]:
        """Seconds by what took them."""
        paces = {"training": "train", "evaluating": "evaluate"} | ({"probing": "probe"} if self._probing else {})
        return {"compiling": self._compiling} | {what: self._pace[name].taken for what, name in paces.items()}

    @property
    def steps_made(self) -> int:
        """Steps of training in this session, of the device that had most groups."""
        return self._pace["train"].made

    def train(self) -> None:
        """Trains every run to its end, epoch by epoch, saving on the way."""
        while len(self.active):
            self._train_epoch()
            self._finish_epoch()
            self._unsaved = True
            if time.monotonic() - self._saved >= CHECKPOINT_SECONDS or not len(self.active):
                self._save()
        if self._unsaved:
            self._save()

    def test_logits(self, split: str, runs: np.ndarray) -> np.ndarray:
        """Logits [run, image, class] of `runs` at their best epoch, on the images of `split`."""
        return self._evaluate(split, runs, best=True)

    def finish(self) -> np.ndarray:
        """Evaluates the test split for the selected epochs and waits for the last checkpoint.

        Returns:
            Test logits [run, image, class] of every run; NaN for a run without a selected epoch.
        """
        positions = self.cohort.task.splits["test"]
        logits = np.full((len(self.cohort.runs), len(positions), len(self.cohort.task.classes)), np.nan, np.float32)
        selected = np.flatnonzero(self.history.best_epoch)
        if len(selected):
            logits[selected] = self._evaluate("test", selected, best=True)
            summary = metrics.summary(self.cohort.task.labels[positions], logits[selected])
            self.test[selected] = np.stack([summary[name] for name in SUMMARY], axis=-1)
        self.checkpoints.finish()
        return logits

    def _train_epoch(self) -> None:
        """Takes every run to the end of the epoch in progress, in calls of about `CALL_SECONDS`."""
        per_epoch = self.cohort.config.steps_per_epoch
        end = (self.epoch + 1) * per_epoch
        steps = self.history.steps
        for start in sorted(set(steps[self.current]) - {end}):
            groups, counts = self.layout.groups([run for run in self.current if steps[run] == start])
            for window, at, stop in self._pace["train"].calls(counts, start, end):
                self._train_call(groups, window, at, stop)

    def _train_call(self, groups: np.ndarray, window: np.ndarray, start: int, stop: int) -> None:
        """One call: the groups in `window`, from step `start` to `stop`."""
        runs = self.layout.members(groups, window)
        began = time.perf_counter()
        program, steps = self.program, np.asarray([start, stop], np.int32)
        rates = np.split(self.history.rate[self.cohort.run_at], len(self.lanes))
        arguments = {
            device: (
                program.traced[device],
                self.lanes[device],
                rates[device],
                program.data[device],
                groups[device],
                window[device],
                steps,
            )
            for device in np.flatnonzero(window[:, 1] > window[:, 0])
        }
        for device, lanes in self._call["train"](arguments).items():
            self.lanes[device] = lanes
        took = time.perf_counter() - began
        self._pace["train"].measured(window, stop - start, took)
        self.history.steps[runs] = stop
        self.history.seconds[runs] += took / len(runs)
        self.history.executed[runs] += self.layout.executed(groups, window) * (stop - start)
        self.advance(self, self.run_epochs)
        self._obey()

    def _obey(self) -> None:
        """Saves and stops if a signal has come: between calls, also those of an evaluation, which is then made anew."""
        if self.interrupt.number is not None:
            self._save()
            self.checkpoints.finish()
            self.interrupt.check("saved: the same command goes on from here")

    def _finish_epoch(self) -> None:
        """Evaluates the validation split, fills the history, keeps the best variables and ends what is to end."""
        history, cohort, epoch = self.history, self.cohort, self.epoch
        runs = self.current
        lanes = self.layout.gather([(lane.epoch, lane.first_bad_step, lane.lr) for lane in self.lanes], runs)
        totals, bad, lr = jax.tree.map(lambda leaf: leaf.astype(np.float64), lanes)
        with np.errstate(invalid="ignore", divide="ignore"):
            trained = {
                "train_loss": totals.loss / totals.steps,
                "train_accuracy": totals.correct / (totals.steps * cohort.config.recipe.batch_size),
                "lr": lr,
                "grad_norm": totals.grad_norm / totals.steps,
                "clipped": totals.clipped / totals.steps,
            }
            history.class_curves[runs, epoch, :, CLASS_CURVES.index("train_loss")] = (
                totals.class_loss / totals.class_count
            )
        for name, value in trained.items():
            history.curves[runs, epoch, CURVES.index(name)] = value
        history.first_bad_step[runs] = bad
        take_steps(history, self.layout, self.lanes, runs, epoch)
        sound = runs[bad < 0]
        if len(sound):
            # What obeys signals comes first: it is made anew after a stop, which must find the rest undone.
            self._validate(sound, epoch)
            self._probe(sound, epoch)
            self._follow_plateau(sound, epoch)
        history.epochs[runs] = epoch + 1
        history.status[runs[bad >= 0]] = DIVERGED
        better = np.zeros(len(cohort.run_at), bool)
        for run in sound:
            recipe = cohort.runs[run].recipe
            if history.is_better(run, epoch, recipe.select_by):
                history.best_epoch[run] = epoch + 1
                better[cohort.position[run]] = True
            waited = epoch + 1 - history.best_epoch[run]
            if epoch + 1 == recipe.epochs or (recipe.patience and waited >= recipe.patience):
                # An update that overflowed shows in the loss of the next step; after the last one it shows only here.
                sound_to_the_end = np.isfinite(history.curves[run, epoch, CURVES.index("val_loss")])
                history.status[run] = OK if sound_to_the_end else DIVERGED
                history.first_bad_step[run] = -1 if sound_to_the_end else history.steps[run]
        parts = enumerate(np.split(better, len(self.lanes)))
        arguments = {device: (self.lanes[device], part) for device, part in parts if part.any()}
        for device, lanes in self._call["keep"](arguments).items():
            self.lanes[device] = lanes
        if self.referee:
            runs = cohort.runs
            self.referee.judge([run.arm for run in runs], history, [run.recipe.epochs for run in runs])
        self.advance(self, self.run_epochs)

    def _validate(self, runs: np.ndarray, epoch: int) -> None:
        """Fills in the validation figures of one epoch."""
        began = time.perf_counter()
        labels = self.cohort.task.labels[self.cohort.task.splits["val"]]
        logits = self._evaluate("val", runs, best=False)
        summary = metrics.summary(labels, logits)
        for name in SUMMARY:
            self.history.curves[runs, epoch, CURVES.index(f"val_{name}")] = summary[name]
        by_class = metrics.class_metrics(labels, logits)
        self.history.class_curves[runs, epoch, :, CLASS_CURVES.index("val_auc")] = by_class["auc"]
        self.history.class_curves[runs, epoch, :, CLASS_CURVES.index("val_loss")] = by_class["loss"]
        self.history.seconds[runs] += (time.perf_counter() - began) / len(runs)

    def _probe(self, runs: np.ndarray, epoch: int) -> None:
        """Fills in the figures of the probes of an epoch, where they are due."""
        if not self._probing or not is_due(self.cohort.config.recipe.probe_epochs, epoch):
            return
        began = time.perf_counter()
        steps = (epoch + 1) * self.cohort.config.steps_per_epoch
        figures = probe_runs(
            self.layout,
            self.program,
            self._call["probe"],
            self.lanes,
            runs,
            steps,
            self._pace["probe"],
            self._obey,
        )
        for figure, values in figures.items():
            self.history.probes[figure][runs, epoch] = values
        self.history.seconds[runs] += (time.perf_counter() - began) / len(runs)

    def _follow_plateau(self, runs: np.ndarray, epoch: int) -> None:
        """Cuts the rate of the runs whose schedule is plateau and whose validation loss has stopped falling."""
        history = self.history
        for run in runs:
            recipe = self.cohort.runs[run].recipe
            if recipe.schedule == "plateau":
                state = PlateauState(history.plateau_best[run], history.plateau_bad[run], history.rate[run])
                loss = history.curves[run, epoch, CURVES.index("val_loss")]
                lowest = recipe.lr_min / recipe.lr
                state = update_plateau(state, loss, recipe.plateau_factor, recipe.plateau_patience, lowest)
                history.plateau_best[run], history.plateau_bad[run] = state.best, state.bad_epochs
                history.rate[run] = state.multiplier

    def _evaluate(self, split: str, runs: np.ndarray, best: bool) -> np.ndarray:
        """Logits [run, image, class] of `runs` on the images of `split`, in calls of about `CALL_SECONDS`."""
        variables = [
            (lanes.best_params, lanes.best_statistics) if best else (lanes.evaluated, lanes.evaluated_statistics)
            for lanes in self.lanes
        ]
        return logits_of(
            self.layout,
            self.program,
            self._call["evaluate"],
            variables,
            self.cohort.task.splits[split],
            runs,
            self._pace["evaluate"],
            self._obey,
        )

    def _save(self) -> None:
        """Tables first, then the checkpoint in the background."""
        self.on_epoch(self)
        history = {name: value.copy() for name, value in self.history.arrays().items()}
        self.checkpoints.save({"lanes": self._by_run(), "history": history, "pixels": self._pixel_statistics()})
        self._saved, self._unsaved = time.monotonic(), False

    def _abstract(self) -> Any:
        """What a checkpoint of this cohort looks like."""
        runs = len(self.cohort.runs)
        lanes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((runs, *leaf.shape[1:]), leaf.dtype),
            to_state_dict(self.program.abstract_lanes),
        )
        history = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in self.history.arrays().items()}
        pixels = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in self._pixel_statistics().items()}
        return {"lanes": lanes, "history": history, "pixels": pixels}

    def _pixel_statistics(self) -> dict[str, np.ndarray]:
        """Kept beside the weights, so that a run can be loaded without its data."""
        return {"mean": np.array(self.cohort.task.mean), "std": np.array(self.cohort.task.std)}

    def _by_run(self) -> Any:
        """The state of all lanes in run order."""
        return to_state_dict(self.layout.gather(self.lanes, np.arange(len(self.cohort.runs))))

    def _by_position(self, lanes: Any) -> LaneState:
        """Restored lanes in run order -> the layout of this plan; padding lanes repeat the first run."""
        return from_state_dict(self.program.abstract_lanes, self.layout.scatter(lanes))
