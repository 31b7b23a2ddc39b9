"""Every optimizer finds the bottom of a parabola and of Rosenbrock's valley."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.sam import RHO

STEPS = 10_000
QUICKLY = {"xla_backend_optimization_level": 0}


def parabola(x: jax.Array) -> jax.Array:
    return x[0] ** 2 + 3 * x[1] ** 2


def rosenbrock(x: jax.Array) -> jax.Array:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


# Learning rates (parabola, Rosenbrock).
RATES = {
    "sgd": (0.02, 1e-3),
    "momentum": (0.02, 2e-4),
    "nesterov": (0.02, 2e-4),
    "adagrad": (0.5, 0.5),
    "rmsprop": (1e-3, 1e-3),
    "adam": (0.02, 1e-2),
    "nadam": (0.02, 1e-2),
    "adamw": (0.02, 1e-2),
    "lamb": (0.02, 1e-2),
    "lion": (0.01, 1e-3),
    "muon": (0.02, 1e-2),
    "sam": (0.02, 5e-4),
    "schedule_free": (0.2, 4e-3),
}


@functools.cache
def bottoms(name: str) -> np.ndarray:
    """[2] values of both functions at the end of a run, at a rate that falls linearly to 0; both in one program."""
    optimizer = OPTIMIZERS[name]
    rule = optax.with_extra_args_support(optimizer.build(0.9, 0.0))

    def descend(start: jax.Array, lr: jax.Array, valley: jax.Array) -> jax.Array:
        # A matrix [2, 1] with a name, so that muon and lamb do to it what they do to kernels.
        value = lambda p: jnp.where(valley, rosenbrock(p["kernel"][:, 0]), parabola(p["kernel"][:, 0]))  # noqa: E731

        def step(i: jax.Array, carry: tuple) -> tuple:
            params, state = carry
            rate = lr * (1 - i / STEPS)
            grads = jax.grad(value)(params)
            if optimizer.ascend:
                # The radius falls with the rate: at a fixed one SAM comes to rest at that distance from a sharp bottom.
                grads = jax.grad(value)(optimizer.ascend(params, grads, RHO * (1 - i / STEPS)))
            direction, state = rule.update(grads, state, params, learning_rate=rate)
            return jax.tree.map(lambda p, d: p - rate * d, params, direction), state

        params = {"kernel": start[:, None]}
        params, state = jax.lax.fori_loop(0, STEPS, step, (params, rule.init(params)))
        return value(optimizer.evaluate(params, state) if optimizer.evaluate else params)

    starts = jnp.asarray([[1.0, -2.0], [-1.2, 1.0]])
    run = jax.jit(jax.vmap(descend), compiler_options=QUICKLY)
    return np.asarray(run(starts, jnp.asarray(RATES[name]), jnp.asarray([False, True])))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_descends_a_parabola(name: str) -> None:
    assert bottoms(name)[0] < 1e-6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_descends_rosenbrocks_valley(name: str) -> None:
    assert bottoms(name)[1] < 1e-2
