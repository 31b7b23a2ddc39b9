"""Squeeze-and-excitation against NumPy in float64: values, and gradients by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.nn.activations import prelu, relu, silu
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.squeeze_excitation import SqueezeExcitation

C = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4, 5, C)) + RNG.normal(size=C)
DY = RNG.normal(size=X.shape)


def parameters(hidden):
    shapes = {"reduce": (C, hidden), "expand": (hidden, C)}
    return {name: {"kernel": RNG.normal(size=s) / 4, "bias": RNG.normal(size=s[1])} for name, s in shapes.items()}


def reference(params, x, act):
    first, second = params["reduce"], params["expand"]
    y = np.empty_like(x)
    for b, maps in enumerate(x):
        z = maps.sum((0, 1)) / (maps.shape[0] * maps.shape[1])
        gate = 1 / (1 + np.exp(-(act(z @ first["kernel"] + first["bias"]) @ second["kernel"] + second["bias"])))
        for c in range(x.shape[-1]):
            y[b, :, :, c] = maps[..., c] * gate[c]
    return y


@pytest.mark.parametrize(
    ("module", "hidden", "act"),
    [
        (SqueezeExcitation(), 10, lambda x: np.maximum(x, 0)),
        (SqueezeExcitation(16, ActivationByIndex((relu, silu), 1)), 8, lambda x: x / (1 + np.exp(-x))),
    ],
    ids=("default", "narrow"),
)
def test_equals_numpy(module, hidden, act):
    params = parameters(hidden)
    low = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    initial = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.asarray(X), True)["params"])
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(np.shape, params)
    apply = jax.jit(lambda params, x: module.apply({"params": params}, x, True))
    y, pull = jax.vjp(apply, low, jnp.float32(X))
    np.testing.assert_allclose(y, reference(params, X, act), atol=1e-5)
    grads, dx = pull(jnp.float32(DY))

    # One random direction through all parameters and inputs.
    to = jax.tree.map(lambda p: RNG.normal(size=p.shape), (params, X))
    moved = [jax.tree.map(lambda p, d, h=h: p + h * d, (params, X), to) for h in (1e-5, -1e-5)]
    difference = ((reference(*moved[0], act) - reference(*moved[1], act)) * DY).sum() / 2e-5
    along = sum(
        (np.float64(g) * d).sum() for g, d in zip(jax.tree.leaves((grads, dx)), jax.tree.leaves(to), strict=True)
    )
    np.testing.assert_allclose(along, difference, rtol=1e-4)


def test_an_activation_may_learn():
    variables = jax.eval_shape(lambda: SqueezeExcitation(act=prelu).init(jax.random.key(0), jnp.asarray(X), True))
    assert variables["params"]["act"]["slope"].shape == (10,)


def test_gates_begin_near_a_half_and_dtype_stays():
    x = jnp.asarray(X, jnp.bfloat16)
    small = SqueezeExcitation(kernel_init=jax.nn.initializers.zeros)
    y, variables = small.init_with_output(jax.random.key(0), x, True)
    assert y.dtype == jnp.bfloat16 and (y == x / 2).all()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_refuses_a_reduction_below_one():
    with pytest.raises(UsageError, match="got 0"):
        SqueezeExcitation(reduction=0).init(jax.random.key(0), jnp.asarray(X), True)
