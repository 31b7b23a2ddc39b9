"""The self-normalising network: a fixed point of its layers, and what eight of them make of the input."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, stats

from fishnet.models import MLP
from fishnet.nn.activations import relu, selu
from fishnet.nn.dropout import DROPOUTS
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import NoNorm

LAYERS, WIDTH = 8, 256
IMAGES = np.random.default_rng(0).normal(0.2, 1.3, (WIDTH, 8, 8, 4)).astype(np.float32)


def gaussian_mean(f):
    """E f(z), z ~ N(0, 1), by quadrature to the left and to the right of selu's corner."""
    parts = (integrate.quad(lambda z: f(z) * stats.norm.pdf(z), *ends)[0] for ends in ((-12, 0), (0, 12)))
    return sum(parts)


def by_hand(z):
    scale, alpha = 1.0507009873554805, 1.6732632423543772  # Klambauer et al., equation 14
    return scale * (z if z > 0 else alpha * np.expm1(z))


def test_mean_0_and_variance_1_are_a_fixed_point():
    assert abs(gaussian_mean(by_hand)) < 1e-9
    assert abs(gaussian_mean(lambda z: by_hand(z) ** 2) - 1) < 1e-9
    z = np.linspace(-5, 5, 41).astype(np.float32)
    np.testing.assert_allclose(selu(jnp.asarray(z)), [by_hand(value) for value in z], rtol=1e-5, atol=1e-6)


def moments_of_last_layer(**fields):
    model = MLP(classes=5, widths=(WIDTH,), depth=LAYERS, norm=NoNorm, dropout=0.1, headless=True, **fields)
    variables = model.init(jax.random.key(0), IMAGES, False)
    features = np.asarray(model.apply(variables, IMAGES, True, rngs={"dropout": jax.random.key(1)}))
    return features.mean(), features.var()


def test_eight_layers_keep_mean_and_variance():
    kind = DROPOUTS.index("alpha")
    mean, variance = moments_of_last_layer(act=selu, kernel_init=INITIALIZERS["lecun_normal"], dropout_kind=kind)
    assert abs(mean) < 0.05 and abs(variance - 1) < 0.15


def test_relu_with_its_own_initialiser_and_dropout_does_not():
    mean, _ = moments_of_last_layer(act=relu, kernel_init=INITIALIZERS["he_normal"])
    assert mean > 0.3


def test_nor_does_selu_with_what_goes_with_relu():
    mean, variance = moments_of_last_layer(act=selu, kernel_init=INITIALIZERS["he_normal"])
    assert abs(mean) > 0.05 or abs(variance - 1) > 0.15
