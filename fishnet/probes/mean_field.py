"""Mean-field theory of a wide network at initialization: lengths of signals, growth of gradients."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.errors import UsageError

REACH, POINTS = 9.0, 36_000  # of the integral over a normal variable, in its deviations; none at 0, where corners are


class MeanField(NamedTuple):
    """Predictions of mean-field theory for each hidden layer."""

    length: np.ndarray  # [layer] float64, variance of the pre-activations
    output: np.ndarray  # [layer] float64, mean square of the activations
    chi: np.ndarray  # [layer] float64, factor of the mean square of gradients in the backward pass of the layer


def mean_field(
    activation: Callable[[jax.Array], jax.Array],
    weight_variance: float,
    depth: int,
    bias_variance: float = 0.0,
    input_square: float = 1.0,
) -> MeanField:
    """Mean-field theory of an infinitely wide fully connected network with independent normal weights.

        q_1 = s_w E x^2 + s_b,   q_(l+1) = s_w E f(sqrt(q_l) z)^2 + s_b,   z ~ N(0, 1)
        chi_l = s_w E f'(sqrt(q_l) z)^2

    Gradients vanish where chi stays below 1 and explode where it stays above; he's initialization has chi = 1 for relu,
    lecun's nearly so for tanh near 0.

    Args:
        activation: a pure function of an array, differentiable almost everywhere.
        weight_variance: s_w, fan-in times the variance of a weight: 2 for he, 1 for lecun.
        depth: hidden layers, 1 or more.
        bias_variance: s_b.
        input_square: mean square of the inputs, 1 for standardized pixels.

    Returns:
        Length, output and chi, [depth] each.

    Raises:
        UsageError: a depth below 1, or a negative variance.

    Source: Poole et al., "Exponential Expressivity in Deep Neural Networks Through Transient Chaos",
    arXiv:1606.05340; Schoenholz et al., "Deep Information Propagation", arXiv:1611.01232.
    """
    if depth < 1:
        raise UsageError(f"depth must be 1 or more, got {depth}")
    if min(weight_variance, bias_variance, input_square) < 0:
        raise UsageError("variances must not be negative")
    z = np.linspace(-REACH, REACH, POINTS)
    density = np.exp(-(z**2) / 2)
    density /= density.sum()
    slope = jax.vmap(jax.grad(lambda x: activation(x)))

    def mean_square(values: jax.Array) -> float:
        return float(density @ np.square(np.asarray(values, np.float64)))

    length, output, chi = np.zeros(depth), np.zeros(depth), np.zeros(depth)
    square = input_square
    for layer in range(depth):
        length[layer] = weight_variance * square + bias_variance
        x = jnp.asarray(np.sqrt(length[layer]) * z, jnp.float32)
        square = output[layer] = mean_square(activation(x))
        chi[layer] = weight_variance * mean_square(slope(x))
    return MeanField(length, output, chi)


def gradient_profile(theory: MeanField, input_square: float = 1.0) -> np.ndarray:
    """Root mean square of the gradient of each layer's kernel over that of the last one.

        rms dW_l / rms dW_L = sqrt(prod_(k = l)^(L - 1) chi_k  E x_(l-1)^2 / E x_(L-1)^2)

    Args:
        theory: of the network.
        input_square: as for `mean_field`.

    Returns:
        [layer] float64, 1 at the last.
    """
    squares = np.concatenate([[input_square], theory.output[:-1]])
    # What comes back to layer l has passed the slopes of layers l to L - 1 and the weights behind each of them.
    back = np.concatenate([np.cumprod(theory.chi[:-1][::-1])[::-1], [1.0]])
    return np.sqrt(back * squares / squares[-1])
