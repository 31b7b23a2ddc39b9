"""Decoders: sizes, upsampling, layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.nn.activations import relu
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import BatchNorm
from fishnet.pretraining.decoder import Decoder, stage_sizes, upsample


@pytest.mark.parametrize(
    ("image", "maps", "sizes"),
    [
        ((32, 32), (4, 4), ((8, 8), (16, 16), (32, 32))),
        ((28, 28), (3, 3), ((7, 7), (14, 14), (28, 28))),  # halves rounded down, as by pooling
        ((28, 28), (4, 4), ((7, 7), (14, 14), (28, 28))),  # and up, as by strides
        ((9, 9), (2, 2), ((4, 4), (9, 9))),
        ((8, 2), (2, 1), ((4, 1), (8, 2))),
        ((8, 8), (8, 8), ((8, 8),)),
    ],
)
def test_stage_sizes(image, maps, sizes):
    assert stage_sizes(image, maps) == sizes


@pytest.mark.parametrize(("before", "after"), [(3, 6), (3, 7), (4, 7), (3, 3), (1, 3), (2, 5)])
def test_upsampling_repeats_pixels(before, after):
    x = np.arange(2 * before * before, dtype=np.float32).reshape(1, before, before, 2)
    factor = 1 if before == after else 3 if before == 1 else 2
    rows = np.minimum(np.arange(after) // factor, before - 1)
    found = jax.jit(upsample, static_argnums=1)(x, (after, after))
    np.testing.assert_array_equal(found, x[:, rows][:, :, rows])


def test_layers():
    """A stage a doubling, widths in reverse, a bias only where no norm brings one; dense layers for features."""

    def kernels(shape, norm=None):
        decoder = Decoder(
            (28, 28, 1), (16, 32, 64), relu, jax.lax.conv_general_dilated, INITIALIZERS["he_normal"], norm
        )
        x = jnp.zeros(shape)
        y, variables = jax.eval_shape(lambda: decoder.init_with_output(jax.random.key(0), x, False))
        assert y.shape == (shape[0], 28, 28, 1)
        return {name: {key: leaf.shape for key, leaf in tree.items()} for name, tree in variables["params"].items()}

    expected = {
        "layer_0": {"kernel": (3, 3, 64, 32), "bias": (32,)},
        "layer_1": {"kernel": (3, 3, 32, 16), "bias": (16,)},
        "layer_2": {"kernel": (3, 3, 16, 1), "bias": (1,)},
    }
    assert kernels((2, 3, 3, 64)) == expected
    normed = kernels((2, 3, 3, 64), BatchNorm)
    assert normed["layer_0"] == {"kernel": (3, 3, 64, 32)} and normed["layer_2"] == expected["layer_2"]
    assert normed["norm_1"] == {"scale": (16,), "bias": (16,)} and "norm_2" not in normed
    assert {name: tree["kernel"] for name, tree in kernels((2, 64)).items()} == {
        "layer_0": (64, 32),
        "layer_1": (32, 16),
        "layer_2": (16, 784),
    }
