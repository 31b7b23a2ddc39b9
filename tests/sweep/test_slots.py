"""Optimizers in shared slots do what optax does with each of them alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.sweep.slots import direction, empty_slots

MOMENTUM, DECAY, LR, STEPS = 0.8, 0.05, 0.1, 5

# Optax's own ready-made optimizers. `mask`: weight decay acts on kernels only.
MASK = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}
DECAYED = optax.add_decayed_weights(DECAY, mask=MASK)
ORACLES = {
    "sgd": optax.chain(DECAYED, optax.sgd(LR)),
    "momentum": optax.chain(DECAYED, optax.sgd(LR, momentum=MOMENTUM)),
    "nesterov": optax.chain(DECAYED, optax.sgd(LR, momentum=MOMENTUM, nesterov=True)),
    "adam": optax.chain(DECAYED, optax.adam(LR, b1=MOMENTUM)),
    "adamw": optax.adamw(LR, b1=MOMENTUM, weight_decay=DECAY, mask=MASK),
}


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


def by_optax(oracle, params, gradients):
    """The parameters after every step."""
    state, path = oracle.init(params), []
    for grads in gradients:
        updates, state = oracle.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def assert_close(found, expected) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), found, expected)


@jax.jit
def slotted_step(index, grads, slots, params):
    """One step of the optimizer at a traced position, with traced numbers."""
    down, slots = direction(
        tuple(OPTIMIZERS.values()), index, grads, slots, params, jnp.float32(MOMENTUM), jnp.float32(DECAY)
    )
    return jax.tree.map(lambda p, d: p - LR * d, params, down), slots


def test_there_is_an_oracle_for_every_optimizer():
    assert set(ORACLES) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_equal_optax_applied_directly(problem, name):
    start, gradients = problem
    index = jnp.int32(list(OPTIMIZERS).index(name))
    params, slots = start, empty_slots(tuple(OPTIMIZERS.values()), start)
    for grads, expected in zip(gradients, by_optax(ORACLES[name], start, gradients), strict=True):
        params, slots = slotted_step(index, grads, slots, params)
        assert_close(params, expected)


def test_lanes_with_an_optimizer_each_keep_apart(problem):
    """A loop over the lanes of one program, as the engine makes it, gives what each optimizer gives alone."""
    start, gradients = problem
    many = len(OPTIMIZERS)

    def step(lanes, grads):
        one = lambda lane: slotted_step(lane[0], grads, lane[2], lane[1])  # noqa: E731
        return jax.lax.map(one, (jnp.arange(many), *lanes)), None

    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf] * many), (start, empty_slots(tuple(OPTIMIZERS.values()), start)))
    sequence = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
    (params, _), _ = jax.jit(lambda lanes: jax.lax.scan(step, lanes, sequence))(lanes)
    for lane, name in enumerate(OPTIMIZERS):
        mine = jax.tree.map(lambda leaf, lane=lane: leaf[lane], params)
        assert_close(mine, by_optax(ORACLES[name], start, gradients)[-1])


def test_slots_are_no_larger_than_the_hungriest_optimizer(problem):
    params, _ = problem
    slots = empty_slots(tuple(OPTIMIZERS.values()), params)
    assert len(slots.trees) == 2  # adam's two moments
    assert slots.counts.shape == (1,)
    assert all(not leaf.any() for leaf in jax.tree.leaves(slots))
    assert not empty_slots([OPTIMIZERS["sgd"]], params).trees
