"""Contrastive learning: two views of an image are pulled together, away from the views of all other images."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from fishnet.checks.traced import violates
from fishnet.errors import UsageError
from fishnet.nn.mixed_activation import activate
from fishnet.pretraining.objective import Images, LossAndScore, Objective
from fishnet.pretraining.views import random_view


class Contrastive(Objective):
    """SimCLR: the loss `nt_xent` of projections of two random views of each image (`random_view`).

        z = W_2 act(W_1 backbone(view) + b_1) + b_2

    The loss of an image is the mean of its two views', and the second result the fraction of them whose nearest other
    view is the partner. The backbone sees batches of 2 b, first one view of all images, then the other: batch norm
    takes its statistics over both, and a step costs twice one of the classifier. Fields as in `Objective`, and:

    Args:
        temperature: above 0, possibly traced.
        projection: length of z, at least 1; the hidden layer is as wide as the backbone's features.

    Raises:
        UsageError: when called: a known `temperature` that is not above 0, or a `projection` below 1,
            images that are not uint8; in training, a single image, whose loss is 0 whatever the views.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv:2002.05709.
    """

    temperature: ArrayLike = 0.5
    projection: int = 64

    @nn.compact
    def __call__(self, images: Images, train: bool) -> LossAndScore:
        """Judges images without labels, see `Objective.__call__`."""
        if self.projection < 1:
            raise UsageError(f"a projection needs a length of 1 or more, got {self.projection}")
        if images.dtype != jnp.uint8:
            raise UsageError(f"contrastive learning crops images of bytes, got {images.dtype}")
        if train and len(images) < 2:
            raise UsageError("contrastive learning needs batches of two images or more: a single one has no others")
        twice = jnp.concatenate([jnp.asarray(images)] * 2)
        x = self.pool_features(random_view(self.make_rng("objective"), twice), train)
        init = self.trunk.kernel_init
        x = nn.Dense(x.shape[-1], dtype=jnp.float32, kernel_init=init, name="projection_hidden")(x)
        x = activate(self.act, x, train, "projection_act")
        z = nn.Dense(self.projection, dtype=jnp.float32, kernel_init=init, name="projection_out")(x)
        losses, right = nt_xent(z, self.temperature), finds_partner(z).astype(jnp.float32)
        return losses.reshape(2, -1).mean(0), right.reshape(2, -1).mean(0)


def nt_xent(z: Float[Array, "n d"], temperature: ArrayLike) -> Float[Array, " n"]:
    """Cross-entropy (NT-Xent) of finding each view's partner among all other views, by their cosines.

        loss_i = -log(exp(s_ij / t) / sum over k other than i of exp(s_ik / t)),   s_ik = z_i z_k / (|z_i| |z_k|)

    Args:
        z: [2 b, d]; rows i and i + b are views of the same image.
        temperature: t, above 0, possibly traced.

    Returns:
        [2 b] float32 or better.

    Raises:
        UsageError: a known `temperature` that is not above 0, or an odd number of views.

    Source: Chen et al., arXiv:2002.05709, equation 1.
    """
    if violates(temperature, lambda temperature: (temperature > 0) & (temperature < math.inf)):
        raise UsageError(f"the temperature of a contrastive loss must be above 0, got {temperature}")
    cosines, others, partners = _cosines(z)
    logits = cosines / temperature
    return jax.nn.logsumexp(logits, axis=-1, where=others) - jnp.where(partners, logits, 0.0).sum(-1)


def finds_partner(z: Float[Array, "n d"]) -> Bool[Array, " n"]:
    """Whether the nearest other view, by cosine, is the partner; `z` and errors as for `nt_xent`."""
    cosines, others, partners = _cosines(z)
    nearest = jnp.where(others, cosines, -jnp.inf).max(-1, keepdims=True)
    return (partners & (cosines >= nearest)).any(-1)


def _cosines(z: Float[Array, "n d"]) -> tuple[Float[Array, "n n"], Bool[Array, "n n"], Bool[Array, "n n"]]:
    """Computes the cosines of all pairs of rows, the mask of pairs of different rows, and that of partners."""
    n = z.shape[0]
    if n % 2:
        raise UsageError(f"a contrastive loss needs two views of each image, got {n} views")
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    # Of a vector of length 0 all cosines are 0, with finite gradients.
    unit = z * lax.rsqrt(jnp.maximum(jnp.square(z).sum(-1, keepdims=True), 1e-12))
    cosines = jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST)
    rows, columns = jnp.arange(n)[:, None], jnp.arange(n)
    return cosines, rows != columns, (rows + n // 2) % n == columns
