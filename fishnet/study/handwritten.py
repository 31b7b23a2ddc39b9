"""Training of the network written by hand, with a look at every array of a step for the first that is not finite."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from fishnet.models.scratch import (
    NetVariant,
    backward,
    check_gradient,
    cross_entropy,
    forward,
    init_params,
    round_to_precision,
)


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
