"""Pretraining phase: one objective without labels, whose trunks the supervised phase begins with."""

from collections.abc import Callable, Sequence

import numpy as np

from fishnet.sweep.program.compile import GroupWindow
from fishnet.sweep.program.program import PretrainProgram
from fishnet.sweep.program.state import LaneState
from fishnet.sweep.run.phase import Phase
from fishnet.sweep.spec.history import DIVERGED, PRETRAIN_CURVES


class PretrainingPhase(Phase):
    """Pretraining of the runs of a cohort that have one objective.

    Args:
        name: of the objective.
        training: the supervised phase of the same cohort.
        fresh: runs that have not begun to train; those of them with this objective are pretrained.
        stage: told in a line what is being done.
    """

    state_name = "pretraining"

    def __init__(self, name: str, training: Phase, fresh: np.ndarray, stage: Callable[[str], None]) -> None:
        super().__init__(
            PretrainProgram(training.program, name),
            *(training.layout, training.history, training.checkpoints.beside(name), training.interrupt),
        )
        self.name, self.stage = name, stage
        runs = self.layout.cohort.runs
        self.runs = np.array([run for run in fresh if runs[run].recipe.pretrain == name], np.int64)
        self.planned = np.array([run.recipe.pretrain_epochs for run in runs])
        self.steps, self.epochs = np.zeros(len(runs), np.int64), np.zeros(len(runs), np.int32)

    def pretrain(self, lanes: Sequence[LaneState], warn: Callable[[str], None]) -> list[LaneState]:
        """Pretrains from the trunks in `lanes`, or goes on from the last checkpoint, and hands the trunks over.

        Args:
            lanes: of each device, before their first step; given up.
            warn: told of damaged checkpoints.

        Returns:
            The lanes with pretrained trunks; runs whose pretraining met a value that is not finite count as diverged.
        """
        self.prepare(lanes, warn)
        self.run()
        bad = self.layout.gather([state.first_bad_step for state in self.states], self.runs)
        self.history.status[self.runs[bad >= 0]] = DIVERGED
        self.history.first_bad_step[self.runs[bad >= 0]] = 0
        return self.program.apply(lanes, self.states, self.layout.mask(self.runs))

    def prepare(self, lanes: Sequence[LaneState], warn: Callable[[str], None]) -> None:
        """Compiles what is needed; the states are those of the last checkpoint or fresh ones."""
        restored = self.restore(warn)
        complete = restored is not None and restored.found[self.runs].all()
        self.stage(f"compiling pretraining: {self.name}")
        self.program.compile(["train"] if complete else ["train", "init"], self.interrupt)
        if not complete:
            self.states = self.program.init(lanes)
        if restored is not None:
            self.steps, self.epochs = restored.over("steps", self.steps), restored.over("epochs", self.epochs)
            curves = restored.over("curves", self.history.pretrain_curves)
            self.history.pretrain_curves[self.runs] = curves[self.runs]
            self.place_states(restored)

    @property
    def active(self) -> np.ndarray:
        """Runs of this objective that have epochs left."""
        return self.runs[self.epochs[self.runs] < self.planned[self.runs]]

    def begin_epoch(self, epoch: int) -> None:
        """Says which epoch it is."""
        self.stage(f"pretraining: {self.name}, epoch {epoch + 1} of {int(self.planned[self.runs].max())}")

    def train_groups(self, work: GroupWindow, start: int, stop: int) -> list:
        """States of each device after a call of the objective's program."""
        return self.program.train(self.states, work, start, stop)

    def finish_epoch(self, runs: np.ndarray, epoch: int) -> None:
        """Fills in the pretraining curves of an epoch."""
        sums = self.layout.gather([(state.steps, state.loss, state.solved) for state in self.states], runs)
        steps, loss, solved = (leaf.astype(np.float64) for leaf in sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            metrics = {"loss": loss / steps, "solved": solved / steps}
        for name, values in metrics.items():
            self.history.pretrain_curves[runs, epoch, PRETRAIN_CURVES.index(name)] = values
        self.epochs[runs] = epoch + 1

    def records(self) -> dict[str, np.ndarray]:
        """Progress and curves."""
        return {"steps": self.steps, "epochs": self.epochs, "curves": self.history.pretrain_curves}
