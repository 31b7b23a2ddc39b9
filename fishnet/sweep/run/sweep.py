"""Runs a sweep: checks it, plans it, trains its cohorts and keeps its tables."""

import dataclasses
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import pandas as pd

from fishnet.checks.arguments import as_folder, check_flag, check_type
from fishnet.errors import UsageError, UserError
from fishnet.host.best_effort import best_effort
from fishnet.host.interrupt import Interrupt
from fishnet.host.jax_settings import check_start_settings, hold_settings, start_settings
from fishnet.host.machine import Device, choose_devices, device_name, unused_accelerators, versions
from fishnet.host.memory import OutOfMemory
from fishnet.host.names import shell_command
from fishnet.source_hash.digest import changed_components, describe_source, hash_each
from fishnet.sweep.distributed.assignment import (
    assign,
    parse_assignment,
    runs_each,
    shard_of,
    write_assignment,
)
from fishnet.sweep.distributed.merge import merge_checkpoints, merge_shards
from fishnet.sweep.distributed.shard import Shard, parse_shard
from fishnet.sweep.distributed.shard_folders import (
    clear_shards,
    is_finished,
    mark_finished,
    missing_shards,
    one_at_a_time,
    shard_lock,
)
from fishnet.sweep.plan.autotune import autotune_layouts
from fishnet.sweep.plan.backbones import Trunk
from fishnet.sweep.plan.cohorts import Cohort, LayoutChoice
from fishnet.sweep.plan.fit_memory import fit_memory, lowering_text, reduce_layout
from fishnet.sweep.plan.layout import Layout, check_overrides, make_layouts, resume_choices
from fishnet.sweep.plan.learnable import unmeasured_norms
from fishnet.sweep.plan.past_times import PastTime, find_time
from fishnet.sweep.plan.trace import check_traces
from fishnet.sweep.plan.user_components import user_functions
from fishnet.sweep.run.backend_check import check_backend
from fishnet.sweep.run.inputs import DataOptions, Inputs
from fishnet.sweep.run.progress import Display, display_for
from fishnet.sweep.run.training import Training
from fishnet.sweep.spec.history import History, lane_steps
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.spec.sweep import Run, Sweep
from fishnet.sweep.spec.validation import check_lowering, check_out, check_selection, check_sweep, selection_notes
from fishnet.sweep.store.checkpoint_store import parts_in
from fishnet.sweep.store.finished import Result, check_data, finished_before
from fishnet.sweep.store.folder import changed_setting, read_sweep_file, times, write_sweep_file
from fishnet.sweep.store.parquet import bad_table, read_table
from fishnet.sweep.store.tables import Tables

UNMEASURED = (
    "frozen batch norms of which neither a trunk nor pretraining has statistics ({}) have statistics of mean 0 and "
    "variance 1, with which they normalize nothing; freeze trunk/* (or norm_0/*) freezes parameters alone"
)
STATE_MOVED = (
    "component {} changes its own state while it runs, by which it would be taken for another one when this process "
    "asks for the sweep again: give it an attribute __fishnet_version__"
)


@dataclass(frozen=True)
class Options:
    """How a sweep is to be run; as the arguments of `run_sweep`."""

    lane_width: int | str | None
    lowering: str | None
    share_batches: bool | None
    devices: int | None


@hold_settings()
def run_sweep(
    sweep: Sweep,
    out: str | Path,
    lane_width: int | str | None = None,
    lowering: str | None = None,
    devices: int | None = None,
    quiet: bool = True,
    display: Display | None = None,
    data: DataOptions | None = None,
    command: str | None = None,
    share_batches: bool | None = None,
    shard: str | None = None,
) -> Result:
    """Trains every run of `sweep` and writes its folder; goes on where an earlier call stopped.

    A sweep that names components of the user's own which this process has not traced yet, or which are made of
    something else now, makes JAX forget every compiled function of the process (`jax.clear_caches`): what else the
    process has jitted is compiled again when it is next called.

    Args:
        sweep: what to run.
        out: the output folder (its files: docs/output.md); made if need be.
        lane_width: lanes vectorised together, or "all", or "auto" to time some; None: the default of the backend.
        lowering: of convolutions ("gemm", "winograd", "native"); None: the default of the backend.
        devices: how many of the visible devices to use; None: all.
        quiet: whether to print nothing; otherwise the plan and a progress bar.
        display: shown the plan and the progress instead.
        data: where and how the data are read; None: as without options.
        command: kept in `sweep.json`; None: this process's command line.
        share_batches: whether lanes are only vectorised together if they have one seed: they then share their batches,
            whose augmentation and products with the first layer are computed once; None: as a timing ("auto") chose,
            otherwise not. At lane width 1 it is refused.
        shard: "I/N" to train the I-th of N shares of the runs, I from 1; the process that finishes last merges the
            shares. None: all runs.

    Returns:
        The runs as a table, and where everything is; of a shard while others are `missing`, its own runs.

    Raises:
        UsageError: the sweep or an option makes no sense.
        UserError: data, device or folder are not as they must be; nothing in the folder was changed.
        Interrupted: Ctrl-C or SIGTERM came; everything done so far is saved.
    """
    check_arguments(sweep, quiet, display, data, command, share_batches, shard)
    out, data = as_folder("out", out), data or DataOptions()
    if display is None:
        display = Quiet() if quiet else display_for(quiet=False)
    of = parse_shard(shard) if shard else Shard()
    check_overrides(lane_width, lowering, devices, share_batches)
    check_sweep(sweep, data.data_dir, data.group_regex, data.strict)
    check_lowering(sweep, lowering)
    check_rules(sweep, of)
    check_out(sweep, out)
    functions = user_functions(sweep, lowering, lane_width)
    digests = hash_each(functions)
    content, inputs = describe(sweep, data, functions, digests, command), Inputs(sweep, data)
    if (result := finished_before(out, content, lambda: inputs.fingerprints)) is not None:
        return result
    options = Options(lane_width, lowering, share_batches, devices)
    choose_devices(devices)  # refused before anything is made
    try:
        with Interrupt() as interrupt, shard_lock(out, of, interrupt):
            result = _run(sweep, out, content, options, display, inputs, interrupt, of)
            for name in changed_components(functions, digests):
                display.warn(STATE_MOVED.format(name))
            return result
    finally:
        display.finish()


def check_arguments(
    sweep: object,
    quiet: object,
    display: object,
    data: object,
    command: object,
    share_batches: object,
    shard: object,
) -> None:
    """Refuses arguments of `run_sweep` that are of another type; the others have checks of their own.

    Raises:
        UsageError: with what the argument has to be.
    """
    check_type("sweep", sweep, Sweep, "a Sweep, as in Sweep(Recipe(...), axes={...}, seeds=3)")
    check_flag("quiet", quiet)
    check_type("display", display, (Display, type(None)), "a Display, or None")
    check_type("data", data, (DataOptions, type(None)), "DataOptions, or None")
    check_type("command", command, (str, type(None)), "a text, or None")
    check_type("share_batches", share_batches, (bool, type(None)), "True, False or None")
    check_type("shard", shard, (str, type(None)), "a text such as 1/4, or None")


class Quiet(Display):
    """Says nothing but warnings, and these in Python's own way."""

    def warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)


def check_rules(sweep: Sweep, shard: Shard) -> None:
    """Refuses rules of stopping that would need to see the runs of other shards.

    Raises:
        UsageError: with those.
    """
    rules = [name for name in ("halving", "median") if getattr(sweep.stopping, name)]
    if rules and not shard.whole:
        raise UsageError(
            f"{' and '.join(rules)} stopping compares all arms, and {shard.count} shards have some each: "
            "run it in one process (--shard 1/1), or stop arms by a target"
        )


def check_apart() -> None:
    """Refuses devices that JAX counts as shared between processes, where one would wait for the others.

    Raises:
        UserError: with what to do about it.
    """
    if jax.process_count() > 1:
        raise UserError(
            "JAX runs on several processes that share their devices: leave jax.distributed.initialize() out, and give "
            "each process a shard (--shard I/N); on a TPU pod set TPU_PROCESS_BOUNDS=1,1,1 and "
            "TPU_CHIPS_PER_PROCESS_BOUNDS to the chips of one host, such as 2,2,1"
        )


def spec_hash(sweep: Sweep, data: DataOptions, lowering: str | None = None, lane_width: int | str | None = None) -> str:
    """The hash by which `sweep.json` identifies a sweep; arguments as for `run_sweep`."""
    return sweep.hash(hash_each(user_functions(sweep, lowering, lane_width)), data_options(data))


def data_options(data: DataOptions) -> dict[str, Any]:
    """Options of reading data that identify a sweep: those that are not the default."""
    return {k: v for k, v in dataclasses.asdict(data).items() if v and k != "data_dir"}


def describe(
    sweep: Sweep,
    data: DataOptions,
    functions: Mapping[str, Any] | None = None,
    digests: Mapping[str, str] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """`sweep.json` without what only planning tells.

    Args:
        sweep, data, command: as for `run_sweep`.
        functions: the components of the user's own, by name; None: those that the sweep names.
        digests: of these; None: they are hashed.
    """
    functions = user_functions(sweep) if functions is None else functions
    digests = hash_each(functions) if digests is None else digests
    options = data_options(data)
    content = sweep.spec()
    resolved = resolve(sweep.recipe)
    arms = [run for run in sweep.runs() if run.recipe.seed == sweep.seed_list[0]]
    content["recipe"] = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(resolved).items()}
    for name in {"lr", "image_size", "augment"} & {k for k in content["recipe"] if getattr(sweep.recipe, k) == "auto"}:
        if len({getattr(resolve(run.recipe), name) for run in arms}) > 1:
            content["recipe"][name] = "auto"  # differs from arm to arm: written out in `arms`
    del content["recipe"]["seed"]
    return content | {
        "arms": [_written_out(run) for run in arms],
        "spec_hash": sweep.hash(digests, options),
        "functions": {name: describe_source(f, digests[name]) for name, f in functions.items()},
        "data_options": options,
        "command": command or shell_command(sys.argv),
    }


def _written_out(run: Run) -> dict[str, Any]:
    recipe = resolve(run.recipe)
    return {"arm": run.arm, "lr": recipe.lr, "image_size": recipe.image_size, "augment": recipe.augment}


def _run(
    sweep: Sweep,
    out: Path,
    content: dict[str, Any],
    options: Options,
    display: Display,
    inputs: Inputs,
    interrupt: Interrupt,
    shard: Shard,
) -> Result:
    """Plans, trains the runs of a shard and, where no other shard is missing, leaves the finished sweep."""
    check_apart()
    used = choose_devices(options.devices)
    check_backend(used[0])
    folder, spec_hash = shard.folder(out), content["spec_hash"]
    arguments = sweep, out, content, options, inputs, used, shard, display, interrupt
    with one_at_a_time(out, shard, interrupt):
        # Again: a process that held the lock until now may have done it all.
        if (result := finished_before(out, content, lambda: inputs.fingerprints)) is not None:
            return result
        found = read_sweep_file(out)
        trained = is_finished(folder, spec_hash)
        planned = not shard.whole and (found or {}).get("shards") == shard.count
        plan = None if planned else _plan(*arguments, found)
        if plan:
            write_sweep_file(out, plan.content)
    if not (trained and planned):
        plan = plan or _plan(*arguments, found)
        tables, histories = _train(plan, *arguments)
        if shard.whole:
            return _finish(plan, out, tables, histories, display)
        mark_finished(folder, spec_hash)
    with one_at_a_time(out, shard, interrupt):
        if (result := finished_before(out, content, lambda: inputs.fingerprints)) is not None:
            return result
        found: Any = read_sweep_file(out)
        missing = missing_shards(out, shard.count, spec_hash)
        path = folder / "runs.parquet"
        if missing:
            runs = read_table(path, spec_hash) if path.exists() else pd.DataFrame()
        else:
            display.stage("merging the shards")
            runs = merge_shards(out, found, display.warn)
    return Result(runs, out, found["programs"], finished=False, missing=tuple(missing))


@dataclass(frozen=True)
class Plan:
    """Layouts of the cohorts of a sweep, the runs of each shard, and `sweep.json`."""

    layouts: list[Layout]
    assigned: list[list[list[int]]]
    content: dict[str, Any]
    paused: float  # seconds in which nobody was at work on the sweep, up to now


def _plan(
    sweep: Sweep,
    out: Path,
    content: dict[str, Any],
    options: Options,
    inputs: Inputs,
    used: list[Device],
    shard: Shard,
    display: Display,
    interrupt: Interrupt,
    found: dict[str, Any] | None,
) -> Plan:
    """Lays a sweep out as an earlier call did, if there was one, and shows it."""
    if found is not None:
        check_data(out, found, inputs.fingerprints)
        check_start_settings(out, found)
    layouts, timings, notes = plan_layouts(inputs, options, found, used, display, interrupt)
    if not shard.whole and (found or {}).get("shards") == shard.count:
        assigned = parse_assignment(found or {})
    else:
        assigned = assign(layouts, shard.count, whole_arms=bool(sweep.stopping))
    timing = times(out, found)
    content = content | {"shards": shard.count} | plan_content(layouts, timings, assigned, inputs, used)
    content |= timing | {"paused": (found or {}).get("paused", 0.0)}  # until more is done than was there
    if found is not None and (changes := changed_setting(found, content)):
        notes.append(f"begun with {changes}: what follows may round otherwise than an undisturbed sweep")
    if found is not None and found["finished"] and (problem := bad_table(out, found)):
        notes.append(f"{problem}: the tables are written again from the checkpoints")
    shares = {} if shard.whole else {"shard": str(shard), "shards": runs_each(assigned)}
    display.plan(plan_view(sweep, out, layouts, used, notes) | shares)
    interrupt.defer()
    return Plan(layouts, assigned, content, timing["paused"])


def _train(
    plan: Plan,
    sweep: Sweep,
    out: Path,
    content: dict[str, Any],
    options: Options,
    inputs: Inputs,
    used: list[Device],
    shard: Shard,
    display: Display,
    interrupt: Interrupt,
) -> tuple[Tables, list[History]]:
    """Trains the runs of a shard; returns their tables and histories."""
    layouts, assigned, content = plan.layouts, plan.assigned, plan.content

    def smaller(number: int, problem: OutOfMemory, begun: bool) -> Layout:
        if not shard.whole:  # all shards have the same layout
            raise problem
        before, layouts[number] = layouts[number], reduce_layout(layouts[number], used, problem, begun)
        display.note(lowering_text(before, layouts[number], problem))
        content["plan"][number] |= layouts[number].view()
        write_sweep_file(out, content)
        return cast(Layout, shard_of(layouts[number], assigned[number], 0, layouts[number].devices))

    def on_tables() -> None:
        if shard.whole and content["paused"] != plan.paused:
            content["paused"] = plan.paused
            write_sweep_file(out, content)

    shares = [shard_of(layout, of, shard.number - 1, len(used)) for layout, of in zip(layouts, assigned, strict=True)]
    training = Training(sweep, out, shard.folder(out), content["spec_hash"], used, display, interrupt)
    return training.run(shares, on_tables, smaller)


def _finish(plan: Plan, out: Path, tables: Tables, histories: list[History], display: Display) -> Result:
    """Marks a sweep that one process has trained as finished."""
    content = plan.content
    if parts_in(out):  # some of it was trained in shards
        runs = [[run.index for run in layout.cohort.runs] for layout in plan.layouts]
        merge_checkpoints(out, runs, content["spec_hash"], display.warn)
    finished = {"paused": plan.paused, "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    content |= {"steps": lane_steps(histories), "tables": tables.written} | finished
    write_sweep_file(out, content)
    clear_shards(out)
    return Result(tables.runs(), out, len(plan.layouts), finished=False)


def plan_layouts(
    inputs: Inputs,
    options: Options,
    found: Mapping[str, Any] | None,
    used: list[Device],
    display: Display,
    interrupt: Interrupt,
) -> tuple[list[Layout], list[Mapping[str, float]], list[str]]:
    """Lays out the runs of a sweep, as an earlier call did if there was one.

    Args:
        inputs: the runs and what they read.
        options: how they are to be run.
        found: `sweep.json` of the earlier call.
        used: devices.
        display: shown what takes time.
        interrupt: looked at between timings.

    Returns:
        The layouts of the cohorts; the timings of each, empty where it was not tuned; notes for the user.
    """
    check_selection([run.recipe for run in inputs.runs], inputs.tasks, inputs.sweep.stopping)
    choice, choices = LayoutChoice(options.lane_width, options.lowering, options.share_batches), None
    timings: list[Mapping[str, float]] = []
    if found and found.get("plan"):
        choices = resume_choices(found["plan"], choice, inputs.runs)
        timings = [view.get("timings", {}) for view in found["plan"]]
    elif options.lane_width == "auto":
        tuned = autotune_layouts(inputs.runs, inputs.tasks, options.lowering, used, display.stage, interrupt)
        choices, timings = [layout.choice for layout in tuned], [layout.timings for layout in tuned]
    layouts = make_layouts(inputs.runs, inputs.tasks, used, choice, choices, inputs.trunks)
    notes = [*inputs.sweep.samples.notes, *dict.fromkeys(note for task in inputs.tasks.values() for note in task.notes)]
    notes += selection_notes(inputs.tasks.values())
    if names := frozen_unmeasured([layout.cohort for layout in layouts], inputs.trunks):
        notes.append(UNMEASURED.format(", ".join(names)))
    if found is None:
        fit = [partial(fit_memory, layout, used, notes.append) for layout in layouts]
        what = "how much memory the programs need"
        layouts = [best_effort(what, f, notes.append, layout) for f, layout in zip(fit, layouts, strict=True)]
    display.stage("planning")
    for layout in layouts:
        check_traces(layout)
    return layouts, timings or [{}] * len(layouts), notes


def frozen_unmeasured(cohorts: list[Cohort], trunks: Mapping[str, Trunk]) -> list[str]:
    """Names of the batch norms that some run freezes and whose statistics nothing has measured.

    Args:
        cohorts: of the sweep.
        trunks: by the text in the field `trunk` of the recipes.
    """
    found: dict[str, None] = {}
    for cohort in cohorts:
        for run in cohort.runs:
            measured = trunks[run.recipe.trunk]["batch_stats"] if run.recipe.trunk != "none" else ()
            found |= dict.fromkeys(unmeasured_norms(run.recipe, cohort.sites, measured))
    return list(found)


def plan_content(
    layouts: list[Layout],
    timings: list[Mapping[str, float]],
    assigned: list[list[list[int]]],
    inputs: Inputs,
    used: list[Device],
) -> dict[str, Any]:
    """What planning adds to `sweep.json`; arguments as for and from `plan_cohorts`, and the runs of each shard."""
    return {
        "programs": len(layouts),
        "plan": [
            layout.view() | {"timings": dict(timed), "assigned": write_assignment(of)}
            for layout, timed, of in zip(layouts, timings, assigned, strict=True)
        ],
        "data": inputs.fingerprints,
        "classes": {name: list(task.classes) for (name, _), task in inputs.tasks.items()},
        "versions": versions(),
        "device": device_name(used),
        "settings": start_settings(),
    }


def plan_view(sweep: Sweep, out: Path, layouts: list[Layout], used: list[Device], notes: list[str]) -> dict[str, Any]:
    """What the display shows before anything is compiled."""
    return {
        "device": device_name(used),
        "devices": len(used),
        "visible_accelerators": unused_accelerators(used),
        "runs": sum(len(layout.cohort.runs) for layout in layouts),
        "arms": len(sweep.arms()),
        "seeds": len(sweep.seed_list),
        "programs": len(layouts),
        "out": str(out),
        "cohorts": [
            layout.view() | {"params": params_text(layout.cohort), "last_time": last_time(layout, used, notes)}
            for layout in layouts
        ],
        "notes": notes,
    }


def last_time(layout: Layout, used: list[Device], notes: list[str]) -> PastTime | None:
    """What a cohort will take if its program runs as fast as the last time; None: unknown."""
    return best_effort("the time to train", partial(find_time, layout, used), notes.append, None)


def params_text(cohort: Cohort) -> str:
    """How many parameters the networks of a cohort have."""
    low, high = cohort.params.min(), cohort.params.max()
    return f"{low:,} parameters" if low == high else f"{low:,} to {high:,} parameters"
