"""Pretraining phases: objectives without labels, whose trunks the supervised phase begins with."""

import numpy as np

from fishnet.sweep.program.pretrain_step import PretrainState
from fishnet.sweep.program.program import PretrainProgram
from fishnet.sweep.run.phase import Phase
from fishnet.sweep.spec.history import DIVERGED, PRETRAIN_CURVES


def pretrain(training: Phase, fresh: np.ndarray) -> None:
    """Pretrains the `fresh` runs of a supervised phase that ask for it, objective after objective; keeps the trunks."""
    wanted = {training.cohort.runs[run].recipe.pretrain for run in fresh}
    phases = [PretrainingPhase(name, training, fresh) for name in training.cohort.objectives if name in wanted]
    for phase in phases:
        try:
            phase.pretrain()
        finally:
            phase.checkpoints.give_up()
    if phases:
        training.save()
        training.checkpoints.finish()
    for phase in phases:
        phase.checkpoints.forget()


class PretrainingPhase(Phase):
    """Pretraining with objective `name` of those runs that have it and are `fresh`, for the supervised phase."""

    state_name = "pretraining"

    def __init__(self, name: str, training: Phase, fresh: np.ndarray) -> None:
        super().__init__(
            PretrainProgram(training.program, name),
            training.layout,
            training.history,
            training.checkpoints.beside(name),
            training.interrupt,
            training.display,
        )
        self.name, self.training = name, training
        runs = self.cohort.runs
        self.runs = np.array([run for run in fresh if runs[run].recipe.pretrain == name], np.int64)
        self.planned = np.array([run.recipe.pretrain_epochs for run in runs])
        self.steps, self.epochs = np.zeros(len(runs), np.int64), np.zeros(len(runs), np.int32)

    def pretrain(self) -> None:
        """Pretrains, from the last checkpoint on if there is one, and hands the trunks to the supervised phase.

        Runs that met a value that is not finite count as diverged.
        """
        self.display.stage(f"compiling pretraining: {self.name}")
        self.prepare()
        self.run()
        bad = self.layout.gather([state.first_bad_step for state in self.states], self.runs)
        self.history.status[self.runs[bad >= 0]] = DIVERGED
        self.history.first_bad_step[self.runs[bad >= 0]] = 0
        self.training.states = self.program.apply(self.training.states, self.states, self.layout.mask(self.runs))

    @property
    def active(self) -> np.ndarray:
        """Runs of this objective that have epochs left."""
        return self.runs[self.epochs[self.runs] < self.planned[self.runs]]

    def init_states(self) -> list[PretrainState]:
        """States around the trunks of the supervised phase."""
        return self.program.init(self.training.states)

    def train_epoch(self, runs: np.ndarray, epoch: int) -> None:
        """Says which epoch it is, and trains it."""
        self.display.stage(f"pretraining: {self.name}, epoch {epoch + 1} of {int(self.planned[self.runs].max())}")
        super().train_epoch(runs, epoch)

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
