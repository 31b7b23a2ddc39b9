"""Optimizers against a reference written out in NumPy, optax's own aliases and PyTorch, over many steps."""

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
from fishnet.optim.optimizers import OPTIMIZERS, kernels

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

STEPS = 25
NUMBERS = [(0.9, 0.0), (0.9, 0.05), (0.5, 0.01), (0.0, 0.1)]
LR = 0.03


def start() -> dict:
    rng = np.random.default_rng(0)
    return {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32)},
        "norm": {"scale": np.ones(4, np.float32), "bias": rng.normal(size=4).astype(np.float32)},
        "head": {"kernel": rng.normal(size=(4, 5)).astype(np.float32), "bias": np.zeros(5, np.float32)},
    }


def gradient(params: dict, step: int, xp=np) -> dict:
    """That of a bumpy bowl, different at each step, so that momenta and second moments have something to do."""
    return jax.tree.map(lambda p: p * (1 + 0.3 * xp.cos(1.0 * step)) + xp.sin(3 * p + step), params)


def train(transformation: optax.GradientTransformation, lr: float) -> dict:
    def step(carry: tuple, i: jax.Array) -> tuple:
        params, state = carry
        direction, state = transformation.update(gradient(params, i, jnp), state, params)
        return (jax.tree.map(lambda p, d: p - lr * d, params, direction), state), None

    params = jax.tree.map(jnp.asarray, start())
    return jax.lax.scan(step, (params, transformation.init(params)), jnp.arange(STEPS))[0][0]


@functools.cache
def lanes(name: str) -> dict:
    """A lane for each of NUMBERS, in one program: the numbers are traced."""
    return jax.jit(jax.vmap(lambda m, w: train(OPTIMIZERS[name].build(m, w), LR)))(*jnp.asarray(NUMBERS).T)


def lane(name: str, i: int) -> dict:
    return jax.tree.map(lambda leaf: leaf[i], lanes(name))


def by_hand(name: str, momentum: float, weight_decay: float, lr: float) -> dict:
    """Every rule as its paper has it, a leaf at a time, in float64."""
    params = jax.tree.map(lambda p: p.astype(np.float64), start())
    leaves, tree = jax.tree.flatten(params)
    decays = [leaf.ndim > 1 for leaf in leaves]
    first, second = [0.0] * len(leaves), [0.0] * len(leaves)
    for i in range(STEPS):
        grads = jax.tree.leaves(gradient(jax.tree.unflatten(tree, leaves), i))
        for j, (p, g) in enumerate(zip(leaves, grads, strict=True)):
            decay = weight_decay * p * decays[j]
            if name != "adamw":
                g = g + decay
            if name == "sgd":
                direction = g
            elif name in ("momentum", "nesterov"):
                first[j] = momentum * first[j] + g
                direction = first[j] if name == "momentum" else g + momentum * first[j]
            else:
                first[j] = momentum * first[j] + (1 - momentum) * g
                second[j] = 0.999 * second[j] + 0.001 * g**2
                corrected = first[j] / (1 - momentum ** (i + 1)), second[j] / (1 - 0.999 ** (i + 1))
                direction = corrected[0] / (np.sqrt(corrected[1]) + 1e-8) + (decay if name == "adamw" else 0)
            leaves[j] = p - lr * direction
    return jax.tree.unflatten(tree, leaves)


def optax_alias(name: str, momentum: float, weight_decay: float, lr: float) -> optax.GradientTransformation:
    coupled = optax.add_decayed_weights(weight_decay, mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree))
    return {
        "sgd": lambda: optax.chain(coupled, optax.sgd(lr)),
        "momentum": lambda: optax.chain(coupled, optax.sgd(lr, momentum)),
        "nesterov": lambda: optax.chain(coupled, optax.sgd(lr, momentum, nesterov=True)),
        "adam": lambda: optax.chain(coupled, optax.adam(lr, momentum)),
        "adamw": lambda: optax.adamw(
            lr, momentum, weight_decay=weight_decay, mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree)
        ),
    }[name]()


def test_the_table_is_complete_and_its_rates_are_documented_ones() -> None:
    assert {name: o.default_lr for name, o in OPTIMIZERS.items()} == {
        "sgd": 0.1,
        "momentum": 0.05,
        "nesterov": 0.05,
        "adam": 1e-3,
        "adamw": 1e-3,
    }
    assert [name for name, o in OPTIMIZERS.items() if not o.uses_momentum] == ["sgd"]


@pytest.mark.parametrize("i", range(len(NUMBERS)))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_the_rule_written_out(name: str, i: int) -> None:
    chex.assert_trees_all_close(lane(name, i), by_hand(name, *NUMBERS[i], LR), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_optax(name: str) -> None:
    # The alias gives updates to add, at its own rate: minus those is a direction at rate 1.
    alias = optax.chain(optax_alias(name, *NUMBERS[1], LR), optax.scale(-1.0))
    chex.assert_trees_all_close(lane(name, 1), jax.jit(lambda: train(alias, 1.0))(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("i", range(len(NUMBERS)))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_pytorch(name: str, i: int) -> None:
    torch = pytest.importorskip("torch", reason="torch comes with the bench extra")
    momentum, weight_decay = NUMBERS[i]
    leaves, tree = jax.tree.flatten(start())
    tensors = [torch.tensor(leaf, requires_grad=True) for leaf in leaves]
    groups = [
        {"params": [t for t in tensors if t.ndim > 1], "weight_decay": weight_decay},
        {"params": [t for t in tensors if t.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = {
        "sgd": lambda: torch.optim.SGD(groups, LR),
        "momentum": lambda: torch.optim.SGD(groups, LR, momentum=momentum),
        "nesterov": lambda: torch.optim.SGD(groups, LR, momentum=momentum, nesterov=momentum > 0),
        "adam": lambda: torch.optim.Adam(groups, LR, betas=(momentum, 0.999)),
        "adamw": lambda: torch.optim.AdamW(groups, LR, betas=(momentum, 0.999)),
    }[name]()
    for step in range(STEPS):
        grads = jax.tree.leaves(gradient(jax.tree.unflatten(tree, [t.detach().numpy() for t in tensors]), step))
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(grad, dtype=torch.float32)
        optimizer.step()
    expected = jax.tree.unflatten(tree, [t.detach().numpy() for t in tensors])
    chex.assert_trees_all_close(lane(name, i), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_traced_numbers_give_what_plain_ones_give(name: str) -> None:
    plain = jax.jit(lambda: train(OPTIMIZERS[name].build(*NUMBERS[2]), LR))()
    chex.assert_trees_all_close(lane(name, 2), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_trees_like_the_parameters_and_scalars(name: str) -> None:
    params = start()
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    state = [leaf.shape for leaf in jax.tree.leaves(OPTIMIZERS[name].build(0.9, 0.1).init(params))]
    trees, rest = divmod(len([s for s in state if s != ()]), len(shapes))
    assert rest == 0
    assert trees == {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 2}[name]
    assert sorted(s for s in state if s != ()) == sorted(shapes * trees)


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_without_momentum_both_are_sgd(name: str) -> None:
    assert NUMBERS[3][0] == 0
    chex.assert_trees_all_close(lane(name, 3), lane("sgd", 3), rtol=1e-6, atol=1e-6)


def test_sgd_takes_no_notice_of_momentum() -> None:
    chex.assert_trees_all_equal(first_direction("sgd", 0.1, momentum=0.9), first_direction("sgd", 0.1, momentum=0.0))


def first_direction(name: str, weight_decay: float, grads: dict | None = None, momentum: float = 0.9) -> dict:
    params = start()
    transformation = OPTIMIZERS[name].build(momentum, weight_decay)
    return transformation.update(grads or gradient(params, 0), transformation.init(params), params)[0]


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


def test_adamw_takes_the_same_fraction_off_every_kernel() -> None:
    plain, decayed, params = first_direction("adamw", 0.0), first_direction("adamw", 0.5), start()
    for module in ("conv", "head"):
        taken = decayed[module]["kernel"] - plain[module]["kernel"]
        np.testing.assert_allclose(taken, 0.5 * params[module]["kernel"], rtol=1e-5, atol=1e-6)


def test_coupled_decay_is_the_gradient_of_half_the_squared_norm() -> None:
    params = start()
    penalty = jax.grad(lambda p: 0.25 * sum(jnp.sum(leaf**2) for leaf in (p["conv"]["kernel"], p["head"]["kernel"])))
    expected = jax.tree.map(jnp.add, gradient(params, 0), penalty(params))
    chex.assert_trees_all_close(first_direction("sgd", 0.5), expected, rtol=1e-6)


def test_kernels_by_rank_and_by_name() -> None:
    params = {
        "attention": {"kernel": np.ones((2, 3, 4)), "bias": np.ones((3, 4))},
        "w": np.ones((2, 2)),
        "s": np.ones(()),
    }
    assert kernels(params) == {"attention": {"kernel": True, "bias": False}, "w": True, "s": False}


@pytest.mark.parametrize("leaf", [np.ones(3), np.ones((2, 2), np.int32)])
def test_a_leaf_that_no_rule_covers_is_named(leaf: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"no rule for parameter \['dense'\]\['kernel'\]"):
        OPTIMIZERS["sgd"].build(0.0, 0.1).init({"dense": {"kernel": leaf}})


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


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
@given(scale=st.floats(1e-3, 1e3))
@settings(REPEATABLE, max_examples=10)
def test_gradient_rules_scale_with_the_gradient(name: str, scale: float) -> None:
    grads = gradient(start(), 0)
    scaled = first_direction(name, 0.0, jax.tree.map(lambda g: g * scale, grads))
    expected = jax.tree.map(lambda d: d * scale, first_direction(name, 0.0, grads))
    chex.assert_trees_all_close(scaled, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@given(scale=st.floats(1e-2, 1e3))
@settings(REPEATABLE, max_examples=10)
def test_adam_does_not_see_the_gradients_scale(name: str, scale: float) -> None:
    grads = gradient(start(), 0)
    scaled = first_direction(name, 0.0, jax.tree.map(lambda g: g * scale, grads))
    # atol: the 1e-8 in the denominator shows on the smallest gradients.
    chex.assert_trees_all_close(scaled, first_direction(name, 0.0, grads), rtol=1e-5, atol=1e-4)


def descend(name: str, f, x: list[float], lr: float, steps: int) -> float:
    transformation = OPTIMIZERS[name].build(0.9, 0.0)

    def step(carry: tuple, _: None) -> tuple:
        x, state = carry
        direction, state = transformation.update(jax.grad(f)(x), state, x)
        return (x - lr * direction, state), None

    x = jnp.asarray(x)
    (x, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps))((x, transformation.init(x)))
    return float(f(x))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_descends_a_parabola(name: str) -> None:
    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray([1.0, 3.0]) * x**2)

    assert descend(name, f, [1.0, -2.0], 0.02, 600) < 1e-6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_descends_rosenbrocks_valley(name: str) -> None:
    def f(x: jax.Array) -> jax.Array:
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    lr = {"sgd": 1e-3, "momentum": 2e-4, "nesterov": 2e-4, "adam": 1e-2, "adamw": 1e-2}[name]
    assert descend(name, f, [-1.2, 1.0], lr, 10_000) < 1e-2
