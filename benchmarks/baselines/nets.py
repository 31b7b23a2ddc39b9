"""The networks of the benchmark, their batches, and how many of them are trained."""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

CLASSES = 10


@dataclass(frozen=True)
class Net:
    """A network, its data and its number of runs; all baselines train it with momentum at a constant rate."""

    name: str
    model: str  # in fishnet's MODELS
    widths: tuple[int, ...]
    image: tuple[int, int, int]  # (h, w, c)
    batch: int
    runs: int
    depth: int = 1
    norm: str = "batch"
    activation: str = "relu"
    batches: int = 8  # of an epoch: enough that the images do not stay in the cache
    arms: tuple[tuple[str, str], ...] = ()  # (activation, norm) of each run, where they differ
    cold_steps: int = 0  # measured from a fresh start, compilation included, over so many steps; 0: warm
    goals: dict[str, float] = field(
        default_factory=dict, hash=False
    )  # baseline -> its time over fishnet's, on 2 CPU cores

    def each(self) -> list["Net"]:
        """The network of every run."""
        arms = self.arms or ((self.activation, self.norm),) * self.runs
        return [replace(self, activation=activation, norm=norm, arms=()) for activation, norm in arms]

    def takes(self, baseline: str) -> bool:
        """Returns True where a baseline can train this network."""
        if baseline == "serial loop":  # XLA has no fast convolution inside a loop on CPU: seconds a step
            return self.model == "mlp" and not self.arms
        if baseline == "fishnet auto":  # the convolutions of lanes side by side are computed one after the other
            return self.model == "mlp"
        if baseline == "fishnet, no kernels":
            return self.model != "mlp"
        return not self.arms or baseline in ("fishnet", "serial", "torch", "torch malloc")


ACTIVATIONS = ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid")
NORMS = ("none", "batch", "layer", "group", "instance")
GROUPS = 8  # of group norm, fishnet's default
NETS = (
    Net(
        "mlp 784-10-10",
        "mlp",
        (10,),
        (28, 28, 1),
        64,
        64,
        norm="none",
        batches=64,
        goals={"torch": 20, "serial": 5, "vmap": 1},
    ),
    Net(
        "mlp 784-300-100-10",
        "mlp",
        (300, 100),
        (28, 28, 1),
        64,
        16,
        norm="none",
        batches=64,
        goals={"torch": 3, "serial": 1.5, "vmap": 1.3},
    ),
    Net("cnn 16-32-64", "cnn", (16, 32, 64), (28, 28, 1), 64, 16, goals={"torch": 2.5, "serial": 5, "vmap": 6}),
    Net("cnn 32-64-128", "cnn", (32, 64, 128), (64, 64, 3), 32, 8, goals={"torch": 1.8, "serial": 5, "vmap": 5}),
    Net(
        "resnet 16-32-64",
        "resnet",
        (16, 32, 64),
        (32, 32, 3),
        64,
        8,
        depth=2,
        goals={"torch": 1.6, "serial": 3, "vmap": 4},
    ),
    Net(
        "separable 32-64-128",
        "separable",
        (32, 64, 128),
        (32, 32, 3),
        64,
        8,
        goals={"torch": 2.2, "serial": 15, "vmap": 1.2},
    ),
    Net(
        "40 arms",
        "cnn",
        (16, 32, 64),
        (28, 28, 1),
        64,
        40,
        arms=tuple(itertools.product(ACTIVATIONS, NORMS)),
        cold_steps=100,
        goals={"torch": 2, "serial": 6},
    ),
)
LR, MOMENTUM = 0.01, 0.9


def examples(net: Net) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, h, w, c] uint8 and labels [n] int32 of an epoch, the same for every baseline."""
    rng = np.random.default_rng(0)
    count = net.batch * net.batches
    return rng.integers(0, 256, (count, *net.image), np.uint8), rng.integers(0, CLASSES, count, np.int32)
