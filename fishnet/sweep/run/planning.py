"""Plans a sweep: lays its cohorts out, shares them out, and says so in `sweep.json` and to the user."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fishnet.errors import UsageError
from fishnet.host.best_effort import best_effort
from fishnet.host.interrupt import Interrupt
from fishnet.host.jax_settings import check_start_settings, start_settings
from fishnet.host.machine import Device, device_name, unused_accelerators, versions
from fishnet.nn.conv_implementations import DEFAULT_LOWERING, FUSED
from fishnet.nn.cpu.library import is_off, missing_kernels, require_kernels
from fishnet.sweep.distributed.assignment import assign, parse_assignment, write_assignment
from fishnet.sweep.distributed.shard import Shard
from fishnet.sweep.plan.autotune import autotune_layouts
from fishnet.sweep.plan.cohorts import Cohort, LayoutChoice, check_traces
from fishnet.sweep.plan.fit_memory import fit_memory
from fishnet.sweep.plan.layout import Layout, make_layouts, resume_choices
from fishnet.sweep.plan.networks import Trunk, unmeasured_norms
from fishnet.sweep.plan.past_times import find_time
from fishnet.sweep.run.inputs import Inputs
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.spec.validation import check_selection, has_convolutions, selection_notes
from fishnet.sweep.store.finished import Result, bad_table, check_data, finished_before
from fishnet.sweep.store.folder import changed_setting, times

SLOWER = "training would be 1.7 to 3 times faster with fishnet's compiled kernels: {}"  # measured: benchmarks/README.md
UNMEASURED = (
    "frozen batch norms of which neither a trunk nor pretraining has statistics ({}) have statistics of mean 0 and "
    "variance 1, with which they normalize nothing; freeze trunk/* (or norm_0/*) freezes parameters alone"
)


@dataclass(frozen=True)
class Job:
    """Work of one call of `run_sweep`, and what it is done with."""

    sweep: Sweep
    out: Path
    content: dict[str, Any]  # `sweep.json` without what only planning tells
    inputs: Inputs
    choice: LayoutChoice
    shard: Shard
    used: list[Device]
    display: Display
    interrupt: Interrupt

    @property
    def folder(self) -> Path:
        """Folder that this process writes to."""
        return self.shard.folder(self.out)

    @property
    def spec_hash(self) -> str:
        """Hash by which `sweep.json` identifies the sweep."""
        return self.content["spec_hash"]

    def earlier_result(self) -> Result | None:
        """Result of the sweep if it is finished by now; see `finished_before`."""
        return finished_before(self.out, self.content, lambda: self.inputs.fingerprints)


@dataclass(frozen=True)
class Plan:
    """Layouts of the cohorts of a sweep, the runs of each shard, and `sweep.json`."""

    layouts: list[Layout]
    assigned: list[list[list[int]]]
    content: dict[str, Any]
    paused: float  # seconds in which nobody was at work on the sweep, up to now


def plan_sweep(job: Job, found: dict[str, Any] | None) -> Plan:
    """Lays a sweep out as an earlier call did whose `sweep.json` was found, if there was one, and shows it."""
    out, shard = job.out, job.shard
    if found is not None:
        check_data(out, found, job.inputs.fingerprints)
        check_start_settings(out, found)
    layouts, timings, notes = plan_layouts(job, found)
    if found is not None and not shard.whole and found.get("shards") == shard.count:
        assigned = parse_assignment(found)
    else:
        assigned = assign(layouts, shard.count, whole_arms=bool(job.sweep.stopping))
    timing = times(out, found)
    content = job.content | {"shards": shard.count} | plan_content(job, layouts, timings, assigned)
    content |= timing | {"paused": (found or {}).get("paused", 0.0)}  # until more is done than was there
    if found is not None and (changes := changed_setting(found, content)):
        notes.append(f"begun with {changes}: what follows may round otherwise than an undisturbed sweep")
    if found is not None and found["finished"] and (problem := bad_table(out, found)):
        notes.append(f"{problem}: the tables are written again from the checkpoints")
    view = plan_view(job, layouts, notes)
    if not shard.whole:
        runs_each = [sum(map(len, runs)) for runs in zip(*assigned, strict=True)]  # of each shard, over all cohorts
        view |= {"shard": str(shard), "shards": runs_each}
    job.display.plan(view)
    job.interrupt.defer()
    return Plan(layouts, assigned, content, timing["paused"])


def plan_layouts(
    job: Job, found: Mapping[str, Any] | None
) -> tuple[list[Layout], list[Mapping[str, float]], list[str]]:
    """Lays out the runs of a sweep, as an earlier call did whose `sweep.json` was found, if there was one.

    Returns:
        The layouts of the cohorts; the timings of each, empty where it was not tuned; notes for the user.
    """
    inputs, used, choice, choices = job.inputs, job.used, job.choice, None
    check_selection([run.recipe for run in inputs.runs], inputs.tasks, job.sweep.stopping)
    trunks = inputs.trunks  # what is wrong with them is said before kernels are compiled
    timings: list[Mapping[str, float]] = []
    notes: list[str] = []
    if found and found.get("plan"):
        choices = resume_choices(found["plan"], choice, inputs.runs)
        timings = [view.get("timings", {}) for view in found["plan"]]
    else:
        notes += prepare_kernels(job)
    if choices is None and choice.lane_width == "auto":
        tuned = autotune_layouts(inputs.runs, inputs.tasks, choice.lowering, used, job.display.stage, job.interrupt)
        choices, timings = [layout.choice for layout in tuned], [layout.timings for layout in tuned]
    layouts = make_layouts(inputs.runs, inputs.tasks, used, choice, choices, trunks)
    check_kernels([layout.cohort.config.lowering for layout in layouts], used, job.display)
    notes += [*job.sweep.samples.notes, *dict.fromkeys(note for task in inputs.tasks.values() for note in task.notes)]
    notes += selection_notes(inputs.tasks.values())
    if names := frozen_unmeasured([layout.cohort for layout in layouts], trunks):
        notes.append(UNMEASURED.format(", ".join(names)))
    if found is None:
        for number, layout in enumerate(layouts):
            fit = partial(fit_memory, layout, used, notes.append)
            layouts[number] = best_effort("how much memory the programs need", fit, notes.append, layout)
    job.display.stage("planning")
    for layout in layouts:
        check_traces(layout.cohort, layout.lanes_per_device)
    return layouts, timings or [{}] * len(layouts), notes


def prepare_kernels(job: Job) -> list[str]:
    """Loads the compiled kernels if they are the default lowering; notes for the user where they cannot be had."""
    default = DEFAULT_LOWERING.get(job.used[0].platform) in FUSED and job.choice.lowering is None
    if not default or not has_convolutions(job.sweep) or not (reason := missing_kernels(job.display.note)):
        return []
    return [] if is_off() else [SLOWER.format(reason)]


def check_kernels(lowerings: Iterable[str | None], devices: Sequence[Device], display: Display) -> None:
    """Refuses compiled kernels for CPU where they cannot be had; compiles them if need be.

    Raises:
        UsageError: the devices are no CPU.
        UserError: there is no compiler, or the like.
    """
    for lowering in set(lowerings) & set(FUSED):
        if devices[0].platform != "cpu":
            raise UsageError(f"lowering {lowering} is for CPU, and this is a {devices[0].platform}")
        require_kernels(display.note)


def frozen_unmeasured(cohorts: Iterable[Cohort], trunks: Mapping[str, Trunk]) -> list[str]:
    """Names of the batch norms that some run freezes and whose statistics neither a trunk nor pretraining measured."""
    found: dict[str, None] = {}
    for cohort in cohorts:
        for run in cohort.runs:
            measured = trunks[run.recipe.trunk]["batch_stats"] if run.recipe.trunk != "none" else ()
            found |= dict.fromkeys(unmeasured_norms(run.recipe, cohort.sites, measured))
    return list(found)


def plan_content(
    job: Job, layouts: Sequence[Layout], timings: Sequence[Mapping[str, float]], assigned: Sequence[list[list[int]]]
) -> dict[str, Any]:
    """Entries that planning adds to `sweep.json`; `timings` and `assigned` of each cohort."""
    return {
        "programs": len(layouts),
        "plan": [
            layout.view() | {"timings": dict(timed), "assigned": write_assignment(of)}
            for layout, timed, of in zip(layouts, timings, assigned, strict=True)
        ],
        "data": job.inputs.fingerprints,
        "classes": {name: list(task.classes) for (name, _), task in job.inputs.tasks.items()},
        "versions": versions(),
        "device": device_name(job.used),
        "settings": start_settings(),
    }


def plan_view(job: Job, layouts: Sequence[Layout], notes: list[str]) -> dict[str, Any]:
    """Plan as a display shows it before anything is compiled; visible accelerators are those seen but not used."""
    cohorts = []
    for layout in layouts:
        low, high = layout.cohort.params.min(), layout.cohort.params.max()
        params = f"{low:,} parameters" if low == high else f"{low:,} to {high:,} parameters"
        last_time = best_effort("the time to train", partial(find_time, layout, job.used), notes.append, None)
        cohorts.append(layout.view() | {"params": params, "last_time": last_time})
    return {
        "device": device_name(job.used),
        "devices": len(job.used),
        "visible_accelerators": unused_accelerators(job.used),
        "runs": len(job.inputs.runs),
        "arms": len(job.sweep.arms()),
        "seeds": len(job.sweep.seed_list),
        "programs": len(layouts),
        "out": str(job.out),
        "cohorts": cohorts,
        "notes": notes,
    }
