"""Optimizers in shared slots do what each does with its own optax state (against optax itself: tests/optim)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.optim.optimizer_state import descent_direction, init_optimizer_state
from fishnet.optim.optimizers import OPTIMIZERS

MOMENTUM, DECAY, LR, STEPS = 0.8, 0.05, 0.1, 5


@pytest.fixture(scope="module")
def problem():
    """Parameters, and the gradients of every step."""
    rng = np.random.default_rng(0)

    def drawn():
        tree = {
            "dense": {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)},
            "norm": {"scale": rng.normal(size=3)},
        }
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)

    return drawn(), [drawn() for _ in range(STEPS)]


def by_itself(name, params, gradients):
    """The parameters after every step."""
    rule = optax.with_extra_args_support(OPTIMIZERS[name].build(MOMENTUM, DECAY))
    state, path = rule.init(params), []
    for grads in gradients:
        down, state = rule.update(grads, state, params, learning_rate=LR)
        params = jax.tree.map(lambda p, d: p - LR * d, params, down)
        path.append(params)
    return path


def assert_close(found, expected) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), found, expected)


@jax.jit
def slotted_step(index, grads, slots, params):
    """One step of the optimizer at a traced position, with traced numbers."""

    def updated(optimizer):
        down, after = descent_direction(optimizer, grads, slots, params, *map(jnp.float32, (MOMENTUM, DECAY, LR)))
        return jax.tree.map(lambda p, d: p - LR * d, params, down), after

    return jax.lax.switch(index, [partial(updated, optimizer) for optimizer in OPTIMIZERS.values()])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_equal_those_without_slots(problem, name):
    start, gradients = problem
    index = jnp.int32(list(OPTIMIZERS).index(name))
    params, slots = start, init_optimizer_state(tuple(OPTIMIZERS.values()), start)
    for grads, expected in zip(gradients, by_itself(name, start, gradients), strict=True):
        params, slots = slotted_step(index, grads, slots, params)
        assert_close(params, expected)


def test_lanes_with_an_optimizer_each_keep_apart(problem):
    """A loop over the lanes of one program, as the engine makes it, gives what each optimizer gives alone."""
    start, gradients = problem
    many = len(OPTIMIZERS)

    def step(lanes, grads):
        one = lambda lane: slotted_step(lane[0], grads, lane[2], lane[1])  # noqa: E731
        return jax.lax.map(one, (jnp.arange(many), *lanes)), None

    lanes = jax.tree.map(
        lambda leaf: jnp.stack([leaf] * many), (start, init_optimizer_state(tuple(OPTIMIZERS.values()), start))
    )
    sequence = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
    (params, _), _ = jax.jit(lambda lanes: jax.lax.scan(step, lanes, sequence))(lanes)
    for lane, name in enumerate(OPTIMIZERS):
        mine = jax.tree.map(lambda leaf, lane=lane: leaf[lane], params)
        assert_close(mine, by_itself(name, start, gradients)[-1])


def test_slots_are_no_larger_than_the_hungriest_optimizer(problem):
    params, _ = problem
    slots = init_optimizer_state(tuple(OPTIMIZERS.values()), params)
    assert len(slots.trees) == 2  # adam's two moments
    assert slots.counts.shape == (2,)  # schedule_free's two numbers
    assert all(not leaf.any() for leaf in jax.tree.leaves(slots))
    assert not init_optimizer_state([OPTIMIZERS["sgd"]], params).trees
