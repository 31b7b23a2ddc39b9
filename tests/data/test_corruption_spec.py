"""What follows the ? in a task's name: read, checked, and written in one way."""

import dataclasses
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishnet.data import check_task, default_image_size, load_task
from fishnet.data.corruption_spec import (
    FORMS,
    SHIFTS,
    Modifier,
    find_class,
    format_modifiers,
    format_number,
    parse_classes,
    parse_modifiers,
    resolve_modifiers,
    split_name,
)
from fishnet.data.corruptions import CORRUPTIONS, SHIFT_FUNCTIONS
from fishnet.errors import UsageError
from fishnet.sweep import Recipe, Sweep
from fishnet.sweep.program.build import experts_of
from fishnet.sweep.spec.validation import check_sweep

CLASSES = ("Chromis chrysura", "cod", "Cod", "50% & more", "a:b+c,d?e", "x_y", "x y")


@pytest.mark.parametrize(
    ("name", "base", "text"),
    [
        ("reef", "reef", None),
        ("reef?train=0.5", "reef", "train=0.5"),
        ("reef?", "reef", ""),
        ("reef?few=what?:2", "reef", "few=what?:2"),
        ("folder:/a b/c", "folder:/a b/c", None),
        ("folder:/a?b", "folder:/a?b", None),
        ("folder:/a?b=c", "folder:/a?b=c", None),
        ("folder:/a?train", "folder:/a?train", None),
        ("folder:/a?train=1/", "folder:/a?train=1/", None),
        ("folder:/a?b/c?train=0.5&few=x:2", "folder:/a?b/c", "train=0.5&few=x:2"),
    ],
)
def test_names_are_split_at_the_modifiers(name, base, text):
    assert split_name(name) == (base, text)


@pytest.mark.parametrize(
    ("typed", "one"),
    [
        ("train=.50@00", "train=0.5"),
        ("train=5e-1@7", "train=0.5@7"),
        ("few=chromis_CHRYSURA:20.0", "few=Chromis_chrysura:20"),
        ("noise=0.2", "noise=0.2"),
        ("noise=Cod:1&noise=cod:0.25@3", "noise=cod:0.25@3&noise=Cod:1"),
        ("train=0.5&blur=cod:2&only=x y+cod+Chromis chrysura", "only=Chromis_chrysura+cod+x y&blur=cod:2&train=0.5"),
        ("low=x y:8&low=x_y:4", "low=x_y:4&low=x y:8"),
        ("vary=50%25 %26 more:1", "vary=50%25_%26_more:1"),
        ("mix=a%3ab%2Bc%2cd%3fe:COD:0.5", None),
        ("mix=a%3ab%2Bc%2cd%3fe:cod:0.5", "mix=a%3Ab%2Bc%2Cd%3Fe:cod:0.5"),
        ("shift=noise:.1@2&shift=blur:1&shift=contrast:-0.5", "shift=blur:1&shift=contrast:-0.5&shift=noise:0.1@2"),
        ("noise=1e-5&few=cod:3&shift=contrast:1&low=Cod:4&mix=cod:Cod:1&vary=cod:4&blur=cod:.5&train=0.9",
         "mix=cod:Cod:1&vary=cod:4&blur=cod:0.5&low=Cod:4&shift=contrast:1&train=0.9&few=cod:3&noise=1e-05"),
    ],
)  # fmt: skip
def test_there_is_one_way_to_write_it(typed, one):
    if one is None:  # cod or Cod
        with pytest.raises(UsageError, match="unknown class 'COD': valid are cod, Cod"):
            resolve_modifiers(parse_modifiers(typed), CLASSES, 32)
        return
    settled = resolve_modifiers(parse_modifiers(typed), CLASSES, 32)
    assert format_modifiers(settled, CLASSES) == one
    assert resolve_modifiers(parse_modifiers(one), CLASSES, 32) == settled == resolve_modifiers(settled, CLASSES, 32)


LETTERS = st.text(st.sampled_from("aA b_é%&+,:?@=."), min_size=1, max_size=6)


@given(st.data(), st.lists(LETTERS, min_size=2, max_size=6, unique=True))
def test_any_names_and_numbers_survive_being_written(data, classes):
    share = st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)
    draw = st.integers(0, 10**9 - 1)
    left = data.draw(st.lists(st.sampled_from(classes), min_size=2, unique=True))
    (first, second), kind = data.draw(st.permutations(left))[:2], data.draw(st.sampled_from(list(SHIFTS)))
    amounts = {"low": st.integers(1, 31), "few": st.integers(1, 999)}
    modifiers = [
        Modifier("only", tuple(left)),
        Modifier("mix", (first, second), data.draw(share), data.draw(draw)),
        Modifier("shift", (kind,), data.draw(share), data.draw(draw) if kind == "noise" else 0),
        Modifier("train", (), data.draw(share), data.draw(draw)),
        Modifier("noise", (), data.draw(share), data.draw(draw)),
    ]
    for key in ("vary", "blur", "low", "few"):
        drawn = data.draw(draw) if FORMS[key].drawn else 0
        modifiers += [Modifier(key, (name,), float(data.draw(amounts.get(key, share))), drawn) for name in left]
    chosen = data.draw(st.lists(st.sampled_from(modifiers), min_size=1, unique=True))
    chosen += [m for m in modifiers[:1] if m not in chosen and data.draw(st.booleans())]
    settled = resolve_modifiers(chosen, classes, 32)
    text = format_modifiers(settled, classes)
    assert resolve_modifiers(data.draw(st.permutations(parse_modifiers(text))), classes, 32) == settled
    assert format_modifiers(settled, classes) == text and set(map(_loose, settled)) == set(map(_loose, chosen))


def _loose(modifier):
    return modifier.key, frozenset(modifier.names), modifier.amount, modifier.draw


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_being_written(number):
    assert float(format_number(number)) == number and "," not in format_number(number)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown modifier '': valid are only, mix, vary, blur, low, shift, train, few, noise"),
        ("tran=0.5", "unknown modifier 'tran': .* did you mean 'train'"),
        ("train=0.5&", "unknown modifier ''"),
        ("train", r"'train' is not of the form train=SHARE\[@DRAW\]"),
        ("train=", "train=: '' is not a number .a share. above 0 and below 1"),
        ("train=1", "train=1: '1' is not a number .a share. above 0 and below 1"),
        ("train=0", "'0' is not"),
        ("train=nan", "'nan' is not"),
        ("train=half", "'half' is not"),
        ("train=0.5@", "'train=0.5@' is not of the form"),
        ("train=0.5@-1", "is not of the form"),
        ("train=0.5@1.5", "is not of the form"),
        ("train=rising:0.5", "'train=rising:0.5' is not of the form"),
        ("train=0.5&train=0.2@2", "train=0.2@2: train is planted there already"),
        ("few=20", r"'few=20' is not of the form few=CLASS:IMAGES\[@DRAW\]"),
        ("few=:20", "is not of the form"),
        ("few=rising:0", "few=rising:0: '0' is not a whole number .of images. at least 1 and at most 1000000000"),
        ("few=rising:2.5", "'2.5' is not a whole number"),
        ("few=risin:2", "unknown class 'risin': valid are horizontal, falling, upright, rising; did you mean 'rising'"),
        ("noise=rising:1.1", "'1.1' is not a number .a share. above 0 and at most 1"),
        ("noise=0.1&noise=rising:0.2", "noise=rising:0.2: noise is planted there already"),
        ("blur=rising:0", "a standard deviation in pixels. above 0 and at most 32"),
        ("blur=rising:2@1", "blur=rising:2@1: nothing is drawn there, so @1 would have no effect"),
        ("blur=rising:2&blur=Rising:3", "blur=rising:3: blur is planted there already"),
        ("low=rising:16", "low=rising:16: valid are 1 to 15 pixels, less than the images have"),
        ("low=rising:512", "at least 1 and at most 511"),
        ("mix=rising:0.5", "is not of the form mix=CLASS:OTHER:SHARE"),
        ("mix=rising:rising:0.5", "mix=rising:rising:0.5: a class cannot be mixed with itself"),
        ("vary=rising:5", "a strength. above 0 and at most 4"),
        ("shift=fog:1", "unknown kind of shift 'fog': valid are blur, contrast, brightness, noise"),
        ("shift=brightness:0", "at least -1 and at most 1 but 0"),
        ("shift=contrast:-2", "at least -1 and at most 4 but 0"),
        ("shift=noise:-0.1", "above 0 and at most 1"),
        ("shift=brightness:0.1@2", "nothing is drawn there"),
        ("shift=blur:1&shift=blur:2", "shift=blur:2: shift is planted there already"),
        ("only=rising", "only=rising: it takes two classes or more, each once"),
        ("only=rising+rising", "each once"),
        ("only=rising+", "'only=rising[+]' is not of the form only=CLASS[+]CLASS"),
        ("only=rising+falling&only=rising+falling", "only= is given twice"),
        ("only=rising+falling&few=upright:2", "unknown class 'upright': valid are falling, rising"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(text, message):
    for attempt in (check_task, load_task):
        with pytest.raises(UsageError, match=message) as caught:
            attempt(f"synthetic?{text}")
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_class_may_be_called_as_a_kind_of_shift():
    with pytest.raises(UsageError, match="nothing is drawn there"):
        parse_modifiers("blur=noise:1@2")
    text = "blur=noise:1&blur=blur:2&shift=blur:1&shift=noise:0.5@2"
    assert format_modifiers(resolve_modifiers(parse_modifiers(text), ("noise", "blur"), 32), ("noise", "blur")) == text


def test_unknown_tasks_stay_unknown():
    with pytest.raises(UsageError, match=r"unknown task 'ref': .* did you mean 'reef'"):
        check_task("ref?train=0.5")
    with pytest.raises(UsageError, match="write folder:PATH"):
        check_task("folder:?train=0.5")
    with pytest.raises(UsageError, match="valid are 32, 64"):
        check_task("reef?train=0.5", 48)


def test_tables_agree():
    assert list(FORMS) == list(CORRUPTIONS) and list(SHIFTS) == list(SHIFT_FUNCTIONS)
    for key, form in FORMS.items():
        assert form.drawn == (key in ("mix", "vary", "train", "few", "noise"))
        assert ("[@DRAW]" in form.value) == (form.drawn or key == "shift")


def test_checking_needs_no_image(monkeypatch, photos):
    root = photos({"cat": 4, "dog": 4})
    monkeypatch.setattr("PIL.Image.open", None)
    monkeypatch.setattr("fishnet.data.reef.read_records", None)
    check_task("reef?few=zebrasoma_scopas:20&mix=Zebrasoma scopas:Chromis chrysura:0.5&low=Chromis chrysura:31")
    check_task("reef?low=Chromis chrysura:32", 64)
    check_task("mnist-mini?few=3:20&noise=0.2")
    check_task(f"folder:{root}?few=Cat:2")
    for name in ("reef?few=Zebrasoma:20", "mnist?few=10:20", f"folder:{root}?few=cow:2"):
        with pytest.raises(UsageError, match="unknown class"):
            check_task(name)
    assert default_image_size("reef?train=0.5") == 32 and default_image_size("folder:/x?train=0.5") == 32


def test_names_of_classes():
    assert find_class("cod", CLASSES) == "cod" and find_class("Cod", CLASSES) == "Cod"
    assert find_class("chromis chrysura", CLASSES) == "Chromis chrysura"
    assert find_class("X y", ("x y", "cod")) == find_class("x_Y", ("x y", "cod")) == "x y"
    for text in ("COD", "X_Y", "chromis"):
        with pytest.raises(UsageError, match=re.escape(f"unknown class {text!r}")):
            find_class(text, CLASSES)


NAMES = ("a", "b", "a+b", "+", "none", "100%", "50%25", "x,y", "a:b@c", "?", r"\x1b", r"\x20", "caf\u00e9", "_ _")


@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
def test_any_class_can_be_named_in_a_list(names):
    text = "+".join(quote(name, safe="") for name in names)
    assert parse_classes(text, NAMES) == tuple(names)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a+b", ("a", "b")),
        ("a%2Bb", ("a+b",)),
        ("a%2bb+a", ("a+b", "a")),
        ("%2B", ("+",)),
        ("%6eone", ("none",)),
        ("100%", ("100%",)),
        ("x%2Cy+?", ("x,y", "?")),
        ("CAFE\u0301", ("caf\u00e9",)),
    ],
)
def test_lists_of_classes(text, names):
    assert parse_classes(text, NAMES) == names


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("c", r"unknown class 'c': valid are .*%&\+,:\? are written as in web addresses"),
        ("a+", "unknown class ''"),
        ("a+b+A", "'a' is there twice"),
    ],
)
def test_lists_that_name_no_class_or_one_twice(text, part):
    with pytest.raises(UsageError, match=part):
        parse_classes(text, NAMES)


def test_a_class_may_have_a_plus_from_the_flag_to_the_mask(photos):
    root = photos({"cat+dog": 4, "cat": 4, "dog": 4})
    base = Recipe(task=f"folder:{root}", model="hybrid", batch_size=4, image_size=8)
    for hard, mask in (("cat%2Bdog", (1,)), ("cat+dog", (0, 2)), ("CAT%2bdog+cat", (0, 1))):
        recipe = dataclasses.replace(base, hard_classes=hard)
        check_sweep(Sweep(recipe, seeds=1))
        classes = load_task(recipe.task, 8).classes
        assert classes == ("cat", "cat+dog", "dog")
        assert experts_of(recipe, classes) == mask
    with pytest.raises(UsageError, match="unknown class 'bird'"):  # before anything is decoded
        check_sweep(Sweep(dataclasses.replace(base, hard_classes="cat%2Bdog+bird"), seeds=1))
    planted = dataclasses.replace(base, task=f"folder:{root}?only=cat%2Bdog+dog", hard_classes="cat")
    with pytest.raises(UsageError, match=r"unknown class 'cat': valid are cat\+dog, dog"):
        check_sweep(Sweep(planted, seeds=1))
