"""Standardisation: its constants, its dtype, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.nn.standardize import Standardize

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)


def test_constants_are_used_and_are_no_parameters():
    variables = Standardize().init(jax.random.key(0), IMAGES)
    assert set(variables) == {"constants"}
    assert (Standardize().apply(variables, IMAGES) == IMAGES).all()
    mean, std = jnp.array([10.0, 20, 30]), jnp.array([2.0, 4, 8])
    y = Standardize().apply({"constants": {"mean": mean, "std": std}}, IMAGES)
    np.testing.assert_allclose(y, (IMAGES - np.asarray(mean)) / np.asarray(std), rtol=1e-6)


def test_arithmetic_is_float32_whatever_the_result():
    constants = {"mean": jnp.full(3, 100.3), "std": jnp.full(3, 50.1)}
    y = Standardize(jnp.bfloat16).apply({"constants": constants}, IMAGES)
    assert y.dtype == jnp.bfloat16
    assert (y == Standardize().apply({"constants": constants}, IMAGES).astype(jnp.bfloat16)).all()


def test_refuses_other_ranks():
    with pytest.raises(UsageError, match="channels"):
        Standardize().init(jax.random.key(0), jnp.zeros((4, 5, 3)))
