"""Generative adversarial network whose discriminator is the backbone."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fishnet.errors import UsageError
from fishnet.nn.activations import relu
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import BatchNorm
from fishnet.pretraining.decoder import Decoder
from fishnet.pretraining.objective import Images, LossAndScore, Objective, gaussian

SMALLEST = 4  # pixels a side of the generator's first maps, or a little more


class GAN(Objective):
    """GAN: the backbone learns to tell images from generated ones, and the generator to fool it.

        L   = L_D + L_G,   l = head(backbone(images)),   l' = head(backbone(G(z))),   z ~ N(0, 1)
        L_D = softplus(-l) + softplus(l'), with G held fixed;   L_G = softplus(-l'), with backbone and head held fixed

    The gradient of the one loss L is L_D's for backbone and head and L_G's for the generator, from the same G(z), so
    both players move at once in a single step. The loss of an image is that of its place in the batch, real and
    generated; its mean need not fall, for what one player wins the other loses. The second result is 1 where a real
    image is judged real. Fields as in `Objective`, and:

    Args:
        latent: length of z, at least 1.

    Batch norm sees real and generated images in batches of their own. The backbone's running statistics follow the real
    ones only, since those are what its classifier will see: in evaluation generated images are judged by them too.

    Raises:
        UsageError: when called: `latent` is below 1.

    Source: Radford, Metz and Chintala, arXiv:1511.06434 (DCGAN); the non-saturating loss: Goodfellow et al.,
    arXiv:1406.2661. In the paper the players move in turn, and the discriminator is a `cnn` with strides, leaky relu
    and batch norm.
    """

    latent: int = 32

    def setup(self) -> None:
        super().setup()
        init = self.trunk.kernel_init
        self.discriminator_head = nn.Dense(1, dtype=jnp.float32, kernel_init=init)

    @nn.compact
    def __call__(self, images: Images, train: bool) -> LossAndScore:
        """Judges images without labels, see `Objective.__call__`."""
        if self.latent < 1:
            raise UsageError(f"a generator needs a latent vector of length 1 or more, got {self.latent}")
        trunk, z = self.trunk, gaussian(self.make_rng("objective"), (images.shape[0], self.latent))
        _, h, w, c = images.shape
        fake = Generator((h, w, c), trunk.widths, trunk.conv, trunk.dtype, name="generator")(z, train)
        real_logits = self.discriminate(images, train)
        # A pure function of parameters and images: the two calls below differ in what they hold fixed and in nothing
        # else, dropout included, so that XLA computes their common values once. What batch norm would keep is dropped.
        unbound, variables = self.unbind()
        streams = [name for name in ("dropout", "activation") if self.has_rng(name) or self.has_rng("params")]
        rngs = {name: self.make_rng(name) for name in streams}
        apply = partial(unbound.apply, train=train, method="discriminate", rngs=rngs, mutable=["batch_stats"])
        params, fixed = variables["params"], lax.stop_gradient(variables["params"])
        to_discriminator, _ = apply({**variables, "params": params}, lax.stop_gradient(fake))
        to_generator, _ = apply({**variables, "params": fixed}, fake)
        losses = jax.nn.softplus(-real_logits) + jax.nn.softplus(to_discriminator) + jax.nn.softplus(-to_generator)
        return losses, (real_logits > 0).astype(jnp.float32)

    def discriminate(self, images: Images, train: bool) -> Float[Array, " b"]:
        """Discriminates images [b, h, w, c]: logits [b] of being real."""
        return self.discriminator_head(self.pool_features(images, train))[:, 0]


class Generator(nn.Module):
    """Generator of images from noise, called as `generator(z, train)`.

        x = relu(norm(W z)), as maps;   image = 127.5 (1 + tanh(decoder(x)))

    The first maps have the sides of the image halved until less than twice `SMALLEST`, and the last of the widths;
    the decoder has batch norm and relu in all stages but the last. In training all norms use the batch's statistics.

    Args:
        image_shape: (h, w, c) of the images.
        widths: of the discriminator's stages, mirrored here.
        conv: convolution lowering, called as `jax.lax.conv_general_dilated`.
        dtype: of the computation.

    Source: Radford, Metz and Chintala, arXiv:1511.06434, with upsampling in place of transposed convolutions, and He's
    initialization.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    conv: Callable
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "b l"], train: bool) -> Float[Array, "b h w c"]:
        """Generates images [b, h, w, c] float32 in 0..255 from noise [b, l]."""
        h, w, _ = self.image_shape
        while min(h, w) >= 2 * SMALLEST:
            h, w = h // 2, w // 2
        init, width = INITIALIZERS["he_normal"], self.widths[-1]
        x = nn.Dense(h * w * width, use_bias=False, dtype=self.dtype, kernel_init=init, name="dense")(z)
        x = relu(BatchNorm(name="norm")(x.reshape(-1, h, w, width), train))
        decoder = Decoder(
            self.image_shape, self.widths, relu, self.conv, init, norm=BatchNorm, dtype=self.dtype, name="decoder"
        )
        return 127.5 * (1 + jnp.tanh(decoder(x, train).astype(jnp.float32)))
