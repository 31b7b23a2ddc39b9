"""The convolution kernels on CPU against PyTorch: values and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.nn.cpu.convolution import cpu_kernels
from tests.oracles.there import F, channels_first, channels_last, gradients, stream_key, there

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("size", "kernel", "channels", "stride", "padding", "groups"),
    [
        ((8, 7), (3, 3), (16, 17), (1, 1), (1, 1), 1),
        ((9, 8), (3, 3), (3, 16), (2, 2), (1, 1), 1),
        ((9, 8), (5, 2), (7, 130), (1, 2), (2, 0), 1),
        ((8, 8), (1, 1), (15, 1), (2, 1), (0, 0), 1),
        ((7, 9), (3, 3), (17, 17), (1, 1), (1, 1), 17),
        ((8, 9), (7, 5), (16, 16), (2, 2), (3, 2), 16),
    ],
)
def test_convolution(size, kernel, channels, stride, padding, groups):
    x, k = stream_key(2, *size, channels[0]), stream_key(*kernel, channels[0] // groups, channels[1])
    their_x, their_k = there(x), there(k)
    weights = their_k.permute(3, 2, 0, 1)
    y = channels_last(F.conv2d(channels_first(their_x), weights, stride=stride, padding=padding, groups=groups))
    dy = stream_key(*y.shape)
    theirs = [y.detach().numpy(), *gradients(y, dy, their_x, their_k)]

    def convolve(x, k):
        pads = tuple((n, n) for n in padding)
        return cpu_kernels(x, k, stride, pads, dimension_numbers=LAYOUT, feature_group_count=groups)

    result, pull = jax.vjp(convolve, jnp.asarray(x), jnp.asarray(k))
    for a, b in zip((result, *pull(jnp.asarray(dy))), theirs, strict=True):
        # at most 150 products are added up, of Winograd 144 and their transforms
        np.testing.assert_allclose(a, b, atol=3e-6 * abs(b).max())
