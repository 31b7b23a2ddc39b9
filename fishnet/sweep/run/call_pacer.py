"""Cuts work on lane groups into calls of a compiled program that each take about as long as they should."""

from collections.abc import Iterator

import numpy as np

SHORTEST = 1e-9  # seconds that a step takes at least, whatever a clock that was set back says
UNMEASURED = 8  # steps of a group in the first call, of which nobody knows yet how long it takes


class CallPacer:
    """Speed of a program, and what fits into one call of it, which should take so many `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._step: float | None = None  # seconds a group and step
        self.taken = 0.0  # seconds of all calls
        self.made = 0  # steps in all calls, of the device that had most groups

    @property
    def fitting(self) -> int:
        """Steps of one group that fit into a call."""
        return UNMEASURED if self._step is None else max(1, int(self.seconds / self._step))

    def windows(self, counts: np.ndarray, steps: int, most: int | None = None) -> Iterator[np.ndarray]:
        """Windows over all groups: the first of each device and the one after the last, [device, 2] int32.

        Each is made when it is asked for, from the speed of the calls before.

        Args:
            counts: groups of each device, [device].
            steps: of every group; a window has as many groups as fit with all their steps, and at least one.
            most: groups of a device in one window.
        """
        low = 0
        while low < counts.max():
            many = max(1, self.fitting // steps)
            high = low + (many if most is None else min(many, most))
            yield np.stack([np.minimum(low, counts), np.minimum(high, counts)], axis=-1).astype(np.int32)
            low = high

    def calls(self, counts: np.ndarray, start: int, end: int) -> Iterator[tuple[np.ndarray, int, int]]:
        """Calls that take all groups from step `start` to step `end`: window, first step, the one after the last.

        Only a single group's steps are cut. `counts` are the groups of each device, [device].
        """
        for window in self.windows(counts, end - start):
            at = start
            while at < end:
                stop = end if (window[:, 1] - window[:, 0]).max() > 1 else min(end, at + self.fitting)
                yield window, at, stop
                at = stop

    def measured(self, window: np.ndarray, steps: int, seconds: float) -> None:
        """Takes in how long a call for `steps` steps of the groups in `window` took."""
        made = int((window[:, 1] - window[:, 0]).max() * steps)
        self.taken, self.made = self.taken + seconds, self.made + made
        step = max(seconds / made, SHORTEST)
        self._step = step if self._step is None else 0.5 * (self._step + step)
