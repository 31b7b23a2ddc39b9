"""Rotation prediction: the number of right angles by which an image was turned."""

import flax.linen as nn
import jax.numpy as jnp

from fishnet.errors import UsageError
from fishnet.losses import cross_entropy
from fishnet.pretraining.objective import Images, LossAndScore, Objective


class Rotation(Objective):
    """Rotation prediction: a head of four classes tells images turned by 0, 90, 180 and 270 degrees apart.

        loss = mean over k in 0..3 of -log softmax(head(backbone(x turned k times)))[k]

    The second result is the fraction of the four that are recognized. The backbone sees batches of 4 b, the four turns
    of an image side by side: a step costs four times one of the classifier. Nothing is random. Fields as in
    `Objective`.

    Raises:
        UsageError: when called: the images are not square.

    Source: Gidaris, Singh and Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations",
    arXiv:1803.07728.
    """

    @nn.compact
    def __call__(self, images: Images, train: bool) -> LossAndScore:
        """Judges images without labels, see `Objective.__call__`."""
        b, h, w, _ = images.shape
        if h != w:
            raise UsageError(f"rotation prediction needs square images, got {h} x {w} pixels")
        turned = jnp.stack([jnp.rot90(images, k, (1, 2)) for k in range(4)], 1).reshape(4 * b, *images.shape[1:])
        head = nn.Dense(4, dtype=jnp.float32, kernel_init=self.trunk.kernel_init, name="rotation_head")
        logits, turns = head(self.pool_features(turned, train)), jnp.tile(jnp.arange(4), b)
        right = (logits.argmax(-1) == turns).astype(jnp.float32)
        return cross_entropy(logits, turns).reshape(b, 4).mean(1), right.reshape(b, 4).mean(1)
