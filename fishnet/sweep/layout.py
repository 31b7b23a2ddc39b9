"""Where the lanes of a cohort are: groups by device, slices of them, and the way back to the order of the runs."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fishnet.sweep.grouping import form_groups, kinds_of
from fishnet.sweep.plan import Cohort


class Layout:
    """The lanes of a cohort on its devices, each of which holds equally many."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self._kinds = [kinds_of(cohort.knobs, run) for run in range(len(cohort.runs))]
        self._run_at = {int(position): run for run, position in enumerate(cohort.position)}

    def groups(self, runs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Lane groups of `runs` by device.

        Returns:
            Positions [device, group, width] int32, and how many groups each device has, [device] int32.
        """
        lanes, devices, width = self.cohort.lanes_per_device, self.cohort.devices, self.cohort.shape.lane_width
        groups = np.full((devices, lanes, width), lanes, np.int32)
        counts = np.zeros(devices, np.int32)
        for device in range(devices):
            mine = [run for run in runs if self.cohort.position[run] // lanes == device]
            positions = [int(self.cohort.position[run] % lanes) for run in mine]
            formed = form_groups(positions, [self._kinds[run] for run in mine], width)
            for i, group in enumerate(formed):
                groups[device, i, : len(group)] = group
            counts[device] = len(formed)
        return groups, counts

    def run_at(self, device: int, position: int) -> int | None:
        """The run in a lane of a device; None for padding."""
        if position >= self.cohort.lanes_per_device:
            return None
        return self._run_at[device * self.cohort.lanes_per_device + int(position)]

    def members(self, groups: np.ndarray, window: np.ndarray) -> list[int]:
        """The runs of the groups in `window` [device, 2]: on each device the first and the one after the last."""
        found = [
            self.run_at(device, position)
            for device, (low, high) in enumerate(window)
            for position in groups[device, low:high].ravel()
        ]
        return [run for run in found if run is not None]

    def gather(self, trees: Sequence[Any], runs: np.ndarray) -> Any:
        """One tree a device, by lane -> one tree of host arrays [run, ...] of `runs`."""
        rows = self.cohort.position[runs]
        return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[rows], *trees)

    def scatter(self, tree: Any) -> Any:
        """Host arrays [run, ...] -> [device * lane, ...]; padding lanes repeat the first run."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[self.cohort.run_at], tree)

    def mask(self, runs: Sequence[int]) -> list[np.ndarray]:
        """Which lanes of each device belong to `runs`: [lane] bool, one a device."""
        chosen = np.zeros(self.cohort.devices * self.cohort.lanes_per_device, bool)
        chosen[self.cohort.position[np.asarray(runs, np.int64)]] = True
        return np.split(chosen, self.cohort.devices)
