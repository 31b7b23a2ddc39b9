"""How long a program took when it last ran on this machine: all that a plan says of the time that it will take."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fishnet.host.json_cache import JsonCache
from fishnet.host.machine import Device, device_name, versions
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.config import ProgramConfig

PER_STEP = ("training", "evaluating", "probing")  # take longer with more steps; the rest is taken to be fixed
PARTS = ("compiling", *PER_STEP, "other")
TIMES = JsonCache("times.json", dict.fromkeys(("steps", *PARTS), float))


@dataclass(frozen=True)
class PastTime:
    """Seconds that a cohort would take if its program ran as fast as the last time."""

    seconds: Mapping[str, float]  # by what takes them
    date: str  # of that time, as 2026-11-30


def find_time(layout: Layout, devices: Sequence[Device]) -> PastTime | None:
    """What the program of a cohort would take, as it did when it last ran; None where it has not."""
    entry = TIMES.find(time_key(layout, devices))
    if entry is None or entry["steps"] <= 0:
        return None
    cohort = layout.cohort
    epochs = np.mean([run.recipe.epochs for run in cohort.runs])
    groups = layout.groups(range(len(cohort.runs)))[1].max()  # of the device that has most
    longer = float(groups * epochs * cohort.config.steps_per_epoch / entry["steps"])
    seconds = {what: entry[what] * (longer if what in PER_STEP else 1.0) for what in PARTS}
    return PastTime({what: value for what, value in seconds.items() if value}, entry["date"][:10])


def keep_time(layout: Layout, devices: Sequence[Device], spent: Mapping[str, float], steps: int) -> None:
    """Remembers what the program of a cohort took.

    Args:
        layout, devices: of a cohort that has been trained.
        spent: seconds by what took them: "whole", and of it what is in `PARTS`.
        steps: of training that were made, of one group on the device that had most; 0: nothing is remembered.
    """
    if not steps:
        return
    known = {what: spent.get(what, 0.0) for what in PARTS[:-1]}
    entry = known | {"other": max(spent["whole"] - sum(known.values()), 0.0)}
    TIMES.keep(time_key(layout, devices), {what: round(value, 3) for what, value in entry.items()} | {"steps": steps})


def time_key(layout: Layout, devices: Sequence[Device]) -> str:
    """Key of a cohort's program in `TIMES`."""
    cohort = layout.cohort
    return program_key(cohort.config, cohort.made_of, devices, layout.devices, len(cohort.task.splits["val"]))


def program_key(config: ProgramConfig, made_of: Mapping[str, str], devices: Sequence[Device], *more: Any) -> str:
    """Key of a program, made of components with these digests, on devices of a kind under these versions."""
    setting = _digest(device_name(list(devices)), sorted(versions().items()))
    return f"{setting}-{_digest(config, more, *made_of.items())}"


def _digest(*of: Any) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:12]
