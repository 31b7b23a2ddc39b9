"""Activations: elementwise functions `f(x) -> y` that keep shape and dtype; parametric ones see `parametric.py`.

Example:
    >>> import jax.numpy as jnp
    >>> from fishnet.nn.activations import ACTIVATIONS
    >>> print(ACTIVATIONS["relu"](jnp.array([-1.0, 0.0, 2.0])))
    [0. 0. 2.]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishnet.lookup import Table
from fishnet.nn.parametric import elu, leaky_relu, prelu, rrelu


def identity(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Identity: no activation.

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


def selu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Scaled exponential linear unit: with LeCun initialization zero mean and unit variance are a fixed point.

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

    Example:
        >>> import numpy as np
        >>> print(np.asarray(gelu(jnp.array([-1.0, 0.0, 1.0]))).round(3))
        [-0.159  0.     0.841]

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

    Source: LeCun et al., "Efficient BackProp", 1998, section 4.4.
    """
    return jnp.tanh(x)


def sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logistic function.

        y = 1 / (1 + exp(-x))

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations in [0, 1], shape and dtype of `x`.

    Source: Rumelhart, Hinton and Williams, "Learning Representations by Back-Propagating Errors", Nature 1986.
    """
    return jax.nn.sigmoid(x)


def softplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Smooth rectifier, without overflow at any x.

        y = log(1 + exp(x))

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Dugas et al., "Incorporating Second-Order Functional Knowledge for Better Option Pricing", NIPS 2000.
    """
    return jax.nn.softplus(x)


def hard_swish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Swish with a piecewise linear sigmoid.

        y = x min(max(x + 3, 0), 6) / 6

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Howard et al., "Searching for MobileNetV3", arXiv:1905.02244.
    """
    return jax.nn.hard_swish(x)


def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Self-gated smooth activation.

        y = x tanh(log(1 + exp(x)))

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Misra, arXiv:1908.08681.
    """
    return jax.nn.mish(x)


def relu6(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rectified linear unit cut off at 6; the gradient at 0 and at 6 is 0.

        y = min(max(x, 0), 6)

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations in [0, 6], shape and dtype of `x`.

    Source: Krizhevsky, "Convolutional Deep Belief Networks on CIFAR-10", 2010.
    """
    return jax.nn.relu6(x)


def exponential(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Exponential function; infinite in float32 from x = 88.7 on.

        y = exp(x)

    Args:
        x: pre-activations, any shape.

    Returns:
        Positive activations, shape and dtype of `x`.
    """
    return jnp.exp(x)


def squareplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Smooth rectifier without exponential function; 1 at x = 0.

        y = (x + sqrt(x^2 + 4)) / 2

    Args:
        x: pre-activations, any shape.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Barron, "Squareplus: A Softplus-Like Algebraic Rectifier", arXiv:2112.11687.
    """
    return jax.nn.squareplus(x)


ACTIVATIONS: Table[Callable[[Array], Array]] = Table(
    {
        "identity": identity,
        "relu": relu,
        "leaky_relu": leaky_relu,
        "elu": elu,
        "selu": selu,
        "gelu": gelu,
        "silu": silu,
        "tanh": tanh,
        "sigmoid": sigmoid,
        "softplus": softplus,
        "hard_swish": hard_swish,
        "mish": mish,
        "relu6": relu6,
        "exponential": exponential,
        "squareplus": squareplus,
        "prelu": prelu,
        "rrelu": rrelu,
    }
)
