"""Small networks and images that several tests look at."""

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.losses import cross_entropy
from fishnet.models import MODELS
from fishnet.nn.activations import relu
from fishnet.nn.norms import NORMS
from fishnet.probes import Batches, Net

CLASSES = 3
MEAN, STD = 120.0, 60.0
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 1)).astype(np.uint8)
LABELS = (np.arange(24) ** 2 % 7 % CLASSES).astype(np.int32)
BATCHES = Batches.of(IMAGES, LABELS, 6)


def variables_of(model, seed=1, shape=(1, 4, 4, 1)):
    """Normal parameters, running statistics that are not those of any batch, the constants of the images."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if path[0].key == "params":
            scale = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 0.3
            return jnp.float32(scale * rng.normal(size=leaf.shape) + (path[-1].key == "scale"))
        return jnp.float32(rng.uniform(0.1, 0.4, leaf.shape) + (path[-1].key == "var"))

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape, jnp.uint8), False))
    standard = {"mean": jnp.full(shape[-1], MEAN), "std": jnp.full(shape[-1], STD)}
    return {**jax.tree_util.tree_map_with_path(fill, shapes), "constants": {"standardize": standard}}


def mlp(norm="none", act=relu, widths=(5, 4), **fields):
    return MODELS["mlp"](classes=CLASSES, widths=widths, act=act, norm=NORMS[norm], **fields)


def net_of(model, seed=1, lr=0.1, losses=cross_entropy):
    return Net(model, variables_of(model, seed), losses, jnp.float32(lr))


def standardised(images):
    """What the first layer of an mlp sees, float64 [b, pixels]."""
    return ((images.astype(np.float64) - MEAN) / STD).reshape(len(images), -1)


def wide(tree):
    """A tree in NumPy and float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
