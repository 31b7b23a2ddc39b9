"""Optimizers and schedules of fishnet as optax's: the same steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.errors import UsageError
from fishnet.optim.optimizers import OPTIMIZERS, as_optax
from fishnet.optim.schedules import SCHEDULES, as_schedule


def test_momentum_under_a_schedule_steps_as_optax_does():
    schedule = as_schedule(SCHEDULES["cosine"], lr=0.1, steps=10)
    pairs = as_optax(OPTIMIZERS["momentum"], schedule), optax.sgd(optax.cosine_decay_schedule(0.1, 10), momentum=0.9)
    results = []
    for optimizer in pairs:
        params = {"kernel": jnp.array([[1.0, -2.0]])}
        state = optimizer.init(params)
        for _ in range(5):
            updates, state = optimizer.update(jax.grad(lambda p: (p["kernel"] ** 2).sum())(params), state, params)
            params = optax.apply_updates(params, updates)
        results.append(params["kernel"])
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_a_warm_up_and_a_floor_are_part_of_the_schedule():
    schedule = as_schedule(SCHEDULES["cosine"], lr=0.2, steps=100, warmup=0.1, floor=0.5)
    np.testing.assert_allclose([schedule(step) for step in (0, 5, 10, 55, 100)], [0, 0.1, 0.2, 0.15, 0.1], rtol=1e-5)
    with pytest.raises(UsageError, match="needs 1 step or more, got 0"):
        as_schedule(SCHEDULES["cosine"], 0.1, 0)
    with pytest.raises(UsageError, match="progress"):
        schedule(101)


@pytest.mark.parametrize("name", ["sam", "schedule_free"])
def test_an_optimizer_that_needs_a_step_of_its_own_is_refused(name):
    with pytest.raises(UsageError, match="needs a step of its own"):
        as_optax(OPTIMIZERS[name], 0.1)
