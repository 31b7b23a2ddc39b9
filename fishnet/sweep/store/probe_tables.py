"""`probes.parquet`, and where runs failed: what probes measured, as tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fishnet.nn.activations import ACTIVATIONS
from fishnet.probes import PROBES
from fishnet.probes.failures import failure_text
from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.program.traced_probes import measure_shapes
from fishnet.sweep.spec.history import FAILURE, History

COLUMNS = ("run", "epoch", "step", "probe", "layer", "index", "class", "value")


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
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(parts).sort_values(["run", "epoch", "step"], kind="stable", ignore_index=True)


def measure_rows(cohort: Cohort, history: History, kind: str, name: str, axis: str) -> pd.DataFrame:
    """Rows of one measure, run by run, of a probe of a kind (step or epoch) over one of `fishnet.probes.table.AXES`."""
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
