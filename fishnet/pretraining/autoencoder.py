"""Autoencoders: backbone and decoder reproduce the image."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fishnet.checks.traced import violates
from fishnet.errors import UsageError
from fishnet.pretraining.decoder import Decoder
from fishnet.pretraining.objective import Images, LossAndScore, Objective, gaussian


class Autoencoder(Objective):
    """Autoencoder: a decoder reproduces the standardized image from the backbone's last maps or features.

        loss = mean over pixels and channels of (decoder(backbone(x)) - (x - mean) / std)^2

    The decoder mirrors the backbone, with the activation of its first site, its convolution and its initializer,
    and without norms. There is no score: the second result is None. Fields as in `Objective`.

    Source: Rumelhart, Hinton and Williams, "Learning Internal Representations by Error Propagation", 1986;
    convolutional: Masci et al., "Stacked Convolutional Auto-Encoders", ICANN 2011.
    """

    @nn.compact
    def __call__(self, images: Images, train: bool) -> LossAndScore:
        """Judges images without labels, see `Objective.__call__`."""
        trunk = self.trunk
        mean, std = self.standardization(images)
        target = (jnp.asarray(images, jnp.float32) - mean) / std
        features = self.body(self.encoder_input(images, std), train)
        _, h, w, c = images.shape
        decoder = Decoder(
            (h, w, c), trunk.widths, self.act, trunk.conv, trunk.kernel_init, dtype=trunk.dtype, name="decoder"
        )
        error = decoder(features, train).astype(jnp.float32) - target
        return jnp.square(error).mean((1, 2, 3)), None

    def encoder_input(self, images: Images, std: Float[Array, " c"]) -> Images:
        """Images that the backbone sees."""
        return images


class Denoising(Autoencoder):
    """Denoising autoencoder: reproduces the image from a copy with Gaussian noise.

        loss = mean over pixels and channels of (decoder(backbone(x + noise std e)) - (x - mean) / std)^2,   e ~ N(0, 1)

    Fields as in `Objective`, and:

    Args:
        noise: standard deviation of the noise in units of the standardized image's, 0 or more, possibly traced. At 0
            this is `Autoencoder`.

    Raises:
        UsageError: when called: a known `noise` below 0 or not finite.

    Source: Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders", ICML 2008, and
    "Stacked Denoising Autoencoders", JMLR 2010.
    """

    noise: ArrayLike = 0.5

    def encoder_input(self, images: Images, std: Float[Array, " c"]) -> Images:
        """Adds noise to the images, neither rounded nor clipped to 0..255."""
        if violates(self.noise, lambda noise: (noise >= 0) & (noise < float("inf"))):
            raise UsageError(f"noise of a denoising autoencoder must be 0 or more, got {self.noise}")
        e = gaussian(self.make_rng("objective"), images.shape)
        return jnp.asarray(images, jnp.float32) + self.noise * std * e
