"""Corruptions of tasks: a task made worse in a known way, to test methods that look for causes.

Nothing but what is said is touched. Labels of the validation and test splits are never changed, no image changes its
split, and what is mixed into an image comes from its own split. What is drawn depends on the key, the class and the
number of the draw alone: a greater share or strength does the same to the same images, and more; another draw chooses
anew. The streams are those of `RandomState`, which NumPy has frozen.

What is done to every image of one class alone is also a mark to know it by: whether a blurred class is harder to tell
from the others or easier is for an experiment to say.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Integer

from fishnet.data.corruption_spec import Modifier, format_modifier, format_modifiers, format_number, resolve_modifiers
from fishnet.data.image_corruptions import (
    add_noise,
    blend_images,
    change_brightness,
    change_contrast,
    gaussian_blur,
    pixelate,
    vary_image,
)
from fishnet.data.splits import SPLITS
from fishnet.data.task import Task, make_task
from fishnet.errors import UsageError


def apply_corruptions(task: Task, name: str, modifiers: Sequence[Modifier]) -> Task:
    """Corrupts a task; modifiers are applied in the order of `CORRUPTIONS`.

    The images that training is deprived of stay in the arrays, in no split, so that an image keeps its number; those
    of classes that are left out do not.

    Args:
        task: as it was loaded.
        name: of the task without modifiers.
        modifiers: what to plant, from `parse_modifiers`.

    Returns:
        A `Task` with a name, a fingerprint and statistics of its own; a note says of each defect how many images it
        touched.

    Raises:
        UsageError: see `resolve_modifiers`; a class has fewer training images than are to be kept, a split has none
            to be mixed in, no image would be touched, or a class would be left without any training label.
    """
    settled = resolve_modifiers(modifiers, task.classes, min(task.images.shape[1:3]))
    draft, notes = Draft(task), []
    for modifier in settled:
        before = draft.classes
        try:
            done = CORRUPTIONS[modifier.key](draft, modifier)
        except UsageError as error:
            raise UsageError(f"{name}?{format_modifier(modifier, before)}: {error}") from error
        notes.append(f"planted {format_modifier(modifier, before)}: {done}")
    full = f"{name}?{format_modifiers(settled, task.classes)}"
    labels = draft.labels[draft.splits["train"]]
    for label, of in enumerate(draft.classes):
        if len(draft.rows(of, "train")) and label not in labels:
            raise UsageError(f"{full}: no training image would be left with the label {of}")
    notes = [*task.notes, *notes]
    return make_task(full, draft.images, draft.labels, draft.splits, draft.classes, notes, draft.files, task.credit)


class Draft:
    """Task while it is being corrupted; its arrays are the task's own until something is written to them.

    Args:
        task: as it was loaded.
    """

    def __init__(self, task: Task) -> None:
        self.images, self.labels, self.files = task.images, task.labels, task.files
        self.splits, self.classes = dict(task.splits), task.classes
        self.original, self.truth = self.images, self.labels  # of the images and classes that there are now

    def rows(self, name: str, split: str | None = None) -> Integer[np.ndarray, "_"]:
        """Sorted indices of the images of a class, by true labels, in all splits or in one."""
        rows = np.sort(np.concatenate(list(self.splits.values()))) if split is None else self.splits[split]
        return rows[self.truth[rows] == self.classes.index(name)]

    def change(self, rows: np.ndarray, function: Callable[[np.ndarray, int], np.ndarray]) -> None:
        """Replaces the i-th of the images by `function(image, i)`."""
        if not self.images.flags.writeable:
            self.images = self.images.copy()
        for i, row in enumerate(rows):
            self.images[row] = function(self.images[row], i)


def draw_subset(
    members: Integer[np.ndarray, "n"], count: int, random: np.random.RandomState
) -> Integer[np.ndarray, "m"]:
    """Draws `count` members without replacement; from the same random state a smaller draw is part of a larger one.

    Args:
        members: [n] indices.
        count: m, at most n.
        random: what draws.

    Returns:
        [m] of them, sorted.
    """
    return np.sort(members[random.permutation(len(members))[:count]])


def flip_labels(
    label: int, classes: int, n: int, share: float, random: np.random.RandomState
) -> Integer[np.ndarray, "n"]:
    """Makes a fraction of the labels wrong; every other class is equally probable.

    `labels[i] = (label + d) mod classes` with d uniform on 1 .. classes - 1, for round(share n) of the i; the others
    are `label`.

    Args:
        label: the true one, of all n images.
        classes: how many there are.
        n: images.
        share: of them, in 0..1; halves of an image are rounded up.
        random: what draws.

    Returns:
        [n] int64.

    Source: symmetric noise, as in Patrini et al., arXiv:1609.03683.
    """
    wrong = random.permutation(n)[: rounded_count(share, n)]
    away = random.randint(1, classes, size=n)
    labels = np.full(n, label, dtype=np.int64)
    labels[wrong] = (label + away[wrong]) % classes
    return labels


def rounded_count(share: float, n: int) -> int:
    """Number of images in a fraction of n, halves rounded up."""
    return math.floor(share * n + 0.5)


def only(draft: Draft, modifier: Modifier) -> str:
    """Keeps some of the classes, relabeled from 0 in their order; images of the others are removed."""
    names, total, before = modifier.names, len(draft.labels), len(draft.classes)
    new = np.array([names.index(name) if name in names else -1 for name in draft.classes])[draft.labels]
    rows = np.flatnonzero(new >= 0)
    place = np.cumsum(new >= 0) - 1
    draft.splits = {split: place[own[new[own] >= 0]] for split, own in draft.splits.items()}
    for split in SPLITS:
        if not len(draft.splits[split]):
            raise UsageError(f"there is no {split} image of these classes")
    draft.images, draft.labels = draft.images[rows], new[rows]
    draft.images.setflags(write=False)
    draft.original, draft.truth = draft.images, draft.labels
    draft.files, draft.classes = tuple(draft.files[row] for row in rows) if draft.files else (), names
    return f"{len(names)} of {before} classes, {len(rows):,} of {total:,} images"


def mix(draft: Draft, modifier: Modifier) -> str:
    """Blends each image of a class with a random original image of another class from the same split."""
    (name, other), random, touched = modifier.names, random_state(modifier, *modifier.names), 0
    for split in SPLITS:
        rows, others = draft.rows(name, split), draft.rows(other, split)
        if len(rows) and not len(others):
            raise UsageError(f"there is no {split} image of {other} to mix in")
        if len(rows):
            partners = others[random.randint(len(others), size=len(rows))]
            draft.change(
                rows,
                lambda image, i, partners=partners: blend_images(image, draft.original[partners[i]], modifier.amount),
            )
        touched += len(rows)
    return (
        f"{touched:,} images of {name} hold {format_number(modifier.amount)} of an image of {other} from the same split"
    )


def vary(draft: Draft, modifier: Modifier) -> str:
    """Varies the images of a class in every split: random rotation, zoom, hue and brightness."""
    (name,) = modifier.names
    rows = draft.rows(name)
    drawn = random_state(modifier, name).uniform(-1, 1, (len(rows), 4))
    draft.change(rows, lambda image, i: vary_image(image, modifier.amount, drawn[i]))
    return f"{len(rows):,} images of {name} in all splits were turned, zoomed and relit at random"


def blur(draft: Draft, modifier: Modifier) -> str:
    """Blurs the images of a class in every split."""
    (name,) = modifier.names
    draft.change(rows := draft.rows(name), lambda image, i: gaussian_blur(image, modifier.amount))
    return f"{len(rows):,} images of {name} in all splits were blurred, sigma {format_number(modifier.amount)} pixels"


def low(draft: Draft, modifier: Modifier) -> str:
    """Lowers the resolution of the images of a class in every split."""
    (name,), side = modifier.names, int(modifier.amount)
    draft.change(rows := draft.rows(name), lambda image, i: pixelate(image, side))
    return f"{len(rows):,} images of {name} in all splits were reduced to {side}x{side} pixels and enlarged again"


def shift(draft: Draft, modifier: Modifier) -> str:
    """Shifts the distribution of the test images of all classes: blur, contrast, brightness or noise."""
    (kind,), amount, random = modifier.names, modifier.amount, random_state(modifier, *modifier.names)
    draft.change(rows := draft.splits["test"], lambda image, i: SHIFT_FUNCTIONS[kind](image, amount, random))
    return f"{kind} of all {len(rows):,} test images was changed by {format_number(amount)}"


def train(draft: Draft, modifier: Modifier) -> str:
    """Keeps a stratified part of the training images: round(share n) of the n of each class, at least 1.

    Source: of many draws, bias and variance as in Neal et al., arXiv:1810.08591.
    """
    before = len(draft.splits["train"])
    parts = []
    for name in draft.classes:
        rows = draft.rows(name, "train")
        parts.append(draw_subset(rows, max(1, rounded_count(modifier.amount, len(rows))), random_state(modifier, name)))
    draft.splits["train"] = np.sort(np.concatenate(parts))
    return f"{len(draft.splits['train']):,} of {before:,} training images were kept, of each class its share"


def few(draft: Draft, modifier: Modifier) -> str:
    """Keeps only a few training images of one class."""
    (name,), count = modifier.names, int(modifier.amount)
    rows = draft.rows(name, "train")
    if count > len(rows):
        raise UsageError(f"{name} has {len(rows):,} training images only")
    gone = np.setdiff1d(rows, draw_subset(rows, count, random_state(modifier, name)))
    draft.splits["train"] = np.setdiff1d(draft.splits["train"], gone)
    return f"{count:,} of {len(rows):,} training images of {name} were kept"


def noise(draft: Draft, modifier: Modifier) -> str:
    """Makes a fraction of the training labels wrong, of one class or of every class."""
    draft.labels = draft.labels.copy()
    touched, total = 0, 0
    for name in modifier.names or draft.classes:
        rows, label = draft.rows(name, "train"), draft.classes.index(name)
        random = random_state(modifier, name)
        draft.labels[rows] = flip_labels(label, len(draft.classes), len(rows), modifier.amount, random)
        touched, total = touched + int((draft.labels[rows] != label).sum()), total + len(rows)
    if not touched:
        raise UsageError(f"of {total:,} training labels none would be changed")
    of = f" of {modifier.names[0]}" if modifier.names else ""
    return f"{touched:,} of {total:,} training labels{of} were replaced by other classes' labels"


def random_state(modifier: Modifier, *names: str) -> np.random.RandomState:
    """Random state for a modifier and its classes; it does not depend on the amount."""
    words = "\0".join([modifier.key, *names, str(modifier.draw)])
    return np.random.RandomState(np.frombuffer(hashlib.sha256(words.encode()).digest(), "<u4"))


SHIFT_FUNCTIONS: dict[str, Callable[[np.ndarray, float, np.random.RandomState], np.ndarray]] = {
    "blur": lambda image, amount, random: gaussian_blur(image, amount),
    "contrast": lambda image, amount, random: change_contrast(image, amount),
    "brightness": lambda image, amount, random: change_brightness(image, amount),
    "noise": add_noise,
}
# In the order of `modifiers.FORMS`, which is the one in which they are applied.
CORRUPTIONS: dict[str, Callable[[Draft, Modifier], str]] = {
    "only": only,
    "mix": mix,
    "vary": vary,
    "blur": blur,
    "low": low,
    "shift": shift,
    "train": train,
    "few": few,
    "noise": noise,
}
