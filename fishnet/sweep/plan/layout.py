"""Layouts: which device and lane computes each run, and conversion between run order and lane order."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import jax
import numpy as np

from fishnet.checks.arguments import check_type, is_whole, quote_value
from fishnet.data import Task
from fishnet.errors import UsageError, UserError
from fishnet.host.machine import Device
from fishnet.lookup import unknown_name
from fishnet.nn.conv_implementations import LOWERINGS
from fishnet.sweep.plan.cohorts import Cohort, LayoutChoice, explain_cohort, make_cohort
from fishnet.sweep.plan.grouping import form_groups, group_runs
from fishnet.sweep.plan.networks import Trunk
from fishnet.sweep.program.compile import GroupWindow
from fishnet.sweep.program.program import CompiledProgram, ProgramFunctions
from fishnet.sweep.program.traced_config import TracedConfig
from fishnet.sweep.spec.random_search import MOST_RUNS
from fishnet.sweep.spec.sweep import Run


@dataclass(frozen=True)
class Layout:
    """Device and lane of each run of a cohort; all devices hold equally many lanes, some of them padding."""

    cohort: Cohort
    devices: int
    position: np.ndarray  # [run] int64: device * lanes_per_device + lane
    lanes_per_device: int
    asked_width: int  # the lane width before it was reduced to fit into memory
    most_devices: int | None = None  # used at once, as found by timing or by lack of memory; None: no limit
    why: str = ""  # this layout, in words, if it was chosen by timing

    @property
    def run_of_each_lane(self) -> np.ndarray:
        """Run at each position [device * lane] int64; padding repeats the first run and is never trained."""
        return np.maximum(self._run_in_lane[:, :-1], 0).ravel()

    @cached_property
    def _run_in_lane(self) -> np.ndarray:
        """Runs [device, lane + 1] int64: -1 beyond the last lane, and in lanes without a run."""
        lanes = np.full((self.devices, self.lanes_per_device + 1), -1, np.int64)
        lanes[np.divmod(self.position, self.lanes_per_device)] = np.arange(len(self.cohort.runs))
        return lanes

    def bind(self, devices: Sequence[Device], functions: ProgramFunctions | None = None) -> CompiledProgram:
        """Program of the cohort on the first of some devices; nothing is compiled until `compile` is called."""
        cohort = self.cohort
        return CompiledProgram(cohort.config, self.traced, cohort.task, devices[: self.devices], functions)

    @property
    def traced(self) -> TracedConfig:
        """Traced values by position, [device * lane, ...]."""
        return self.scatter(self.cohort.traced)

    def groups(self, runs: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lane groups of `runs`, positions [device, group, width] int32, and their number on each device, [device]."""
        lanes, width = self.lanes_per_device, self.cohort.config.lane_width
        groups = np.full((self.devices, lanes, width), lanes, np.int32)
        counts = np.zeros(self.devices, np.int32)
        runs = np.asarray(runs, np.int64)
        homes, places = np.divmod(self.position[runs], lanes)
        for device in range(self.devices):
            mine, positions = runs[homes == device], places[homes == device].tolist()
            formed = form_groups(positions, [self.cohort.vmap_key[run] for run in mine], width)
            for i, group in enumerate(formed):
                groups[device, i, : len(group)] = group
            counts[device] = len(formed)
        return groups, counts

    def work(self, runs: Sequence[int]) -> GroupWindow:
        """All lane groups of `runs`, for one call."""
        groups, counts = self.groups(runs)
        return GroupWindow(groups, np.stack([np.zeros_like(counts), counts], axis=-1))

    def runs_in(self, device: int, positions: np.ndarray) -> np.ndarray:
        """Runs in lanes of a device, shaped like `positions`; -1 for padding."""
        return self._run_in_lane[device, np.minimum(positions, self.lanes_per_device)]

    def members(self, work: GroupWindow) -> np.ndarray:
        """Runs of the groups that a call works on, [member] int64."""
        spans = enumerate(work.window)
        runs = np.concatenate([self.runs_in(i, work.groups[i, slice(*span)]).ravel() for i, span in spans])
        return runs[runs >= 0]

    def executed(self, work: GroupWindow) -> np.ndarray:
        """Lanes computed for each of the `members`, [member] int64: 1, for the first of a group also its padding."""
        there = np.concatenate([work.groups[device, slice(*span)] for device, span in enumerate(work.window)])
        there = there < self.lanes_per_device
        lanes = there.astype(np.int64)
        lanes[:, 0] += (~there).sum(-1)
        return lanes[there]

    def gather(self, trees: Sequence[Any], runs: np.ndarray) -> Any:
        """From one tree a device, [lane, ...], to one host tree with the rows of `runs`, [n, ...]."""
        rows = self.position[runs]
        return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[rows], *trees)

    def scatter(self, tree: Any) -> Any:
        """Host arrays [run, ...] -> [device * lane, ...]; padding lanes repeat the first run."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[self.run_of_each_lane], tree)

    def by_device(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of the runs [run] as those of the lanes of each device, [lane]; padding repeats the first run."""
        return np.split(values[self.run_of_each_lane], self.devices)

    def mask(self, runs: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Which lanes of each device belong to `runs`: [lane] bool, one a device."""
        return [np.isin(lanes[:-1], np.asarray(runs, np.int64)) for lanes in self._run_in_lane]

    def narrow(self, width: int, devices: int, most_devices: int | None = None) -> "Layout":
        """Layout of the same runs at a lower lane width or on fewer devices; later sessions keep `most_devices`."""
        config = self.cohort.config
        config = dataclasses.replace(config, lane_width=width, share_batches=config.share_batches and width > 1)
        narrow = lay_out(dataclasses.replace(self.cohort, config=config), devices)
        return dataclasses.replace(
            narrow, asked_width=self.asked_width, most_devices=most_devices or self.most_devices, why=self.why
        )

    def view(self) -> dict[str, Any]:
        """Description of the cohort and its layout in JSON values, as `sweep.json` has it."""
        cohort, config = self.cohort, self.cohort.config
        return {
            "runs": len(cohort.runs),
            "lane_width": config.lane_width,
            "share_batches": config.share_batches,
            "lowering": config.lowering,
            "steps_per_epoch": config.steps_per_epoch,
            "epochs": cohort.epochs,
            "dropped_images": cohort.dropped_images,
            "pretraining": cohort.objectives,
            "reason": cohort.reason,
            "devices": self.devices,
            "asked_width": self.asked_width,
            "most_devices": self.most_devices,
            "why": self.why,
        }


def lay_out(cohort: Cohort, devices: int, lanes: int = 0) -> Layout:
    """Deals the lane groups of a cohort out to devices in turn.

    Each device holds a multiple of the lane width (filled up with padding) and at least `lanes`. With fewer lanes than
    the width, XLA would build a group by broadcasting and simplify the code after it, and a run would round differently
    than in a larger sweep.
    """
    width, runs = cohort.config.lane_width, range(len(cohort.runs))
    groups = form_groups(runs, cohort.vmap_key, width)
    held: list[list[int]] = [[] for _ in range(min(devices, len(groups)))]
    for i, group in enumerate(groups):
        held[i % len(held)].extend(group)
    lanes = max(-(-max(map(len, held)) // width) * width, lanes)
    position = np.zeros(len(runs), np.int64)
    for device, members in enumerate(held):
        position[members] = device * lanes + np.arange(len(members))
    return Layout(cohort, len(held), position, lanes, asked_width=width)


def make_layouts(
    runs: Sequence[Run],
    tasks: Mapping[tuple[str, Any], Task],
    devices: Sequence[Device],
    choice: LayoutChoice | None = None,
    choices: Sequence[LayoutChoice] | None = None,
    trunks: Mapping[str, Trunk] | None = None,
) -> list[Layout]:
    """Groups resolved runs into cohorts and lays out their lanes.

    Args:
        runs: with resolved recipes.
        tasks: by (task, image size).
        devices: to spread the lanes over.
        choice: for all cohorts; None: the defaults of the backend.
        choices: of each cohort, as they were tuned or as an earlier session had them, in place of `choice`.
        trunks: backbones of earlier runs, by the text in the field `trunk`.

    Raises:
        UsageError: a batch larger than the training split, a layer beyond the last one, a norm that does not fit its
            maps, a pattern of freeze that matches nothing, more stages of unfreezing than layers, a hard class that
            does not exist, a backbone that does not fit.
    """
    by_key, choice = group_runs(runs), choice or LayoutChoice()
    layouts = []
    for members, own in zip(by_key.values(), choices or [choice] * len(by_key), strict=True):
        recipe = members[0].recipe
        task, reason = tasks[recipe.task, recipe.image_size], explain_cohort(recipe, by_key)
        cohort = make_cohort(members, task, own, devices[0].platform, reason, trunks or {})
        layout = lay_out(cohort, min(own.most_devices or len(devices), len(devices)))
        asked = own.asked_width or layout.asked_width
        layouts.append(dataclasses.replace(layout, asked_width=asked, most_devices=own.most_devices, why=own.why))
    if choice.share_batches and all(layout.asked_width == 1 for layout in layouts):
        raise UsageError("share_batches would have no effect: all lanes have width 1 here; give a lane_width")
    return layouts


def resume_choices(views: Sequence[Mapping[str, Any]], asked: LayoutChoice, runs: Sequence[Run]) -> list[LayoutChoice]:
    """Layout choices that the cohorts of a sweep were started with, from their `views` in `sweep.json`.

    Raises:
        UserError: another width, lowering or share_batches is asked for now, or the cohorts have other runs.
    """
    if [view["runs"] for view in views] != [len(members) for members in group_runs(runs).values()]:
        raise UserError("this sweep was planned by another version of fishnet: choose another --out")
    return [resume_choice(view, asked) for view in views]


def resume_choice(view: Mapping[str, Any], asked: LayoutChoice) -> LayoutChoice:
    """Layout choice that a cohort was started with, from its `view`; refuses another one."""
    shared = view.get("share_batches", False)
    if asked.share_batches not in (None, shared) and view["lane_width"] > 1:
        raise UserError(
            f"this sweep was started {'with' if shared else 'without'} share_batches: its numbers would change; "
            "choose another --out"
        )
    for name, lowered in (("lane_width", view.get("asked_width")), ("lowering", None)):
        wanted = getattr(asked, name)
        if wanted not in (None, "auto", "all", view[name], lowered):
            raise UserError(
                f"this sweep was started with {name} {view[name]}, not {wanted}: its numbers would change; "
                "choose another --out"
            )
    more = {name: view[name] for name in ("asked_width", "most_devices", "why") if view.get(name)}
    return LayoutChoice(view["lane_width"], view["lowering"], shared, **more)


def check_overrides(
    lane_width: int | str | None, lowering: str | None, devices: int | None, share_batches: bool | None = None
) -> None:
    """Refuses a lane width, lowering, number of devices or sharing of batches that makes no sense (`UsageError`)."""
    word = lane_width is None or (isinstance(lane_width, str) and lane_width in ("all", "auto"))
    if not word and not (is_whole(lane_width) and 1 <= cast(int, lane_width) <= MOST_RUNS):
        raise UsageError(
            f"lane width {quote_value(lane_width)} is not a whole number from 1 to {MOST_RUNS}, all or auto"
        )
    check_type("lowering", lowering, (str, type(None)), f"{', '.join(LOWERINGS)} or None")
    if lowering is not None and lowering not in LOWERINGS:
        raise unknown_name("lowering", lowering, LOWERINGS)
    if devices is not None and (not is_whole(devices) or devices < 1):
        raise UsageError(f"devices: {quote_value(devices)} is not a whole number from 1")
    if share_batches and lane_width in (1, "auto"):
        why = "such lanes have batches of their own" if lane_width == 1 else "it tries both and takes the faster"
        raise UsageError(f"share_batches would have no effect with lane width {lane_width}: {why}")
