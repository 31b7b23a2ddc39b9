"""Parametric activations: formulas, finite differences, and that a traced choice equals each of them by itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.nn.activations import ACTIVATIONS, elu, leaky_relu, prelu, relu, rrelu
from fishnet.nn.mixed_activation import MixedActivation
from fishnet.nn.parametric import Activation

C = 5
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 3, 6, C)) * 2, jnp.float32)
DY = jnp.asarray(RNG.normal(size=X.shape), jnp.float32)
SLOPE = jnp.asarray(RNG.uniform(-0.5, 1, C), jnp.float32)
KEY = jax.random.key(7)
NAN = float("nan")
NAMES = tuple(ACTIVATIONS)


def run(module, x, params=None, train=True, key=KEY):
    """Output and gradients by parameters and x."""

    def f(params, x):
        return module.apply({"params": params}, x, train, rngs={"activation": key})

    y, pull = jax.vjp(f, params or {}, x)
    return y, *pull(DY.astype(x.dtype))


@partial(jax.jit, static_argnames="train")
def mixed(index, coefficient, slope, train=True):
    return run(MixedActivation(tuple(ACTIVATIONS.values()), index, coefficient), X, {"slope": slope}, train)


@partial(jax.jit, static_argnames="train")
def every(coefficient, slope, train):
    return {n: run(Activation(f, coefficient), X, {"slope": slope}, train) for n, f in ACTIVATIONS.items()}


def alone(name, coefficient, slope, train=True):
    return every(coefficient, slope, train)[name]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("entry", "before"), [(leaky_relu, lambda x: jax.nn.leaky_relu(x, 0.01)), (elu, jax.nn.elu)], ids=("leaky", "elu")
)
def test_default_coefficients_change_no_bit(entry, before, dtype):
    x = X.astype(dtype)

    def both(f):
        y, pull = jax.vjp(f, x)
        return y, pull(DY.astype(dtype))[0]

    expected = jax.jit(lambda: both(before))()
    modules = [Activation(entry), Activation(entry, NAN), MixedActivation((entry, relu), 0)]
    forms = [lambda: both(entry), *(lambda m=m: run(m, x)[::2] for m in modules)]
    forms.append(lambda: run(Activation(entry, jnp.float32(NAN)), x)[::2])
    for form in forms:
        for ours, theirs in zip(jax.jit(form)(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "coefficient", "formula"),
    [
        ("leaky_relu", 0.3, lambda x: np.where(x > 0, x, 0.3 * x)),
        ("leaky_relu", -1.0, np.abs),
        ("elu", 0.5, lambda x: np.where(x > 0, x, 0.5 * (np.exp(np.minimum(x, 0)) - 1))),
    ],
)
def test_coefficients(name, coefficient, formula):
    x, dy = np.asarray(X, np.float64), np.asarray(DY, np.float64)
    for form in (alone(name, coefficient, SLOPE), mixed(NAMES.index(name), coefficient, SLOPE)):
        y, _, dx = form
        np.testing.assert_allclose(ACTIVATIONS[name](X, coefficient=coefficient), y, atol=1e-6)
        np.testing.assert_allclose(y, formula(x), atol=1e-6)
        np.testing.assert_allclose(dx, dy * (formula(x + 1e-6) - formula(x - 1e-6)) / 2e-6, atol=1e-5)


def test_prelu_against_a_loop_and_finite_differences():
    x, dy, slope = (np.asarray(a, np.float64) for a in (X, DY, SLOPE))

    def formula(slope):
        y = np.empty_like(x)
        for c in range(C):
            y[..., c] = np.where(x[..., c] >= 0, x[..., c], slope[c] * x[..., c])
        return y

    y, grads, dx = alone("prelu", NAN, SLOPE)
    np.testing.assert_allclose(y, formula(slope), atol=1e-6)
    np.testing.assert_allclose(dx, dy * np.where(x >= 0, 1, slope), atol=1e-6)
    for c, step in enumerate(1e-3 * np.eye(C)):
        difference = ((formula(slope + step) - formula(slope - step)) * dy).sum() / 2e-3
        np.testing.assert_allclose(grads["slope"][c], difference, atol=1e-4)
    np.testing.assert_array_equal(prelu(X, SLOPE), y)
    np.testing.assert_array_equal(prelu(X[:, 0, 0], SLOPE), y[:, 0, 0])
    np.testing.assert_allclose(prelu(X, 0.5), formula(np.full(C, 0.5)), atol=1e-6)


def test_prelu_begins_at_a_quarter():
    variables = Activation(prelu).init(KEY, X, True)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"slope": (C,)}}
    assert (variables["params"]["slope"] == 0.25).all()
    assert not Activation(rrelu).init({"activation": KEY}, X, True)


def test_rrelu_draws_slopes_uniformly():
    x = -jnp.ones((300, 200))
    slopes = -rrelu(x, key=KEY, train=True)
    assert slopes.min() >= 1 / 8 and slopes.max() <= 1 / 3
    assert abs(float(slopes.mean()) - 11 / 48) < 1e-3
    assert abs(float(slopes.std()) - (1 / 3 - 1 / 8) / np.sqrt(12)) < 1e-3
    assert (rrelu(-x, key=KEY, train=True) == -x).all()
    assert (slopes != -rrelu(x, key=jax.random.key(1), train=True)).any()
    np.testing.assert_allclose(rrelu(x), 11 / 48 * x, rtol=1e-6)
    y, _, dx = alone("rrelu", NAN, SLOPE)
    np.testing.assert_allclose(dx, DY * y / X, rtol=1e-5)
    with pytest.raises(UsageError, match="key"):
        rrelu(x, train=True)


@pytest.mark.parametrize("train", [True, False])
def test_a_traced_choice_equals_the_function_alone(train):
    for index, name in enumerate(NAMES):
        y, grads, dx = mixed(index, NAN, SLOPE, train)
        expected, d_expected, dx_expected = alone(name, NAN, SLOPE, train)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(dx, dx_expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(grads["slope"], d_expected["slope"], rtol=1e-5)
        assert (grads["slope"] == 0).all() == (name != "prelu")


def test_choices_side_by_side_under_vmap():
    coefficients = jnp.where(jnp.arange(len(NAMES)) == NAMES.index("elu"), 0.5, NAN)
    together = jax.jit(jax.vmap(partial(mixed, slope=SLOPE)))(jnp.arange(len(NAMES)), coefficients)
    for i, coefficient in enumerate(coefficients):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6),
            together, mixed(i, coefficient, SLOPE),
        )  # fmt: skip


def test_a_mixture_has_what_one_of_it_needs():
    def init(functions, index, train=True, **keys):
        return jax.jit(lambda i: MixedActivation(functions, i).init({"params": KEY, **keys}, X, train))(index)

    assert not init((relu, leaky_relu), 1)
    assert not init((relu, rrelu), 1, train=False)
    assert not init((relu, rrelu), 1, activation=KEY)
    for index, value in enumerate((0.25, 0.0)):
        assert (init((prelu, relu), index)["params"]["slope"] == value).all()


def test_the_gradient_keeps_the_arguments_only():
    module = MixedActivation(tuple(ACTIVATIONS.values()), jnp.int32(0))

    def outputs(slope, x):
        return jax.vjp(lambda s, x: module.apply({"params": {"slope": s}}, x, True, rngs={"activation": KEY}), slope, x)

    kept = [leaf for leaf in jax.tree.leaves(jax.jit(outputs)(SLOPE, X)[1]) if leaf.size >= X.size]
    assert len(kept) == 1 and (kept[0] == X).all()


def test_raw_keys_and_gradients_through_a_loop():
    @jax.jit
    def loss(x, index, key):
        module = MixedActivation((relu, rrelu), index)
        step = lambda _, x: module.apply({}, x, True, rngs={"activation": key})  # noqa: E731
        return jax.lax.scan(lambda x, i: (step(i, x), None), x, jnp.arange(3))[0].sum()

    key = jax.random.PRNGKey(3)
    dx = jax.grad(loss)(X, 1, key)
    y = Activation(rrelu).apply({}, X, True, rngs={"activation": key})
    np.testing.assert_allclose(dx, jnp.where(X >= 0, 1, (y / X) ** 3), rtol=1e-5)


def test_low_precision():
    for f in (prelu, rrelu):
        y, grads, dx = run(Activation(f), X.astype(jnp.bfloat16), {"slope": SLOPE})
        assert y.dtype == dx.dtype == jnp.bfloat16 and grads["slope"].dtype == jnp.float32


def test_refusals():
    with pytest.raises(UsageError, match="relu has no coefficient"):
        Activation(relu, 0.3).apply({}, X, False)
    with pytest.raises(UsageError, match="prelu has no coefficient, got 1"):
        Activation(prelu, 1).init(KEY, X, False)
    for module in (Activation(elu, float("inf")), MixedActivation((elu, relu), 0, float("inf"))):
        with pytest.raises(UsageError, match="finite, got inf"):
            module.apply({}, X, False)
    Activation(relu, NAN).apply({}, X, False)
