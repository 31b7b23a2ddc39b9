"""Small networks for pretraining, made without compiling anything."""

import jax
import numpy as np
import pytest

SIZE, BATCH = 8, 8


@pytest.fixture(scope="session")
def images():
    """[8, 8, 8, 3] uint8: bright above, dark below, with a bright square somewhere, and noise."""
    rng = np.random.default_rng(0)
    found = np.broadcast_to(np.linspace(200, 50, SIZE)[:, None, None], (BATCH, SIZE, SIZE, 3)).copy()
    for image in found:
        row, column = rng.integers(0, SIZE - 3, 2)
        image[row : row + 3, column : column + 3] = rng.integers(0, 256, 3)
    return np.clip(found + rng.normal(0, 8, found.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def initial():
    """`f(module, images)` -> its variables: kernels of variance 2 / fan in, all else at rest, these constants."""

    def fill(path, leaf):
        if leaf.ndim > 1:
            rng = np.random.default_rng([len(path), *"/".join(key.key for key in path).encode()])
            return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    def variables(module, images):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images, False))
        constants = {"standardize": {"mean": np.float32([120, 130, 110]), "std": np.float32([60, 70, 80])}}
        return {**jax.tree_util.tree_map_with_path(fill, shapes), "constants": constants}

    return variables
