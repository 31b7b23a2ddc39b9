"""The point at which SAM takes its second gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.optim.sam import RHO, sam_ascend

PARAMS = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.float32([-1, 0, 2])}
GRADS = {"kernel": np.float32([[1, -2, 0], [0.5, 3, 1]]), "bias": np.float32([0, -1, 4])}


def test_lies_rho_from_the_parameters_along_the_gradient_of_all_together() -> None:
    probe = sam_ascend(PARAMS, GRADS, 0.3)
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in GRADS.values()))
    chex.assert_trees_all_close(probe, {k: PARAMS[k] + 0.3 * GRADS[k] / norm for k in PARAMS}, rtol=1e-6)
    moved = np.sqrt(sum(((probe[k] - PARAMS[k]) ** 2).sum() for k in PARAMS))
    assert moved == pytest.approx(0.3, rel=1e-5)


def test_the_papers_radius_is_the_default() -> None:
    assert RHO == 0.05
    chex.assert_trees_all_equal(sam_ascend(PARAMS, GRADS), sam_ascend(PARAMS, GRADS, 0.05))


def test_is_the_parameters_themselves_without_radius_or_gradient() -> None:
    chex.assert_trees_all_equal(sam_ascend(PARAMS, GRADS, 0.0), PARAMS)
    chex.assert_trees_all_equal(sam_ascend(PARAMS, jax.tree.map(np.zeros_like, GRADS), 0.3), PARAMS)


def test_the_radius_may_be_traced_and_vectorised() -> None:
    probes = jax.jit(jax.vmap(lambda rho: sam_ascend(PARAMS, GRADS, rho)))(jnp.asarray([0.0, 0.1, 0.2]))
    for i, rho in enumerate((0.0, 0.1, 0.2)):
        chex.assert_trees_all_close(jax.tree.map(lambda leaf, i=i: leaf[i], probes), sam_ascend(PARAMS, GRADS, rho))


@pytest.mark.parametrize("rho", [-0.1, float("inf"), float("nan"), np.float32(-1)])
def test_a_radius_out_of_range_is_refused(rho: float) -> None:
    with pytest.raises(UsageError, match=r"rho .* is not 0 or a positive finite number"):
        sam_ascend(PARAMS, GRADS, rho)
