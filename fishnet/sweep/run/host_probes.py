"""What probes have measured, on the host: arrays of the history, calls of the program's probes, the table."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from fishnet.nn.activations import ACTIVATIONS
from fishnet.probes import PROBES
from fishnet.probes.failures import failure_text
from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.program import CompiledCalls, Program
from fishnet.sweep.program.state import LaneState, ProbeState
from fishnet.sweep.program.traced_probes import measure_shapes
from fishnet.sweep.run.call_pacer import CallPacer
from fishnet.sweep.spec.history import FAILURE, History

COLUMNS = ("run", "epoch", "step", "probe", "layer", "index", "class", "value")


def nothing_measured(cohort: Cohort) -> dict[str, np.ndarray]:
    """The arrays of `History.probes` before the first step; none where the runs have no probes."""
    shape, runs = cohort.config, len(cohort.runs)
    found: dict[str, np.ndarray] = {}
    for kind, lead in (("step", (shape.measurements,)), ("epoch", ())):
        probes = shape.probes(kind)
        for figure, size in measure_shapes(probes, cohort.probe_axes).items() if probes else ():
            found[figure] = np.full((runs, cohort.epochs, *lead, *size), np.nan, np.float32)
    if shape.probes("failure"):
        found[FAILURE] = np.full((runs, 2), -1, np.int32)
    return found


def has_figures(cohort: Cohort) -> bool:
    """Whether probes give its runs figures, for a table of their own."""
    return any(PROBES[name].gives for name in cohort.config.recipe.probes)


def take_steps(history: History, layout: Layout, lanes: Sequence[LaneState], runs: np.ndarray, epoch: int) -> None:
    """Fills in what was probed in the steps of an epoch, from 0, that some runs have finished."""
    if not isinstance(lanes[0].probed, ProbeState):
        return
    steps, failure = layout.gather([(lane.probed.steps, lane.probed.failure) for lane in lanes], runs)
    for figure, values in steps.items():
        history.probes[figure][runs, epoch] = values
    if FAILURE in history.probes:
        history.probes[FAILURE][runs] = failure


def probe_runs(
    layout: Layout,
    program: Program,
    probe: CompiledCalls,
    lanes: Sequence[LaneState],
    runs: np.ndarray,
    steps: int,
    pace: CallPacer,
    between: Callable[[], None],
) -> dict[str, np.ndarray]:
    """The figures of the probes of an epoch.

    Args:
        layout: of the cohort's lanes.
        program: of the cohort.
        probe: its compiled probes.
        lanes: of each device.
        runs: which, [run].
        steps: that they have made.
        pace: of the probes; takes in how long the calls took.
        between: called after every call.

    Returns:
        [run, ...] float32 each, in the order of `runs`.
    """
    positions = probe_positions(layout.cohort)
    groups, counts = layout.groups(list(runs))
    found: dict[str, np.ndarray] = {}
    for window in pace.windows(counts, len(positions)):
        began = time.perf_counter()
        arguments = {
            device: (
                program.traced[device],
                *(lanes[device].params, lanes[device].statistics, lanes[device].lr),
                program.data[device],
                groups[device],
                window[device],
                positions,
                np.int32(steps),
            )
            for device in np.flatnonzero(window[:, 1] > window[:, 0])
        }
        for device, figures in probe(arguments).items():
            first, last = window[device]
            of_group = layout.runs_at(device, groups[device, first:last])  # [group, width]
            for figure, values in figures.items():
                own = np.asarray(values)[first:last]
                rows = found.setdefault(figure, np.empty((len(layout.cohort.runs), *own.shape[2:]), np.float32))
                rows[of_group[of_group >= 0]] = own[of_group >= 0]
        pace.measured(window, len(positions), time.perf_counter() - began)
        between()
    return {figure: rows[runs] for figure, rows in found.items()}


def probe_positions(cohort: Cohort) -> np.ndarray:
    """The training images that the probes of an epoch look at, [batch, image] int32: the same in every epoch and run.

    In an order that mixes classes, which does not depend on the runs.
    """
    shape = cohort.config
    mixed = np.random.default_rng(0).permutation(cohort.task.splits["train"])
    size = shape.recipe.batch_size
    return mixed[: shape.probe_batches * size].reshape(-1, size).astype(np.int32)


def failures(history: History, cohort: Cohort) -> dict[str, list[str | None]]:
    """The columns that `runs.parquet` has of runs with the probe `first_bad`."""
    if not cohort.config.probes("failure"):
        return {}
    found = history.probes.get(FAILURE, np.full((len(cohort.runs), 2), -1)).tolist()
    texts = [failure_text(*row, cohort.probe_axes.layer) for row in found]
    return {"first_bad_phase": [phase for phase, _ in texts], "first_bad_layer": [layer for _, layer in texts]}


def probes_table(cohort: Cohort, history: History) -> pd.DataFrame:
    """`probes.parquet` of one cohort, run by run: a row a measurement, figure and entry of the figure.

    `step` is the number of the step that was measured, from 0, or, in figures of an epoch, of steps made. `index` is
    the place of a layer in order of execution, or of a class; a figure of the whole network has none.
    """
    probes = [PROBES[name] for name in cohort.config.recipe.probes]
    parts = [
        figure_rows(cohort, history, probe.kind, figure, measure.axis)
        for probe in probes
        for figure, measure in probe.gives.items()
    ]
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(parts).sort_values(["run", "epoch", "step"], kind="stable", ignore_index=True)


def figure_rows(cohort: Cohort, history: History, kind: str, figure: str, axis: str) -> pd.DataFrame:
    """The rows of one figure, run by run.

    Args:
        cohort: whose runs.
        history: of them.
        kind: of the probe, "step" or "epoch".
        figure: its name.
        axis: what it is over, one of `fishnet.probes.table.AXES`.
    """
    recipe, per_epoch = cohort.config.recipe, cohort.config.steps_per_epoch
    values, epochs, bad = history.probes[figure], np.arange(cohort.epochs), history.first_bad_step[:, None, None]
    if kind == "step":
        steps = epochs[:, None] * per_epoch + np.arange(cohort.config.measurements) * recipe.probe_every
        due = np.ones(cohort.epochs, bool)
    else:
        values = values[:, :, None]
        steps = (epochs[:, None] + 1) * per_epoch  # [epoch, measurement]
        due = is_due(recipe.probe_epochs, epochs)
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
            "probe": np.full(len(entry), figure, object),
            "layer": blank if axis == "class" else labels,
            "index": pd.array(index, dtype="Int64"),
            "class": labels if axis == "class" else blank,
            "value": values.reshape(*values.shape[:3], -1)[run, epoch, place, entry],
        }
    )


def used_entries(cohort: Cohort, axis: str, names: Sequence[str | None]) -> np.ndarray:
    """Which entries of a figure each run has, [run, entry] bool: all, but for slopes that only its neighbours learn.

    Args:
        cohort: whose runs.
        axis: what the figure is over.
        names: of its entries.
    """
    learned = [getattr(ACTIVATIONS[run.recipe.activation], "slope", None) is not None for run in cohort.runs]
    slopes = [axis == "layer" and name.rpartition("/")[2].startswith("act") for name in names]
    return np.array(learned)[:, None] | ~np.array(slopes)


def is_due(every: int, epoch: int | np.ndarray) -> bool | np.ndarray:
    """Whether the probes of an epoch are taken at the end of `epoch`, from 0."""
    return (epoch + 1) % every == 0
