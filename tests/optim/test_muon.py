"""Muon's direction is nearly orthogonal, and that of a convolution is that of its matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.optim.muon import muon


# Most of the time here is compilation.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def first_direction(grads: dict) -> dict:
    rule = muon(0.9)
    return rule.update(grads, rule.init(grads), grads)[0]


@pytest.fixture(scope="module")
def grads() -> dict:
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 8), "matrix": (18, 8), "wide": (4, 16), "bias": (8,)}
    grads = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    return grads | {"matrix": grads["kernel"].reshape(18, 8)}


def test_singular_values_are_close_to_one(grads: dict) -> None:
    direction = first_direction(grads)
    for name in ("matrix", "wide"):
        rows, columns = grads[name].shape
        values = np.linalg.svd(direction[name] / (0.2 * np.sqrt(max(rows, columns))), compute_uv=False)
        assert values.min() > 0.65
        assert values.max() < 1.25


def test_singular_vectors_are_those_of_the_gradient(grads: dict) -> None:
    u, _, v = np.linalg.svd(grads["matrix"], full_matrices=False)
    turned = u.T @ first_direction(grads)["matrix"] @ v.T
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=2e-5)


def test_a_convolution_is_a_matrix_from_its_patches_to_its_outputs(grads: dict) -> None:
    direction = first_direction(grads)
    np.testing.assert_allclose(direction["kernel"].reshape(18, 8), direction["matrix"], rtol=1e-5, atol=1e-6)


def test_entries_are_as_large_as_adams(grads: dict) -> None:
    for name in ("kernel", "wide"):
        assert float(jnp.sqrt(jnp.mean(first_direction(grads)[name] ** 2))) == pytest.approx(0.2, rel=0.25)


def test_biases_go_by_adam(grads: dict) -> None:
    # One step of Adam is the sign of the gradient.
    np.testing.assert_allclose(first_direction(grads)["bias"], np.sign(grads["bias"]), rtol=1e-5)


def test_a_kernel_does_not_see_its_gradients_scale(grads: dict) -> None:
    scaled = first_direction(jax.tree.map(lambda g: 1e3 * g, grads))
    np.testing.assert_allclose(scaled["kernel"], first_direction(grads)["kernel"], rtol=1e-4, atol=1e-5)
