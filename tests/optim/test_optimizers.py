"""Optimizers against a reference written out in NumPy, optax's own aliases and PyTorch, over many steps."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.optim.optimizers import OPTIMIZERS, Optimizer
from fishnet.optim.sam import RHO

STEPS = 25
NUMBERS = [(0.9, 0.0), (0.9, 0.05), (0.5, 0.01), (0.0, 0.1)]
LR = 0.03
# Most of the time here is compilation.
QUICKLY = {"xla_backend_optimization_level": 0}
# Those of a bowl that breathes and wanders, so that momenta and second moments have something to do.
STEEPNESS, SHIFT = np.random.default_rng(1).uniform([[0.7], [-1.5]], [[1.3], [1.5]], (2, STEPS)).astype(np.float32)


def start() -> dict:
    rng = np.random.default_rng(0)
    return {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32)},
        "norm": {"scale": np.ones(4, np.float32), "bias": rng.normal(size=4).astype(np.float32)},
        "head": {"kernel": rng.normal(size=(4, 5)).astype(np.float32), "bias": np.zeros(5, np.float32)},
    }


def gradient(params: dict, step: int | jax.Array, xp=np) -> dict:
    steepness, shift = xp.asarray(STEEPNESS)[step], xp.asarray(SHIFT)[step]
    return jax.tree.map(lambda p: p * steepness + shift, params)


def train(optimizer: Optimizer, momentum: float, weight_decay: float, lr: float) -> dict:
    """The step in the docstring of fishnet.optim.optimizers, many times."""
    rule = optax.with_extra_args_support(optimizer.build(momentum, weight_decay))

    def step(carry: tuple, i: jax.Array) -> tuple:
        params, state = carry
        grads = gradient(params, i, jnp)
        if optimizer.ascend:
            grads = gradient(optimizer.ascend(params, grads, RHO), i, jnp)
        direction, state = rule.update(grads, state, params, learning_rate=lr)
        return (jax.tree.map(lambda p, d: p - lr * d, params, direction), state), None

    params = jax.tree.map(jnp.asarray, start())
    return jax.lax.scan(step, (params, rule.init(params)), jnp.arange(STEPS))[0][0]


def train_alias(alias: optax.GradientTransformationExtraArgs) -> dict:
    def step(carry: tuple, i: jax.Array) -> tuple:
        params, state = carry
        again = lambda params, _: gradient(params, i, jnp)  # noqa: E731
        updates, state = alias.update(gradient(params, i, jnp), state, params, grad_fn=again)
        return (optax.apply_updates(params, updates), state), None

    params = jax.tree.map(jnp.asarray, start())
    return jax.lax.scan(step, (params, alias.init(params)), jnp.arange(STEPS))[0][0]


@functools.cache
def lanes(name: str) -> dict:
    """A lane for each of NUMBERS, in one program: the numbers are traced."""
    run = jax.vmap(lambda m, w, lr: train(OPTIMIZERS[name], m, w, lr), (0, 0, None))
    return jax.jit(run, compiler_options=QUICKLY)(*jnp.asarray(NUMBERS).T, jnp.float32(LR))


def lane(name: str, i: int) -> dict:
    return jax.tree.map(lambda leaf: leaf[i], lanes(name))


def orthogonalised(matrix: np.ndarray) -> np.ndarray:
    """Five Newton-Schulz iterations, as in Jordan's program."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def by_hand(name: str, b: float, weight_decay: float, lr: float) -> dict:
    """Every rule as its paper has it, a leaf at a time, in float64."""
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda p: p.astype(np.float64), start()))
    m, v = [np.zeros_like(p) for p in leaves], [np.zeros_like(p) for p in leaves]
    x, z = list(leaves), list(leaves)
    for t in range(1, STEPS + 1):
        at = lambda ps: jax.tree.leaves(gradient(jax.tree.unflatten(tree, ps), t - 1))  # noqa: B023, E731
        grads = at(leaves)
        if name == "sam":
            norm = np.sqrt(sum((g**2).sum() for g in grads))
            grads = at([p + 0.05 * g / norm for p, g in zip(leaves, grads, strict=True)])
        for j, (p, g) in enumerate(zip(leaves, grads, strict=True)):
            kernel = p.ndim > 1
            decay = weight_decay * p * kernel
            if name not in ("adamw", "lamb", "lion", "muon"):
                g = g + decay
            if name == "sgd":
                d = g
            elif name in ("momentum", "nesterov", "sam"):
                m[j] = b * m[j] + g
                d = g + b * m[j] if name == "nesterov" else m[j]
            elif name == "adagrad":
                v[j] += g**2
                d = g / (np.sqrt(v[j]) + 1e-10)
            elif name == "rmsprop":
                v[j] = 0.9 * v[j] + 0.1 * g**2
                m[j] = b * m[j] + g / (np.sqrt(v[j]) + 1e-8)
                d = m[j]
            elif name == "lion":
                d = np.sign(b * m[j] + (1 - b) * g) + decay
                m[j] = 0.99 * m[j] + 0.01 * g
            elif name == "schedule_free":
                z[j] = z[j] - lr * g
                x[j] = (1 - 1 / t) * x[j] + 1 / t * z[j]
                d = (p - ((1 - b) * z[j] + b * x[j])) / lr
            else:
                m[j] = b * m[j] + (1 - b) * g
                v[j] = 0.999 * v[j] + 0.001 * g**2
                first, second = m[j] / (1 - b**t), np.sqrt(v[j] / (1 - 0.999**t))
                ahead = b * m[j] / (1 - b ** (t + 1)) + (1 - b) * g / (1 - b**t)
                if name == "muon" and kernel:
                    matrix = ahead.reshape(-1, p.shape[-1])
                    d = (0.2 * np.sqrt(max(matrix.shape)) * orthogonalised(matrix)).reshape(p.shape) + decay
                elif name == "lamb":
                    d = first / (second + 1e-6) + decay
                    d = d * np.linalg.norm(p) / np.linalg.norm(d) if kernel else d
                else:
                    d = (ahead if name == "nadam" else first) / (second + 1e-8) + (decay if name == "adamw" else 0)
            leaves[j] = p - lr * d
    return jax.tree.unflatten(tree, leaves)


def is_kernel(params: dict) -> dict:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def optax_alias(name: str, b: float, weight_decay: float, lr: float) -> optax.GradientTransformationExtraArgs:
    coupled = optax.add_decayed_weights(weight_decay, mask=is_kernel)

    def kernels_by(rule: optax.GradientTransformation, rest: optax.GradientTransformation):
        return optax.partition({True: rule, False: rest}, is_kernel)

    def rows_and_columns(params: dict) -> dict:
        return jax.tree.map(lambda p: optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1), params)

    return optax.with_extra_args_support(
        {
            "sgd": lambda: optax.chain(coupled, optax.sgd(lr)),
            "momentum": lambda: optax.chain(coupled, optax.sgd(lr, b)),
            "nesterov": lambda: optax.chain(coupled, optax.sgd(lr, b, nesterov=True)),
            "adagrad": lambda: optax.chain(coupled, optax.adagrad(lr, 0.0, 1e-20)),
            "rmsprop": lambda: optax.chain(coupled, optax.rmsprop(lr, 0.9, eps_in_sqrt=False, momentum=b)),
            "adam": lambda: optax.chain(coupled, optax.adam(lr, b)),
            "nadam": lambda: optax.chain(coupled, optax.nadam(lr, b)),
            "adamw": lambda: optax.adamw(lr, b, weight_decay=weight_decay, mask=is_kernel),
            "lamb": lambda: kernels_by(optax.lamb(lr, b, weight_decay=weight_decay), optax.adam(lr, b, eps=1e-6)),
            "lion": lambda: optax.lion(lr, b, 0.99, weight_decay=weight_decay, mask=is_kernel),
            "muon": lambda: kernels_by(
                optax.contrib.muon(
                    lr,
                    beta=b,
                    weight_decay=weight_decay,
                    consistent_rms=0.2,
                    muon_weight_dimension_numbers=rows_and_columns,
                ),
                optax.adam(lr, b),
            ),
            "sam": lambda: optax.contrib.sam(
                optax.chain(coupled, optax.sgd(lr, b)),
                optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
                opaque_mode=True,
            ),
            "schedule_free": lambda: optax.contrib.schedule_free(optax.chain(coupled, optax.sgd(lr)), lr, b),
        }[name]()
    )


def test_the_table_is_complete_and_its_rates_are_documented_ones() -> None:
    assert {name: o.default_lr for name, o in OPTIMIZERS.items()} == {
        "sgd": 0.1,
        "momentum": 0.05,
        "nesterov": 0.05,
        "adagrad": 1e-2,
        "rmsprop": 1e-4,
        "adam": 1e-3,
        "nadam": 1e-3,
        "adamw": 1e-3,
        "lamb": 1e-3,
        "lion": 1e-4,
        "muon": 1e-3,
        "sam": 0.05,
        "schedule_free": 0.5,
    }
    assert [name for name, o in OPTIMIZERS.items() if not o.uses_momentum] == ["sgd", "adagrad"]
    assert [name for name, o in OPTIMIZERS.items() if o.own_program] == ["muon", "sam", "schedule_free"]
    assert [name for name, o in OPTIMIZERS.items() if o.ascend] == ["sam"]
    assert [name for name, o in OPTIMIZERS.items() if o.evaluate or o.needs_lr] == ["schedule_free"]


@pytest.mark.parametrize("i", range(len(NUMBERS)))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_the_rule_written_out(name: str, i: int) -> None:
    chex.assert_trees_all_close(lane(name, i), by_hand(name, *NUMBERS[i], LR), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_optax(name: str) -> None:
    expected = jax.jit(lambda: train_alias(optax_alias(name, *NUMBERS[1], LR)), compiler_options=QUICKLY)()
    chex.assert_trees_all_close(lane(name, 1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_zeroed_trees_like_the_parameters_and_scalars(name: str) -> None:
    params = start()
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    leaves = jax.tree.leaves(OPTIMIZERS[name].build(0.9, 0.1).init(params))
    large = [leaf.shape for leaf in leaves if leaf.ndim]
    trees = len(large) // len(shapes)
    assert large == shapes * trees
    assert not any(leaf.any() for leaf in leaves)
    assert trees == {"sgd": 0, "rmsprop": 2, "adam": 2, "nadam": 2, "adamw": 2, "lamb": 2, "muon": 2}.get(name, 1)
    scalars = [leaf.dtype for leaf in leaves if not leaf.ndim]
    assert scalars == ([jnp.float32] * 2 if name == "schedule_free" else [jnp.int32] * len(scalars))


@pytest.mark.parametrize("name", ["momentum", "nesterov", "schedule_free"])
def test_without_momentum_it_is_sgd(name: str) -> None:
    assert NUMBERS[3][0] == 0
    chex.assert_trees_all_close(lane(name, 3), lane("sgd", 3), rtol=1e-6, atol=1e-6)
