import numpy as np
import pytest

from fishnet.data.task import channel_statistics, make_task


def arrays(seed=0):
    rng = np.random.RandomState(seed)
    images = rng.randint(0, 256, (20, 4, 5, 3), dtype=np.uint8)
    return images, np.arange(20) % 3, {"train": np.arange(12), "val": np.arange(12, 16), "test": np.arange(16, 20)}


def test_statistics_are_of_the_train_split_in_double_precision():
    images, labels, splits = arrays()
    task = make_task("t", images, labels, splits, "abc")
    train = images[:12].astype(np.float64)
    np.testing.assert_array_equal(task.mean, train.mean(axis=(0, 1, 2)).astype(np.float32))
    np.testing.assert_allclose(task.std, train.std(axis=(0, 1, 2)), rtol=1e-7)
    assert task.mean.dtype == task.std.dtype == np.float32


def test_statistics_of_many_images_do_not_drift():
    images = np.full((5_000, 28, 28, 1), 255, np.uint8)
    images[0, 0, 0, 0] = 254
    mean, std = channel_statistics(images, np.arange(5_000))
    n = images.size
    assert mean[0] == np.float32(255 - 1 / n) and std[0] == np.float32(np.sqrt((1 - 1 / n) / n))


def test_a_constant_channel_is_safe_to_divide_by():
    mean, std = channel_statistics(np.full((3, 4, 4, 2), 7, np.uint8), np.arange(3))
    assert mean.tolist() == [7, 7] and std.tolist() == [1, 1]


def test_arrays_are_read_only_and_typed():
    task = make_task("t", *arrays(), "abc")
    assert task.images.dtype == np.uint8 and task.labels.dtype == np.int32
    for array in (task.images, task.labels, task.mean, task.std, *task.splits.values()):
        assert not array.flags.writeable


def test_the_fingerprint_covers_everything_that_training_sees():
    images, labels, splits = arrays()
    reference = make_task("t", images.copy(), labels, splits, "abc").fingerprint
    assert make_task("other name", images.copy(), labels, splits, "abc", notes=["n"]).fingerprint == reference
    pixel = images.copy()
    pixel[3, 2, 1, 0] ^= 1
    label = labels.copy()
    label[4] = (label[4] + 1) % 3
    moved = {**splits, "train": np.arange(11), "val": np.arange(11, 16)}
    changed = [
        make_task("t", pixel, labels, splits, "abc"),
        make_task("t", images.copy(), label, splits, "abc"),
        make_task("t", images.copy(), labels, moved, "abc"),
        make_task("t", images.copy(), labels, splits, "abd"),
        make_task("t", images.reshape(20, 5, 4, 3), labels, splits, "abc"),
    ]
    assert len({reference, *(task.fingerprint for task in changed)}) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, k, s: (i.astype(np.float32), k, s), r"uint8, not \(20, 4, 5, 3\) float32; floats in 0..1: np.rint"),
        (lambda i, k, s: (i[..., 0], k, s), "uint8"),
        (lambda i, k, s: (i[:, :0], k, s), "uint8"),
        (lambda i, k, s: (i[:0], k[:0], s), "uint8"),
        (lambda i, k, s: (i, k[:-1], s), "20 images, but labels"),
        (lambda i, k, s: (i, k[:, None], s), "20 images, but labels"),
        (lambda i, k, s: (i, k + 1, s), r"t: labels must be whole numbers in \[0, 3\), got 3"),
        (lambda i, k, s: (i, k - 1, s), "labels must be whole numbers .* got -1"),
        (lambda i, k, s: (i, np.where(k == 2, 1.7, k), s), "labels must be whole numbers .* got 1.7"),
        (lambda i, k, s: (i, np.where(k == 2, np.nan, k), s), "labels must be whole numbers .* got nan"),
        (lambda i, k, s: (i, np.where(k == 2, np.inf, k), s), "labels must be whole numbers .* got inf"),
        (lambda i, k, s: (i, k + 2**32, s), "labels must be whole numbers .* got 4294967296"),
        (
            lambda i, k, s: (i, k.astype(np.uint64) + 2**63, s),
            "labels must be whole numbers .* got 9223372036854775808",
        ),
        (lambda i, k, s: (i, k > 0, s), "labels must be whole numbers, not bool"),
        (lambda i, k, s: (i, k.astype(str), s), "labels must be whole numbers, not of type <U"),
        (lambda i, k, s: (i, k.astype(object) + 0.5, s), "labels must be whole numbers, not of type object"),
        (lambda i, k, s: (i, k.astype(object) + 2**70, s), "labels must be whole numbers, not of type object"),
        (lambda i, k, s: (i, k, {**s, "val": np.arange(11, 16)}), "overlap"),
        (lambda i, k, s: (i, k, {**s, "val": [12, 12]}), "overlap, or name an image twice"),
        (lambda i, k, s: (i, k, {**s, "test": np.arange(16, 21)}), r"test indices must be .* in \[0, 20\), got 20"),
        (lambda i, k, s: (i, k, {**s, "test": [-1]}), "test indices must be .* got -1"),
        (lambda i, k, s: (i, k, {**s, "test": [16 + 2**32]}), "test indices must be .* got 4294967312"),
        (lambda i, k, s: (i, k, {**s, "test": [16.5]}), "test indices must be .* got 16.5"),
        (lambda i, k, s: (i, k, {**s, "test": np.arange(20) > 15}), "test indices .* not bool; np.flatnonzero"),
        (lambda i, k, s: (i, k, {**s, "test": [[16, 17]]}), r"test split is of shape \(1, 2\)"),
        (lambda i, k, s: (i, k, {**s, "val": np.arange(0)}), "val split is empty"),
        (lambda i, k, s: (i, k, {**s, "val": []}), "val split is empty"),
        (lambda i, k, s: (i, k, {"train": s["train"], "test": s["test"]}), "must be train, val, test, not train, test"),
        (lambda i, k, s: (i, k, {**s, "dev": [0]}), "must be train, val, test, not train, val, test, dev"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_task("t", *change(*arrays()), "abc")


@pytest.mark.parametrize(
    ("classes", "message"),
    [("aba", "two classes have one name"), ((0, 1, 2), "must be text"), ("ab", r"in \[0, 2\), got 2")],
)
def test_class_names_are_distinct_texts(classes, message):
    with pytest.raises(ValueError, match=message):
        make_task("t", *arrays(), classes)


@pytest.mark.parametrize("kind", [np.float32, np.int8, np.uint64, list])
def test_whole_numbers_of_any_type_are_labels_and_indices(kind):
    images, labels, splits = arrays()
    convert = list if kind is list else lambda values: values.astype(kind)
    task = make_task("t", images.copy(), convert(labels), {s: convert(rows) for s, rows in splits.items()}, "abc")
    assert task.labels.tolist() == labels.tolist() and task.labels.dtype == np.int32
    assert task.fingerprint == make_task("t", images, labels, splits, "abc").fingerprint
    assert [task.splits[s].tolist() for s in splits] == [rows.tolist() for rows in splits.values()]


def test_names_that_are_not_utf8_can_be_written_to_tables():
    images, labels, splits = arrays()
    task = make_task("t", images, labels, splits, "abc", notes=["bad \udcff name"], files=["\udce9.png"] * 20)
    "".join([*task.notes, *task.files]).encode()


@pytest.mark.parametrize("change", [lambda k: k.astype(object), lambda k: k.astype(np.float32), lambda k: k.tolist()])
def test_whole_numbers_of_any_kind_are_labels(change):
    images, labels, splits = arrays()
    assert make_task("t", images, change(labels), splits, "abc").labels.tolist() == labels.tolist()
