"""Mean-field theory against closed forms, and against wide networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.probes.mean_field import gradient_profile, mean_field


def test_relu_at_hes_variance_keeps_length_and_gradient():
    """E relu(z)^2 = 1/2 and E [z > 0] = 1/2."""
    found = mean_field(jax.nn.relu, 2.0, 12)
    np.testing.assert_allclose(found.length, 2.0, rtol=1e-4)
    np.testing.assert_allclose(found.output, 1.0, rtol=1e-4)
    np.testing.assert_allclose(found.chi, 1.0, rtol=1e-4)
    np.testing.assert_allclose(gradient_profile(found), 1.0, rtol=1e-3)


@pytest.mark.parametrize(("variance", "chi"), [(1.0, 0.5), (8.0, 4.0)])
def test_relu_elsewhere_grows_or_shrinks_by_half_the_variance(variance, chi):
    found = mean_field(jax.nn.relu, variance, 5)
    np.testing.assert_allclose(found.length, variance * (variance / 2) ** np.arange(5), rtol=1e-4)
    np.testing.assert_allclose(found.chi, chi, rtol=1e-4)
    # Gradients grow by chi and signals by as much the other way: kernels of all layers have gradients of one length.
    np.testing.assert_allclose(gradient_profile(found), 1.0, rtol=1e-3)


def test_a_linear_network_is_known_exactly():
    found = mean_field(lambda x: x, 1.5, 4, bias_variance=0.25, input_square=2.0)
    expected = [1.5 * 2 + 0.25]
    for _ in range(3):
        expected.append(1.5 * expected[-1] + 0.25)
    np.testing.assert_allclose(found.length, expected, rtol=1e-5)
    np.testing.assert_allclose(found.chi, 1.5, rtol=1e-6)


def test_selu_holds_its_fixed_point():
    """Klambauer et al.: variance 1 stays 1 at lecun's initialisation."""
    found = mean_field(jax.nn.selu, 1.0, 30)
    np.testing.assert_allclose(found.length, 1.0, atol=2e-4)


def test_sigmoids_gradients_vanish():
    """f' <= 1/4, so chi <= s_w / 16."""
    found = mean_field(jax.nn.sigmoid, 1.0, 10)
    assert (found.chi <= 1 / 16).all()
    assert gradient_profile(found)[0] < 1e-5


@pytest.mark.parametrize(("activation", "variance"), [(jnp.tanh, 1.0), (jax.nn.relu, 2.0), (jax.nn.sigmoid, 4.0)])
@pytest.mark.slow
def test_a_wide_network_does_what_theory_says(activation, variance):
    """Lengths of signals and gradients of random networks of width 1,000, for one input, the mean of four."""
    width, depth = 1000, 5
    theory = mean_field(activation, variance, depth)

    def network(kernels, x):
        lengths = []
        for kernel in kernels:
            x = x @ kernel
            lengths.append(jnp.mean(x**2))
            x = activation(x)
        return x, jnp.stack(lengths)

    lengths, gradients = [], []
    for seed in range(4):
        keys = jax.random.split(jax.random.key(seed), depth + 2)
        x, back = jax.random.normal(keys[-2], (width,)), jax.random.normal(keys[-1], (width,))
        kernels = [jax.random.normal(key, (width, width)) * (variance / width) ** 0.5 for key in keys[:depth]]
        lengths.append(network(kernels, x)[1])
        grads = jax.grad(lambda kernels, x=x, back=back: network(kernels, x)[0] @ back)(kernels)
        norms = np.array([np.linalg.norm(grad) for grad in grads])
        gradients.append(norms / norms[-1])
    np.testing.assert_allclose(np.mean(lengths, 0), theory.length, rtol=0.1)
    np.testing.assert_allclose(np.mean(gradients, 0), gradient_profile(theory), rtol=0.15)


@pytest.mark.parametrize("arguments", [(-1.0, 3), (1.0, 0)])
def test_nonsense_is_refused(arguments):
    with pytest.raises(UsageError):
        mean_field(jnp.tanh, *arguments)
