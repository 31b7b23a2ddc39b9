"""Activations: elementwise functions `f(x) -> y` that keep shape and dtype."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def identity(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """No activation.

        y = x

    Args:
        x: pre-activations, any shape.

    Returns:
        `x` itself.
    """
    return x


def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rectified linear unit; the gradient at 0 is 0.

        y = max(x, 0)

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Nair and Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", ICML 2010.
    """
    return jax.nn.relu(x)


def leaky_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rectified linear unit with a slope of 0.01 on the left, so that no unit is ever without a gradient.

        y = x for x >= 0, 0.01 x for x < 0

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", ICML 2013.
    """
    return jax.nn.leaky_relu(x, 0.01)


def elu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Exponential linear unit with coefficient 1.

        y = x for x > 0, exp(x) - 1 for x <= 0

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Clevert, Unterthiner and Hochreiter, arXiv:1511.07289.
    """
    return jax.nn.elu(x)


def selu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Scaled exponential linear unit: with LeCun initialisation zero mean and unit variance are a fixed point.

        y = s x for x > 0, s a (exp(x) - 1) for x <= 0, s = 1.0507..., a = 1.6733...

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Klambauer et al., "Self-Normalizing Neural Networks", arXiv:1706.02515.
    """
    return jax.nn.selu(x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Gaussian error linear unit in its tanh form (within 5e-4 of the exact x Phi(x), and cheaper).

        y = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Hendrycks and Gimpel, arXiv:1606.08415, section 2.
    """
    return jax.nn.gelu(x, approximate=True)


def silu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Sigmoid linear unit, also called swish.

        y = x / (1 + exp(-x))

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Elfwing, Uchibe and Doya, arXiv:1702.03118; Ramachandran, Zoph and Le, arXiv:1710.05941.
    """
    return jax.nn.silu(x)


def tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Hyperbolic tangent.

        y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations in [-1, 1], shape and dtype of `x`.
    """
    return jnp.tanh(x)


def sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logistic function.

        y = 1 / (1 + exp(-x))

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations in [0, 1], shape and dtype of `x`.
    """
    return jax.nn.sigmoid(x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": identity,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": selu,
    "gelu": gelu,
    "silu": silu,
    "tanh": tanh,
    "sigmoid": sigmoid,
}
