"""Layer-sequential unit variance against a loop in NumPy, alone, compiled and vectorised."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.nn.lsuv import layer_order, layer_outputs, lsuv

X = np.random.default_rng(0).normal(size=(64, 6)) * 3 + 1


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(12, name="dense")(x)


class Network(nn.Module):
    """Names are not in order of execution, and a layer lies deeper."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(16, name="second")(x))
        x = nn.relu(Block(name="first")(x))
        return nn.Dense(5, use_bias=False, name="last")(nn.LayerNorm()(x))


LAYERS = ("second", "first/dense", "last")


@jax.jit
def initial(key):
    params = Network().init(key, jnp.float32(X))["params"]
    params["second"]["bias"] += np.linspace(-0.8, 0.8, 16)
    return params


def forward(params):
    return layer_outputs(lambda: Network().apply({"params": params}, jnp.float32(X)))


@jax.jit
def run(params, tolerance, rounds):
    return lsuv(forward, params, LAYERS, tolerance, rounds)


def reference(params, tolerance=0.01, rounds=10):
    """The algorithm of the paper with plain loops; also how often each layer was scaled."""
    x, counts = X, []
    for name in LAYERS:
        layer = params["first"]["dense"] if name == "first/dense" else params[name]
        kernel, bias = np.asarray(layer["kernel"], np.float64), np.asarray(layer.get("bias", 0.0), np.float64)
        count = 0
        while abs((x @ kernel + bias).var() - 1) > tolerance and count < rounds:
            kernel = kernel / np.sqrt((x @ kernel + bias).var())
            count += 1
        counts.append((kernel, count))
        x = np.maximum(x @ kernel + bias, 0)
        if name == "first/dense":
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return counts


def kernels(params):
    return params["second"]["kernel"], params["first"]["dense"]["kernel"], params["last"]["kernel"]


def test_order_of_execution():
    model, key = Network(), jax.random.key(0)
    assert layer_order(lambda: model.apply({"params": initial(key)}, jnp.float32(X))) == LAYERS


def test_equals_a_loop_and_gives_unit_variance():
    before = initial(jax.random.key(1))
    after = run(before, 0.01, 10)
    expected = reference(before)
    for kernel, (loop, _) in zip(kernels(after), expected, strict=True):
        np.testing.assert_allclose(kernel, loop, rtol=1e-4, atol=1e-6)
    assert expected[0][1] > 1  # the bias makes a single division miss
    for output in forward(after).values():
        assert abs(float(output.var()) - 1) <= 0.0101  # the tolerance, and the rounding of another order of sums
    assert jax.tree.structure(before) == jax.tree.structure(after)
    np.testing.assert_array_equal(after["second"]["bias"], before["second"]["bias"])
    jax.tree.map(np.testing.assert_array_equal, after["LayerNorm_0"], before["LayerNorm_0"])


def test_limits():
    before = initial(jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, run(before, 0.01, 0), before)
    once = run(before, 0.0, 1)
    for kernel, (loop, count) in zip(kernels(once), reference(before, 0.0, 1), strict=True):
        assert count == 1
        np.testing.assert_allclose(kernel, loop, rtol=1e-4, atol=1e-6)


def test_lanes_side_by_side_equal_lanes_alone():
    params, rounds = jax.vmap(initial)(jax.random.split(jax.random.key(3), 3)), np.array([10, 0, 1])
    together = jax.vmap(run, (0, None, 0))(params, 0.01, rounds)
    for i in range(3):
        alone = run(jax.tree.map(lambda leaf, i=i: leaf[i], params), 0.01, int(rounds[i]))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6), together, alone)


def test_a_dead_layer_is_left_alone():
    params = initial(jax.random.key(4))
    params["first"]["dense"]["kernel"] *= 0
    after = lsuv(forward, params, LAYERS)
    assert (after["first"]["dense"]["kernel"] == 0).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_refusals():
    params = initial(jax.random.key(0))
    with pytest.raises(UsageError, match="'third' has no kernel"):
        lsuv(forward, params, ["third"])
    with pytest.raises(UsageError, match="no output of 'second'"):
        lsuv(lambda params: {}, params, ["second"])
    with pytest.raises(UsageError, match="rounds of lsuv must be 0 or more, got -1"):
        lsuv(forward, params, LAYERS, rounds=-1)
    assert jax.tree.structure(lsuv(forward, params, ())) == jax.tree.structure(params)
