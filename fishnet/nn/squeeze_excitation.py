"""Squeeze-and-excitation: channels weighted by a small network of their global means."""

from collections.abc import Callable
from math import prod

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array, Float

from fishnet.errors import UsageError
from fishnet.nn.activations import relu
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.mixed_activation import ActivationByIndex, activate

FEWEST = 8  # hidden units; fewer leave narrow networks too little capacity


class SqueezeExcitation(nn.Module):
    """Gates the channels of maps, the same for all pixels of an example.

        z = mean over pixels of x,   g = sigmoid(W2 act(W1 z + b1) + b2),   y[b, h, w, c] = x[b, h, w, c] g[b, c]

    Two dense layers, `reduce` to max(8, channels // reduction) units and `expand` back to c, their parameters in
    float32. With b2 = 0 and small W2 all gates begin near 1/2.

    Args:
        reduction: factor by which the hidden layer is narrower than the channels, 1 or more.
        act: activation between the layers: `f(x) -> y`, a `Parametric` or an `ActivationByIndex`.
        kernel_init: `f(key, shape, dtype) -> kernel` of both layers.
        channels: what `reduction` divides; None for the channels c of the maps.

    Raises:
        UsageError: when called: `reduction` is below 1.

    Example:
        >>> import jax
        >>> layer, x = SqueezeExcitation(reduction=4), jnp.ones((2, 8, 8, 32))
        >>> y, variables = layer.init_with_output(jax.random.key(0), x, train=False)
        >>> y.shape, variables["params"]["reduce"]["kernel"].shape
        ((2, 8, 8, 32), (32, 8))

    Source: Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507.
    """

    reduction: int = 4
    act: Callable | ActivationByIndex = relu
    kernel_init: Callable = INITIALIZERS["he_normal"]
    channels: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"], train: bool) -> Float[Array, "b *s c"]:
        """Gates `x` [b, h, w, c]; shape and dtype stay."""
        if self.reduction < 1:
            raise UsageError(f"reduction of squeeze-and-excitation must be 1 or more, got {self.reduction}")
        c = x.shape[-1]
        # One axis of pixels: XLA's CPU backend vectorizes sums over one axis, here and in the gradient of the product.
        rows = x.reshape(x.shape[0], prod(x.shape[1:-1]), c)
        z = rows.mean(1, dtype=jnp.promote_types(x.dtype, jnp.float32)).astype(x.dtype)
        units = max(FEWEST, (c if self.channels is None else self.channels) // self.reduction)
        hidden = nn.Dense(units, dtype=x.dtype, kernel_init=self.kernel_init, name="reduce")
        gate = nn.Dense(c, dtype=x.dtype, kernel_init=self.kernel_init, name="expand")
        g = sigmoid(gate(activate(self.act, hidden(z), train, "act")))
        return (rows * g[:, None]).reshape(x.shape)
