"""PyTorch: a module a run, eager or compiled, or an ensemble under `torch.func.vmap`."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.baselines.baseline import Baseline
from benchmarks.baselines.nets import CLASSES, GROUPS, LR, MOMENTUM, Net, examples

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class LayerNorm(nn.GroupNorm):
    """Over height, width and channels: group norm with one group."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, inputs: int, width: int, stride: int, normed: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(inputs, width, 3, stride, 1, bias=False), normed(width), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), normed(width))
        self.beside: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.beside = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), normed(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [b, width, h / stride, w / stride]."""
        return torch.relu(self.beside(x) + self.two(self.one(x)))


class GlobalMean(nn.Module):
    """The mean of each map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, c] of [b, c, h, w]."""
        return x.mean((2, 3))


def network(net: Net, running: bool = True) -> nn.Module:
    """The network of `net`.

    Args:
        net: which.
        running: whether batch norm keeps running statistics, which `torch.func.vmap` cannot update.
    """

    def normed(width: int) -> nn.Module:
        return {
            "none": lambda: nn.Identity(),
            "batch": lambda: nn.BatchNorm2d(width, momentum=0.1, track_running_stats=running),
            "layer": lambda: LayerNorm(width),
            "group": lambda: nn.GroupNorm(GROUPS, width),
            "instance": lambda: nn.InstanceNorm2d(width, affine=True),
        }[net.norm]()

    def conv(i: int, o: int, size: int = 3, groups: int = 1) -> list[nn.Module]:
        plain = nn.Conv2d(i, o, size, padding=size // 2, groups=groups, bias=net.norm == "none")
        return [plain, normed(o), ACTIVATIONS[net.activation]()]

    layers: list[nn.Module] = []
    h, w, channels = net.image
    if net.model == "mlp":
        inputs = h * w * channels
        layers.append(nn.Flatten())
        for width in net.widths:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, CLASSES))
    if net.model == "cnn":
        for width in net.widths:
            layers += [*conv(channels, width), nn.MaxPool2d(2)]
            channels = width
    if net.model == "separable":
        layers += conv(channels, net.widths[0])
        channels = net.widths[0]
        for width in net.widths:
            layers += [*conv(channels, channels, groups=channels), *conv(channels, width, 1), nn.MaxPool2d(2)]
            channels = width
    if net.model == "resnet":
        layers += conv(channels, net.widths[0])
        channels = net.widths[0]
        for stage, width in enumerate(net.widths):
            for block in range(net.depth):
                layers.append(Block(channels, width, 2 if stage and not block else 1, normed))
                channels = width
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(channels, CLASSES))


class Eager(Baseline):
    """A module a run, one after the other: channels last, all threads, fused optimizer where there is one."""

    def place(self) -> None:
        """Puts the standardized images in memory, in the order of channels that suits the device."""
        images, labels = examples(self.net)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        x = torch.from_numpy(images.astype(np.float32)).movedim(-1, 1)
        x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
        self.images = x.contiguous(memory_format=torch.channels_last).to(self.device)
        self.labels = torch.from_numpy(labels.astype(np.int64)).to(self.device)
        self.first = 0

    def batch(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The images and labels of step `i`."""
        start = (i % self.net.batches) * self.net.batch
        return self.images[start : start + self.net.batch], self.labels[start : start + self.net.batch]

    def ready(self, module: nn.Module) -> Callable:
        """Function that is called with a batch."""
        return module

    def prepare(self) -> int:
        """See `Baseline.prepare`."""
        self.place()
        modules = [network(net).to(self.device, memory_format=torch.channels_last) for net in self.net.each()]
        self.runs = [
            (self.ready(module), torch.optim.SGD(module.parameters(), LR, momentum=MOMENTUM, fused=True))
            for module in modules
        ]
        self.train(2)
        return sum(p.numel() for module in modules for p in module.parameters())

    def train(self, steps: int) -> None:
        """See `Baseline.train`."""
        for module, optimizer in self.runs:
            for i in range(self.first, self.first + steps):
                images, labels = self.batch(i)
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(module(images), labels).backward()
                optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.first += steps


class Compiled(Eager):
    """The same through `torch.compile`: one compiled forward and backward for all runs."""

    def ready(self, module: nn.Module) -> Callable:
        """See `Eager.ready`."""
        return torch.compile(module)

    def prepare(self) -> int:
        """See `Baseline.prepare`."""
        torch._dynamo.config.cache_size_limit = 4 * self.net.runs
        return super().prepare()


class Ensemble(Eager):
    """All runs at once: `vmap` of `grad` over stacked parameters; batch norm without running statistics."""

    def prepare(self) -> int:
        """See `Baseline.prepare`."""
        self.place()
        modules = [network(self.net, running=False).to(self.device) for _ in range(self.net.runs)]
        params, _ = torch.func.stack_module_state(modules)
        self.params = {name: p.detach() for name, p in params.items()}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.params.items()}
        base = copy.deepcopy(modules[0]).to("meta")

        def loss(params: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(torch.func.functional_call(base, params, (images,)), labels)

        self.gradients: Any = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None))
        self.train(2)
        return sum(p.numel() for module in modules for p in module.parameters())

    def train(self, steps: int) -> None:
        """See `Baseline.train`."""
        names = list(self.params)
        for i in range(self.first, self.first + steps):
            grads = self.gradients(self.params, *self.batch(i))
            with torch.no_grad():
                momenta, params = [self.momentum[n] for n in names], [self.params[n] for n in names]
                torch._foreach_mul_(momenta, MOMENTUM)
                torch._foreach_add_(momenta, [grads[n] for n in names])
                torch._foreach_add_(params, momenta, alpha=-LR)
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.first += steps
