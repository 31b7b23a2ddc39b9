"""Assigns the runs of a sweep to shards, and lays a shard out on the devices of its machine."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fishnet.sweep.plan.cohorts import Cohort, lay_out
from fishnet.sweep.plan.grouping import form_groups
from fishnet.sweep.program.program import ProgramFunctions


@dataclass(frozen=True)
class ProcessShard(Cohort):
    """Runs of a cohort that one process trains; its program is that of the whole cohort."""

    whole: Cohort = dataclasses.field(kw_only=True)

    @property
    def epochs(self) -> int:
        """Of the longest run of the whole cohort, so that all shards fit together."""
        return self.whole.epochs

    @property
    def functions(self) -> ProgramFunctions:
        """Likewise: traced once."""
        return self.whole.functions

    @property
    def pretrain_epochs(self) -> int:
        """Likewise, of pretraining."""
        return self.whole.pretrain_epochs


def assign(cohorts: Sequence[Cohort], shards: int, whole_arms: bool) -> list[list[list[int]]]:
    """Assigns the unit with most steps that is left to the shard with the fewest, until none is left.

    A unit is a lane group, so that groups, and with them a run's last bits, are those of a whole sweep.

    Args:
        cohorts: of the whole sweep.
        shards: how many there are.
        whole_arms: whether a unit is an arm with all its seeds instead.

    Returns:
        For each cohort and shard the numbers of its runs, ascending; empty where there are more shards than units.
    """
    units = []  # (steps, cohort, rows)
    for number, cohort in enumerate(cohorts):
        epochs = np.array(
            [run.recipe.epochs + run.recipe.pretrain_epochs * (run.recipe.pretrain != "none") for run in cohort.runs]
        )
        steps = epochs * cohort.config.steps_per_epoch  # a step of any program counts alike
        of = arms_of(cohort) if whole_arms else groups_of(cohort, range(len(cohort.runs)))
        units += [(float(steps[rows].sum()), number, rows) for rows in of]
    load = np.zeros(shards)
    assigned: list[list[list[int]]] = [[[] for _ in range(shards)] for _ in cohorts]
    for steps, number, rows in sorted(units, key=lambda unit: -unit[0]):  # equal ones stay in order
        least = int(load.argmin())
        load[least] += steps
        assigned[number][least] += [cohorts[number].runs[row].index for row in rows]
    return [[sorted(runs) for runs in of] for of in assigned]


def groups_of(cohort: Cohort, rows: Sequence[int]) -> list[list[int]]:
    """The lane groups of some runs of a cohort."""
    return form_groups(rows, [cohort.vmap_key[row] for row in rows], cohort.config.lane_width)


def arms_of(cohort: Cohort) -> list[list[int]]:
    """The rows of each arm of a cohort."""
    rows: dict[str, list[int]] = {}
    for row, run in enumerate(cohort.runs):
        rows.setdefault(run.arm, []).append(row)
    return list(rows.values())


def shard_of(cohort: Cohort, assigned: Sequence[Sequence[int]], place: int, devices: int) -> ProcessShard | None:
    """What one process trains of a cohort; None where it is nothing.

    Args:
        cohort: the whole of it.
        assigned: the numbers of the runs of each shard.
        place: of the shard among them, from 0.
        devices: of each process.

    Returns:
        Its runs on its own devices, each of which holds as many lanes as those of the others: one program for all.
    """
    at = {run.index: row for row, run in enumerate(cohort.runs)}
    groups = [groups_of(cohort, [at[run] for run in runs]) for runs in assigned]
    if not groups[place]:
        return None
    used = [min(devices, len(of)) for of in groups]
    layouts = [
        lay_out(of, count, len(at), cohort.config.lane_width) if of else (None, 0)
        for of, count in zip(groups, used, strict=True)
    ]
    position, lanes = layouts[place]
    most = max(lanes for _, lanes in layouts)
    mine = np.array([at[run] for run in assigned[place]])
    whole = {field.name: getattr(cohort, field.name) for field in dataclasses.fields(Cohort)}
    own = {
        "runs": tuple(cohort.runs[row] for row in mine),
        "traced": jax.tree.map(lambda leaf: leaf[mine], cohort.traced),
        "params": cohort.params[mine],
        "devices": used[place],
        "position": position[mine] // lanes * most + position[mine] % lanes,
        "lanes_per_device": most,
    }
    return ProcessShard(**(whole | own), whole=cohort)


def write_assignment(assigned: Sequence[Sequence[int]]) -> list[str]:
    """The runs of each shard of a cohort as `sweep.json` has them: `0,2,4`."""
    return [",".join(map(str, runs)) for runs in assigned]


def parse_assignment(content: Mapping[str, Any]) -> list[list[list[int]]]:
    """The runs of each cohort and shard in a `sweep.json`."""
    return [[[int(run) for run in runs.split(",") if run] for runs in view["assigned"]] for view in content["plan"]]


def runs_each(assigned: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """How many runs each shard has, over all cohorts."""
    return [sum(map(len, runs)) for runs in zip(*assigned, strict=True)]
