import io
import re

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from benchmarks import near_copies
from fishnet.data import duplicates
from fishnet.data.duplicates import MISSED, describe_duplicates, difference_hash, find_duplicates
from fishnet.data.images import prepare_image


def scenes(n, size=64, seed=0):
    """Smooth random pictures, all different."""
    rng = np.random.RandomState(seed)
    small = rng.randint(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC) for one in small]


def stack(pictures):
    return np.stack([prepare_image(picture, 64) for picture in pictures])


def splits(train, val, test):
    return {"train": np.array(train), "val": np.array(val), "test": np.array(test)}


def test_nothing_is_found_where_nothing_is():
    images = stack(scenes(60))
    found = find_duplicates(images, np.zeros(60, int), splits(range(40), range(40, 50), range(50, 60)))
    assert found.across == found.same_split == found.labels_differ == found.near == () and found.looked_at == 1
    assert describe_duplicates(found, [str(i) for i in range(60)]) == []


def test_exact_copies_are_told_apart_by_split_and_class():
    images = stack(scenes(10))
    images[1], images[5], images[9] = images[0], images[0], images[3]
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    found = find_duplicates(images, labels, splits([0, 1, 2, 3, 4], [5, 6], [7, 8, 9]))
    assert found.same_split == ((0, 1),) and found.across == ((0, 5), (3, 9)) and found.labels_differ == ((0, 5),)
    notes = describe_duplicates(found, [f"{i}.png" for i in range(10)])
    assert notes[0] == "2 images are exact duplicates of another across splits: 0.png = 5.png, 3.png = 9.png"
    assert notes[1] == "1 image is an exact duplicate of another in the same split: 0.png = 1.png"
    assert notes[2] == "1 image is an exact duplicate of one in another class: 0.png = 5.png"


@pytest.mark.parametrize("change", ["encoded", "rescaled", "brighter"])
def test_near_copies_across_splits_are_found(change):
    pictures = scenes(30, size=96)
    copy = pictures[3]
    if change == "encoded":
        buffer = io.BytesIO()
        copy.save(buffer, "JPEG", quality=60)
        copy = Image.open(buffer)
    elif change == "rescaled":
        copy = copy.resize((150, 150), Image.Resampling.BICUBIC)
    else:
        copy = ImageEnhance.Brightness(copy).enhance(1.06)
    pictures[25] = copy
    found = find_duplicates(stack(pictures), np.zeros(30, int), splits(range(20), range(20, 24), range(24, 30)))
    assert found.near == ((3, 25),) and not found.across
    (note,) = describe_duplicates(found, [str(i) for i in range(30)])
    assert "1 image is a near duplicate" in note and "3 ~ 25" in note and note.endswith(MISSED)


def test_the_docstring_states_the_rates_that_are_measured():
    text = " ".join(find_duplicates.__doc__.split())
    originals, others = near_copies.load_photographs()
    assert len(originals) == len(others) == 200
    for name, change in near_copies.CHANGES.items():
        found = near_copies.count_found(originals, [change(image) for image in originals], 32)
        stated = 200 if name == "the same pixels" else int(re.search(rf"{re.escape(name)}: (\d+)", text)[1])
        assert abs(found - stated) <= 10, f"{name}: {found}"  # decoders of JPEG differ a little
    assert near_copies.count_found(originals, others, 32) == 0
    assert "takes another photograph for a copy: 0." in text


def test_near_copies_within_a_split_are_no_news():
    pictures = scenes(10, size=96)
    pictures[1] = pictures[0].resize((150, 150))
    found = find_duplicates(stack(pictures), np.zeros(10, int), splits(range(6), [6, 7], [8, 9]))
    assert found.near == ()


def test_hash_against_a_plain_reference():
    images = stack(scenes(5))
    hashes, thumbnails = difference_hash(images)
    for image, value, thumbnail in zip(images, hashes, thumbnails, strict=True):
        grey = np.asarray(Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)).astype(int)
        bits = "".join(str(int(grey[y, x + 1] > grey[y, x])) for y in range(8) for x in range(8))
        assert int(bits, 2) == int.from_bytes(value.tobytes(), "big")
        np.testing.assert_allclose(thumbnail.reshape(8, 8, 3), image.reshape(8, 8, 8, 8, 3).mean((1, 3)), atol=1)


def test_pictures_without_texture_do_not_all_match_and_cost_little():
    shade = np.linspace(0, 255, 3_000).astype(np.uint8)
    images = np.broadcast_to(shade[:, None, None, None], (3_000, 8, 8, 3)).copy()
    images[::2, 0, 0, 0] ^= 1  # no exact copies of the neighbour, which has the same shade
    found = find_duplicates(
        images, np.zeros(3_000, int), splits(range(2_000), range(2_000, 2_500), range(2_500, 3_000))
    )
    for i, j in found.near:
        assert abs(int(shade[i]) - int(shade[j])) <= 13


def test_the_work_is_bounded_and_the_note_says_so(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 400)
    images = stack(scenes(60))
    found = find_duplicates(images, np.zeros(60, int), splits(range(40), range(40, 50), range(50, 60)))
    assert found.looked_at == 0.45  # 200 // 40 of 10 and 200 // 50 of 10
    assert "among 45% of the val and test images only" in describe_duplicates(found, [""] * 60)[-1]
