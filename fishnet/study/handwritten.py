"""Network written by hand in NumPy, with common implementation errors that can be switched on one at a time.

784-10-10 with ReLU and softmax, trained by full-batch gradient descent, as in many a first notebook; without errors it
is `fishnet.models.scratch`. Two instruments find what is wrong: a gradient check, and a look at every array of a step
for the first that is not finite. Examples are rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

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
    """Initial parameters: `w1 [f, h], b1 [h], w2 [h, k], b2 [k]`."""
    rng = np.random.default_rng(seed)

    def weights(fan_in: int, fan_out: int) -> np.ndarray:
        if how.weights == "uniform":
            return rng.random((fan_in, fan_out)) - 0.5
        return rng.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_in)

    params = {"w1": weights(features, HIDDEN), "b1": np.zeros(HIDDEN)}
    params |= {"w2": weights(HIDDEN, classes), "b2": np.zeros(classes)}
    return {name: round_to_precision(how, value) for name, value in params.items()}


def forward(how: NetVariant, params: Mapping[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """Forward pass; returns every array in order: `z1 a1 z2 exponentials p`."""
    z1 = round_to_precision(how, x @ params["w1"] + params["b1"])
    a1 = np.maximum(z1, 0)
    z2 = round_to_precision(how, a1 @ params["w2"] + params["b2"])
    e = round_to_precision(how, np.exp(z2 - z2.max(1, keepdims=True) if how.shift else z2))
    p = round_to_precision(how, e / round_to_precision(how, e.sum(how.softmax_axis, keepdims=True)))
    return {"z1": z1, "a1": a1, "z2": z2, "exponentials": e, "p": p}


def cross_entropy(p: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy as a first version computes it: the log of the probability, infinite where that is 0."""
    return float(-np.log(p[np.arange(len(labels)), labels].astype(np.float64)).mean())


def backward(
    how: NetVariant,
    params: Mapping[str, np.ndarray],
    x: np.ndarray,
    labels: np.ndarray,
    layers: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Backward pass as written, errors included, from the last layer to the first."""
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
            numeric = np.array([numeric_gradient(exact, params, name, entry, x, labels) for entry in some])
            g = np.asarray(written[name]).ravel()[some]
            size = np.linalg.norm(g) + np.linalg.norm(numeric)
            worst = max(worst, np.linalg.norm(g - numeric) / size) if size != 0 else worst
            if not np.isfinite(size):
                return float("nan")
    return float(worst)


def numeric_gradient(
    how: NetVariant, params: Mapping[str, np.ndarray], name: str, entry: int, x: np.ndarray, labels
) -> float:
    """Derivative of the loss by one entry of a parameter, by central differences."""
    losses = []
    for sign in (1, -1):
        moved = params[name].copy()
        moved.ravel()[entry] += sign * STEP
        losses.append(cross_entropy(forward(how, {**params, name: moved}, x)["p"], labels))
    return (losses[0] - losses[1]) / (2 * STEP)


def find_not_finite(arrays: Mapping[str, np.ndarray | float]) -> str:
    """The name of the first array that holds a value that is not finite; empty where all are."""
    return next((name for name, array in arrays.items() if not np.isfinite(array).all()), "")


@cache
def load_pixels(task: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Images [n, f] uint8 and labels [n] by split, and the number of classes."""
    from fishnet.data import load_task

    of = load_task(task)
    images = {split: of.images[rows].reshape(len(rows), -1) for split, rows in of.splits.items()}
    return images, {split: of.labels[rows] for split, rows in of.splits.items()}, len(of.classes)


def train(fields: Mapping[str, Any], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Trains one run to its last epoch, finite or not; an epoch is a step on all training images.

    Args:
        fields: of `NetVariant` that differ from the right ones.
        seed: of the initial weights.

    Returns:
        `runs`: figures at the epoch with the lowest validation loss, or the last where none is finite; the error of
        the gradient (its decimal logarithm; 0, as large as can be, where it is not finite); the epoch and the array
        that were not finite first (epochs + 1 and "" for none). `curves` and `probes` by epoch.
    """
    how = NetVariant(**fields)
    images, labels, classes = load_pixels(how.task)
    x = {split: round_to_precision(how, of / how.divisor) for split, of in images.items()}
    params = init_params(how, x["train"].shape[1], classes, seed)
    curves, probes, bad, best = [], [], (how.epochs + 1, ""), (np.inf, 0, params)
    with np.errstate(all="ignore"):
        error = check_gradient(how, x["train"], labels["train"], seed)
        for epoch in range(1, how.epochs + 1):
            layers = forward(how, params, x["train"])
            loss = cross_entropy(layers["p"], labels["train"])
            gradients = backward(how, params, x["train"], labels["train"], layers)
            params = {
                name: round_to_precision(how, value + how.sign * how.lr * gradients[name])
                for name, value in params.items()
            }
            seen = layers | {"loss": loss} | {f"gradient of {n}": g for n, g in gradients.items()} | params
            if not bad[1] and (name := find_not_finite(seen)):
                bad = (epoch, name)
            val_loss, right = evaluate(how, params, x["val"], labels["val"])
            figures = {"train_loss": loss, "lr": how.lr, "val_loss": val_loss, "val_accuracy": right}
            curves.append({"epoch": epoch} | figures)
            probes += [
                probe_row(epoch, "gradient_norm", place, f"dense_{place}", float(np.linalg.norm(gradients[name])))
                for place, name in enumerate(("w1", "w2"))
            ]
            probes.append(probe_row(epoch, "dead_units", 0, "act_0", float(np.mean(~(layers["z1"] > 0).any(0)))))
            if val_loss < best[0] or not np.isfinite(best[0]):
                best = (val_loss, epoch, params)
            if how.patience and epoch - best[1] >= how.patience:
                break
        _, right = evaluate(how, best[2], x["test"], labels["test"])
    figures = {"val_loss": best[0], "best_epoch": best[1], "test_accuracy": right}
    found = {"gradient_error": np.log10(max(error, 1e-16)) if np.isfinite(error) else 0.0}
    found |= {"first_bad_step": bad[0], "first_bad": bad[1]}
    return {"runs": [{"status": "ok", **figures, **found}], "curves": curves, "probes": probes}


def evaluate(
    how: NetVariant, params: Mapping[str, np.ndarray], x: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Loss and accuracy of a split."""
    p = forward(how, params, x)["p"]
    return cross_entropy(p, labels), float((p.argmax(1) == labels).mean())


def probe_row(epoch: int, probe: str, index: int, layer: str, value: float) -> dict[str, Any]:
    """A row of `probes.parquet`."""
    return {
        "epoch": epoch,
        "step": epoch - 1,
        "probe": probe,
        "layer": layer,
        "index": index,
        "class": "",
        "value": value,
    }
