"""Optimizers, clipping and averaging against PyTorch's, at every step; a difference in definition is what is tested."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.optim.clipping import clip_by_global_norm, clip_by_value
from fishnet.optim.constraints import ema
from fishnet.optim.optimizers import OPTIMIZERS
from tests.oracles.there import RNG, compiled, draw, there, torch

STEPS, LR = 20, 0.03
START = {"kernel": draw(6, 5), "bias": draw(5)}
NUMBERS = [(0.9, 0.05), (0.5, 0.0), (0.0, 0.01)]  # momentum, weight decay
STEEPNESS = RNG.uniform(0.7, 1.3, STEPS).astype(np.float32)
NOISE = {name: draw(STEPS, *p.shape) for name, p in START.items()}


def gradient(name, p, step):
    return p * STEEPNESS[step] + NOISE[name][step]


@functools.cache
def ours(name):
    """The parameters after each of the steps, [number, step, ...], in one program."""

    def run(momentum, weight_decay):
        rule = OPTIMIZERS[name].build(momentum, weight_decay)

        def step(carry, numbers):
            params, state = carry
            grads = jax.tree.map(lambda p, noise: p * numbers[0] + noise, params, numbers[1])
            direction, state = rule.update(grads, state, params)
            params = jax.tree.map(lambda p, d: p - LR * d, params, direction)
            return (params, state), params

        params = jax.tree.map(jnp.asarray, START)
        return jax.lax.scan(step, (params, rule.init(params)), (STEEPNESS, NOISE))[1]

    return compiled(jax.vmap(run))(*jnp.asarray(NUMBERS).T)


def theirs(make, weight_decay):
    """The parameters after each step of an optimizer of PyTorch's; weight decay on the kernel only, as here."""
    leaves = {name: there(p) for name, p in START.items()}
    groups = [
        {"params": [leaves["kernel"]], "weight_decay": weight_decay},
        {"params": [leaves["bias"]], "weight_decay": 0.0},
    ]
    optimizer, found = make(groups), []
    for step in range(STEPS):
        for name, p in leaves.items():
            p.grad = torch.tensor(gradient(name, p.detach().numpy(), step))
        optimizer.step()
        found.append({name: p.detach().clone().numpy() for name, p in leaves.items()})
    return {name: np.stack([params[name] for params in found]) for name in START}


# beta 1 stands for momentum in adam and kin. rmsprop keeps 0.9 of its second moment here, 0.99 by default there.
MAKE = {
    "sgd": lambda groups, b: torch.optim.SGD(groups, LR),
    "momentum": lambda groups, b: torch.optim.SGD(groups, LR, momentum=b),
    "nesterov": lambda groups, b: torch.optim.SGD(groups, LR, momentum=b, nesterov=b > 0),
    "adagrad": lambda groups, b: torch.optim.Adagrad(groups, LR),
    "rmsprop": lambda groups, b: torch.optim.RMSprop(groups, LR, alpha=0.9, momentum=b),
    "adam": lambda groups, b: torch.optim.Adam(groups, LR, betas=(b, 0.999)),
    "adamw": lambda groups, b: torch.optim.AdamW(groups, LR, betas=(b, 0.999)),
    # Dozat's schedule of momenta, which is left out here, is over at once when it decays that fast.
    "nadam": lambda groups, b: torch.optim.NAdam(groups, LR, betas=(b, 0.999), momentum_decay=1e9),
}


@pytest.mark.parametrize("i", range(len(NUMBERS)))
@pytest.mark.parametrize("name", MAKE)
def test_optimizers_at_every_step(name, i):
    momentum, weight_decay = NUMBERS[i]
    expected = theirs(functools.partial(MAKE[name], b=momentum), weight_decay)
    for leaf, steps in expected.items():
        # 20 steps; a second moment near 0 makes its rounding ten times as large in what is divided by it.
        np.testing.assert_allclose(ours(name)[leaf][i], steps, rtol=2e-5, atol=1e-5, err_msg=leaf)


def test_what_pytorch_has_too_is_compared():
    """But for muon, whose scale is another."""
    names = {name.lower() for name in vars(torch.optim)}
    assert set(MAKE) <= set(OPTIMIZERS)
    assert (set(OPTIMIZERS) - set(MAKE)) & names <= {"muon"}


def test_nadam_is_without_pytorchs_schedule_of_momenta():
    expected = theirs(lambda groups: torch.optim.NAdam(groups, LR, betas=(0.9, 0.999)), 0.05)
    assert np.abs(ours("nadam")["kernel"][0] - expected["kernel"]).max() > 1e-2


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
@pytest.mark.parametrize("i", range(len(NUMBERS)))
def test_muon_behind_the_same_momentum(i):
    """PyTorch's Nesterov momentum has no bias correction: it is given the corrected one as its gradient."""
    b, weight_decay = NUMBERS[i]
    kernel, m = there(START["kernel"]), np.zeros_like(START["kernel"], np.float64)
    options = {"momentum": 0.0, "weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
    optimizer = torch.optim.Muon([kernel], LR, **options)
    for t in range(1, STEPS + 1):
        g = gradient("kernel", kernel.detach().numpy(), t - 1)
        m = b * m + (1 - b) * g
        kernel.grad = torch.tensor(b * m / (1 - b ** (t + 1)) + (1 - b) * g / (1 - b**t))
        optimizer.step()
        # It multiplies in bfloat16, with 8 bits: a step's entries, up to LR / 2, are off by some percent.
        expected, got = kernel.detach().numpy(), ours("muon")["kernel"][i][t - 1]
        np.testing.assert_allclose(got, expected, atol=0.03 * LR * t)
    assert np.abs(expected - START["kernel"]).max() > 20 * 0.03 * LR  # more than the tolerance was covered


# --- clipping and averaging


@pytest.mark.parametrize("limit", [0.5, 3.0, 100.0])
def test_clipping(limit):
    grads = {"kernel": 2 * draw(6, 5), "bias": draw(5)}
    leaves = {name: there(np.zeros_like(g)) for name, g in grads.items()}

    def clipped(function):
        for name, p in leaves.items():
            p.grad = torch.tensor(grads[name].astype(np.float64))
        function(list(leaves.values()), limit)
        return {name: p.grad.numpy() for name, p in leaves.items()}

    both = compiled(lambda grads, limit: (clip_by_global_norm(grads, limit)[0], clip_by_value(grads, limit)[0]))
    by_norm, by_value = both(grads, limit)
    expected = clipped(torch.nn.utils.clip_grad_norm_), clipped(torch.nn.utils.clip_grad_value_)
    for name in grads:
        # PyTorch divides by the norm + 1e-6.
        np.testing.assert_allclose(by_norm[name], expected[0][name], rtol=3e-6)
        np.testing.assert_allclose(by_value[name], expected[1][name], rtol=1e-7)


def test_average_of_the_weights_without_its_bias_is_pytorchs_later():
    """PyTorch's average begins with all its weight on the first parameters; ours weighs young averages evenly."""
    swa, decay, steps = torch.optim.swa_utils, 0.8, 60
    module = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
    theirs = swa.AveragedModel(module, multi_avg_fn=swa.get_ema_multi_avg_fn(decay))
    update = compiled(ema)
    average, zero, first = {"kernel": jnp.zeros((3, 4))}, np.zeros((3, 4)), None
    for step in range(1, steps + 1):
        p = draw(3, 4).astype(np.float64)
        with torch.no_grad():
            module.weight.copy_(torch.tensor(p))
        theirs.update_parameters(module)
        average = update(average, {"kernel": p.astype(np.float32)}, decay, step)
        # Theirs is the biased mean plus what is left of the first parameters; ours is the biased mean, corrected.
        zero = decay * zero + (1 - decay) * p
        first = p if first is None else first
        expected = zero + decay ** (step - 1) * decay * first
        np.testing.assert_allclose(theirs.module.weight.detach(), expected, rtol=1e-9)
        np.testing.assert_allclose(average["kernel"], zero / (1 - decay**step), rtol=1e-4, atol=1e-5)
        if step == 2:
            assert np.abs(average["kernel"] - expected).max() > 1e-2
    np.testing.assert_allclose(average["kernel"], theirs.module.weight.detach(), rtol=1e-4, atol=1e-5)
