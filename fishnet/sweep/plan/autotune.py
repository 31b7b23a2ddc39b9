"""`--lane-width auto`: times a few steps of each layout on this machine and takes the fastest, or what it took before.

A layout is a lane width, a lowering and, on CPU, how many devices work side by side (one device alone has all cores for
each product). Serial, one lane at a time on every device, is among them, so the choice is never slower.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fishnet.data import Task
from fishnet.host.interrupt import Interrupt
from fishnet.host.json_cache import JsonCache
from fishnet.host.machine import Device
from fishnet.host.memory import OutOfMemory
from fishnet.host.numbers import counted
from fishnet.nn.conv_implementations import FUSED, LOWERINGS
from fishnet.nn.cpu.library import missing_kernels
from fishnet.source_hash.digest import hash_each
from fishnet.sweep.plan.cohorts import Cohort, LayoutChoice
from fishnet.sweep.plan.grouping import form_groups, group_runs, sharing_costs_nothing, vmap_key
from fishnet.sweep.plan.layout import Layout, make_layouts
from fishnet.sweep.plan.past_times import program_key
from fishnet.sweep.plan.user_components import functions_of
from fishnet.sweep.spec.sweep import Run

WIDTHS = (1, 4, 16)
SECONDS = 60.0  # for all cohorts together
COMPILING = 0.7  # of that time, after which no further candidate is compiled
CALL_SECONDS = 0.2  # of one timed call
ROUNDS = 5  # in each of which every candidate is timed once
PRUNE_FACTOR = 2.0  # times the best median, from the third round on
LAYOUT_FIELDS = {"lane_width": int, "share_batches": bool, "lowering": str, "why": str}
LAYOUT_FIELDS |= dict.fromkeys(("asked_width", "most_devices"), int | None)
TUNED = JsonCache("tuned.json", {"layout": LAYOUT_FIELDS, "timings": dict})


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to lay a cohort out."""

    width: int
    lowering: str
    devices: int  # side by side
    share: bool = False  # the batches, among the lanes that are vectorized together

    def name(self, devices: int) -> str:
        """Name in timings, on a machine with so many devices."""
        shared = " with shared batches" * self.share
        return f"width {self.width}{shared}, {self.lowering}" + f", {counted(self.devices, 'device')}" * (devices > 1)


@dataclasses.dataclass(frozen=True)
class TunedLayout:
    """Layout that was the fastest of those timed."""

    choice: LayoutChoice
    timings: Mapping[str, float]  # milliseconds a step and run, by the name of the candidate


class Trial:
    """Program of a candidate for the cohort of a serial layout, ready to be timed on its first groups.

    Raises:
        OutOfMemory: it does not fit.
    """

    def __init__(
        self,
        candidate: Candidate,
        serial: Layout,
        tasks: Mapping[tuple[str, Any], Task],
        devices: Sequence[Device],
        interrupt: Interrupt,
    ) -> None:
        self.candidate, cohort = candidate, serial.cohort
        groups = form_groups(range(len(cohort.runs)), vmap_key(cohort.traced, candidate.share), candidate.width)
        groups.sort(key=len, reverse=True)
        # As many rounds of steps as the device with most groups makes for one step of every run.
        self._rounds = -(-len(groups) // candidate.devices)
        self._runs = len(cohort.runs)
        some = [cohort.runs[run] for group in groups[: candidate.devices] for run in group]
        used = list(devices[: candidate.devices])
        choice = LayoutChoice(candidate.width, candidate.lowering, candidate.share)
        (layout,) = make_layouts(some, tasks, used, choice)
        self._program = layout.bind(used)
        self._program.compile(["init", "train"], interrupt)
        self._states = self._program.init()
        self._work = layout.work(range(len(some)))
        self._lr_scales = [np.ones(self._program.lanes, np.float32)] * len(self._states)
        most = layout.cohort.config.steps_per_epoch
        self._steps = min(2, most)
        self._call()  # warms up
        self._steps = max(1, min(most, int(CALL_SECONDS / self._call())))
        self.seconds: list[float] = []  # a step of all groups side by side

    def _call(self) -> float:
        """Seconds a step, of one call."""
        began = time.perf_counter()
        self._states = self._program.train(self._states, self._lr_scales, self._work, 0, self._steps)
        return (time.perf_counter() - began) / self._steps

    def take(self) -> None:
        """Times one call."""
        self.seconds.append(self._call())

    @property
    def milliseconds(self) -> float:
        """Median milliseconds of a step and run of the whole cohort, incomplete groups and idle devices included."""
        return float(np.median(self.seconds)) * self._rounds / self._runs * 1e3


def autotune_layouts(
    runs: Sequence[Run],
    tasks: Mapping[tuple[str, Any], Task],
    lowering: str | None,
    devices: Sequence[Device],
    stage: Callable[[str], None],
    interrupt: Interrupt,
) -> list[TunedLayout]:
    """Finds the layout that trains fastest, for each cohort in the plan's order.

    Args:
        runs: with resolved recipes.
        tasks: by (task, image size).
        lowering: the only one to try; None: all of them.
        devices, interrupt: to try them on, and looked at meanwhile.
        stage: told in a line what is being timed.
    """
    # With which weights it begins does not change how long a step takes.
    runs = [dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, trunk="none")) for run in runs]
    cohorts = list(group_runs(runs).values())
    found = []
    for number, members in enumerate(cohorts, start=1):
        (serial,) = make_layouts(members, tasks, devices, LayoutChoice(1, lowering))
        recipes = [run.recipe for run in serial.cohort.runs]
        config = dataclasses.replace(serial.cohort.config, lane_width=0)
        tried = functions_of(recipes, LOWERINGS if lowering is None else [lowering])
        key = program_key(config, hash_each(tried), devices, lowering, similar(serial.cohort))
        if (entry := TUNED.find(key)) is not None:
            choice = LayoutChoice(**entry["layout"])
            why = f"{choice.why} (remembered from {entry['date'][:10]})"
            found.append(TunedLayout(dataclasses.replace(choice, why=why), entry["timings"]))
            continue
        stage(f"timing layouts of program {number} of {len(cohorts)}")
        tuned = time_layouts(serial, tasks, lowering, devices, SECONDS / len(cohorts), interrupt)
        if tuned.timings:
            TUNED.keep(key, {"layout": dataclasses.asdict(tuned.choice), "timings": dict(tuned.timings)})
        found.append(tuned)
    return found


def similar(cohort: Cohort) -> list[int]:
    """Sizes of the groups of runs that could be vectorized together, largest first."""
    return sorted(Counter(vmap_key(cohort.traced, same_seed=False)).values(), reverse=True)


def usable_lowerings(devices: Sequence[Device]) -> list[str]:
    """Names of the lowerings that these devices can use."""
    kernels = devices[0].platform == "cpu" and not missing_kernels()
    return [name for name in LOWERINGS if kernels or name not in FUSED]


def candidates(layout: Layout, lowering: str | None, devices: Sequence[Device]) -> Iterator[Candidate]:
    """Layouts that may be fastest: the serial one given, those that differ from it in one respect, then the rest."""
    cohort = layout.cohort
    sizes, usual = similar(cohort), cohort.config.lowering
    flat = cohort.config.recipe.model == "mlp"  # no convolutions
    lowerings = [usual] if lowering or flat else sorted(usable_lowerings(devices), key=lambda name: name != usual)
    widths = [width for width in WIDTHS if width <= sizes[0]]
    # Lanes of one seed look at the same images: where sharing them makes no further groups, it can only save.
    share = {width: width > 1 and sharing_costs_nothing(cohort.traced, width) for width in widths}
    splits = len(devices), 1
    every = [Candidate(width, name, split, share[width]) for width in widths for name in lowerings for split in splits]

    def groups(width: int) -> int:
        return sum(-(-size // width) for size in sizes)

    def sensible(candidate: Candidate) -> bool:
        if candidate.devices > 1:
            return groups(candidate.width) > 1
        return devices[0].platform == "cpu" or len(devices) == 1 or groups(candidate.width) == 1

    def changes(candidate: Candidate) -> int:
        return (candidate.width > 1) + (candidate.lowering != usual) + (candidate.devices < layout.devices)

    yield from sorted(filter(sensible, dict.fromkeys(every)), key=changes)


def time_layouts(
    layout: Layout,
    tasks: Mapping[tuple[str, Any], Task],
    lowering: str | None,
    devices: Sequence[Device],
    limit: float,
    interrupt: Interrupt,
) -> TunedLayout:
    """Times layouts of one cohort, whose serial one is given, for at most about `limit` seconds; the fastest."""
    began, trials = time.monotonic(), []
    left_out = 0
    for candidate in candidates(layout, lowering, devices):
        if trials and time.monotonic() - began > COMPILING * limit:
            left_out += 1
            continue
        try:
            trials.append(Trial(candidate, layout, tasks, devices, interrupt))
        except OutOfMemory:
            continue
    if not trials:  # for `fit_memory` to say what it takes
        return TunedLayout(LayoutChoice(1, layout.cohort.config.lowering, False), {})
    serial, alive = trials[0], list(trials)
    for number in range(ROUNDS):
        if number and time.monotonic() - began > limit:
            break
        for trial in alive:
            interrupt.check("nothing was lost: the same command starts or goes on")
            trial.take()
        if number >= 1:
            best = min(trial.milliseconds for trial in alive)
            alive = [trial for trial in alive if trial.milliseconds < PRUNE_FACTOR * best or trial is serial]
    best = min(alive, key=lambda trial: trial.milliseconds)
    chosen = best.candidate
    why = f"{chosen.name(len(devices))}: {best.milliseconds:.3g} ms a step and run"
    why += f", serial {serial.milliseconds:.3g}" if best is not serial else ", which is serial"
    why += f", the fastest of {counted(len(trials), 'layout')} timed" + f" ({left_out} more left out)" * bool(left_out)
    most = chosen.devices if chosen.devices < len(devices) else None
    choice = LayoutChoice(chosen.width, chosen.lowering, chosen.share, most_devices=most, why=why)
    return TunedLayout(choice, {trial.candidate.name(len(devices)): round(trial.milliseconds, 4) for trial in trials})
