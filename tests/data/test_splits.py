import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fishnet.data.splits import group_split, hash_order, missing_classes, stratified_order


def counts(labels, splits):
    return {name: np.bincount(labels[rows], minlength=labels.max() + 1).tolist() for name, rows in splits.items()}


def test_hash_order_is_pinned_for_ever():
    assert hash_order(["a", "b", "c", "d", "e", "f"], "salt").tolist() == [4, 1, 0, 2, 3, 5]
    assert hash_order(range(6), "salt").tolist() != hash_order(range(6), "other salt").tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.data())
def test_every_prefix_is_stratified(labels, data):
    labels = np.array(labels)
    order = stratified_order(labels, "test")
    assert sorted(order) == list(range(len(labels)))
    take = data.draw(st.integers(0, len(labels)))
    share = np.bincount(labels) * take / len(labels)
    found = np.bincount(labels[order[:take]], minlength=len(share))
    assert np.abs(found - share).max() <= 1 + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=120))
def test_groups_of_one_class_stay_whole_and_every_class_is_everywhere(pairs):
    labels = np.array([label for label, _ in pairs])
    groups = [f"{label}-{group}" for label, group in pairs]
    splits = group_split(labels, groups)
    together = np.concatenate(list(splits.values()))
    assert sorted(together) == list(range(len(labels)))
    split_of = {groups[i]: name for name, rows in splits.items() for i in rows}
    assert all(split_of[groups[i]] == name for name, rows in splits.items() for i in rows)
    for label in np.unique(labels):
        found = {name for name, rows in splits.items() if (labels[rows] == label).any()}
        own = len({g for g, other in zip(groups, labels, strict=True) if other == label})
        assert found == ({"train"} if own == 1 else {"train", "test"} if own == 2 else {"train", "val", "test"})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=3, max_size=60), st.randoms())
def test_the_order_of_the_examples_does_not_matter(pairs, random):
    pairs = [(label, group, i) for i, (label, group) in enumerate(pairs)]  # groups may span classes here
    shuffled = random.sample(pairs, len(pairs))

    def assigned(items):
        splits = group_split(np.array([label for label, _, _ in items]), [str(group) for _, group, _ in items])
        return {items[i][2]: name for name, rows in splits.items() for i in rows}

    assert assigned(pairs) == assigned(shuffled)


def test_shares_and_small_classes():
    labels = np.repeat([0, 1, 2, 3, 4], [100, 20, 3, 2, 1])
    splits = group_split(labels, [str(i) for i in range(len(labels))])
    assert counts(labels, splits) == {"train": [70, 14, 1, 1, 1], "val": [15, 3, 1, 0, 0], "test": [15, 3, 1, 1, 0]}
    assert missing_classes(labels, splits, "abcde") == {"val": ["d", "e"], "test": ["e"]}
    assert all(rows.dtype == np.int32 and (np.diff(rows) > 0).all() for rows in splits.values())


def test_one_huge_group_is_trained_on():
    labels = np.zeros(102, int)
    splits = group_split(labels, ["huge"] * 100 + ["a", "b"])
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 100, "val": 1, "test": 1}


def test_adding_an_example_moves_few_others():
    names = [f"photo {i}" for i in range(200)]
    before, after = (group_split(np.zeros(n, int), names[:n]) for n in (199, 200))
    moved = sum(len(np.setdiff1d(rows, after[name])) for name, rows in before.items())
    assert moved <= 2


def test_groups_that_span_classes_stay_whole():
    rng = np.random.RandomState(0)
    labels, groups = rng.randint(0, 4, 400), rng.randint(0, 60, 400).astype(str)
    splits = group_split(labels, groups.tolist())
    names = {name: set(groups[rows]) for name, rows in splits.items()}
    assert not names["train"] & names["val"] and not names["train"] & names["test"] and not names["val"] & names["test"]
    assert not missing_classes(labels, splits, "abcd")
    assert 0.55 < len(splits["train"]) / 400 < 0.8
