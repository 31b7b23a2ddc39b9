"""Where the lanes of a cohort are: groups by device, slices of them, and the way back to the order of the runs."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.plan.grouping import form_groups
from fishnet.sweep.program.compile import GroupWindow


class Layout:
    """The lanes of a cohort on its devices, each of which holds equally many."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        # [device, lane + 1]: beyond the last lane nobody, as in lanes that no run was dealt to
        self._run_at = np.full((cohort.devices, cohort.lanes_per_device + 1), -1, np.int64)
        self._run_at[np.divmod(cohort.position, cohort.lanes_per_device)] = np.arange(len(cohort.runs))

    def groups(self, runs: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lane groups of `runs` by device.

        Returns:
            Positions [device, group, width] int32, and how many groups each device has, [device] int32.
        """
        lanes, devices, width = self.cohort.lanes_per_device, self.cohort.devices, self.cohort.config.lane_width
        groups = np.full((devices, lanes, width), lanes, np.int32)
        counts = np.zeros(devices, np.int32)
        runs = np.asarray(runs, np.int64)
        homes, places = np.divmod(self.cohort.position[runs], lanes)
        for device in range(devices):
            mine, positions = runs[homes == device], places[homes == device].tolist()
            formed = form_groups(positions, [self.cohort.vmap_key[run] for run in mine], width)
            for i, group in enumerate(formed):
                groups[device, i, : len(group)] = group
            counts[device] = len(formed)
        return groups, counts

    def runs_at(self, device: int, positions: np.ndarray) -> np.ndarray:
        """The runs in lanes of a device, shaped like `positions`; -1 for padding."""
        return self._run_at[device, np.minimum(positions, self.cohort.lanes_per_device)]

    def work(self, runs: Sequence[int]) -> GroupWindow:
        """All lane groups of `runs`, for one call."""
        groups, counts = self.groups(runs)
        return GroupWindow(groups, np.stack([np.zeros_like(counts), counts], axis=-1))

    def members(self, work: GroupWindow) -> np.ndarray:
        """Runs of the groups that a call works on, [member] int64."""
        found = [
            self.runs_at(device, work.groups[device, slice(*span)]).ravel() for device, span in enumerate(work.window)
        ]
        runs = np.concatenate(found)
        return runs[runs >= 0]

    def executed(self, work: GroupWindow) -> np.ndarray:
        """Lanes executed for each of the `members`, [member] int64: the first of a group has its padding too."""
        there = np.concatenate([work.groups[device, slice(*span)] for device, span in enumerate(work.window)])
        there = there < self.cohort.lanes_per_device
        lanes = there.astype(np.int64)
        lanes[:, 0] += (~there).sum(-1)
        return lanes[there]

    def gather(self, trees: Sequence[Any], runs: np.ndarray) -> Any:
        """One tree a device, by lane -> one tree of host arrays [run, ...] of `runs`."""
        rows = self.cohort.position[runs]
        return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[rows], *trees)

    def scatter(self, tree: Any) -> Any:
        """Host arrays [run, ...] -> [device * lane, ...]; padding lanes repeat the first run."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[self.cohort.run_at], tree)

    def by_device(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of the runs [run] as those of the lanes of each device, [lane]; padding repeats the first run."""
        return np.split(values[self.cohort.run_at], self.cohort.devices)

    def mask(self, runs: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Which lanes of each device belong to `runs`: [lane] bool, one a device."""
        chosen = np.zeros(self.cohort.devices * self.cohort.lanes_per_device, bool)
        chosen[self.cohort.position[np.asarray(runs, np.int64)]] = True
        return np.split(chosen, self.cohort.devices)
