"""Tables of an output folder, made from histories."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import softmax

from fishnet.data import Task
from fishnet.metrics.classification import per_class
from fishnet.nn.activations import ACTIVATIONS
from fishnet.probes import PROBES
from fishnet.probes.failures import failure_text
from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.program.traced_probes import measure_shapes
from fishnet.sweep.spec.field_parsing import shown_value
from fishnet.sweep.spec.history import CLASS_CURVES, CURVES, FAILURE, PRETRAIN_CURVES, STATUS, SUMMARY, History
from fishnet.sweep.spec.sweep import Run

PER_CLASS = ("support", "auc", "auc_low", "auc_high", "recall", "precision")
PROBES_COLUMNS = ("run", "epoch", "step", "probe", "layer", "index", "class", "value")


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


def empty_measures(cohort: Cohort) -> dict[str, np.ndarray]:
    """Arrays of `History.probes` before the first step; none where the runs have no probes."""
    config, runs = cohort.config, len(cohort.runs)
    found: dict[str, np.ndarray] = {}
    for kind, lead in (("step", (config.measurements,)), ("epoch", ())):
        probes = config.probes(kind)
        for name, size in measure_shapes(probes, cohort.probe_axes).items() if probes else ():
            found[name] = np.full((runs, cohort.epochs, *lead, *size), np.nan, np.float32)
    if config.probes("failure"):
        found[FAILURE] = np.full((runs, 2), -1, np.int32)
    return found


def has_measures(cohort: Cohort) -> bool:
    """Tells whether probes give the runs measures, for a table of their own."""
    return any(PROBES[name].gives for name in cohort.config.recipe.probes)


def failure_columns(history: History, cohort: Cohort) -> dict[str, list[str | None]]:
    """Columns that `runs.parquet` has for runs with the probe `first_bad`."""
    if not cohort.config.probes("failure"):
        return {}
    found = history.probes.get(FAILURE, np.full((len(cohort.runs), 2), -1)).tolist()
    texts = [failure_text(phase, layer, cohort.probe_axes.layer) for phase, layer in found]
    return {"first_bad_phase": [phase for phase, _ in texts], "first_bad_layer": [layer for _, layer in texts]}


def probes_table(cohort: Cohort, history: History) -> pd.DataFrame:
    """`probes.parquet` of one cohort, run by run: a row a measurement, measure and entry of it.

    `step` is the number of the step that was measured, from 0, or, in measures of an epoch, of steps made. `index` is
    the place of a layer in order of execution, or of a class; a measure of the whole network has none.
    """
    probes = [PROBES[name] for name in cohort.config.recipe.probes]
    parts = [
        measure_rows(cohort, history, probe.kind, name, measure.axis)
        for probe in probes
        for name, measure in probe.gives.items()
    ]
    if not parts:
        return pd.DataFrame(columns=PROBES_COLUMNS)
    return pd.concat(parts).sort_values(["run", "epoch", "step"], kind="stable", ignore_index=True)


def measure_rows(cohort: Cohort, history: History, kind: str, name: str, axis: str) -> pd.DataFrame:
    """Rows of measure `name` of a probe of this `kind` (step or epoch), run by run; `axis` as in `Measure`."""
    recipe, per_epoch = cohort.config.recipe, cohort.config.steps_per_epoch
    values, epochs, bad = history.probes[name], np.arange(cohort.epochs), history.first_bad_step[:, None, None]
    if kind == "step":
        steps = epochs[:, None] * per_epoch + np.arange(cohort.config.measurements) * recipe.probe_every
        due = np.ones(cohort.epochs, bool)
    else:
        values = values[:, :, None]
        steps = (epochs[:, None] + 1) * per_epoch  # [epoch, measurement]
        due = (epochs + 1) % recipe.probe_epochs == 0
    finished = due & (epochs < history.epochs[:, None])
    # A run that went non-finite was measured up to and with its bad step, but not at the end of that epoch.
    run, epoch, place = np.nonzero(finished[:, :, None] & ((bad < 0) | (steps <= bad)))
    names = {"run": [None], "class": list(cohort.task.classes)}.get(axis) or list(getattr(cohort.probe_axes, axis))
    used = used_entries(cohort, axis, names)
    measured, entry = np.nonzero(used[run])
    run, epoch, place = (part[measured] for part in (run, epoch, place))
    labels, blank = np.asarray(names, object)[entry], np.full(len(entry), None, object)
    index = blank if axis == "run" else (used.cumsum(1) - 1)[run, entry]
    return pd.DataFrame(
        {
            "run": np.asarray([member.index for member in cohort.runs], np.int64)[run],
            "epoch": epoch + 1,
            "step": steps[epoch, place],
            "probe": np.full(len(entry), name, object),
            "layer": blank if axis == "class" else labels,
            "index": pd.array(index, dtype="Int64"),
            "class": labels if axis == "class" else blank,
            "value": values.reshape(*values.shape[:3], -1)[run, epoch, place, entry],
        }
    )


def used_entries(cohort: Cohort, axis: str, names: Sequence[str | None]) -> np.ndarray:
    """Entries of a measure that each run has, [run, entry] bool: all, but for slopes that only its neighbors learn."""
    learned = [getattr(ACTIVATIONS[run.recipe.activation], "slope", None) is not None for run in cohort.runs]
    slopes = [axis == "layer" and str(name).rpartition("/")[2].startswith("act") for name in names]
    return np.array(learned)[:, None] | ~np.array(slopes)
