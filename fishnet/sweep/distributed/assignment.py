"""Assigns the runs of a sweep to shards, and lays a shard out on the devices of its machine."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.plan.grouping import form_groups
from fishnet.sweep.plan.layout import Layout, lay_out


def assign(layouts: Sequence[Layout], shards: int, whole_arms: bool) -> list[list[list[int]]]:
    """Assigns the unit with most steps that is left to the shard with the fewest, until none is left.

    A unit is a lane group, so that groups, and with them a run's last bits, are those of a whole sweep; with
    `whole_arms` it is an arm with all its seeds.

    Returns:
        For each cohort and shard the numbers of its runs, ascending; empty where there are more shards than units.
    """
    units = []  # (steps, cohort, rows)
    for number, layout in enumerate(layouts):
        cohort = layout.cohort
        epochs = np.array(
            [run.recipe.epochs + run.recipe.pretrain_epochs * (run.recipe.pretrain != "none") for run in cohort.runs]
        )
        steps = epochs * cohort.config.steps_per_epoch  # a step of any program counts alike
        of = arms_of(cohort) if whole_arms else groups_of(cohort, range(len(cohort.runs)))
        units += [(float(steps[rows].sum()), number, rows) for rows in of]
    load = np.zeros(shards)
    assigned: list[list[list[int]]] = [[[] for _ in range(shards)] for _ in layouts]
    for steps, number, rows in sorted(units, key=lambda unit: -unit[0]):  # equal ones stay in order
        least = int(load.argmin())
        load[least] += steps
        assigned[number][least] += [layouts[number].cohort.runs[row].index for row in rows]
    return [[sorted(runs) for runs in of] for of in assigned]


def groups_of(cohort: Cohort, rows: Sequence[int]) -> list[list[int]]:
    """Lane groups of some runs of a cohort."""
    return form_groups(rows, [cohort.vmap_key[row] for row in rows], cohort.config.lane_width)


def arms_of(cohort: Cohort) -> list[list[int]]:
    """Rows of each arm of a cohort."""
    rows: dict[str, list[int]] = {}
    for row, run in enumerate(cohort.runs):
        rows.setdefault(run.arm, []).append(row)
    return list(rows.values())


def shard_of(layout: Layout, assigned: Sequence[Sequence[int]], place: int, devices: int) -> Layout | None:
    """Layout of what the shard at `place` trains of a cohort; None where it is nothing.

    Each device holds as many lanes as those of the other shards: one program for all.

    Args:
        layout: of the whole cohort.
        assigned: numbers of the runs of each shard.
        place: of the shard among them, from 0.
        devices: number of them in each process.
    """
    cohort = layout.cohort
    at = {run.index: row for row, run in enumerate(cohort.runs)}
    rows = [[at[run] for run in runs] for runs in assigned]
    if not rows[place]:
        return None
    if len(rows[place]) == len(cohort.runs):
        return layout
    lanes = max(lay_out(cohort.part(of), devices).lanes_per_device for of in rows if of)
    own = lay_out(cohort.part(rows[place]), devices, lanes)
    return dataclasses.replace(own, asked_width=layout.asked_width, most_devices=layout.most_devices, why=layout.why)


def write_assignment(assigned: Sequence[Sequence[int]]) -> list[str]:
    """Formats the runs of each shard of a cohort as `sweep.json` has them: `0,2,4`."""
    return [",".join(map(str, runs)) for runs in assigned]


def parse_assignment(content: Mapping[str, Any]) -> list[list[list[int]]]:
    """Reads the runs of each cohort and shard from a `sweep.json`."""
    return [[[int(run) for run in runs.split(",") if run] for runs in view["assigned"]] for view in content["plan"]]
