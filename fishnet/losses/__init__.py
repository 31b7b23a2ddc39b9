"""Classification losses by name: `f(logits [b, k], labels [b], ...) -> [b]`, not averaged.

The softmax losses are one formula (softmax.py, and for long-tailed data long_tail.py); others are in non_softmax.py.
switched.py chooses among all of them by a traced index; class_counts.py makes weights, margins and priors.
"""

from collections.abc import Callable

from fishnet.lookup import Table
from fishnet.losses.class_counts import (
    CLASS_WEIGHTINGS,
    class_weights,
    defer_weights,
    effective_number,
    inverse_frequency,
    ldam_margins,
    log_priors,
)
from fishnet.losses.long_tail import class_balanced_focal, ldam, logit_adjusted
from fishnet.losses.non_softmax import hinge, mse, one_vs_rest
from fishnet.losses.softmax import class_weighted, cross_entropy, focal, poly1, softmax_loss
from fishnet.losses.switched import FAMILIES, FAMILY_NUMBERS, LossNumbers, mixed_loss, neutral_numbers

__all__ = [
    "CLASS_WEIGHTINGS",
    "FAMILIES",
    "FAMILY_NUMBERS",
    "LOSSES",
    "LossNumbers",
    "class_balanced_focal",
    "class_weighted",
    "class_weights",
    "cross_entropy",
    "defer_weights",
    "effective_number",
    "focal",
    "hinge",
    "inverse_frequency",
    "ldam",
    "ldam_margins",
    "log_priors",
    "logit_adjusted",
    "mixed_loss",
    "mse",
    "neutral_numbers",
    "one_vs_rest",
    "poly1",
    "softmax_loss",
]

# class_weighted, class_balanced_focal, ldam and logit_adjusted need one more array: weights, margins or offsets [k].
LOSSES: Table[Callable] = Table(
    {
        "cross_entropy": cross_entropy,
        "class_weighted": class_weighted,
        "focal": focal,
        "class_balanced_focal": class_balanced_focal,
        "ldam": ldam,
        "logit_adjusted": logit_adjusted,
        "poly1": poly1,
        "one_vs_rest": one_vs_rest,
        "mse": mse,
        "hinge": hinge,
    }
)
