"""History of the runs of a cohort, epoch by epoch: plain arrays, saved with every checkpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np

RUNNING, OK, DIVERGED, STOPPED = 0, 1, 2, 3
STATUS = ("running", "ok", "diverged", "stopped")
SUMMARY = ("loss", "accuracy", "balanced_accuracy", "macro_auc", "macro_f1", "ece")
CURVES = ("train_loss", "train_accuracy", "lr", "grad_norm", "clipped", *(f"val_{name}" for name in SUMMARY))
PRETRAIN_CURVES = ("loss", "solved")
CLASS_CURVES = ("val_auc", "val_loss", "train_loss")
LOWER_IS_BETTER = ("val_loss", "val_ece")
FAILURE = "failure"  # among what is probed: phase and layer of the first non-finite value [run, 2] int32, -1 for none
PROBED = "probed_"  # before the names of what is probed, in a checkpoint


@dataclass
class History:
    """Arrays with a leading run axis, in run order. NaN where nothing was measured."""

    status: np.ndarray  # [run] int8, position in STATUS
    steps: np.ndarray  # [run] int64, steps made
    epochs: np.ndarray  # [run] int32, epochs finished and evaluated
    best_epoch: np.ndarray  # [run] int32, from 1; 0: none yet
    first_bad_step: np.ndarray  # [run] int64, -1: none
    seconds: np.ndarray  # [run] float64, share of the wall time
    executed: np.ndarray  # [run] int64, lane-steps executed for it; the padding of a group counts for its first run
    rate: np.ndarray  # [run] float32, what the schedule plateau multiplies the learning rate by
    plateau_best: np.ndarray  # [run] float32, the lowest validation loss that counted for it
    plateau_bad: np.ndarray  # [run] int32, epochs since
    curves: np.ndarray  # [run, epoch, len(CURVES)] float64
    class_curves: np.ndarray  # [run, epoch, class, len(CLASS_CURVES)] float64
    pretrain_curves: np.ndarray  # [run, epoch of pretraining, len(PRETRAIN_CURVES)] float64
    # Probe -> [run, epoch, measurement, ...] float32, of an epoch without measurements; FAILURE -> [run, 2] int32
    probes: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def empty(
        cls,
        runs: int,
        epochs: int,
        classes: int,
        pretrain_epochs: int = 0,
        probes: Mapping[str, np.ndarray] | None = None,
    ) -> "History":
        """The history of runs that have not started; `probes` as the field."""
        return cls(
            status=np.zeros(runs, np.int8),
            steps=np.zeros(runs, np.int64),
            epochs=np.zeros(runs, np.int32),
            best_epoch=np.zeros(runs, np.int32),
            first_bad_step=np.full(runs, -1, np.int64),
            seconds=np.zeros(runs),
            executed=np.zeros(runs, np.int64),
            rate=np.ones(runs, np.float32),
            plateau_best=np.full(runs, np.inf, np.float32),
            plateau_bad=np.zeros(runs, np.int32),
            curves=np.full((runs, epochs, len(CURVES)), np.nan),
            class_curves=np.full((runs, epochs, classes, len(CLASS_CURVES)), np.nan),
            # At least one: a checkpoint holds no empty arrays.
            pretrain_curves=np.full((runs, max(pretrain_epochs, 1), len(PRETRAIN_CURVES)), np.nan),
            probes=dict(probes or {}),
        )

    @property
    def useful(self) -> np.ndarray:
        """Steps of each run that count, [run] int64: those before it went non-finite."""
        return np.where(self.first_bad_step < 0, self.steps, np.minimum(self.steps, self.first_bad_step))

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name, for a checkpoint; each probe as one of its own."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "probes"}
        return found | {f"{PROBED}{name}": values for name, values in self.probes.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "History":
        """The inverse of `arrays`."""
        values = {name: np.array(value) for name, value in arrays.items()}
        probes = {name.removeprefix(PROBED): values.pop(name) for name in list(values) if name.startswith(PROBED)}
        return cls(**values, probes=probes)

    def selected(self, name: str) -> np.ndarray:
        """A metric of `CURVES` at each run's best epoch, [run] float64; NaN without one."""
        values = self.curves[np.arange(len(self.best_epoch)), self.best_epoch - 1, CURVES.index(name)]
        return np.where(self.best_epoch > 0, values, np.nan)

    def is_better(self, run: int, epoch: int, select_by: str) -> bool:
        """Tells whether `epoch` (from 0) beats the best one so far; ties and undefined metrics do not."""
        column = self.curves[run, :, CURVES.index(select_by)]
        if not np.isfinite(column[epoch]):
            return False
        if not self.best_epoch[run]:
            return True
        best = column[self.best_epoch[run] - 1]
        return bool(column[epoch] < best if select_by in LOWER_IS_BETTER else column[epoch] > best)


def lane_steps(histories: Iterable[History]) -> dict[str, int]:
    """The lane-steps executed in all cohorts of a sweep, padding included, and those of them that count."""
    pairs = [(history.executed.sum(), history.useful.sum()) for history in histories]
    executed, useful = np.sum(pairs, axis=0)
    return {"executed": int(executed), "useful": int(useful)}
