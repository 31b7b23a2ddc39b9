"""Baseline interface: trains all runs of a network for some steps, as often as asked."""

import time
from abc import ABC, abstractmethod

from benchmarks.baselines.nets import Net


class Baseline(ABC):
    """One way to train the runs of a network.

    Args:
        net: the network.
    """

    def __init__(self, net: Net) -> None:
        self.net = net

    @abstractmethod
    def prepare(self) -> int:
        """Builds everything and compiles it, warm; returns the number of parameters of all runs together."""

    @abstractmethod
    def train(self, steps: int) -> None:
        """Trains every run for so many steps, and waits until it is done."""

    def memory(self) -> dict[str, int]:
        """Bytes of memory that the compiled program needs; None if unknown."""
        return {}

    def finish(self) -> None:  # noqa: B027
        """Waits for background work, such as writing checkpoints."""

    def fitting(self, seconds: float) -> int:
        """Number of steps that take about `seconds`."""
        steps = 1
        while True:
            began = time.perf_counter()
            self.train(steps)
            took = time.perf_counter() - began
            if took > seconds / 4 or steps >= 4096:
                return max(1, min(4096, round(steps * seconds / took)))
            steps *= 4
