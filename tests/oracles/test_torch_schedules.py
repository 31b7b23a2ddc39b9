"""Schedules against PyTorch's, at every step; a difference in definition is what is tested."""

import jax
import numpy as np
import pytest

from fishnet.optim import schedules
from fishnet.optim.plateau import init_plateau, update_plateau
from tests.oracles.there import compiled, draw, torch

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
        state = update_plateau(state, loss, factor, patience, minimum)
        return state, state.multiplier

    ours = compiled(lambda losses: jax.lax.scan(epoch, init_plateau(), losses)[1])(losses)
    expected = []
    for loss in losses.astype(np.float32).tolist():
        schedule.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])
    assert len(set(expected)) > 2
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
