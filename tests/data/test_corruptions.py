"""Planted defects: each does what its formula says to the images it names, and nothing to any other."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from scipy.spatial.transform import Rotation

from fishnet.data import TASKS, check_task, load_task, load_tasks
from fishnet.data.corruption_spec import parse_modifiers
from fishnet.data.corruptions import apply_corruptions, draw_subset, flip_labels
from fishnet.data.image_corruptions import (
    add_noise,
    blend_images,
    change_brightness,
    change_contrast,
    gaussian_blur,
    hue_matrix,
    pixelate,
    vary_image,
)
from fishnet.data.splits import SPLITS
from fishnet.data.task import channel_statistics, make_task
from fishnet.data.tasks import Source
from fishnet.errors import UsageError

FISH, OTHER, RARE = "Chromis chrysura", "Dascyllus reticulatus", "Zebrasoma scopas"
IMAGE_PLANTS = {
    "mix=Chromis_chrysura:Zebrasoma_scopas:0.5": FISH,
    "vary=Zebrasoma_scopas:1": RARE,
    "blur=Zebrasoma_scopas:2": RARE,
    "low=Zebrasoma_scopas:8": RARE,
}
OTHERS = ["shift=brightness:0.5", "train=0.25", "train=0.5@3", "few=Chromis_chrysura:20", "noise=0.2",
          "noise=Chromis_chrysura:0.3", "only=Chromis_chrysura+Zebrasoma_scopas"]  # fmt: skip


@pytest.fixture(scope="module")
def reef():
    return load_task("reef")


@pytest.fixture(scope="module")
def digits():
    return load_task("mnist-mini")


def planted(task, text):
    return apply_corruptions(task, task.name, parse_modifiers(text))


def of(task, name, split=None):
    rows = np.arange(len(task.images)) if split is None else task.splits[split]
    return rows[task.labels[rows] == task.classes.index(name)]


def counts(task, split="train"):
    return np.bincount(task.labels[task.splits[split]], minlength=len(task.classes))


def random_image(seed=0, shape=(12, 10, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- what every plant leaves alone ---


@pytest.mark.parametrize("text", [*IMAGE_PLANTS, *OTHERS])
def test_only_what_is_said_is_touched(reef, text):
    task = planted(reef, text)
    key = text.partition("=")[0]
    assert task.name == f"reef?{text}" and task.credit == reef.credit and len(task.fingerprint) == 64
    assert len(task.notes) == 1 and task.notes[0].startswith(f"planted {text}: ")
    np.testing.assert_array_equal(task.mean, channel_statistics(task.images, task.splits["train"])[0])
    assert not task.images.flags.writeable
    if key == "only":
        return
    assert task.classes == reef.classes and task.files == reef.files
    changed = np.flatnonzero((task.images != reef.images).any(axis=(1, 2, 3)))
    allowed = of(reef, IMAGE_PLANTS[text]) if text in IMAGE_PLANTS else reef.splits["test"] if key == "shift" else []
    assert set(changed) <= set(allowed) and len(changed) >= 0.98 * len(allowed)
    relabelled = np.flatnonzero(task.labels != reef.labels)
    assert set(relabelled) <= set(task.splits["train"]) and (len(relabelled) > 0) == (key == "noise")
    for split in SPLITS:
        assert set(task.splits[split]) <= set(reef.splits[split])
        assert len(task.splits[split]) == len(reef.splits[split]) or (split == "train" and key in ("train", "few"))


def test_the_same_on_every_call_and_another_for_every_name(reef):
    texts = [*IMAGE_PLANTS, *OTHERS, "train=0.5@4", "noise=0.2@1", "vary=Zebrasoma_scopas:1@1"]
    prints = [planted(reef, text).fingerprint for text in texts]
    np.random.seed(3)
    assert [planted(reef, text).fingerprint for text in texts[:6]] == prints[:6]
    assert len({reef.fingerprint, *prints}) == len(texts) + 1


def test_a_name_loads_what_it_says(digits):
    typed = "mnist-mini?train=.5@2&noise=3:0.50&only=7+3"
    check_task(typed)
    task = load_task(typed)
    assert task.name == "mnist-mini?only=3+7&train=0.5@2&noise=3:0.5" and task.classes == ("3", "7")
    again = load_task(task.name)
    assert (again.name, again.fingerprint, again.notes) == (task.name, task.fingerprint, task.notes)
    assert task.fingerprint == planted(digits, task.name.partition("?")[2]).fingerprint


def test_what_differs_in_defects_alone_is_read_once(monkeypatch):
    synthetic, loads = load_task("synthetic", 8), []
    monkeypatch.setitem(TASKS, "own", Source(lambda request: loads.append(request) or synthetic, (8, 9), 8))
    names = ["own?train=0.5", "own", "own?noise=0.1", "own?train=0.5@1"]
    tasks = load_tasks([*((name, 8) for name in names), ("own", None), ("own", 9)])
    assert [request.image_size for request in loads] == [8, 9]
    assert list(tasks)[:4] == [(name, 8) for name in names] and tasks["own", None] is tasks["own", 8] is synthetic
    assert len({task.fingerprint for task in tasks.values()}) == 4
    assert all(np.shares_memory(task.images, synthetic.images) for task in tasks.values())


def test_draws_without_rounded_numbers_are_pinned_for_ever(digits):
    task = planted(digits, "mix=1:7:0.5&low=0:7&train=0.5@3&few=4:20&noise=0.2")
    found = [task.images, task.labels, task.splits["train"]]
    assert [hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:12] for array in found] == [
        "7c99da3ddfa4",
        "497ef09cf26c",
        "511bf77c103d",
    ]


# --- numbers of training images ---


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
def test_a_share_of_every_class_is_trained_on(reef, share):
    task, before = planted(reef, f"train={share}@1"), counts(reef)
    assert counts(task).tolist() == [max(1, int(share * n + 0.5)) for n in before.tolist()]
    assert np.shares_memory(task.images, reef.images)
    assert task.notes == (
        f"planted train={share}@1: {counts(task).sum():,} of 2,327 training images were kept, of each class its share",
    )


def test_less_is_a_part_of_more_and_draws_are_independent(reef):
    quarter, half, other = (set(planted(reef, f"train={t}").splits["train"]) for t in ("0.25", "0.5", "0.5@1"))
    assert quarter < half
    assert abs(len(half & other) / len(half) - 0.5) < 0.05  # as for any two halves: sd 0.01
    few, fewer = (planted(reef, f"few={FISH}:{n}").splits["train"] for n in (20, 10))
    assert set(fewer) < set(few)


def test_every_image_has_the_same_chance():
    hits = np.zeros(12)
    for seed in range(600):
        hits[draw_subset(np.arange(12), 3, np.random.RandomState(seed))] += 1
    assert hits.sum() == 1800 and stats.chisquare(hits).pvalue > 0.01


def test_one_class_keeps_few(reef):
    task = planted(reef, f"few={FISH}:20")
    expected = counts(reef)
    expected[reef.classes.index(FISH)] = 20
    assert counts(task).tolist() == expected.tolist()
    lost = np.setdiff1d(reef.splits["train"], task.splits["train"])
    assert set(lost) < set(of(reef, FISH, "train"))
    assert task.notes[0].endswith(f"20 of {len(of(reef, FISH, 'train')):,} training images of {FISH} were kept")
    everything = planted(reef, f"few={FISH}:{len(of(reef, FISH, 'train'))}")
    assert everything.fingerprint == reef.fingerprint


# --- labels ---


def test_that_share_of_a_class_is_mislabelled(reef):
    task, k, rows = planted(reef, f"noise={FISH}:0.3"), reef.classes.index(FISH), of(reef, FISH, "train")
    wrong = rows[task.labels[rows] != k]
    assert len(wrong) == int(0.3 * len(rows) + 0.5) == np.sum(task.labels != reef.labels)
    assert task.notes[0].endswith(f"{len(wrong)} of {len(rows)} training labels of {FISH} were replaced by other "
                                  "classes' labels")  # fmt: skip
    more = planted(reef, f"noise={FISH}:0.6")
    np.testing.assert_array_equal(more.labels[wrong], task.labels[wrong])


def test_of_all_classes_is_of_each(reef):
    alone = "&".join(f"noise={name}:0.2" for name in reef.classes)
    np.testing.assert_array_equal(planted(reef, "noise=0.2").labels, planted(reef, alone).labels)


def test_wrong_labels_are_uniform_over_the_other_classes(digits):
    task = planted(digits, "noise=1")
    for label in range(10):
        found = np.bincount(task.labels[of(digits, str(label), "train")], minlength=10)
        assert found[label] == 0 and stats.chisquare(np.delete(found, label)).pvalue > 0.001
    np.testing.assert_array_equal(task.labels[digits.splits["test"]], digits.labels[digits.splits["test"]])


@given(st.integers(2, 9), st.integers(0, 60), st.floats(0, 1), st.data())
def test_labels_are_wrong_as_often_as_said(classes, n, share, data):
    label = data.draw(st.integers(0, classes - 1))
    labels = flip_labels(label, classes, n, share, np.random.RandomState(n))
    assert labels.shape == (n,) and set(labels) <= set(range(classes))
    assert abs(np.sum(labels != label) - share * n) <= 0.5


# --- images ---


def kernel(sigma):
    at = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    weights = np.exp(-(at**2) / (2 * sigma**2))
    return weights / weights.sum()


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_blur_is_a_gaussian_mean(sigma):
    image, weights = random_image(), kernel(sigma)
    reach = len(weights) // 2
    padded = np.pad(image.astype(float), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    exact = np.zeros(image.shape)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            window = padded[y : y + len(weights), x : x + len(weights)]
            exact[y, x] = np.einsum("i,j,ijc->c", weights, weights, window)
    assert np.abs(gaussian_blur(image, sigma) - exact).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("size", "side"), [(32, 8), (28, 8), (28, 5), (9, 1), (10, 9)])
def test_low_resolution_is_the_mean_over_areas(size, side):
    image = random_image(shape=(size, size, 3))
    # Every pixel as side x side equal ones: then each area holds whole pixels only.
    fine = image.astype(np.int64).repeat(side, axis=0).repeat(side, axis=1)
    exact = fine.reshape(side, size, side, size, 3).mean(axis=(1, 3))
    small = Image.fromarray(np.floor(exact + 0.5).astype(np.uint8))
    expected = np.asarray(small.resize((size, size), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(pixelate(image, side), expected)
    np.testing.assert_array_equal(pixelate(image[..., :1], side), expected[..., :1])


def test_a_class_is_mixed_with_another_of_its_split(reef):
    task = planted(reef, f"mix={RARE}:Neoniphon sammara:0.3")
    used = set()
    for split in SPLITS:
        partners = of(reef, "Neoniphon sammara", split)
        for row in of(reef, RARE, split):
            mixed = np.rint(0.7 * reef.images[row].astype(float) + 0.3 * reef.images[partners])
            (found,) = np.flatnonzero((mixed == task.images[row]).all(axis=(1, 2, 3)))
            used.add(partners[found])
    assert len(used) > 5


def test_mixtures_are_of_the_images_as_they_were(digits):
    def looks(task, name):
        return {image.tobytes() for image in task.images[of(task, name, "val")]}

    swapped = planted(digits, "mix=3:5:1&mix=5:3:1&vary=3:1")
    assert looks(swapped, "5") <= looks(digits, "3")
    assert not looks(swapped, "3") & looks(digits, "5")  # varied afterwards
    assert looks(planted(digits, "mix=3:5:1&vary=5:1"), "3") <= looks(digits, "5")


@settings(max_examples=30)
@given(st.floats(0, 1), st.integers(0, 9))
def test_a_blend_is_a_weighted_mean(share, seed):
    a, b = random_image(seed), random_image(seed + 100)
    exact = (1 - share) * a.astype(float) + share * b.astype(float)
    assert np.abs(blend_images(a, b, share) - exact).max() <= 0.5
    np.testing.assert_array_equal(blend_images(a, b, 0.0), a)
    np.testing.assert_array_equal(blend_images(a, b, 1.0), b)


def seen(image, angle, zoom):
    """The image turned and zoomed, pixel by pixel."""
    h, w, _ = image.shape
    out = np.zeros(image.shape)
    for y in range(h):
        for x in range(w):
            dy, dx = (y - (h - 1) / 2) / zoom, (x - (w - 1) / 2) / zoom
            v = np.clip((h - 1) / 2 + np.cos(angle) * dy + np.sin(angle) * dx, 0, h - 1)
            u = np.clip((w - 1) / 2 - np.sin(angle) * dy + np.cos(angle) * dx, 0, w - 1)
            top, left = min(int(v), h - 2), min(int(u), w - 2)
            down, right = v - top, u - left
            corners = image[top : top + 2, left : left + 2].astype(float)
            out[y, x] = np.einsum("i,j,ijc->c", [1 - down, down], [1 - right, right], corners)
    return out


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_a_varied_image_is_turned_zoomed_and_relit(strength):
    image, drawn = random_image(), np.array([0.7, -0.4, 0.9, 0.3])
    view = seen(image, np.deg2rad(45 * strength * 0.7), 1.5 ** (-0.4 * strength))
    hue = Rotation.from_rotvec(np.ones(3) / np.sqrt(3) * np.deg2rad(60 * strength * 0.9)).as_matrix()
    exact = np.clip(view @ hue.T + 255 * 0.2 * strength * 0.3, 0, 255)
    assert np.abs(vary_image(image, strength, drawn) - exact).max() <= 0.5 + 1e-9
    grey = vary_image(image[..., :1], strength, drawn)[..., 0]
    assert np.abs(grey - np.clip(view[..., 0] + 255 * 0.2 * strength * 0.3, 0, 255)).max() <= 0.5 + 1e-9


def test_nothing_and_a_quarter_turn():
    image = random_image(shape=(9, 9, 3))
    np.testing.assert_array_equal(vary_image(image, 0.0, np.ones(4)), image)
    np.testing.assert_array_equal(vary_image(image, 2.0, np.array([1.0, 0, 0, 0])), np.rot90(image))
    np.testing.assert_allclose(hue_matrix(2 * np.pi / 3) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_a_varied_class_varies_more_the_stronger_it_is(reef):
    def spread(text):
        images = planted(reef, text).images[of(reef, RARE)] if text else reef.images[of(reef, RARE)]
        return images.astype(float).std(axis=0).mean()

    found = [spread(text) for text in ("", f"vary={RARE}:0.5", f"vary={RARE}:2")]
    assert found == sorted(found)
    calm, strong = (planted(reef, f"vary={RARE}:{s}").images.astype(int) for s in ("0.0001", "2"))
    assert np.abs(calm - reef.images).max() <= 2 < np.abs(strong - reef.images).max()


@pytest.mark.parametrize(
    ("kind", "amount", "change"),
    [
        ("brightness", -0.25, lambda image: image - 63.75),
        ("brightness", 0.5, lambda image: image + 127.5),
        ("contrast", 0.5, lambda image: image.mean((0, 1)) + 1.5 * (image - image.mean((0, 1)))),
        ("contrast", -1, lambda image: np.broadcast_to(image.mean((0, 1)), image.shape)),
    ],
)
def test_the_test_split_is_shifted(reef, kind, amount, change):
    task = planted(reef, f"shift={kind}:{amount}")
    for row in reef.splits["test"][::25]:
        exact = change(reef.images[row].astype(float)).clip(0, 255)
        assert np.abs(task.images[row] - exact).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(task.mean, reef.mean)


def test_test_images_are_blurred_and_noisy(digits):
    rows = digits.splits["test"]
    task = planted(digits, "shift=blur:1.5")
    np.testing.assert_array_equal(task.images[rows[7]], gaussian_blur(digits.images[rows[7]], 1.5))
    grey = np.full((200, 200, 1), 128, np.uint8)
    z = (add_noise(grey, 0.1, np.random.RandomState(0)).astype(float) - 128) / 25.5
    assert stats.kstest(z.ravel() + np.random.default_rng(0).uniform(-0.5, 0.5, z.size) / 25.5, "norm").pvalue > 0.01
    many = planted(digits, "shift=noise:0.1").images[rows].astype(int) - digits.images[rows]
    assert len({noise.tobytes() for noise in many}) == len(rows)


def test_shifts_follow_each_other_in_their_order(reef):
    row = reef.splits["test"][3]
    task = planted(reef, "shift=brightness:0.2&shift=contrast:-0.5&shift=blur:1")
    expected = change_brightness(change_contrast(gaussian_blur(reef.images[row], 1), -0.5), 0.2)
    np.testing.assert_array_equal(task.images[row], expected)


# --- together ---


def test_a_part_of_the_classes(reef):
    task = planted(reef, f"only={RARE}+{FISH}")
    assert task.classes == (FISH, RARE)
    rows = np.sort(np.concatenate([of(reef, FISH), of(reef, RARE)]))
    np.testing.assert_array_equal(task.images, reef.images[rows])
    assert task.files == tuple(reef.files[row] for row in rows)
    assert [task.classes[label] for label in task.labels] == [reef.classes[label] for label in reef.labels[rows]]
    for split in SPLITS:
        assert [task.files[i] for i in task.splits[split]] == [
            reef.files[i] for i in reef.splits[split] if reef.classes[reef.labels[i]] in (FISH, RARE)
        ]


def test_a_class_has_the_same_draws_whatever_stands_beside_it(reef):
    texts = [f"vary={RARE}:1", f"mix={RARE}:{FISH}:0.4", "train=0.5", "few=Chromis_chrysura:20"]
    alone = planted(reef, "&".join(texts))
    among = planted(reef, "&".join([f"only={FISH}+{RARE}", *texts]))
    for split in SPLITS:
        mine = {alone.files[i]: alone.images[i].tobytes() for i in of(alone, RARE, split)}
        assert mine == {among.files[i]: among.images[i].tobytes() for i in of(among, RARE, split)}
    assert {alone.files[i] for i in of(alone, FISH, "train")} == {among.files[i] for i in of(among, FISH, "train")}


def test_what_is_written_holds_in_the_end(reef):
    task = planted(reef, f"noise={FISH}:0.5&few={FISH}:20&train=0.25")
    truth = reef.labels[task.splits["train"]]
    assert np.bincount(truth)[reef.classes.index(FISH)] == 20  # few after train
    assert np.sum(task.labels != reef.labels) == 10  # noise after both, of the images that are trained on
    assert [note.split(":")[0] for note in task.notes] == [
        "planted train=0.25", "planted few=Chromis_chrysura", "planted noise=Chromis_chrysura",
    ]  # fmt: skip
    other = planted(reef, f"few={FISH}:20&train=0.25&noise={FISH}:0.5")
    assert (other.name, other.fingerprint) == (task.name, task.fingerprint)


def test_images_of_different_plants_add_up(digits):
    both = planted(digits, "blur=4:1&low=4:9&vary=4:1@2&blur=6:2")
    one = planted(planted(planted(digits, "vary=4:1@2"), "blur=4:1"), "low=4:9")
    fours, sixes = of(digits, "4"), of(digits, "6")
    np.testing.assert_array_equal(both.images[fours], one.images[fours])
    np.testing.assert_array_equal(both.images[sixes], planted(digits, "blur=6:2").images[sixes])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("few=Zebrasoma_scopas:5000", "few=Zebrasoma_scopas:5000: Zebrasoma scopas has [0-9]+ training images only"),
        ("few=Chromis chrysura:100&train=0.01", "few=Chromis_chrysura:100: Chromis chrysura has [0-9]+ training"),
        ("noise=0.0001", "noise=0.0001: of 2,327 training labels none would be changed"),
        ("noise=Zebrasoma_scopas:1", "no training image would be left with the label Zebrasoma scopas"),
    ],
)  # fmt: skip
def test_what_the_numbers_of_images_do_not_allow(reef, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        planted(reef, text)
    assert "\n" not in str(caught.value)


def test_classes_that_a_split_lacks():
    images = np.stack([random_image(i, (8, 8, 3)) for i in range(12)])
    splits = {"train": np.arange(6), "val": np.arange(6, 9), "test": np.arange(9, 12)}
    task = make_task("own", images, [0, 1, 2, 0, 1, 2, 0, 0, 1, 0, 1, 2], splits, "abc")
    with pytest.raises(UsageError, match=r"own.mix=a:c:0.5: there is no val image of c to mix in"):
        planted(task, "mix=a:c:0.5")
    assert planted(task, "mix=c:a:0.5").images[6].tobytes() == images[6].tobytes()
    gone = make_task("own", images, [0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 1, 2], splits, "abc")
    with pytest.raises(UsageError, match=r"own.only=b[+]c: there is no val image of these classes"):
        planted(gone, "only=b+c")
    TASKS["own"] = Source(lambda request: task, sizes=(8,), default_size=8)
    try:
        check_task("own?few=nobody:1")  # its classes are not known beforehand
        with pytest.raises(UsageError, match="unknown class 'nobody': valid are a, b, c"):
            load_task("own?few=nobody:1")
        assert load_task("own?few=A:1").name == "own?few=a:1"
    finally:
        del TASKS["own"]


def test_folders_whatever_their_path(photos, tmp_path):
    root = photos({"two words": 8, "a&b": 8}, root=tmp_path / "who?few=1" / "what?x=1")
    name = f"folder:{root}?few=TWO_words:2&blur=a%26b:1"
    check_task(name)
    task, plain = load_task(name, 16), load_task(f"folder:{root}", 16)
    assert task.name == f"folder:{root}?blur=a%26b:1&few=two_words:2" and plain.name == f"folder:{root}"
    assert task.files == plain.files and counts(task).tolist() == [counts(plain)[0], 2]
    assert load_task(task.name, 16).fingerprint == task.fingerprint != plain.fingerprint
    assert load_task(f"folder:{tmp_path / 'who?few=1'}/what?x=1", 16).fingerprint == plain.fingerprint
    shadowed = photos({"cat": 4, "dog": 4}, root=tmp_path / "a?train=0.5")
    assert len(load_task(f"folder:{shadowed}/", 16).images) == 8
