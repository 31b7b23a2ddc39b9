"""Augmentation inside the compiled step: image transforms, mixing of images and labels, class sampling."""

from fishnet.augment.images import AUGMENTATIONS, flip, flip_shift, none, shift, strong
from fishnet.augment.mixing import beta_table, cutmix, cutout, mix, mixup
from fishnet.augment.sampling import balanced_positions, class_balanced_order, sampling_weights, weighted_positions

__all__ = [
    "AUGMENTATIONS",
    "balanced_positions",
    "beta_table",
    "class_balanced_order",
    "cutmix",
    "cutout",
    "flip",
    "flip_shift",
    "mix",
    "mixup",
    "none",
    "sampling_weights",
    "shift",
    "strong",
    "weighted_positions",
]
