"""Schedule-free SGD at rates that change from step to step, against its three sequences and against optax."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.optim.schedule_free import evaluation_params, schedule_free

STEPS = 60
WARMUP = np.minimum(np.arange(STEPS) / 10, 1.0)
SHAPES = {"warmup": WARMUP, "cosine": WARMUP * 0.5 * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS))}
DECAY = 0.02
# Optax divides by b: it has no run without momentum.
LANES = [(0.3, 0.9), (0.1, 0.5), (0.3, 0.98), (0.3, 0.0)]


def start() -> dict:
    rng = np.random.default_rng(0)
    return {"kernel": rng.normal(size=(3, 2)).astype(np.float32), "bias": rng.normal(size=2).astype(np.float32)}


def gradient(params: dict) -> dict:
    return {"kernel": params["kernel"] - 0.5, "bias": 2 * params["bias"]}


@jax.jit
def paths(shape: jax.Array) -> tuple[dict, dict]:
    """Trained and evaluated parameters after each step, [lane, step, ...]; all numbers are traced."""

    def run(lr: jax.Array, b: jax.Array) -> tuple[dict, dict]:
        rule = schedule_free(b, DECAY)

        def step(carry: tuple, multiplier: jax.Array) -> tuple:
            params, state = carry
            rate = lr * multiplier
            direction, state = rule.update(gradient(params), state, params, learning_rate=rate)
            params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
            return (params, state), (params, evaluation_params(params, state))

        params = jax.tree.map(jnp.asarray, start())
        return jax.lax.scan(step, (params, rule.init(params)), shape)[1]

    return jax.vmap(run)(*jnp.asarray(LANES).T)


def lane(name: str, i: int) -> tuple[dict, dict]:
    return jax.tree.map(lambda leaf: leaf[i], paths(jnp.asarray(SHAPES[name], jnp.float32)))


def by_hand(name: str, lr: float, b: float) -> tuple[dict, dict]:
    """x, y and z as the paper has them, in float64."""
    x, y, z = (jax.tree.map(np.float64, start()) for _ in range(3))
    top = total = 0.0
    trained, evaluated = [], []
    for rate in lr * SHAPES[name]:
        grads = gradient(y)
        grads["kernel"] = grads["kernel"] + DECAY * y["kernel"]
        top = max(top, rate)
        total += top**2
        c = top**2 / total if total else 0.0
        z = {k: z[k] - rate * grads[k] for k in z}
        x = {k: (1 - c) * x[k] + c * z[k] for k in x}
        y = {k: (1 - b) * z[k] + b * x[k] for k in y}
        trained.append(y)
        evaluated.append(x)
    return tuple({k: np.stack([p[k] for p in path]) for k in x} for path in (trained, evaluated))


@pytest.mark.parametrize("i", range(len(LANES)))
@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_three_sequences_at_every_step(name: str, i: int) -> None:
    for found, expected in zip(lane(name, i), by_hand(name, *LANES[i]), strict=True):
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("i", range(len(LANES) - 1))
@pytest.mark.parametrize("name", SHAPES)
def test_equals_optax_at_every_step(name: str, i: int) -> None:
    lr, b = LANES[i]
    rates = jnp.asarray(lr * SHAPES[name], jnp.float32)
    # Optax counts the steps of its averaging from 1, those of its SGD from 0: one schedule each.
    base = optax.chain(
        optax.add_decayed_weights(DECAY, mask={"kernel": True, "bias": False}), optax.sgd(lambda t: rates[t])
    )
    rule = optax.contrib.schedule_free(base, lambda t: rates[t - 1], b)

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        updates, state = rule.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, optax.contrib.schedule_free_eval_params(state, params))

    params = jax.tree.map(jnp.asarray, start())
    expected = jax.jit(lambda: jax.lax.scan(step, (params, rule.init(params)), None, STEPS)[1])()
    for found, theirs in zip(lane(name, i), expected, strict=True):
        chex.assert_trees_all_close(found, theirs, rtol=1e-4, atol=1e-5)


def test_without_momentum_it_is_sgd_and_its_average() -> None:
    trained, evaluated = lane("warmup", 3)
    weights = (WARMUP**2)[:, None, None]
    averages = np.cumsum(weights * np.asarray(trained["kernel"]), 0)[1:] / np.cumsum(weights, 0)[1:]
    np.testing.assert_allclose(evaluated["kernel"][1:], averages, rtol=1e-4, atol=1e-5)


def test_a_step_of_rate_zero_changes_nothing() -> None:
    rule, params = schedule_free(0.9), start()
    state = rule.init(params)
    update = jax.jit(lambda params, state, rate: rule.update(gradient(params), state, params, learning_rate=rate))
    for rate in (0.0, 0.3, 0.3):
        direction, state = update(params, state, rate)
        params = {k: params[k] - rate * direction[k] for k in params}
    direction, after = update(params, state, 0.0)
    chex.assert_trees_all_equal(after, state)
    chex.assert_tree_all_finite(direction)


def test_the_rate_of_the_step_must_be_told() -> None:
    rule, params = schedule_free(), start()
    with pytest.raises(TypeError, match="learning_rate"):
        rule.update(gradient(params), rule.init(params), params)
