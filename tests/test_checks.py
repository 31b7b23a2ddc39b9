"""Array-likes: what is one, with which shape, and that modules of NumPy and SciPy alone do not wait for jax."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Real, TypeCheckError, jaxtyped

from fishnet.checks.arrays import ArrayLike

ROOT = Path(__file__).parents[1]


@jaxtyped(typechecker=beartype)
def total(values: Real[ArrayLike, " n"], scale: Real[ArrayLike, ""]) -> Real[ArrayLike, ""]:
    return np.sum(values) * scale


@pytest.mark.parametrize("values", [np.arange(3), np.ones(3, np.float16), jnp.arange(3.0)], ids=["int", "half", "jax"])
@pytest.mark.parametrize("scale", [2, 2.0, np.float32(2), np.array(2), jnp.array(2)], ids=str)
def test_arrays_of_both_kinds_and_numbers_are_taken_with_their_shapes(values, scale):
    assert total(values, scale) == 2 * sum(values.tolist())
    for bad in (values[None], "a", [1, 2], values > 1):
        with pytest.raises(TypeCheckError):
            total(bad, scale)


def test_what_is_numpy_and_scipy_alone_does_not_import_jax():
    code = "import sys, fishnet.metrics, fishnet.stats; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
