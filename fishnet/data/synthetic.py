"""Synthetic task for tests: colored gratings in four directions, with noise."""

import numpy as np

from fishnet.data.task import Task, make_task

CLASSES = ("horizontal", "falling", "upright", "rising")  # the direction of the stripes
COUNTS = {"train": 256, "val": 64, "test": 64}
NOISE = 24.0  # standard deviation in 0..255; a small CNN still gets nearly everything right after a few epochs
SEED = 20_240_501


def load_synthetic(image_size: int = 16) -> Task:
    """Makes 256 / 64 / 64 images [s, s, 3] of four equally frequent classes, the same on every call.

    image = grey + contrast cos(2 pi f (x sin a - y cos a) + phase) color + noise, where a is the class's direction
    within 6 degrees; frequency, phase, color, contrast and noise are random, so color and mean tell nothing.

    Args:
        image_size: s in pixels.
    """
    rng = np.random.RandomState(SEED)  # its stream is frozen by NumPy's policy; that of Generator is not
    n, k = sum(COUNTS.values()), len(CLASSES)
    labels = np.arange(n) % k  # every split's size is a multiple of k, so every split is balanced
    angle = labels * np.pi / k + np.deg2rad(rng.uniform(-6, 6, n))
    frequency = rng.uniform(2.0, 3.0, n)  # periods per image: 8 px still sample it
    phase = rng.uniform(0, 2 * np.pi, n)
    color = rng.uniform(-1, 1, (n, 3))
    color /= np.abs(color).max(axis=1, keepdims=True)
    contrast = rng.uniform(40, 90, n)
    grid = (np.arange(image_size) + 0.5) / image_size - 0.5
    y, x = grid[None, :, None], grid[None, None, :]
    across = x * np.sin(angle)[:, None, None] - y * np.cos(angle)[:, None, None]
    wave = contrast[:, None, None] * np.cos(2 * np.pi * frequency[:, None, None] * across + phase[:, None, None])
    images = 128 + wave[..., None] * color[:, None, None, :] + NOISE * rng.standard_normal((n, *wave.shape[1:], 3))
    ends = np.cumsum(list(COUNTS.values()))
    splits = {name: np.arange(end - COUNTS[name], end) for name, end in zip(COUNTS, ends, strict=True)}
    return make_task("synthetic", np.rint(images).clip(0, 255).astype(np.uint8), labels, splits, CLASSES)
