"""Optimizers, clipping, schedules and losses against PyTorch's; where they differ by definition, that is tested.

PyTorch computes in float64; what is left of a difference is the rounding of float32 here, some 1e-7 an operation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.losses import (
    class_weighted,
    cross_entropy,
    hinge,
    ldam,
    logit_adjusted,
    mse,
    one_vs_rest,
)
from fishnet.optim import schedules
from fishnet.optim.clipping import clip_by_global_norm, clip_by_value
from fishnet.optim.constraints import ema, l1_penalty, l2_penalty
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.plateau import plateau_start, plateau_update

torch = pytest.importorskip("torch", reason="PyTorch is in the bench extra")
F = torch.nn.functional

# Most of the time here is compilation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def there(x):
    """A leaf of PyTorch's, in float64."""
    return torch.tensor(np.asarray(x, np.float64), requires_grad=True)


# --- optimizers, on a bowl that breathes, with noisy gradients

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


def test_optimizers_that_pytorch_lacks_are_known():
    assert set(OPTIMIZERS) - set(MAKE) - {"muon"} == {"lamb", "lion", "sam", "schedule_free"}


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


# --- schedules, at every step

RUN = 400  # steps; the peaks of all shapes are at a step
PROGRESS = np.arange(RUN + 1) / RUN
# PyTorch's one cycle ends at progress 1 and its rise is one step short: one more step than ours lines them up.
ONECYCLE = {"max_lr": 1.0, "total_steps": RUN + 1, "pct_start": (0.3 * RUN + 1) / (RUN + 1), "cycle_momentum": False}
SHAPES = {
    "constant": lambda lr, o: lr.ConstantLR(o, factor=1.0),
    "step": lambda lr, o: lr.MultiStepLR(o, [RUN // 2, 3 * RUN // 4], gamma=0.1),
    "exponential": lambda lr, o: lr.ExponentialLR(o, 0.01 ** (1 / RUN)),
    "polynomial": lambda lr, o: lr.PolynomialLR(o, RUN, power=2),
    "cosine": lambda lr, o: lr.CosineAnnealingLR(o, RUN),
    "onecycle": lambda lr, o: lr.OneCycleLR(o, **ONECYCLE),
    "cyclic_triangular": lambda lr, o: lr.CyclicLR(o, 0.0, 1.0, step_size_up=RUN // 8, cycle_momentum=False),
}


def rates(make):
    """The learning rate at each step, of a peak of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, found = make(torch.optim.lr_scheduler, optimizer), []
    for step in range(RUN + 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        if step < RUN:
            schedule.step()
    return np.array(found)


@pytest.mark.parametrize("name", SHAPES)
def test_schedules_at_every_step(name):
    # Progress is rounded to 6e-8, which a cycle stretches fourfold and its slope of 2 doubles.
    np.testing.assert_allclose(schedules.SCHEDULES[name](PROGRESS), rates(SHAPES[name]), rtol=2e-6, atol=2e-6)


def test_schedules_that_pytorch_lacks_are_known():
    # warmup_cosine and plateau have tests of their own below.
    assert set(schedules.SCHEDULES) - set(SHAPES) == {"warmup_cosine", "cyclic_sine", "plateau"}


def test_every_eighth_a_step_is_pytorchs_step_schedule():
    """`StepLR` takes its steps at equal distances: ours from progress 1/4 on does."""
    expected = rates(lambda lr, o: lr.StepLR(o, RUN // 4, gamma=0.1))[: 3 * RUN // 4]
    np.testing.assert_allclose(schedules.step(PROGRESS)[RUN // 4 : RUN], expected, rtol=1e-6)


def test_warmup_and_floor():
    """Half a cosine down to a lowest rate; a linear rise ahead of it, which begins at 0 (there: above 0)."""
    rise, floor = RUN // 4, 0.05

    def make(lr, o):
        ahead = lr.LinearLR(o, start_factor=1e-9, total_iters=rise)
        return lr.SequentialLR(o, [ahead, lr.CosineAnnealingLR(o, RUN - rise, eta_min=floor)], [rise])

    lifted = schedules.with_floor(schedules.cosine(PROGRESS), floor)
    expected = rates(lambda lr, o: lr.CosineAnnealingLR(o, RUN, eta_min=floor))
    np.testing.assert_allclose(lifted, expected, rtol=2e-6)
    shape = lambda p: schedules.with_floor(schedules.cosine(p), floor)  # noqa: E731
    np.testing.assert_allclose(schedules.with_warmup(shape, PROGRESS, 0.25), rates(make), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(("factor", "patience", "minimum"), [(0.1, 2, 0.0), (0.5, 0, 0.2), (0.3, 5, 0.01)])
def test_plateau_at_every_epoch(factor, patience, minimum):
    losses = 1 / np.arange(1, 61) ** 0.3 + 0.2 * np.abs(draw(60))  # falls less and less, with noise
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    options = {"factor": factor, "patience": patience, "min_lr": minimum, "eps": 0.0}
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)

    def epoch(state, loss):
        state = plateau_update(state, loss, factor, patience, minimum)
        return state, state.multiplier

    ours = compiled(lambda losses: jax.lax.scan(epoch, plateau_start(), losses)[1])(losses)
    expected = []
    for loss in losses.astype(np.float32).tolist():
        schedule.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])
    assert len(set(expected)) > 2
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


# --- losses

B, K = 12, 5
LOGITS, LABELS, WEIGHTS = 3 * draw(B, K), np.arange(B) % K, np.array([0.5, 2.0, 1.0, 0.25, 3.0], np.float32)
ONE_HOT = np.eye(K)[LABELS]
MARGINS, OFFSETS, COTANGENT = np.array([0.5, 0.1, 0.2, 0.3, 0.4], np.float32), draw(K), draw(B)


def cross_entropy_there(x, smoothing=0.0):
    return F.cross_entropy(x, torch.tensor(LABELS), reduction="none", label_smoothing=smoothing)


def weights_there(x):
    return torch.tensor(WEIGHTS[LABELS]).to(x.dtype)


def one_vs_rest_there(x, smoothing=0.0):
    targets = torch.tensor((1 - smoothing) * ONE_HOT + smoothing / K)
    return F.binary_cross_entropy_with_logits(x, targets, reduction="none").sum(-1)


LOSSES = {
    "cross-entropy": (cross_entropy, cross_entropy_there),
    "smoothed": (lambda x, y: cross_entropy(x, y, 0.1), lambda x: cross_entropy_there(x, 0.1)),
    "class-weighted": (
        lambda x, y: class_weighted(x, y, WEIGHTS),
        lambda x: F.cross_entropy(x, torch.tensor(LABELS), torch.tensor(WEIGHTS).double(), reduction="none"),
    ),
    "class-weighted, smoothed": (
        lambda x, y: class_weighted(x, y, WEIGHTS, 0.1),
        lambda x: weights_there(x) * cross_entropy_there(x, 0.1),
    ),
    "logit-adjusted": (
        lambda x, y: logit_adjusted(x, y, OFFSETS),
        lambda x: cross_entropy_there(x + torch.tensor(OFFSETS)),
    ),
    "ldam": (
        lambda x, y: ldam(x, y, MARGINS, WEIGHTS, 4.0),
        lambda x: weights_there(x) * cross_entropy_there(4 * (x - torch.tensor(ONE_HOT * MARGINS))),
    ),
    "one-vs-rest": (one_vs_rest, one_vs_rest_there),
    "one-vs-rest, smoothed": (
        lambda x, y: one_vs_rest(x, y, WEIGHTS, 0.2),
        lambda x: weights_there(x) * one_vs_rest_there(x, 0.2),
    ),
    "mse": (mse, lambda x: F.mse_loss(x, torch.tensor(ONE_HOT), reduction="none").mean(-1)),
}


@functools.cache
def losses_here():
    """Value [b] and gradient [b, k] of each of LOSSES, in one program."""

    def both(logits):
        found = {}
        for name, (f, _) in LOSSES.items():
            y, pull = jax.vjp(lambda x, f=f: f(x, jnp.asarray(LABELS)), logits)
            found[name] = y, pull(jnp.asarray(COTANGENT))[0]
        return found

    return compiled(both)(LOGITS)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    logits = there(LOGITS)
    expected = LOSSES[name][1](logits)
    (gradient,) = torch.autograd.grad((expected * torch.tensor(COTANGENT).double()).sum(), logits)
    y, dx = losses_here()[name]
    # A difference of logits of about 5 (20 in ldam), rounded.
    np.testing.assert_allclose(y, expected.detach(), rtol=2e-6, atol=5e-6)
    np.testing.assert_allclose(dx, gradient, rtol=1e-5, atol=5e-6)


def test_weights_multiply_the_whole_smoothed_term_where_pytorch_weighs_each_class_share():
    weights, labels = torch.tensor(WEIGHTS).double(), torch.tensor(LABELS)
    theirs = F.cross_entropy(there(LOGITS), labels, weights, reduction="none", label_smoothing=0.1).detach().numpy()
    log_p = torch.log_softmax(there(LOGITS), -1).detach().numpy()
    w, own = WEIGHTS.astype(np.float64), WEIGHTS[LABELS].astype(np.float64)
    shares = -0.9 * own * log_p[np.arange(B), LABELS] - 0.1 / K * (w * log_p).sum(-1)
    np.testing.assert_allclose(theirs, shares, rtol=1e-9)
    ours = losses_here()["class-weighted, smoothed"][0]
    np.testing.assert_allclose(ours - theirs, 0.1 / K * ((w - own[:, None]) * log_p).sum(-1), atol=1e-5)


def test_a_weighted_mean_there_is_divided_by_the_weights():
    theirs = F.cross_entropy(there(LOGITS), torch.tensor(LABELS), torch.tensor(WEIGHTS).double()).item()
    mean = float(losses_here()["class-weighted"][0].mean())
    assert mean * B / WEIGHTS[LABELS].sum() == pytest.approx(theirs, rel=1e-6)


def test_hinge_is_the_largest_violation_where_pytorch_takes_the_mean_of_all():
    """Crammer and Singer's against Weston and Watkins's: the same but for its factor with one violation at most."""
    theirs = K * F.multi_margin_loss(there(LOGITS), torch.tensor(LABELS), reduction="none").detach().numpy()
    here = compiled(hinge)
    ours = np.asarray(here(LOGITS, LABELS))
    own = LOGITS[np.arange(B), LABELS][:, None]
    violations = ((1 + LOGITS - own > 0) & (ONE_HOT == 0)).sum(-1)
    assert {0, 1} < set(violations.tolist())
    few = violations <= 1
    np.testing.assert_allclose(ours[few], theirs[few], rtol=1e-6, atol=1e-6)
    assert (ours[~few] < theirs[~few]).all()
    two = there(LOGITS[:, :2])
    expected = 2 * F.multi_margin_loss(two, torch.tensor(LABELS % 2), reduction="none").detach()
    np.testing.assert_allclose(here(LOGITS[:, :2], LABELS % 2), expected, rtol=1e-6, atol=1e-6)


def test_penalties_of_the_kernels_by_pytorchs_norms():
    kernel = there(START["kernel"])
    got = compiled(jax.grad(lambda params: l1_penalty(params, 0.3) + l2_penalty(params, 0.7)))(START)
    (0.3 * kernel.norm(1) + 0.35 * kernel.norm(2) ** 2).backward()
    np.testing.assert_allclose(got["kernel"], kernel.grad, rtol=1e-6, atol=1e-6)
    assert not np.any(got["bias"])
