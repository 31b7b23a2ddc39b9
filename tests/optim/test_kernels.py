"""Which parameters are kernels, and the norms of what leads into their units."""

import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.optim.masks import kernel_mask, unit_norms
from fishnet.optim.optimizers import OPTIMIZERS


def test_kernels_by_rank_and_by_name() -> None:
    params = {
        "attention": {"kernel": np.ones((2, 3, 4)), "bias": np.ones((3, 4))},
        "w": np.ones((2, 2)),
        "s": np.ones(()),
    }
    assert kernel_mask(params) == {"attention": {"kernel": True, "bias": False}, "w": True, "s": False}


@pytest.mark.parametrize("leaf", [np.ones(3), np.ones((2, 2), np.int32)])
def test_a_leaf_that_no_rule_covers_is_named(leaf: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"no rule for parameter \['dense'\]\['kernel'\]"):
        OPTIMIZERS["sgd"].build(0.0, 0.1).init({"dense": {"kernel": leaf}})


@pytest.mark.parametrize("shape", [(5, 4), (3, 3, 2, 4), (3, 3, 1, 4), (1, 4), (5, 1)])
def test_the_norm_of_each_unit_is_that_of_its_incoming_weights(shape: tuple[int, ...]) -> None:
    w = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = [np.sqrt((w[..., unit].ravel() ** 2).sum()) for unit in range(shape[-1])]
    norms = unit_norms(jnp.asarray(w), kernel=True)
    assert norms.shape == (*[1] * (len(shape) - 1), shape[-1])
    np.testing.assert_allclose(norms.ravel(), expected, rtol=1e-6)


def test_what_is_no_kernel_is_one_unit() -> None:
    assert unit_norms(jnp.asarray([3.0, 4.0]), kernel=False) == pytest.approx([5.0])
