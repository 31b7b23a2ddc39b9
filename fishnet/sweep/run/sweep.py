"""Runs a sweep: checks it, plans it, trains its cohorts and keeps its tables."""

import dataclasses
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax

from fishnet.checks.arguments import as_folder, check_flag, check_type
from fishnet.errors import UsageError, UserError
from fishnet.host.best_effort import best_effort
from fishnet.host.interrupt import Interrupt
from fishnet.host.jax_settings import check_start_settings, hold_settings, start_settings
from fishnet.host.machine import choose_devices, device_name, unused_accelerators, versions
from fishnet.host.memory import OutOfMemory
from fishnet.host.names import shell_command
from fishnet.source_hash.digest import changed_components, describe_source, hash_each
from fishnet.sweep.distributed.dealing import Share, deal, dealt_in, runs_each, share_of, written
from fishnet.sweep.distributed.merge import Whole
from fishnet.sweep.distributed.processes import FINISHED, Pulse, Team, check_apart, current
from fishnet.sweep.plan.autotune import autotune_layouts
from fishnet.sweep.plan.backbones import Trunk
from fishnet.sweep.plan.cohorts import Cohort, check_overrides, make_cohorts
from fishnet.sweep.plan.fit_memory import fit_memory, lowering_text, reduce_layout
from fishnet.sweep.plan.learnable import unmeasured_norms
from fishnet.sweep.plan.past_times import PastTime, find_time
from fishnet.sweep.plan.trace import check_traces
from fishnet.sweep.plan.user_components import user_functions
from fishnet.sweep.run.backend_check import check_backend
from fishnet.sweep.run.inputs import DataOptions, Inputs
from fishnet.sweep.run.progress import Display, display_for
from fishnet.sweep.run.training import Training
from fishnet.sweep.spec.history import lane_steps
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.spec.sweep import Run, Sweep
from fishnet.sweep.spec.validation import check_lowering, check_out, check_selection, check_sweep, selection_notes
from fishnet.sweep.store.checkpoint_store import part_of, planned, taking_part, wait_for_end
from fishnet.sweep.store.finished import Result, check_data, finished_before
from fishnet.sweep.store.folder import changed_setting, read_sweep_file, times, write_sweep_file
from fishnet.sweep.store.parquet import bad_table

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
) -> Result:
    """Trains every run of `sweep` and writes its folder; goes on where an earlier call stopped.

    A sweep that names components of the user's own which this process has not traced yet, or which are made of
    something else now, makes JAX forget every compiled function of the process (`jax.clear_caches`): what else the
    process has jitted is compiled again when it is next called.

    Processes that have met through `fishnet.sweep.distributed.processes.join` share the runs among them; each calls
    this function alike and returns when the whole sweep is done.

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

    Returns:
        The runs as a table, and where everything is.

    Raises:
        UsageError: the sweep or an option makes no sense.
        UserError: data, device or folder are not as they must be; nothing in the folder was changed. Or another
            process has ended before its runs were trained; everything done so far is saved.
        Interrupted: Ctrl-C or SIGTERM came; everything done so far is saved.
    """
    check_arguments(sweep, quiet, display, data, command, share_batches)
    out, data = as_folder("out", out), data or DataOptions()
    if display is None:
        display = Quiet() if quiet else display_for(quiet=False)
    team = current()
    if team.index:
        display = Follower(display, team.index)
    check_overrides(lane_width, lowering, devices, share_batches)
    check_sweep(sweep, data.data_dir, data.group_regex, data.strict)
    check_lowering(sweep, lowering)
    check_rules(sweep, team)
    check_out(sweep, out)
    functions = user_functions(sweep, lowering, lane_width)
    digests = hash_each(functions)
    content, inputs = describe(sweep, data, functions, digests, command), Inputs(sweep, data)
    if (result := finished_before(out, content, lambda: inputs.fingerprints)) is not None:
        return result
    options = Options(lane_width, lowering, share_batches, devices)
    choose_devices(devices)  # refused before anything is made
    try:
        with Interrupt() as interrupt:
            with taking_part(out, team, interrupt) as pulse:
                # Again: a process that held the lock until now may have done it all.
                if (result := finished_before(out, content, lambda: inputs.fingerprints)) is not None:
                    return result
                result = _run(sweep, out, content, options, display, inputs, interrupt, team, pulse)
                for name in changed_components(functions, digests):
                    display.warn(STATE_MOVED.format(name))
            if result is None:
                wait_for_end(out, team, interrupt)
                result = finished_before(out, content, lambda: inputs.fingerprints)
                if result is None:
                    raise UserError(f"a table in {out} is not as the processes wrote it: run the same command again")
            return dataclasses.replace(result, finished=False)
    finally:
        display.finish()


def check_arguments(
    sweep: object,
    quiet: object,
    display: object,
    data: object,
    command: object,
    share_batches: object,
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


class Quiet(Display):
    """Says nothing but warnings, and these in Python's own way."""

    def warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)


class Follower(Display):
    """Of a process that is not the first: says nothing but warnings, and whose they are."""

    def __init__(self, display: Display, index: int) -> None:
        self.display, self.index = display, index

    def warn(self, text: str) -> None:
        self.display.warn(f"process {self.index}: {text}")


def check_rules(sweep: Sweep, team: Team) -> None:
    """Refuses rules of stopping that would need to see the runs of other processes.

    Raises:
        UsageError: with those.
    """
    rules = [name for name in ("halving", "median") if getattr(sweep.stopping, name)]
    if team.count > 1 and rules:
        raise UsageError(
            f"{' and '.join(rules)} stopping compares all arms, and {team.count} processes have some each: "
            "run it in one process, or stop arms by a target"
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
    arms = [run for run in sweep.runs() if run.recipe.seed == sweep.seeds[0]]
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
    team: Team,
    pulse: Pulse | None,
) -> Result | None:
    """Plans and trains; None in a process that is not the first, which learns the result when all is put together."""
    check_apart()
    used = choose_devices(options.devices)
    check_backend(used[0])
    found = planned(out, team, interrupt) if team.index else read_sweep_file(out)
    if found is not None:
        if team.index and found["data"] != inputs.fingerprints:
            raise UserError(f"process {team.index} reads other data than process 0: all must see the same files")
        check_data(out, found, inputs.fingerprints)
        check_start_settings(out, found)
    cohorts, timings, notes = plan_cohorts(inputs, options, found, used, team, display, interrupt)
    dealt = dealt_in(found) if team.index else deal(cohorts, team.count, whole_arms=bool(sweep.stopping))
    content |= team.view() | plan_content(cohorts, timings, dealt, inputs, used)
    timing = times(out, found)
    content |= timing | {"paused": (found or {}).get("paused", 0.0)}  # until more is done than was there
    if found is not None and (changes := changed_setting(found, content)):
        notes.append(f"begun with {changes}: what follows may round otherwise than an undisturbed sweep")
        if team.index:
            display.warn(notes[-1])
    if found is not None and found["finished"] and (problem := bad_table(out, found)):
        notes.append(f"{problem}: the tables are written again from the checkpoints")
    display.plan(plan_view(sweep, out, cohorts, used, notes) | {"processes": runs_each(dealt)})
    interrupt.defer()
    if team.index == 0:
        write_sweep_file(out, content)

    def smaller(number: int, problem: OutOfMemory, begun: bool) -> Share:
        if team.count > 1:  # whose layouts must be the same
            raise problem
        before, cohorts[number] = cohorts[number], reduce_layout(cohorts[number], used, problem, begun)
        display.note(lowering_text(before, cohorts[number], problem))
        content["plan"][number] |= cohorts[number].view()
        write_sweep_file(out, content)
        return share_of(cohorts[number], dealt[number], 0, cohorts[number].devices)

    whole = Whole(out, sweep, content["spec_hash"], cohorts, team, interrupt, display) if team.index == 0 else None

    def on_tables() -> None:
        if content["paused"] != timing["paused"]:
            content["paused"] = timing["paused"]
            write_sweep_file(out, content)
        whole.update()

    shares = [share_of(cohort, of, team.index, len(used)) for cohort, of in zip(cohorts, dealt, strict=True)]
    training = Training(sweep, out, part_of(out, team), content["spec_hash"], used, display, interrupt)
    tables, histories = training.run(shares, on_tables if whole else None, smaller)
    if whole is None:
        pulse.say(FINISHED)
        return None
    runs_done = whole.put_together(tables)
    content["steps"] = lane_steps(whole.histories or histories)
    content["tables"] = whole.tables.written
    content |= timing | {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
    write_sweep_file(out, content)
    if pulse is not None:
        pulse.say(FINISHED)  # a sign of life would come between the removal of its folder's files and of the folder
    whole.clear()
    return Result(runs_done, out, len(cohorts), finished=False)


def plan_cohorts(
    inputs: Inputs,
    options: Options,
    found: Mapping[str, Any] | None,
    used: list[jax.Device],
    team: Team,
    display: Display,
    interrupt: Interrupt,
) -> tuple[list[Cohort], list[Mapping[str, Any]], list[str]]:
    """Lays out the runs of a sweep, as an earlier call did if there was one.

    Args:
        inputs: the runs and what they read.
        options: how they are to be run.
        found: `sweep.json` of the earlier call.
        used: devices.
        team: of this process.
        display: shown what takes time.
        interrupt: looked at between timings.

    Returns:
        The cohorts; the layout of each as it was tuned or found, empty where it was neither; notes for the user.
    """
    check_selection([run.recipe for run in inputs.runs], inputs.tasks, inputs.sweep.stopping)
    layouts = (found or {}).get("plan")
    lane_width, share_batches = options.lane_width, options.share_batches
    if lane_width == "auto" and not layouts:
        tuned = inputs.runs, inputs.tasks, options.lowering, used, display.stage, interrupt
        layouts, lane_width, share_batches = autotune_layouts(*tuned), None, None
    asked = lane_width, options.lowering, used, layouts, inputs.trunks, share_batches
    cohorts = make_cohorts(inputs.runs, inputs.tasks, *asked)
    notes = [*inputs.sweep.samples.notes, *dict.fromkeys(note for task in inputs.tasks.values() for note in task.notes)]
    notes += selection_notes(inputs.tasks.values())
    if names := frozen_unmeasured(cohorts, inputs.trunks):
        notes.append(UNMEASURED.format(", ".join(names)))
    if found is None and team.count == 1:
        fit = [partial(fit_memory, cohort, used, notes.append) for cohort in cohorts]
        what = "how much memory the programs need"
        cohorts = [best_effort(what, f, notes.append, cohort) for f, cohort in zip(fit, cohorts, strict=True)]
    display.stage("planning")
    for cohort in cohorts:
        check_traces(cohort)
    return cohorts, layouts or [{}] * len(cohorts), notes


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
    cohorts: list[Cohort],
    layouts: list[Mapping[str, Any]],
    dealt: list[list[list[int]]],
    inputs: Inputs,
    used: list[jax.Device],
) -> dict[str, Any]:
    """What planning adds to `sweep.json`; arguments as for and from `plan_cohorts`, and whose runs are whose."""
    return {
        "programs": len(cohorts),
        "plan": [
            cohort.view() | {"timings": layout.get("timings", {}), "dealt": written(of)}
            for cohort, layout, of in zip(cohorts, layouts, dealt, strict=True)
        ],
        "data": inputs.fingerprints,
        "classes": {name: list(task.classes) for (name, _), task in inputs.tasks.items()},
        "versions": versions(),
        "device": device_name(used),
        "settings": start_settings(),
    }


def plan_view(
    sweep: Sweep, out: Path, cohorts: list[Cohort], used: list[jax.Device], notes: list[str]
) -> dict[str, Any]:
    """What the display shows before anything is compiled."""
    return {
        "device": device_name(used),
        "devices": len(used),
        "visible_accelerators": unused_accelerators(used),
        "runs": sum(len(cohort.runs) for cohort in cohorts),
        "arms": len(sweep.arms()),
        "seeds": len(sweep.seeds),
        "programs": len(cohorts),
        "out": str(out),
        "cohorts": [
            cohort.view() | {"params": params_text(cohort), "last_time": last_time(cohort, used, notes)}
            for cohort in cohorts
        ],
        "notes": notes,
    }


def last_time(cohort: Cohort, used: list[jax.Device], notes: list[str]) -> PastTime | None:
    """What a cohort will take if its program runs as fast as the last time; None: unknown."""
    return best_effort("the time to train", partial(find_time, cohort, used), notes.append, None)


def params_text(cohort: Cohort) -> str:
    """How many parameters the networks of a cohort have."""
    low, high = cohort.params.min(), cohort.params.max()
    return f"{low:,} parameters" if low == high else f"{low:,} to {high:,} parameters"
