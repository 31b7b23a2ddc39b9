"""Network written by hand in NumPy: 784-10-10 with ReLU and softmax, every gradient written as an equation.

Nothing here differentiates: `backward` is the chain rule written out, to be read beside a textbook and compared with
autodiff. Common implementation errors can be switched on one at a time (`NetVariant`), and `check_gradient` looks for
them. Examples are rows: X is [m, f], weights are [in, out].
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

HIDDEN = 10
CHECKED = 32  # images, and at most so many entries of each array, of a gradient check
STEP = 1e-6  # of its finite differences, in float64


@dataclass(frozen=True)
class NetVariant:
    """Variant of the network, with or without errors; the defaults are right."""

    divisor: float = 255.0  # of the pixels; 1: raw bytes
    mean: bool = True  # the gradient is that of the mean over the images; False: of their sum
    shift: bool = True  # the largest logit is subtracted in the softmax
    softmax_axis: int = 1  # over which it is normalized; 0: over the images
    bias_axis: int | None = 0  # over which the gradient of the biases is summed; None: over both
    relu_gradient: bool = True  # the gradient passes active units only
    sign: float = -1.0  # of the step
    precision: str = "float32"  # float64; or half: every array is rounded to float16, sums within a product are not
    weights: str = "he"  # initial: he (normal), or uniform (between -.5 and .5)
    lr: float = 0.1
    epochs: int = 200
    patience: int = 0  # epochs without a lower validation loss after which training stops; 0: never
    task: str = "mnist-mini"


def round_to_precision(how: NetVariant, array: np.ndarray) -> np.ndarray:
    """Rounds an array to the network's precision; half precision is stored as float32, in which NumPy is fast."""
    if how.precision == "half":
        return array.astype(np.float16).astype(np.float32)
    return array.astype(how.precision)


def init_params(how: NetVariant, features: int, classes: int, seed: int) -> dict[str, np.ndarray]:
    """Draws initial parameters: He's normal distribution for the weights, zeros for the biases.

        W ~ N(0, 2 / fan in),   b = 0

    Args:
        how: the variant; its `weights` may ask for a uniform distribution in place of He's.
        features: f.
        classes: k.
        seed: of the weights.

    Returns:
        `w1 [f, h], b1 [h], w2 [h, k], b2 [k]`, with h hidden units.

    Source: He et al., arXiv:1502.01852.
    """
    rng = np.random.default_rng(seed)

    def weights(fan_in: int, fan_out: int) -> np.ndarray:
        if how.weights == "uniform":
            return rng.random((fan_in, fan_out)) - 0.5
        return rng.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_in)

    params = {"w1": weights(features, HIDDEN), "b1": np.zeros(HIDDEN)}
    params |= {"w2": weights(HIDDEN, classes), "b2": np.zeros(classes)}
    return {name: round_to_precision(how, value) for name, value in params.items()}


def forward(how: NetVariant, params: Mapping[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """Forward pass.

        Z1 = X W1 + b1,   A1 = max(Z1, 0),   Z2 = A1 W2 + b2,   P = E / sum_j E_ij,   E_ij = exp(Z2_ij - max_j Z2_ij)

    The exponents are 0 or less and one of them is 0, so that nothing overflows and the sum is never 0.

    Args:
        how: the variant.
        params: of `init_params`.
        x: examples X [m, f].

    Returns:
        Every array in order: `z1 a1 z2 exponentials p`, [m, h] and [m, k].
    """
    z1 = round_to_precision(how, x @ params["w1"] + params["b1"])
    a1 = np.maximum(z1, 0)
    z2 = round_to_precision(how, a1 @ params["w2"] + params["b2"])
    e = round_to_precision(how, np.exp(z2 - z2.max(1, keepdims=True) if how.shift else z2))
    p = round_to_precision(how, e / round_to_precision(how, e.sum(how.softmax_axis, keepdims=True)))
    return {"z1": z1, "a1": a1, "z2": z2, "exponentials": e, "p": p}


def cross_entropy(p: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats as a first version computes it: infinite where a probability is 0.

        L = -(1/m) sum_i log P_i,y_i

    Args:
        p: probabilities P [m, k].
        labels: y [m] int, in [0, k).
    """
    return float(-np.log(p[np.arange(len(labels)), labels].astype(np.float64)).mean())


def backward(
    how: NetVariant,
    params: Mapping[str, np.ndarray],
    x: np.ndarray,
    labels: np.ndarray,
    layers: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Backward pass: gradient of the mean cross-entropy by every parameter, from the last layer to the first.

        dZ2 = (P - Y) / m
        dW2 = A1^T dZ2,   db2 = sum_i dZ2_i
        dA1 = dZ2 W2^T
        dZ1 = dA1 where Z1 > 0, else 0
        dW1 = X^T dZ1,    db1 = sum_i dZ1_i

    dX stands for the derivative of the loss L with respect to X. Exponentials and logarithms have cancelled: where P is
    finite so is the gradient. The errors of the variant are made as they are asked for.

    Args:
        how: the variant.
        params: of the network.
        x: examples X [m, f].
        labels: [m] int, in [0, k).
        layers: of `forward` for the same parameters and examples.

    Returns:
        Gradients, of the form of the parameters.

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 1986.
    """
    y = np.eye(layers["p"].shape[1], dtype=layers["p"].dtype)[labels]
    dz2 = layers["p"] - y
    if how.mean:
        dz2 = round_to_precision(how, dz2 / len(x))
    da1 = round_to_precision(how, dz2 @ params["w2"].T)
    dz1 = np.where(layers["z1"] > 0, da1, 0) if how.relu_gradient else da1
    gradients = {
        "w1": x.T @ dz1,
        "b1": np.broadcast_to(dz1.sum(how.bias_axis), params["b1"].shape),
        "w2": layers["a1"].T @ dz2,
        "b2": np.broadcast_to(dz2.sum(how.bias_axis), params["b2"].shape),
    }
    return {name: round_to_precision(how, value) for name, value in gradients.items()}


def check_gradient(how: NetVariant, x: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Largest relative error of the gradient against central differences of the loss, in float64.

        max over arrays of |g - n| / (|g| + |n|), g and n over some entries; NaN where one of them is not finite

    Source: https://cs231n.github.io/neural-networks-3/#gradcheck
    """
    exact = replace(how, precision="float64")
    x, labels = x[:CHECKED].astype(np.float64), labels[:CHECKED]
    params = init_params(exact, x.shape[1], int(labels.max()) + 1, seed)
    with np.errstate(all="ignore"):
        written = backward(exact, params, x, labels, forward(exact, params, x))
        rng, worst = np.random.default_rng(seed), 0.0
        for name, value in params.items():
            some = rng.choice(value.size, min(value.size, CHECKED), replace=False)
            numeric = np.array([numeric_gradient(exact, params, name, int(entry), x, labels) for entry in some])
            g = np.asarray(written[name]).ravel()[some]
            size = np.linalg.norm(g) + np.linalg.norm(numeric)
            worst = max(worst, np.linalg.norm(g - numeric) / size) if size != 0 else worst
            if not np.isfinite(size):
                return float("nan")
    return float(worst)


def numeric_gradient(
    how: NetVariant, params: Mapping[str, np.ndarray], name: str, entry: int, x: np.ndarray, labels: np.ndarray
) -> float:
    """Derivative of the loss by one entry of a parameter, by central differences."""
    losses = []
    for sign in (1, -1):
        moved = params[name].copy()
        moved.ravel()[entry] += sign * STEP
        losses.append(cross_entropy(forward(how, {**params, name: moved}, x)["p"], labels))
    return (losses[0] - losses[1]) / (2 * STEP)
