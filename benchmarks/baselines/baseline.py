"""A contestant of the benchmark: trains all runs of a network for some steps, as often as it is asked."""

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
        """Bytes that the compiled program asks for, where it says so."""
        return {}

    def finish(self) -> None:  # noqa: B027
        """Ends what goes on in the background, where something does."""

    def fitting(self, seconds: float) -> int:
        """Steps that take about so many seconds."""
        steps = 1
        while True:
            began = time.perf_counter()
            self.train(steps)
            took = time.perf_counter() - began
            if took > seconds / 4 or steps >= 4096:
                return max(1, min(4096, round(steps * seconds / took)))
            steps *= 4
