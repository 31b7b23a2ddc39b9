"""Training of the network written by hand: it learns as the textbook's loop does, and says where it broke."""

import numpy as np
import pytest
from scipy.special import softmax

from fishnet.models.scratch import NetVariant, init_params
from fishnet.study.handwritten import find_not_finite, load_pixels, train


def test_the_first_array_that_is_not_finite_is_named():
    assert find_not_finite({"a": np.ones(3), "b": np.array([1, np.inf]), "c": np.array([np.nan])}) == "b"
    assert find_not_finite({"a": np.ones(3), "loss": float("inf")}) == "loss"
    assert find_not_finite({"a": np.ones(3)}) == ""


def test_a_run_learns_and_a_broken_one_says_where_it_broke():
    small = {"task": "synthetic", "epochs": 12}
    right = train(small, 0)
    assert right["curves"][-1]["train_loss"] < right["curves"][0]["train_loss"]
    assert [row["epoch"] for row in right["curves"]] == list(range(1, 13))
    assert right["runs"][0]["first_bad"] == ""
    assert right["runs"][0]["first_bad_step"] == 13
    broken = train(small | {"divisor": 1.0, "mean": False, "shift": False}, 0)["runs"][0]
    assert (broken["first_bad"], broken["first_bad_step"]) == ("exponentials", 1)
    assert broken["gradient_error"] == 0.0 or broken["gradient_error"] > -2
    stopped = train(small | {"sign": 1.0, "epochs": 40, "patience": 3}, 0)["curves"]
    assert len(stopped) < 40


def test_training_equals_the_textbooks_loop_an_example_at_a_time():
    """Gradient descent on the mean loss of all training images, in float64."""
    epochs, lr = 3, 0.1
    found = [row["train_loss"] for row in train({"task": "synthetic", "epochs": epochs, "lr": lr}, 4)["curves"]]
    images, labels, classes = load_pixels("synthetic")
    x, y = images["train"].astype(np.float64) / 255, labels["train"]
    params = init_params(NetVariant(precision="float64"), x.shape[1], classes, 4)
    w1, b1, w2, b2 = (params[name] for name in ("w1", "b1", "w2", "b2"))
    losses = []
    for _ in range(epochs):
        total, slopes = 0.0, [np.zeros_like(leaf) for leaf in (w1, b1, w2, b2)]
        for one, label in zip(x, y, strict=True):
            h = np.maximum(one @ w1 + b1, 0)
            p = softmax(h @ w2 + b2)
            total -= np.log(p[label])
            error = p - np.eye(classes)[label]
            hidden = (w2 @ error) * (h > 0)
            for slope, part in zip(slopes, (np.outer(one, hidden), hidden, np.outer(h, error), error), strict=True):
                slope += part / len(x)
        losses.append(total / len(x))
        w1, b1, w2, b2 = (leaf - lr * slope for leaf, slope in zip((w1, b1, w2, b2), slopes, strict=True))
    assert found == pytest.approx(losses, rel=1e-5)
