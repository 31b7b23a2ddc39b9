"""Initialisers against JAX's, for the same key, with static and with traced fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers

from fishnet.nn.initializers import INITIALIZERS, VarianceScaling, fans, variance_scaling


@pytest.mark.parametrize("name", INITIALIZERS)
def test_equals_jax(name):
    expected = getattr(initializers, name)()(jax.random.key(3), (3, 3, 4, 6), jnp.float32)
    np.testing.assert_allclose(INITIALIZERS[name](jax.random.key(3), (3, 3, 4, 6)), expected, atol=1e-6)


def test_fields_may_be_traced_and_vectorised():
    fields = [jnp.array([getattr(i, name) for i in INITIALIZERS.values()]) for name in ("scale", "fan", "distribution")]
    drawn = jax.jit(jax.vmap(lambda *f: VarianceScaling(*f, gain=0.5)(jax.random.key(1), (3, 3, 4, 6))))(*fields)
    for init, kernel in zip(INITIALIZERS.values(), drawn, strict=True):
        np.testing.assert_allclose(kernel, 0.5 * init(jax.random.key(1), (3, 3, 4, 6)), atol=1e-7)
    one = jax.jit(lambda d: variance_scaling(2.0, 0, d)(jax.random.key(1), (3, 3, 4, 6)))(1)
    np.testing.assert_allclose(one, INITIALIZERS["he_uniform"](jax.random.key(1), (3, 3, 4, 6)), atol=1e-7)


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


def test_low_precision():
    kernel = INITIALIZERS["glorot_uniform"](jax.random.key(0), (4, 4), jnp.bfloat16)
    assert kernel.dtype == jnp.bfloat16
