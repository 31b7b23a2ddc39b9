"""The tables of an output folder, made from histories."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import softmax

from fishnet.data import Task
from fishnet.metrics.classification import per_class
from fishnet.sweep.spec.field_parsing import shown_value
from fishnet.sweep.spec.history import CLASS_CURVES, CURVES, PRETRAIN_CURVES, STATUS, SUMMARY, History
from fishnet.sweep.spec.sweep import Run

PER_CLASS = ("support", "auc", "auc_low", "auc_high", "recall", "precision")


def runs_table(
    runs: Sequence[Run],
    axes: Mapping[str, Sequence],
    history: History,
    params: np.ndarray,
    test: np.ndarray,
    failures: Mapping[str, Sequence] | None = None,
) -> pd.DataFrame:
    """`runs.parquet` of one cohort.

    Args:
        runs, history: of the cohort.
        axes: what the whole sweep varies, one column each: numbers, or text as soon as one of the values is no number.
        params: number of parameters that each arm uses, [run].
        test: test metrics [run, len(SUMMARY)], NaN while not evaluated.
        failures: further columns, that say where runs failed.
    """
    best = history.best_epoch
    columns = {"run": [r.index for r in runs], "arm": [r.arm for r in runs], "seed": [r.recipe.seed for r in runs]}
    for axis, values in axes.items():
        numbers = all(isinstance(value, int | float) for value in values)
        columns[axis] = [run.values[axis] if numbers else shown_value(run.values[axis]) for run in runs]
    columns |= {
        "status": [STATUS[s] for s in history.status],
        "first_bad_step": pd.array([None if step < 0 else int(step) for step in history.first_bad_step], dtype="Int64"),
        **(failures or {}),
        "best_epoch": pd.array([int(b) or None for b in best], dtype="Int64"),
        "params": params.astype(np.int64),
        "train_seconds": history.seconds,
    }
    columns |= {f"val_{name}": history.selected(f"val_{name}") for name in SUMMARY}
    columns |= {f"test_{name}": test[:, j] for j, name in enumerate(SUMMARY)}
    return pd.DataFrame(columns)


def curves_table(runs: Sequence[Run], history: History) -> pd.DataFrame:
    """`curves.parquet` of one cohort: a row a run and finished epoch."""
    return _epochs(runs, *_rows(history), history.curves, CURVES)


def pretrain_curves_table(runs: Sequence[Run], history: History) -> pd.DataFrame:
    """`pretrain_curves.parquet` of one cohort: a row a run and finished epoch of pretraining."""
    run, epoch = np.nonzero(np.isfinite(history.pretrain_curves[:, :, PRETRAIN_CURVES.index("loss")]))
    return _epochs(runs, run, epoch, history.pretrain_curves, PRETRAIN_CURVES)


def class_curves_table(runs: Sequence[Run], history: History, classes: Sequence[str]) -> pd.DataFrame:
    """`class_curves.parquet` of one cohort: a row a run, finished epoch and class."""
    run, epoch = _rows(history)
    index = np.asarray([r.index for r in runs], np.int64)[run]
    columns = {
        "run": np.repeat(index, len(classes)),
        "epoch": np.repeat(epoch + 1, len(classes)),
        "class": np.tile(np.asarray(classes, object), len(run)),
    }
    values = history.class_curves[run, epoch].reshape(-1, len(CLASS_CURVES))
    columns |= {name: values[:, j] for j, name in enumerate(CLASS_CURVES)}
    return pd.DataFrame(columns)


def per_class_table(indices: Sequence[int] | np.ndarray, task: Task, logits: np.ndarray) -> pd.DataFrame:
    """`per_class.parquet` of runs with these numbers, from their logits [run, n_test, class] at `best_epoch`."""
    labels = task.labels[task.splits["test"]]
    k = len(task.classes)
    values = per_class(labels, logits) if len(indices) else {name: np.zeros((0, k)) for name in PER_CLASS}
    columns = {
        "run": np.repeat(np.asarray(indices, np.int64), k),
        "class": np.tile(np.asarray(task.classes, object), len(indices)),
    }
    return pd.DataFrame(
        columns | {name: np.broadcast_to(values[name], (len(indices), k)).ravel() for name in PER_CLASS}
    )


def predictions_table(indices: Sequence[int] | np.ndarray, task: Task, split: str, logits: np.ndarray) -> pd.DataFrame:
    """`predictions.parquet`: probabilities [run, n, class] at `best_epoch` of one split, from its logits."""
    positions = task.splits[split]
    n, k = len(positions), len(task.classes)
    probabilities = softmax(np.asarray(logits, np.float64), axis=-1).reshape(-1, k).astype(np.float32)
    columns = {
        "run": np.repeat(np.asarray(indices, np.int64), n),
        "split": np.full(len(indices) * n, split, object),
        "example": np.tile(positions.astype(np.int64), len(indices)),
        "label": np.tile(task.labels[positions].astype(np.int64), len(indices)),
    }
    return pd.DataFrame(columns | {f"p_{name}": probabilities[:, j] for j, name in enumerate(task.classes)})


def _epochs(
    runs: Sequence[Run], run: np.ndarray, epoch: np.ndarray, values: np.ndarray, names: Sequence[str]
) -> pd.DataFrame:
    """Rows of `values` [run, epoch, name], one for each pair of `run` and `epoch` (from 0)."""
    columns = {"run": np.asarray([r.index for r in runs], np.int64)[run], "epoch": epoch + 1}
    return pd.DataFrame(columns | {name: values[run, epoch, j] for j, name in enumerate(names)})


def _rows(history: History) -> tuple[np.ndarray, np.ndarray]:
    """Run and epoch, from 0, of every finished epoch, [row] each."""
    run, epoch = np.nonzero(np.arange(history.curves.shape[1]) < history.epochs[:, None])
    return run, epoch
