import numpy as np
import pytest

from fishnet.data.synthetic import CLASSES, load_synthetic


def direction(images):
    """The main direction of the stripes in radians, from the structure tensor of the grey image (y pointing down)."""
    colours = images.astype(float) - 128
    energy = np.zeros((2, 2, len(images)))
    for channel in range(3):
        dy, dx = np.gradient(colours[..., channel], axis=(1, 2))
        energy += np.einsum("inyx,jnyx->ijn", [dx, dy], [dx, dy])
    across = 0.5 * np.arctan2(2 * energy[0, 1], energy[0, 0] - energy[1, 1])
    return (across + np.pi / 2) % np.pi


@pytest.mark.parametrize("size", [8, 16, 33, 64])
def test_sizes_and_balance(size):
    task = load_synthetic(size)
    assert task.images.shape == (384, size, size, 3)
    assert {name: len(rows) for name, rows in task.splits.items()} == {"train": 256, "val": 64, "test": 64}
    for rows in task.splits.values():
        assert len(set(np.bincount(task.labels[rows]))) == 1
    assert np.abs(task.mean - 128).max() < 2 and task.std.min() > 20


def test_the_direction_tells_the_class_and_the_mean_colour_does_not():
    task = load_synthetic(32)
    nearest = np.rint(direction(task.images) / (np.pi / 4)).astype(int) % 4
    assert (nearest == task.labels).mean() > 0.97
    colour = task.images.mean(axis=(1, 2))
    centres = np.stack([colour[task.labels == k].mean(axis=0) for k in range(4)])
    by_colour = ((colour[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert (by_colour == task.labels).mean() < 0.4


def test_the_names_say_what_is_seen():
    task = load_synthetic(64)
    steps = {"horizontal": (0, 3), "falling": (3, 3), "upright": (3, 0), "rising": (-3, 3)}  # down, right
    for label, name in enumerate(CLASSES):
        images = task.images[task.labels == label].astype(float)
        change = {other: np.abs(images - np.roll(images, step, axis=(1, 2))).mean() for other, step in steps.items()}
        assert min(change, key=change.get) == name


def test_it_is_the_same_on_every_call():
    assert load_synthetic(16).fingerprint == load_synthetic(16).fingerprint
