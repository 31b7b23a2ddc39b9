"""Metrics that judge a classifier: accuracy and calibration, ROC curves, selective prediction."""

from fishnet.metrics.classification import (
    accuracy,
    balanced_accuracy,
    class_metrics,
    confusion,
    ece,
    macro_f1,
    nll,
    per_class,
    summary,
    undefined_metrics,
)
from fishnet.metrics.roc import (
    auc_interval,
    delong_interval,
    macro_auc,
    newcombe_interval,
    one_vs_rest_auc,
    roc_curve,
)
from fishnet.metrics.selective import rejection_area, rejection_curve

__all__ = [
    "accuracy",
    "auc_interval",
    "balanced_accuracy",
    "class_metrics",
    "confusion",
    "delong_interval",
    "ece",
    "macro_auc",
    "macro_f1",
    "newcombe_interval",
    "nll",
    "one_vs_rest_auc",
    "per_class",
    "rejection_area",
    "rejection_curve",
    "roc_curve",
    "summary",
    "undefined_metrics",
]
