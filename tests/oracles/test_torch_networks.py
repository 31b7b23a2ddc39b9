"""Whole networks against PyTorch modules with the same weights: logits, every gradient, running statistics.

The modules are put together of PyTorch's own layers, in the order in which they run, and compute in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.losses import cross_entropy
from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.norms import NORMS
from fishnet.nn.pooling import POOLS
from tests.oracles.there import F, compiled, torch

nn = torch.nn
CLASSES, WIDTHS = 5, (8, 16)
RNG = np.random.default_rng(0)


class Shift(nn.Module):
    """Norm `none`: a bias for each channel."""

    def __init__(self, width):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return x + self.bias[:, None, None] if x.ndim == 4 else x + self.bias


NORMS_THERE = {
    "none": Shift,
    "batch": lambda width: nn.BatchNorm2d(width, eps=1e-5, momentum=0.1),
    "group": lambda width: nn.GroupNorm(8, width, eps=1e-5),
}
ACTIVATIONS_THERE = {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class GlobalMean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class ResidualBlock(nn.Module):
    """He et al.'s basic block. At stride 2 the map of even size is padded as XLA pads it: to the right and below."""

    def __init__(self, i, o, stride, norm, act):
        super().__init__()
        pad = nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1)
        self.branch = nn.Sequential(pad, conv(i, o, stride, 0), norm(o), act(), conv(o, o), norm(o))
        self.short = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), norm(o)) if (i, stride) != (o, 1) else None
        self.act = act()

    def forward(self, x):
        y = self.branch(x)
        return self.act(y + (x if self.short is None else self.short(x)))


def conv(i, o, stride=1, padding=1):
    return nn.Conv2d(i, o, 3, stride, padding, bias=False)


def mlp(size, norm, act, pool):
    sizes, layers = (size * size * 3, *WIDTHS), [ChannelsLast()]
    for i, o in zip(sizes, WIDTHS, strict=False):
        layers += [nn.Linear(i, o, bias=False), norm(o), act()]
    return nn.Sequential(*layers, nn.Linear(WIDTHS[-1], CLASSES))


def cnn(size, norm, act, pool):
    i, layers = 3, []
    for width in WIDTHS:
        layers += [conv(i, width), norm(width), act(), pool(2)]
        i = width
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(i, CLASSES))


def resnet(size, norm, act, pool):
    i, layers = WIDTHS[0], [conv(3, WIDTHS[0]), norm(WIDTHS[0]), act()]
    for width in WIDTHS:  # one block of each, the second at half the size and so with a convolution for shortcut
        layers += [ResidualBlock(i, width, 2 if width != i else 1, norm, act)]
        i = width
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(i, CLASSES))


class ChannelsLast(nn.Module):
    """Flattens images as they lie in memory here."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


NETWORKS = {"mlp": mlp, "cnn": cnn, "resnet": resnet}


def pairs(module, params):
    """(their parameter, [layer, leaf] of ours), layer by layer in the order in which they run."""
    linear = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm | Shift)]
    site = "dense" if "dense_0" in params else "conv"
    found = [(m.weight, (f"{site}_{k}", "kernel")) for k, m in enumerate(linear[:-1])]
    for k, m in enumerate(norms):
        found += [(m.weight, (f"norm_{k}", "scale"))] if getattr(m, "weight", None) is not None else []
        found += [(m.bias, (f"norm_{k}", "bias"))]
    return [*found, (linear[-1].weight, ("head", "kernel")), (linear[-1].bias, ("head", "bias"))]


def as_ours(array):
    """A weight, or its gradient, in the layout used here: [o, i, kh, kw] as [kh, kw, i, o], [o, i] as [i, o]."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def as_theirs(array):
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


# network -> norm, activation, pool
CASES = {
    "mlp": ("none", "silu", "max"),
    "cnn": ("batch", "relu", "max"),
    "cnn, group norm": ("group", "elu", "mean"),
    "resnet": ("batch", "relu", "max"),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients(case):
    norm, act, pool = CASES[case]
    kind = case.split(",")[0]
    images = RNG.uniform(0, 255, (6, 8, 8, 3)).astype(np.float32)
    labels = np.arange(6) % CLASSES
    fields = {"act": ACTIVATIONS[act], "norm": NORMS[norm], "pool": POOLS[pool]}
    model = MODELS[kind](classes=CLASSES, widths=WIDTHS, depth=1, **fields)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros_like(images), train=False))
    # Weights drawn here, none of them 0 or 1: a parameter that is not used, or used twice, shows.
    variables = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32) * 0.3, shapes)
    variables = {name: dict(tree) for name, tree in variables.items()}
    variables["constants"] = {"standardize": {"mean": np.float32([100, 120, 140]), "std": np.float32([50, 60, 70])}}
    for statistics in variables.get("batch_stats", {}).values():
        statistics["var"] = np.abs(statistics["var"]) + 0.5

    @compiled
    def run(variables, images):
        def loss(params):
            state = {k: v for k, v in variables.items() if k != "params"}
            logits, moved = model.apply({"params": params, **state}, images, train=True, mutable=["batch_stats"])
            return cross_entropy(logits, labels).mean(), (logits, moved)

        gradient, (logits, moved) = jax.grad(loss, has_aux=True)(variables["params"])
        return logits, model.apply(variables, images, train=False), gradient, moved

    apply_in_training, in_evaluation, gradient, moved = run(variables, images)
    pools = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}
    module = NETWORKS[kind](8, NORMS_THERE[norm], ACTIVATIONS_THERE[act], pools[pool]).double()
    theirs = pairs(module, variables["params"])
    assert {place for _, place in theirs} == {(a, b) for a, tree in variables["params"].items() for b in tree}
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter, (layer, leaf) in theirs:
            parameter.copy_(torch.tensor(as_theirs(variables["params"][layer][leaf])))
        for k, m in enumerate(norms):
            m.running_mean.copy_(torch.tensor(variables["batch_stats"][f"norm_{k}"]["mean"]))
            m.running_var.copy_(torch.tensor(variables["batch_stats"][f"norm_{k}"]["var"]))
    constants = variables["constants"]["standardize"]
    pixels = torch.tensor(((images.astype(np.float64) - constants["mean"]) / constants["std"]).transpose(0, 3, 1, 2))
    # Six layers of sums of up to 150 products in float32.
    np.testing.assert_allclose(in_evaluation, module.eval()(pixels).detach(), rtol=1e-4, atol=2e-5)
    logits = module.train()(pixels)
    np.testing.assert_allclose(apply_in_training, logits.detach(), rtol=1e-4, atol=2e-5)
    F.cross_entropy(logits, torch.tensor(labels)).backward()
    for parameter, (layer, leaf) in theirs:
        expected = as_ours(parameter.grad.numpy())
        # In units of the parameter's largest gradient: sums over 384 pixels of numbers of either sign.
        close = {"rtol": 0, "atol": 1e-5 * np.abs(expected).max() + 1e-7}
        np.testing.assert_allclose(gradient[layer][leaf], expected, **close, err_msg=f"{layer}/{leaf}")
    for k, m in enumerate(norms):
        np.testing.assert_allclose(moved["batch_stats"][f"norm_{k}"]["mean"], m.running_mean, rtol=1e-4, atol=1e-5)
