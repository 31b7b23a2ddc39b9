"""Properties of a single descent direction: what scales it, what decays, what is refused."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fishnet.errors import UsageError
from fishnet.optim.optimizers import OPTIMIZERS

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

LR = 0.03
# Most of the time here is compilation.
QUICKLY = {"xla_backend_optimization_level": 0}


def start() -> dict:
    rng = np.random.default_rng(0)
    return {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32)},
        "norm": {"scale": np.ones(4, np.float32), "bias": rng.normal(size=4).astype(np.float32)},
        "head": {"kernel": rng.normal(size=(4, 5)).astype(np.float32), "bias": np.zeros(5, np.float32)},
    }


def gradient() -> dict:
    return jax.tree.map(lambda p: p + np.sin(3 * p), start())


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICKLY)
def direction(name: str, grads: dict, params: dict, momentum: float, weight_decay: float) -> dict:
    rule = optax.with_extra_args_support(OPTIMIZERS[name].build(momentum, weight_decay))
    return rule.update(grads, rule.init(params), params, learning_rate=LR)[0]


def first_direction(name: str, weight_decay: float, grads: dict | None = None, momentum: float = 0.9) -> dict:
    return direction(name, grads or gradient(), start(), momentum, weight_decay)


@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_takes_no_notice_of_momentum(name: str) -> None:
    chex.assert_trees_all_equal(first_direction(name, 0.1, momentum=0.9), first_direction(name, 0.1, momentum=0.0))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_zero_gradient_gives_a_zero_direction(name: str) -> None:
    still = first_direction(name, 0.0, jax.tree.map(np.zeros_like, start()))
    assert not any(leaf.any() for leaf in jax.tree.leaves(still))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_acts_on_kernels_only(name: str) -> None:
    plain, decayed = first_direction(name, 0.0), first_direction(name, 0.5)
    # One step of Adam is the sign of the gradient, on which the coupled term shows only where it changes the sign.
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), plain, decayed)
    assert same == {
        "conv": {"kernel": False},
        "norm": {"scale": True, "bias": True},
        "head": {"kernel": False, "bias": True},
    }


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_decoupled_decay_takes_the_same_fraction_off_every_kernel(name: str) -> None:
    plain, decayed, params = first_direction(name, 0.0), first_direction(name, 0.5), start()
    for module in ("conv", "head"):
        taken = decayed[module]["kernel"] - plain[module]["kernel"]
        np.testing.assert_allclose(taken, 0.5 * params[module]["kernel"], rtol=1e-5, atol=1e-6)


def test_coupled_decay_is_the_gradient_of_half_the_squared_norm() -> None:
    params = start()
    penalty = jax.grad(lambda p: 0.25 * sum(jnp.sum(leaf**2) for leaf in (p["conv"]["kernel"], p["head"]["kernel"])))
    expected = jax.tree.map(jnp.add, gradient(), penalty(params))
    chex.assert_trees_all_close(first_direction("sgd", 0.5), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("momentum", "weight_decay", "message"),
    [
        (1.0, 0.0, r"momentum 1.0 is not in \[0, 1\)"),
        (-0.1, 0.0, "momentum -0.1"),
        (float("nan"), 0.0, "momentum nan"),
        (np.float32(2), 0.0, "momentum 2"),
        (0.9, -1e-4, "weight decay -0.0001"),
        (0.9, float("inf"), "weight decay inf"),
    ],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_numbers_out_of_range_are_refused(name: str, momentum: float, weight_decay: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OPTIMIZERS[name].build(momentum, weight_decay)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "schedule_free"])
@given(scale=st.floats(1e-3, 1e3))
@settings(REPEATABLE, max_examples=10)
def test_gradient_rules_scale_with_the_gradient(name: str, scale: float) -> None:
    grads = gradient()
    scaled = first_direction(name, 0.0, jax.tree.map(lambda g: g * scale, grads))
    expected = jax.tree.map(lambda d: d * scale, first_direction(name, 0.0, grads))
    chex.assert_trees_all_close(scaled, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adam", "nadam", "adamw", "lion"])
@given(scale=st.floats(0.1, 1e3))
@settings(REPEATABLE, max_examples=10)
def test_adaptive_rules_do_not_see_the_gradients_scale(name: str, scale: float) -> None:
    grads = gradient()
    scaled = first_direction(name, 0.0, jax.tree.map(lambda g: g * scale, grads))
    # The 1e-8 in the denominator shows on the smallest gradients, with rmsprop, whose v is not bias-corrected, 10-fold.
    atol = 1e-3 if name == "rmsprop" else 1e-4
    chex.assert_trees_all_close(scaled, first_direction(name, 0.0, grads), rtol=1e-5, atol=atol)
