"""Train, validation and test splits by hash, the same on every machine."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64, Integer

SPLITS = ("train", "val", "test")
FRACTIONS = {"val": 0.15, "test": 0.15}  # of the images of each class; the rest is trained on


def hash_order(keys: Sequence[object], salt: str) -> Int64[np.ndarray, "n"]:
    """Pseudo-random order of the keys by the SHA-256 of `salt` and key, the same on every machine.

    Args:
        keys: n distinct values, used through `str`.
        salt: names the purpose, so that two splits of the same keys are independent.

    Returns:
        [n] int64 indices into keys.
    """
    digests = [hashlib.sha256(f"{salt}\0{key}".encode("utf-8", "surrogatepass")).digest() for key in keys]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)


def stratified_order(labels: Integer[np.ndarray, "n"], salt: str) -> Integer[np.ndarray, "n"]:
    """Stratified order of all examples: every prefix holds the classes in their overall proportions.

    The k-th of the n_c examples of a class (in hash order of their positions) stands at (k + 1/2) / n_c.

    Args:
        labels: [n] integers.
        salt: as in `hash_order`.

    Returns:
        [n] int64 indices; the first m have round(m n_c / n) examples of class c, to within one.
    """
    order = hash_order(range(len(labels)), salt)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, place))


def group_split(
    labels: Integer[np.ndarray, "n"], groups: Sequence[str], salt: str = "fishnet split 1"
) -> dict[str, Int32[np.ndarray, "_"]]:
    """Splits each class about 70/15/15 by whole groups; adding a few examples moves few of the others.

    Classes are served from the one with fewest groups to the one with most. Within a class the groups not yet placed
    are taken in hash order into test, then val, as long as each brings the split nearer to its fraction of the class's
    examples; the rest is train. A class with 3 or more groups of its own has an example in every split; with 2 in
    train and test; with 1 in train. Groups that span classes are placed with the first class that is served, so a
    class made only of shared groups may miss a split (`missing_classes` tells).

    Args:
        labels: [n] integers.
        groups: n names; examples of equal name stay together.
        salt: as in `hash_order`.

    Returns:
        "train", "val", "test": sorted, disjoint int32 indices that cover all n.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), dtype=np.int64)  # [group, class]
    np.add.at(counts, (group_of, labels), 1)
    order = hash_order(names.tolist(), salt).tolist()
    placed = np.full(len(names), -1)  # index into SPLITS
    groups_per_class = (counts > 0).sum(axis=0)
    for label in np.argsort(groups_per_class, kind="stable"):
        size = counts[:, label]
        free = [g for g in order if size[g] and placed[g] < 0]
        train, val, test = (int(size[placed == i].sum()) for i in range(len(SPLITS)))
        # What a split takes must leave a group for each split that has none yet. Where they do not suffice, train
        # comes first and val last: a class never tested is never reported.
        for_train = int(not train)
        for_val = int(not val and len(free) > for_train + int(not test))
        for split, have, reserve in (("test", test, for_train + for_val), ("val", val, for_train)):
            for g in _fill(free, size, have, FRACTIONS[split] * size.sum(), len(free) - reserve):
                placed[g] = SPLITS.index(split)
            free = [g for g in free if placed[g] < 0]
        placed[free] = SPLITS.index("train")
    split_of = placed[group_of]
    return {name: np.flatnonzero(split_of == i).astype(np.int32) for i, name in enumerate(SPLITS)}


def _fill(free: list[int], size: np.ndarray, have: int, share: float, most: int) -> list[int]:
    taken: list[int] = []
    for g in free:
        if len(taken) >= most:
            break
        if abs(have + size[g] - share) < abs(have - share):
            taken.append(g)
            have += int(size[g])
    if not have and most > 0:  # every group is more than twice the share: the smallest does least harm
        taken = [min(free, key=lambda g: size[g])]
    return taken


def missing_classes(
    labels: Integer[np.ndarray, "n"], splits: dict[str, Integer[np.ndarray, "_"]], classes: Sequence[str]
) -> dict[str, list[str]]:
    """Names of the classes that each split lacks; splits that lack none are left out."""
    absent = {s: [c for i, c in enumerate(classes) if not np.any(labels[rows] == i)] for s, rows in splits.items()}
    return {split: names for split, names in absent.items() if names}
