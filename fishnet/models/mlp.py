"""A multi-layer perceptron on flattened images."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Num

from fishnet.nn.activations import relu
from fishnet.nn.blocks import at, own_bias, site
from fishnet.nn.dropout import Dropout
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import BatchNorm
from fishnet.nn.pooling import max_pool
from fishnet.nn.standardize import Standardize


class MLP(nn.Module):
    """`depth` hidden layers of each of the `widths`, each with norm and activation, and a linear head.

    Dropout stands before every dense layer but the first. `conv` and `pool` are not used: models share their fields.

    Args:
        classes: number of classes k.
        widths: units of the hidden layers.
        depth: hidden layers a width.
        act: `f(x) -> y`, or one a site.
        norm: factory of norms, called as `norm(name=...)`, or one a site; a site is a hidden layer, from 0.
        conv: not used.
        pool: not used.
        kernel_init: `f(key, shape, dtype)`.
        dropout: rate, possibly traced.
        norm_position: "pre" or "post" the activation; with "pre" the norm's shift is the only bias.
        dtype: of the computation; parameters and logits are float32.
    """

    classes: int
    widths: tuple[int, ...] = (300, 100)
    depth: int = 1
    act: Callable | Sequence[Callable] = relu
    norm: Callable | Sequence[Callable] = BatchNorm
    conv: Callable = lax.conv_general_dilated
    pool: Callable = max_pool
    kernel_init: Callable = INITIALIZERS["he_normal"]
    dropout: ArrayLike = 0.0
    norm_position: str = "pre"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Num[Array, "b h w c"], train: bool) -> Float[Array, "b k"]:
        """Logits [b, classes] float32 of images [b, h, w, c], uint8 or floats in 0..255."""
        bias = own_bias(self.norm_position)
        x = Standardize(self.dtype, name="standardize")(images)
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(w for w in self.widths for _ in range(self.depth)):
            if i:
                x = Dropout(self.dropout, name=f"dropout_{i}")(x, train)
            dense = nn.Dense(width, use_bias=bias, dtype=self.dtype, kernel_init=self.kernel_init, name=f"dense_{i}")
            x = site(dense(x), at(self.norm, i)(name=f"norm_{i}"), at(self.act, i), self.norm_position, train)
        x = Dropout(self.dropout, name="dropout_head")(x, train)
        return nn.Dense(self.classes, dtype=jnp.float32, kernel_init=self.kernel_init, name="head")(x)
