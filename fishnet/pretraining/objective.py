"""Base class of the objectives: a classifier's backbone, and what an objective needs besides."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PRNGKeyArray

from fishnet.models.network import Network, pick_site
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.standardize import Standardize

Images = Num[Array | np.ndarray, "b h w c"]
LossAndScore = tuple[Float[Array, " b"], Float[Array, " b"] | None]


class Objective(nn.Module):
    """Objective: a loss without labels, called as `objective.apply(variables, images, train, rngs={"objective": key})`.

    The variables of the backbone have the names that they have in the classifier, without its head: `conv_0`, `norm_0`
    and so on, in each collection, and from the same key the same initial values. Other variables of the objective are
    stored with them. Training updates the collection `batch_stats` (pass `mutable=["batch_stats"]`); everything random
    about an objective comes from the rng stream "objective", in evaluation too, and what the backbone draws from its
    own streams "dropout" and "activation".

    Args:
        trunk: a classifier, whose head is left out; its first activation, its convolution and its initializer serve the
            rest of the objective too.
    """

    trunk: Network

    def setup(self) -> None:
        self.body = self.trunk.clone(headless=True)
        nn.share_scope(self, self.body)

    def __call__(self, images: Images, train: bool) -> LossAndScore:
        """Judges images without labels.

        Args:
            images: [b, h, w, c] uint8, or floats in 0..255.
            train: whether norms use the batch's statistics, and dropout drops.

        Returns:
            The loss of each image, [b] float32, whose mean is to be made small; and how much of its task was solved,
            [b] float32 in 0..1, or None where right and wrong mean nothing.
        """
        raise NotImplementedError

    @property
    def act(self) -> Callable | ActivationByIndex:
        """Activation of the backbone's first site."""
        return pick_site(self.trunk.act, 0)

    def pool_features(self, images: Images, train: bool) -> Float[Array, "b f"]:
        """Pools the backbone's features [b, f] float32 of images [b, h, w, c]: the global mean of its last maps."""
        x = self.body(images, train)
        return x.mean((1, 2), dtype=jnp.float32) if x.ndim == 4 else x.astype(jnp.float32)

    def standardization(self, images: Images) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Mean and standard deviation [c] of pixels by which images [b, h, w, c] are standardized."""
        if self.trunk.input_norm != "standardize":  # the trunk has no use for these constants, so they belong to us
            Standardize(name="standardize")(images)
        # Without them the backbone or `Standardize` raise; only during initialization they do not exist yet.
        c = images.shape[-1]
        found = self.get_variable("constants", "standardize", {"mean": jnp.zeros(c), "std": jnp.ones(c)})
        return found["mean"], found["std"]


def gaussian(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws independent normal values of mean 0 and variance 1.

    Args:
        key: a random key.
        shape: any.

    Returns:
        Array of `shape`, float32.
    """
    # Drawn in a row: XLA's CPU backend takes seconds to compile draws over several axes.
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)
