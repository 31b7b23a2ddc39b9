"""Two-layer network from scratch: 784-10-10 with ReLU and softmax, every gradient written as an equation.

Nothing here differentiates: `backward` is the chain rule written out, layer by layer, to be read beside a textbook and
compared with autodiff. Functions are pure and take their sizes from the parameters, so that any f-h-k network works,
and many at once under `jax.vmap`. Examples are rows: X is [m, f], weights are [in, out].
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fishnet.checks.traced import violates
from fishnet.errors import UsageError

SIZES = (784, 10, 10)

# Accelerators would round the factors to fewer digits by default.
_product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


class Parameters(NamedTuple):
    """Parameters of the network; gradients have the same form."""

    w1: Array  # [f, h]
    b1: Array  # [h]
    w2: Array  # [h, k]
    b2: Array  # [k]


class Layers(NamedTuple):
    """Outputs of the layers for m examples, which the backward pass needs."""

    z1: Array  # [m, h]
    a1: Array  # [m, h]
    z2: Array  # [m, k], the logits
    p: Array  # [m, k], the probabilities


def initial(key: PRNGKeyArray, sizes: tuple[int, int, int] = SIZES) -> Parameters:
    """Initial parameters: He's normal distribution for the weights, zeros for the biases.

        W ~ N(0, 2 / fan in),   b = 0

    Args:
        key: a random key.
        sizes: features f, hidden units h, classes k.

    Returns:
        Parameters, float32.

    Raises:
        UsageError: a size below 1, or fewer than 2 classes.

    Source: He et al., arXiv:1502.01852.
    """
    f, h, k = sizes
    if min(sizes) < 1 or k < 2:
        raise UsageError(f"sizes must be features, hidden units (1 or more) and classes (2 or more), got {sizes}")
    first, second = jax.random.split(key)
    w1 = jnp.sqrt(2 / f) * jax.random.normal(first, (f, h), jnp.float32)
    w2 = jnp.sqrt(2 / h) * jax.random.normal(second, (h, k), jnp.float32)
    return Parameters(w1, jnp.zeros(h), w2, jnp.zeros(k))


def forward(params: Parameters, x: Float[Array | np.ndarray, "m f"]) -> Layers:
    """Forward pass.

        Z1 = X W1 + b1,   A1 = max(Z1, 0),   Z2 = A1 W2 + b2,   P = softmax(Z2)

    Args:
        params: of the network.
        x: examples X [m, f].

    Returns:
        All four, [m, h] and [m, k].
    """
    z1 = _product(x, params.w1) + params.b1
    a1 = jnp.maximum(z1, 0)
    z2 = _product(a1, params.w2) + params.b2
    return Layers(z1, a1, z2, softmax(z2))


def softmax(z: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """Probabilities of logits: `P_ij = exp(Z_ij - c_i) / sum_j exp(Z_ij - c_i)`, `c_i = max_j Z_ij`.

    The exponents are 0 or less and one of them is 0, so that nothing overflows and the sum is never 0.

    Args:
        z: logits [m, k], finite.

    Returns:
        [m, k]; rows sum to 1.
    """
    e = jnp.exp(_below_maximum(z))
    return e / e.sum(-1, keepdims=True)


def loss(z: Float[Array, "m k"], labels: Int[Array | np.ndarray, " m"]) -> Float[Array, ""]:
    """Mean cross-entropy in nats, from the logits by log-sum-exp.

        L = -(1/m) sum_ij Y_ij log P_ij,   log P_ij = Z_ij - c_i - log sum_j exp(Z_ij - c_i),   c_i = max_j Z_ij

    A probability that is too small for a floating-point number still has its logarithm.

    Args:
        z: logits [m, k], finite.
        labels: [m] integers in [0, k); a label outside gives NaN.

    Returns:
        A scalar, finite.
    """
    below = _below_maximum(z)
    log_p = below - jnp.log(jnp.exp(below).sum(-1, keepdims=True))
    # Divided before the sum, which might overflow.
    return -jnp.sum(one_hot(labels, z) * log_p / z.shape[0])


def backward(
    params: Parameters, x: Float[Array | np.ndarray, "m f"], labels: Int[Array | np.ndarray, " m"], layers: Layers
) -> Parameters:
    """Backward pass: gradient of the mean cross-entropy by every parameter, from the last layer to the first.

        dZ2 = (P - Y) / m
        dW2 = A1^T dZ2,   db2 = sum_i dZ2_i
        dA1 = dZ2 W2^T
        dZ1 = dA1 where Z1 > 0, else 0
        dW1 = X^T dZ1,    db1 = sum_i dZ1_i

    dX stands for the derivative of the loss L with respect to X. Exponentials and logarithms have cancelled: where P is
    finite so is the gradient.

    Args:
        params: of the network.
        x: examples X [m, f].
        labels: [m] integers in [0, k); a label outside gives NaN.
        layers: as from `forward` of the same parameters and examples.

    Returns:
        Gradients, of the form of the parameters.

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 1986.
    """
    dz2 = (layers.p - one_hot(labels, layers.p)) / x.shape[0]
    da1 = _product(dz2, params.w2.T)
    dz1 = jnp.where(layers.z1 > 0, da1, 0)
    return Parameters(
        w1=_product(x.T, dz1),
        b1=dz1.sum(0),
        w2=_product(layers.a1.T, dz2),
        b2=dz2.sum(0),
    )


def update(params: Parameters, gradients: Parameters, lr: ArrayLike) -> Parameters:
    """Gradient descent: `theta - lr dL/dtheta`.

    Args:
        params: theta.
        gradients: of the same form.
        lr: learning rate a step, 0 or more, possibly traced.

    Returns:
        The new parameters.

    Raises:
        UsageError: a known `lr` that is negative or not finite.
    """
    if violates(lr, lambda lr: (lr >= 0) & (lr < np.inf)):
        raise UsageError(f"learning rate must be 0 or more, got {lr}")
    return jax.tree.map(lambda p, g: p - jnp.asarray(lr, p.dtype) * g, params, gradients)


def train(
    params: Parameters,
    x: Float[Array | np.ndarray, "n f"],
    labels: Int[Array | np.ndarray, " n"],
    rows: Int[Array | np.ndarray, "steps m"],
    lr: ArrayLike,
) -> tuple[Parameters, Float[Array, " steps"]]:
    """Stochastic gradient descent: forward, backward and update at each step.

    Args:
        params: to begin with.
        x: all examples [n, f].
        labels: [n] integers in [0, k).
        rows: the examples of each step's batch [steps, m], such as those of a permutation of n; a row that does not
            exist gives NaN.
        lr: learning rate a step, 0 or more, possibly traced.

    Returns:
        The parameters after the last step, and the loss [steps] of each batch before its update.

    Raises:
        UsageError: as `update`.
    """
    x, labels = jnp.asarray(x), jnp.asarray(labels)

    def step(params: Parameters, batch: Array) -> tuple[Parameters, Array]:
        inputs, targets = jnp.take(x, batch, axis=0), jnp.take(labels, batch)
        layers = forward(params, inputs)
        return update(params, backward(params, inputs, targets, layers), lr), loss(layers.z2, targets)

    return lax.scan(step, params, jnp.asarray(rows))


def one_hot(labels: Int[Array | np.ndarray, " m"], like: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """One-hot labels Y [m, k], in the dtype of `like`; NaN for a label outside [0, k)."""
    k, labels = like.shape[-1], jnp.asarray(labels)[:, None]
    known = (labels >= 0) & (labels < k)
    return jnp.where(known, jnp.arange(k) == labels, jnp.nan).astype(like.dtype)


def _below_maximum(z: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """Subtracts the largest logit of each row: 0 or less, finite where the logits are."""
    return jnp.maximum(z - z.max(-1, keepdims=True), jnp.finfo(z.dtype).min)
