"""The receiver operating characteristic of one class against the rest."""

import numpy as np


def roc_curve(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Rates of false and of true positives as the threshold falls from above the highest score to the lowest.

    Args:
        positive: [n] bool, whether an example is of the class.
        scores: [n], higher for the class; equal scores are passed in one step.

    Returns:
        false positive rate and true positive rate, each [m], from (0, 0) to (1, 1); None without both kinds of examples.

    Source: T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006).
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    positive, scores = positive[order], np.asarray(scores)[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # the last example at each distinct score
    true = np.append(0, np.cumsum(positive)[last])
    false = np.append(0, np.cumsum(~positive)[last])
    return false / false[-1], true / true[-1]
