"""Runs a sweep: checks it, plans it, trains its cohorts and keeps its tables."""

import dataclasses
import sys
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from fishnet.data import Task, load_task
from fishnet.errors import UserError
from fishnet.sweep import records
from fishnet.sweep.canary import check_backend
from fishnet.sweep.checkpoint import Checkpoints, identity
from fishnet.sweep.cohort import CohortRunner
from fishnet.sweep.folder import (
    FORMAT,
    SWEEP_FILE,
    changed_setting,
    check_same_sweep,
    locked,
    read_sweep_file,
    write_sweep_file,
)
from fishnet.sweep.grid import Run, Sweep
from fishnet.sweep.interrupt import Interrupt
from fishnet.sweep.machine import choose_devices, device_name, out_of_memory, unused_accelerators, versions
from fishnet.sweep.plan import Cohort, check_overrides, make_cohorts
from fishnet.sweep.progress import Display, display_for
from fishnet.sweep.source import source_of
from fishnet.sweep.stopping import Referee
from fishnet.sweep.tables import Tables
from fishnet.sweep.transfer import fingerprints as trunk_fingerprints
from fishnet.sweep.transfer import load_trunks
from fishnet.sweep.tune import fastest_layouts
from fishnet.sweep.validate import check_sweep, resolve, user_functions

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class DataOptions:
    """Where and how data are read: the same for all tasks of a sweep."""

    data_dir: str | None = None  # folder with the MNIST files
    group_regex: str | None = None  # its first group in a photo's name keeps a group in one split
    strict: bool = False  # refuse unreadable photos instead of skipping them


@dataclass(frozen=True)
class Result:
    """What a sweep gave."""

    runs: pd.DataFrame  # as runs.parquet
    out: Path
    programs: int  # compiled training programs
    finished: bool  # whether the sweep had been finished before, and nothing was done


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    lane_width: int | str | None = None,
    lowering: str | None = None,
    devices: int | None = None,
    quiet: bool = True,
    display: Display | None = None,
    data: DataOptions = DataOptions(),
    command: str | None = None,
) -> Result:
    """Trains every run of `sweep` and writes its folder; goes on where an earlier call stopped.

    Args:
        sweep: what to run.
        out: the output folder (see the README for its files); made if need be.
        lane_width: lanes vectorised together, or "all", or "auto" to time some; None: the default of the backend.
        lowering: of convolutions ("gemm", "winograd", "native"); None: the default of the backend.
        devices: how many of the visible devices to use; None: all.
        quiet: whether to print nothing; otherwise the plan and a progress bar.
        display: shown the plan and the progress instead.
        data: where and how the data are read.
        command: kept in `sweep.json`; None: this process's command line.

    Returns:
        The runs as a table, and where everything is.

    Raises:
        UsageError: the sweep or an option makes no sense.
        UserError: data, device or folder are not as they must be; nothing in the folder was changed.
        Interrupted: Ctrl-C or SIGTERM came; everything done so far is saved.
    """
    if display is None:
        display = Quiet() if quiet else display_for(quiet=False)
    out = Path(out)
    check_overrides(lane_width, lowering, devices)
    check_sweep(sweep, data.data_dir, data.group_regex)
    content = describe(sweep, data, command)
    if (result := finished_before(out, content)) is not None:
        return result
    try:
        with Interrupt() as interrupt, locked(out):
            # Again: a process that held the lock until now may have done it all.
            if (result := finished_before(out, content)) is not None:
                return result
            found = read_sweep_file(out)
            return _run(sweep, out, found, content, lane_width, lowering, devices, display, data, interrupt)
    finally:
        display.finish()


class Quiet(Display):
    """Says nothing but warnings, and these in Python's own way."""

    def warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)


def finished_before(out: Path, content: dict[str, Any]) -> Result | None:
    """The result of a sweep that was finished by an earlier call; None where there is something left to do.

    Raises:
        UserError: the folder holds another sweep, or checkpoints and no sweep that they belong to.
    """
    found = read_sweep_file(out)
    if found is None:
        if (out / CHECKPOINTS).exists():
            raise UserError(f"{out} holds checkpoints of a sweep, but no {SWEEP_FILE}: choose another --out")
        return None
    check_same_sweep(out, found, content)
    if not found.get("finished"):
        return None
    try:
        return Result(pd.read_parquet(out / "runs.parquet"), out, found["programs"], finished=True)
    except (OSError, ValueError):  # gone or damaged: the checkpoints still have what is in it
        return None


def describe(sweep: Sweep, data: DataOptions, command: str | None = None) -> dict[str, Any]:
    """`sweep.json` without what only planning tells."""
    functions = user_functions(sweep)
    options = {k: v for k, v in dataclasses.asdict(data).items() if v and k != "data_dir"}
    content = sweep.spec()
    resolved = resolve(sweep.recipe)
    content["recipe"] = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(resolved).items()}
    for name in {"lr", "image_size", "augment"} & {k for k in content["recipe"] if getattr(sweep.recipe, k) == "auto"}:
        if len({getattr(resolve(run.recipe), name) for run in sweep.runs()}) > 1:
            content["recipe"][name] = "auto"  # differs from arm to arm: written out in `arms`
    del content["recipe"]["seed"]
    return content | {
        "format": FORMAT,
        "arms": [_written_out(run) for run in sweep.runs() if run.recipe.seed == sweep.seeds[0]],
        "spec_hash": sweep.hash(functions, options),
        "functions": {name: source_of(f).split("\n")[0] for name, f in functions.items()},
        "data_options": options,
        "command": command or " ".join(sys.argv),
    }


def _written_out(run: Run) -> dict[str, Any]:
    recipe = resolve(run.recipe)
    return {"arm": run.arm, "lr": recipe.lr, "image_size": recipe.image_size, "augment": recipe.augment}


def _run(
    sweep: Sweep,
    out: Path,
    found: dict[str, Any] | None,
    content: dict[str, Any],
    lane_width: int | str | None,
    lowering: str | None,
    devices: int | None,
    display: Display,
    data: DataOptions,
    interrupt: Interrupt,
) -> Result:
    used = choose_devices(devices)
    check_backend(used[0])
    runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
    tasks: dict[tuple[str, int], Task] = {}
    for name, size in dict.fromkeys((run.recipe.task, run.recipe.image_size) for run in runs):
        tasks[name, size] = load_task(name, size, data.data_dir, data.group_regex, data.strict)
    trunks = load_trunks(run.recipe for run in runs)
    fingerprints = {f"{name} at {size}": task.fingerprint for (name, size), task in tasks.items()}
    fingerprints |= trunk_fingerprints(trunks)
    if found is not None:
        check_data(out, found, fingerprints)
    layouts = (found or {}).get("plan")
    if lane_width == "auto" and not layouts:
        display.stage("timing lane widths")
        layouts, lane_width = fastest_layouts(runs, tasks, lowering, used, display.note), None
    cohorts = make_cohorts(runs, tasks, lane_width, lowering, used, layouts, trunks)
    content |= {
        "programs": len(cohorts),
        "plan": [
            cohort.view() | {"timings": layout.get("timings", {})}
            for cohort, layout in zip(cohorts, layouts or [{}] * len(cohorts), strict=True)
        ],
        "data": fingerprints,
        "classes": {name: list(task.classes) for (name, _), task in tasks.items()},
        "versions": versions(),
        "device": device_name(used),
        "started": (found or {}).get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
    }
    notes = [*sweep.samples.notes, *(note for task in tasks.values() for note in task.notes)]
    if found is not None and (changes := changed_setting(found, content)):
        notes.append(f"begun with {changes}: what follows may round otherwise than an undisturbed sweep")
    display.plan(plan_view(sweep, out, cohorts, used, notes))
    interrupt.defer()
    write_sweep_file(out, content)
    try:
        runs_done, content["steps"] = _train(sweep, out, cohorts, content["spec_hash"], used, display, interrupt)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(memory_advice(error, cohorts, used)) from error
    content["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_sweep_file(out, content)
    return Result(runs_done, out, len(cohorts), finished=False)


def _train(
    sweep: Sweep,
    out: Path,
    cohorts: list[Cohort],
    spec_hash: str,
    used: list[jax.Device],
    display: Display,
    interrupt: Interrupt,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Trains cohort after cohort; returns the table of runs, and the lane-steps executed and those of use."""
    tables = Tables(out, sweep, cohorts)
    total = float(sum(run.recipe.epochs for cohort in cohorts for run in cohort.runs))
    before = 0.0
    started = False
    steps = {"executed": 0, "useful": 0}
    referee = Referee(sweep.stopping, sweep.recipe.select_by) if sweep.stopping else None
    for number, cohort in enumerate(cohorts):
        display.stage(f"compiling program {number + 1} of {len(cohorts)}")

        def advance(runner: CohortRunner, done: float, before: float = before) -> None:
            diverged = int((runner.history.first_bad_step >= 0).sum())
            epoch = min(runner.epoch + 1, runner.cohort.epochs)
            display.advance(before + done, epoch, runner.cohort.epochs, best_so_far(runner), diverged)

        of = identity(spec_hash, [run.index for run in cohort.runs])
        checkpoints = Checkpoints(out / CHECKPOINTS / f"cohort_{number}", of)
        runner = CohortRunner(
            cohort,
            used[: cohort.devices],
            checkpoints,
            interrupt,
            display,
            on_epoch=lambda runner, number=number: tables.update(number, runner),
            advance=advance,
            referee=referee,
        )
        try:
            runner.prepare()
            if not started:
                display.start(total, before + runner.run_epochs)
                started = True
            runner.train()
            tables.finish(number, runner)
        finally:
            checkpoints.give_up()  # nobody writes into the folder once its lock is given back
        before += sum(run.recipe.epochs for run in cohort.runs)
        steps["executed"] += round(float(runner.history.executed.sum()))
        steps["useful"] += int(runner.history.useful.sum())
    return tables.runs(), steps


def best_so_far(runner: CohortRunner) -> str | None:
    """The run with the best validation accuracy so far, in words."""
    table = records.runs_table(runner.cohort.runs, {}, runner.history, runner.cohort.params, runner.test)
    if not table.val_accuracy.notna().any():
        return None
    best = table.loc[table.val_accuracy.idxmax()]
    return f"{best.arm} seed {best.seed}: validation accuracy {best.val_accuracy:.3f}"


def check_data(out: Path, found: dict[str, Any], fingerprints: dict[str, str]) -> None:
    """Refuses to go on with other data than a sweep was started with.

    Raises:
        UserError: the data have changed since.
    """
    for name, fingerprint in fingerprints.items():
        if found.get("data", {}).get(name, fingerprint) != fingerprint:
            raise UserError(f"the data of {name} have changed since the sweep of {out} was begun: choose another --out")


def plan_view(
    sweep: Sweep, out: Path, cohorts: list[Cohort], used: list[jax.Device], notes: list[str]
) -> dict[str, Any]:
    """What the display shows before anything is compiled."""
    return {
        "device": device_name(used),
        "devices": len(used),
        "visible_accelerators": unused_accelerators(used),
        "runs": len(sweep.runs()),
        "arms": len(sweep.arms()),
        "seeds": len(sweep.seeds),
        "programs": len(cohorts),
        "out": str(out),
        "cohorts": [cohort.view() | {"params": params_text(cohort)} for cohort in cohorts],
        "notes": notes,
    }


def memory_advice(error: BaseException, cohorts: list[Cohort], used: list[jax.Device]) -> str:
    """What to do when memory has run out, in one line."""
    ways = []
    if len(used) > 1 and used[0].platform == "cpu":  # its devices share one memory
        ways.append("go on with --devices 1")
    if max(cohort.shape.lane_width for cohort in cohorts) > 1:
        ways.append("start again with --lane-width 1 in another --out")
    ways.append("start again with a smaller --batch-size in another --out")
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"out of memory ({line}); what was saved before is kept: {', or '.join(ways)}"


def params_text(cohort: Cohort) -> str:
    """How many parameters the networks of a cohort have."""
    low, high = cohort.params.min(), cohort.params.max()
    return f"{low:,} parameters" if low == high else f"{low:,} to {high:,} parameters"
