"""Runs a sweep: checks it, plans it, trains its cohorts and keeps its tables."""

import dataclasses
import importlib.metadata
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from fishnet.data import Task, load_task
from fishnet.errors import UsageError, UserError
from fishnet.sweep import records
from fishnet.sweep.canary import check_backend
from fishnet.sweep.checkpoint import Checkpoints
from fishnet.sweep.cohort import CohortRunner
from fishnet.sweep.folder import check_same_sweep, locked, read_sweep_file, write_sweep_file
from fishnet.sweep.interrupt import Interrupt
from fishnet.sweep.plan import Cohort, check_overrides, make_cohorts
from fishnet.sweep.progress import Display
from fishnet.sweep.recipe import Run, Sweep, source_of
from fishnet.sweep.validate import check_sweep, resolve, user_functions

TABLES = ("runs", "curves", "class_curves", "per_class", "predictions")
PREDICTIONS_FOR_ALL = 200  # runs; beyond it the best and worst run of each arm
PACKAGES = ("fishnet", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


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
    data: DataOptions = DataOptions(),  # noqa: B008 - frozen
    command: str | None = None,
) -> Result:
    """Trains every run of `sweep` and writes its folder; goes on where an earlier call stopped.

    Args:
        sweep: what to run.
        out: the output folder (see the README for its files); made if need be.
        lane_width: lanes vectorised together, or "all", or "auto" to time some; None: the default of the backend.
        lowering: of convolutions ("gemm", "native"); None: the default of the backend.
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
        from fishnet.sweep.progress import display_for

        display = Display() if quiet else display_for(quiet=False)
    out = Path(out)
    check_overrides(lane_width, lowering)
    check_sweep(sweep, data.data_dir, data.group_regex)
    content = describe(sweep, data, command)
    found = read_sweep_file(out)
    if found is not None:
        check_same_sweep(out, found, content)
        if found.get("finished"):
            return Result(pd.read_parquet(out / "runs.parquet"), out, found["programs"], finished=True)
    with Interrupt() as interrupt, locked(out):
        return _run(sweep, out, found, content, lane_width, lowering, devices, display, data, interrupt)


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
    fingerprints = {f"{name} at {size}": task.fingerprint for (name, size), task in tasks.items()}
    if found is not None:
        lane_width, lowering = keep_plan(found, fingerprints, lane_width, lowering)
    cohorts = make_cohorts(runs, tasks, lane_width, lowering, used)
    content |= {
        "programs": len(cohorts),
        "plan": [cohort.view() for cohort in cohorts],
        "data": fingerprints,
        "classes": {name: list(task.classes) for (name, _), task in tasks.items()},
        "versions": versions(),
        "device": device_name(used),
        "started": (found or {}).get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
    }
    notes = [note for task in tasks.values() for note in task.notes]
    display.plan(plan_view(sweep, out, cohorts, used, notes))
    write_sweep_file(out, content)
    runs_done = _train(sweep, out, cohorts, used, display, interrupt)
    content["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_sweep_file(out, content)
    return Result(runs_done, out, len(cohorts), finished=False)


def _train(
    sweep: Sweep, out: Path, cohorts: list[Cohort], used: list[jax.Device], display: Display, interrupt: Interrupt
) -> pd.DataFrame:
    """Trains cohort after cohort; returns the table of runs."""
    tables = Tables(out, sweep, len(cohorts))
    total = float(sum(run.recipe.epochs for cohort in cohorts for run in cohort.runs))
    before = 0.0
    started = False
    for number, cohort in enumerate(cohorts):
        display.stage(f"compiling program {number + 1} of {len(cohorts)}")

        def advance(runner: CohortRunner, done: float, before: float = before) -> None:
            diverged = int((runner.history.first_bad_step >= 0).sum())
            epoch = min(runner.epoch + 1, runner.cohort.epochs)
            display.advance(before + done, epoch, runner.cohort.epochs, best_so_far(runner), diverged)

        runner = CohortRunner(
            cohort,
            used[: cohort.devices],
            Checkpoints(out / "checkpoints" / f"cohort_{number}"),
            interrupt,
            display,
            on_epoch=lambda runner, number=number: tables.update(number, runner),
            advance=advance,
        )
        runner.prepare()
        if not started:
            display.start(total, before + runner.run_epochs)
            started = True
        runner.train()
        tables.finish(number, runner)
        before += sum(run.recipe.epochs for run in cohort.runs)
    display.finish()
    return tables.runs()


class Tables:
    """The Parquet files of a sweep, put together from its cohorts."""

    def __init__(self, out: Path, sweep: Sweep, cohorts: int) -> None:
        self.out, self.sweep = out, sweep
        self.parts: list[dict[str, pd.DataFrame]] = [{} for _ in range(cohorts)]

    def update(self, number: int, runner: CohortRunner) -> None:
        """Writes all tables with the present state of one cohort."""
        runs, history, task = runner.cohort.runs, runner.history, runner.cohort.task
        self.parts[number] |= {
            "runs": records.runs_table(runs, self.sweep.axes, history, runner.params, runner.test),
            "curves": records.curves_table(runs, history),
            "class_curves": records.class_curves_table(runs, history, task.classes),
        }
        nothing = np.zeros((0, 0, len(task.classes)), np.float32)
        self.parts[number].setdefault("per_class", records.per_class_table([], task, nothing))
        self.parts[number].setdefault("predictions", records.predictions_table([], task, "test", nothing))
        self.write()

    def finish(self, number: int, runner: CohortRunner) -> None:
        """Evaluates the test split of one cohort and writes all tables."""
        logits = runner.finish()
        runs, task = runner.cohort.runs, runner.cohort.task
        selected = np.flatnonzero(runner.history.best_epoch)
        index = np.asarray([run.index for run in runs])
        self.parts[number]["per_class"] = records.per_class_table(index[selected], task, logits[selected])
        shown = selected if len(self.sweep.runs()) <= PREDICTIONS_FOR_ALL else extremes(runner)
        parts = [records.predictions_table(index[shown], task, "test", logits[shown])]
        if len(shown):
            validation = runner.test_logits("val", shown)
            parts.insert(0, records.predictions_table(index[shown], task, "val", validation))
        self.parts[number]["predictions"] = pd.concat(parts, ignore_index=True)
        self.update(number, runner)

    def runs(self) -> pd.DataFrame:
        """All runs so far."""
        return self._joined("runs").sort_values("run", ignore_index=True)

    def write(self) -> None:
        """Writes every table, each whole or not at all."""
        for name in TABLES:
            table = self.runs() if name == "runs" else self._joined(name)
            records.write_table(self.out / f"{name}.parquet", table)

    def _joined(self, name: str) -> pd.DataFrame:
        parts = [part[name] for part in self.parts if name in part]
        full = [part for part in parts if len(part)]
        return pd.concat(full, ignore_index=True) if full else parts[0]


def extremes(runner: CohortRunner) -> np.ndarray:
    """The best and the worst run of each arm by the validation figure that selects."""
    keep = []
    table = records.runs_table(runner.cohort.runs, [], runner.history, runner.params, runner.test)
    for _, rows in table[table.best_epoch.notna()].groupby("arm", sort=False):
        keep += [rows.val_loss.idxmin(), rows.val_loss.idxmax()]
    return np.unique(np.asarray(keep, np.int64))


def best_so_far(runner: CohortRunner) -> str | None:
    """The run with the best validation accuracy so far, in words."""
    table = records.runs_table(runner.cohort.runs, [], runner.history, runner.params, runner.test)
    if not table.val_accuracy.notna().any():
        return None
    best = table.loc[table.val_accuracy.idxmax()]
    return f"{best.arm} seed {best.seed}: validation accuracy {best.val_accuracy:.3f}"


def choose_devices(devices: int | None) -> list[jax.Device]:
    """The first `devices` of the visible ones, or all.

    Raises:
        UsageError: more than there are, or fewer than one.
    """
    visible = jax.devices()
    if devices is not None and not 1 <= devices <= len(visible):
        raise UsageError(f"devices: {devices} is not between 1 and the {len(visible)} visible here")
    return visible[:devices]


def keep_plan(
    found: dict[str, Any], fingerprints: dict[str, str], lane_width: int | str | None, lowering: str | None
) -> tuple[int | None, str | None]:
    """The lane width and lowering a sweep was started with: a resumed sweep goes on with them.

    Raises:
        UserError: the data have changed since, or another width or lowering is asked for.
    """
    for name, fingerprint in fingerprints.items():
        if found.get("data", {}).get(name, fingerprint) != fingerprint:
            raise UserError(f"the data of {name} have changed since this sweep was started: choose another --out")
    if not found.get("plan"):
        return lane_width, lowering
    first = found["plan"][0]
    for name, wanted in (("lane_width", lane_width), ("lowering", lowering)):
        if wanted not in (None, "auto", "all", first[name]):
            raise UserError(
                f"this sweep was started with {name} {first[name]}, not {wanted}: its numbers would change; "
                "choose another --out"
            )
    return first["lane_width"], first["lowering"]


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
        "cohorts": [cohort.view() | {"params": None} for cohort in cohorts],
        "notes": notes,
    }


def unused_accelerators(used: list[jax.Device]) -> list[str]:
    """Accelerators that this machine shows and this process does not use."""
    if used[0].platform != "cpu":
        spare = [d for d in jax.devices() if d not in used]
        return [d.device_kind for d in spare]
    found = [f"NVIDIA GPU {p.name}" for p in Path("/proc/driver/nvidia/gpus").glob("*")]
    return found + [f"TPU {p.name}" for p in Path("/dev").glob("accel[0-9]*")]


def device_name(used: list[jax.Device]) -> str:
    """`cpu x 2 (AMD EPYC ...)`, or the accelerator's own name."""
    if used[0].platform != "cpu":
        return f"{used[0].device_kind} x {len(used)}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"cpu x {len(used)} ({model})"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
