"""Initialisers against JAX's and SciPy's, for the same key, with static and with traced fields."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers
from scipy import stats

from fishnet.nn.initializers import (
    DISTRIBUTIONS,
    INITIALIZERS,
    TRUNCATED_STD,
    VarianceScaling,
    fans,
    variance_scaling,
)

SHAPE = (3, 3, 4, 6)
SCALED = ("he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform")
ORACLES = {
    **{name: getattr(initializers, name)() for name in SCALED},
    "truncated": initializers.truncated_normal(0.05 / TRUNCATED_STD),
    "uniform": lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -0.05, 0.05),
    "normal": initializers.normal(0.05),
    "constant": initializers.constant(0.05),
    "orthogonal": initializers.orthogonal(),
    "lsuv": initializers.orthogonal(),  # what it begins with, see test_lsuv.py
}


def fields(names):
    return [jnp.array([getattr(INITIALIZERS[n], f) for n in names]) for f in ("scale", "fan", "distribution", "gain")]


@jax.jit
def traced(scale, fan, distribution, gain, key):
    return VarianceScaling(scale, fan, distribution, gain)(key, SHAPE)


def test_the_table_is_complete():
    assert set(INITIALIZERS) == set(ORACLES)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_equals_jax(name):
    expected = ORACLES[name](jax.random.key(3), SHAPE, jnp.float32)
    np.testing.assert_allclose(INITIALIZERS[name](jax.random.key(3), SHAPE), expected, atol=1e-6)


def test_fields_may_be_traced_and_vectorised():
    key = jax.random.key(1)
    values = fields(INITIALIZERS)
    together = jax.vmap(traced, (0, 0, 0, 0, None))(*values[:3], 0.5 * values[3], key)
    for i, init in enumerate(INITIALIZERS.values()):
        for kernel in (together[i], traced(*(v[i] for v in values[:3]), 0.5 * values[3][i], key)):
            np.testing.assert_allclose(kernel, 0.5 * init(key, SHAPE), atol=1e-6)
    one = jax.jit(lambda d: variance_scaling(2.0, 0, d)(key, SHAPE))(1)
    np.testing.assert_allclose(one, INITIALIZERS["he_uniform"](key, SHAPE), atol=1e-7)


def test_a_traced_distribution_decomposes_nothing_unless_asked():
    program = jax.make_jaxpr(traced)(1.0, 3, 4, 1.0, jax.random.key(0)).jaxpr
    while len(program.eqns) == 1:
        program = program.eqns[0].params["jaxpr"].jaxpr
    (switch,) = (equation for equation in program.eqns if equation.primitive.name == "cond")
    decomposition = re.compile(r"\b(qr|geqrf|householder\w*)\b")
    assert len(decomposition.findall(str(program))) == len(decomposition.findall(str(switch))) > 0
    decomposes = [bool(decomposition.search(str(branch))) for branch in switch.params["branches"]]
    assert decomposes == [name == "orthogonal" for name in DISTRIBUTIONS]


def test_the_fans():
    assert fans((5, 7)) == (5, 7)
    assert fans((3, 2, 4, 6)) == (24, 36)
    with pytest.raises(ValueError, match="two axes"):
        fans((4,))


def test_standard_deviation():
    kernel = INITIALIZERS["he_normal"](jax.random.key(0), (400, 300))
    assert abs(float(kernel.std()) / np.sqrt(2 / 400) - 1) < 0.01
    kernel = VarianceScaling(1.0, 2, 1, gain=3.0)(jax.random.key(0), (400, 300))
    assert abs(float(kernel.std()) / (3 * np.sqrt(1 / 300)) - 1) < 0.01


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("truncated", stats.truncnorm(-2, 2, scale=0.05 / TRUNCATED_STD)),
        ("uniform", stats.uniform(-0.05, 0.1)),
        ("normal", stats.norm(scale=0.05)),
    ],
)
def test_distributions(name, law):
    entries = np.asarray(INITIALIZERS[name](jax.random.key(0), (400, 300)), np.float64).ravel()
    # The distance at which a sample of 120,000 of the right law is refused once in 10^4 draws of the key.
    assert stats.kstest(entries, law.cdf).statistic < 2.2 / np.sqrt(entries.size)
    assert abs(entries.std() / law.std() - 1) < 0.01


@pytest.mark.parametrize("shape", [(20, 8), (8, 20), (3, 3, 2, 30), (3, 3, 8, 5), (3, 3, 1, 4)])
def test_orthogonal(shape):
    kernel = VarianceScaling(1.0, 3, 4, gain=1.5)(jax.random.key(2), shape)
    np.testing.assert_allclose(kernel, initializers.orthogonal(1.5)(jax.random.key(2), shape), atol=1e-6)
    q = np.asarray(kernel, np.float64).reshape(-1, shape[-1]) / 1.5
    gram = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_gain_zero_is_zero():
    for init in INITIALIZERS.values():
        kernel = VarianceScaling(init.scale, init.fan, init.distribution, gain=0.0)(jax.random.key(0), (4, 5))
        assert (kernel == 0).all()


@pytest.mark.parametrize("name", ["glorot_uniform", "orthogonal", "constant"])
def test_low_precision(name):
    kernel = INITIALIZERS[name](jax.random.key(0), (4, 4), jnp.bfloat16)
    assert kernel.dtype == jnp.bfloat16
