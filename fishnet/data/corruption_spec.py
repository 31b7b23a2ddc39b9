"""Corruptions as text, the part behind the ? of `reef?only=A+B&train=0.5`: parses and formats `Modifier`s.

A modifier is a key, the names of classes, a number and the number of a draw: KEY=CLASS:NUMBER@DRAW. In the names of
classes the characters %&+,:? are written as in web addresses (%26 for &). What each modifier does stands in
`fishnet.data.corruptions`.
"""

import math
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from fishnet.errors import UsageError
from fishnet.host.paths import resolve_path
from fishnet.lookup import lookup, unknown_name

FOLDER_PREFIX = "folder:"
RESERVED = "%&+,:?"  # the comma separates the values of an axis


@dataclass(frozen=True)
class NumberRange:
    """Range of the number of a modifier; 0 is never in it, because it would change nothing."""

    what: str  # the number is, with its unit
    low: float
    high: float
    with_low: bool = False
    with_high: bool = True
    whole: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low or (self.with_low and value == self.low)
        below = value < self.high or (self.with_high and value == self.high)
        return above and below and value != 0 and (not self.whole or value.is_integer())

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low, high = "at least" if self.with_low else "above", "at most" if self.with_high else "below"
        zero = " but 0" if self.low < 0 else ""
        return f"{kind} ({self.what}) {low} {self.low:g} and {high} {format_number(self.high)}{zero}"


@dataclass(frozen=True)
class ModifierForm:
    """Syntax of a modifier: what may stand behind `KEY=`."""

    value: str  # what follows KEY=
    names: tuple[int, ...]  # how many names stand before the number; of `only`, which takes any number of them, none
    numbers: NumberRange | None = None  # None: there is none, or it depends on the name
    drawn: bool = False  # whether something is drawn, so that @DRAW may follow


@dataclass(frozen=True)
class Modifier:
    """Corruption of a task: its kind, its classes, its amount and the number of its random draw."""

    key: str  # of `FORMS`
    names: tuple[str, ...] = ()  # classes, as typed until `resolve_modifiers` finds them; for shift a key of `SHIFTS`
    amount: float = 0.0
    draw: int = 0  # another number makes other random choices


def split_name(name: str) -> tuple[str, str | None]:
    """Splits the name of a task into the name without modifiers and their text (None without a ?).

    The path of `folder:PATH` may hold a ?. What follows its last one is modifiers if that has no slash and begins with
    a key of `FORMS` and =; a folder of such a name is meant by a slash behind it.
    """
    if not name.startswith(FOLDER_PREFIX):
        base, mark, text = name.partition("?")
        return base, text if mark else None
    base, mark, text = name.rpartition("?")
    key, equals, _ = text.partition("=")
    return (base, text) if mark and equals and key in FORMS and "/" not in text else (name, None)


def normalize_task(name: str) -> str:
    """Normalizes the name of a task: the folder of `folder:PATH` becomes one absolute path, however it was typed.

    The path loses links, `~`, `..` and superfluous slashes. Names of other tasks stay as they are.

    Raises:
        UserError: there is no such home folder, or the working folder is gone.
    """
    base, text = split_name(name)
    path = base.removeprefix(FOLDER_PREFIX)
    if path == base or not path:
        return name
    return folder_task(path) if text is None else f"{FOLDER_PREFIX}{resolve_path(path)}?{text}"


def folder_task(path: str | os.PathLike) -> str:
    """Name of the task of a folder; a path that would seem to end with modifiers gets a slash behind it."""
    name = f"{FOLDER_PREFIX}{resolve_path(path)}"
    return name if split_name(name)[1] is None else f"{name}/"


def task_folder(name: str) -> str | None:
    """Path in the name of a `folder:PATH` task; None for other tasks."""
    base, _ = split_name(name)
    return base.removeprefix(FOLDER_PREFIX) if base.startswith(FOLDER_PREFIX) else None


def parse_modifiers(text: str) -> tuple[Modifier, ...]:
    """Parses `only=A+B&train=0.5@3` into modifiers, in the order written.

    Whether the classes exist is checked by `resolve_modifiers`.

    Args:
        text: what follows the ?.

    Raises:
        UsageError: an unknown key, a value that is not of its form, a number out of range.
    """
    return tuple(map(_parse_one, text.split("&")))


def resolve_modifiers(modifiers: Sequence[Modifier], classes: Sequence[str], image_size: int) -> tuple[Modifier, ...]:
    """Finds the classes that modifiers name, and sorts the modifiers into the order in which they are applied.

    That order is the one of `FORMS`, and within a key the one of the classes (or of `SHIFTS`). The names are those of
    the classes that `only` leaves.

    Args:
        modifiers: from `parse_modifiers`, or settled already.
        classes: of the task without modifiers.
        image_size: of the task, in pixels.

    Raises:
        UsageError: an unknown class, the same thing planted twice, a class mixed with itself, one class alone, or a
            resolution that is not below the image size.
    """
    left, settled = tuple(classes), []
    for modifier in sorted(modifiers, key=lambda modifier: modifier.key != "only"):
        if modifier.key != "shift":
            names = tuple(find_class(name, left) for name in modifier.names)
            modifier = replace(modifier, names=names)
        if modifier.key == "only":
            names = tuple(name for name in classes if name in names)
            if len(names) < max(2, len(modifier.names)):
                raise UsageError(f"{format_modifier(modifier, left)}: it takes two classes or more, each once")
            left, modifier = names, replace(modifier, names=names)
        settled.append(modifier)
    settled.sort(key=lambda modifier: _place(modifier, left))
    for i, modifier in enumerate(settled):
        text = format_modifier(modifier, classes if modifier.key == "only" else left)
        others = [other.names for other in settled[:i] if other.key == modifier.key]
        if modifier.key == "only" and others:
            raise UsageError("only= is given twice: join its classes with +")
        if any(not names or names[0] == modifier.names[0] for names in others):
            raise UsageError(f"{text}: {modifier.key} is planted there already")
        if modifier.key == "mix" and modifier.names[0] == modifier.names[1]:
            raise UsageError(f"{text}: a class cannot be mixed with itself")
        if modifier.key == "low" and modifier.amount >= image_size:
            raise UsageError(f"{text}: valid are 1 to {image_size - 1} pixels, less than the images have")
    return tuple(settled)


def format_modifiers(settled: Sequence[Modifier], classes: Sequence[str]) -> str:
    """Formats the result of `resolve_modifiers`, so that parsing and resolving the text gives the same modifiers.

    Args:
        settled: the modifiers.
        classes: of the task without modifiers.
    """
    left = next((modifier.names for modifier in settled if modifier.key == "only"), classes)
    return "&".join(format_modifier(modifier, classes if modifier.key == "only" else left) for modifier in settled)


def format_modifier(modifier: Modifier, classes: Sequence[str]) -> str:
    """Formats one modifier; spaces in the name of a class become _ where no other class of `classes` is meant then."""
    names = [modifier.names[0]] if modifier.key == "shift" else [_quoted(name, classes) for name in modifier.names]
    if modifier.key == "only":
        return f"only={'+'.join(names)}"
    draw = f"@{modifier.draw}" if modifier.draw else ""
    return f"{modifier.key}={':'.join([*names, format_number(modifier.amount)])}{draw}"


def find_class(text: str, classes: Sequence[str]) -> str:
    """Finds a class by its name: an exact match, or the only one but for case, Unicode form and _ for spaces.

    Raises:
        UsageError: there is none, or there are several.
    """
    if text in classes:
        return text
    alike = [name for name in classes if _plain(name) == _plain(text)]
    if len(alike) != 1:
        error = unknown_name("class", text, alike or classes)
        special = any(letter in name for name in classes for letter in RESERVED)
        hint = f"; in the names of classes {RESERVED} are written as in web addresses (+ as %2B)" if special else ""
        raise UsageError(f"{error}{hint}")
    return alike[0]


def parse_classes(text: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Parses a list of classes joined with +, whose names are written as in modifiers.

    Args:
        text: `A+B`; a + within a name is written as %2B.
        classes: of the task.

    Raises:
        UsageError: a name that is no class, or two that are one.
    """
    names = tuple(find_class(unquote(name), classes) for name in text.split("+"))
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{text}: class {name!r} is there twice")
    return names


def format_number(number: float) -> str:
    """Formats a number in the fewest digits that parse to the same number."""
    if float(number).is_integer() and abs(number) < 2**53:
        return str(int(number))
    return f"{number:g}" if float(f"{number:g}") == number else repr(float(number))


def _parse_one(text: str) -> Modifier:
    key, equals, value = text.partition("=")
    form = lookup(FORMS, key, "modifier")
    if not equals:
        raise _misspelt(text, key)
    if key == "only":
        names = tuple(map(unquote, value.split("+")))
        if "" in names:
            raise _misspelt(text, key)
        return Modifier(key, names)
    *names, number = value.split(":")
    number, at, draw = number.partition("@")
    if len(names) not in form.names or "" in names or (at and not re.fullmatch("[0-9]{1,9}", draw)):
        raise _misspelt(text, key)
    names = tuple(map(unquote, names))
    numbers = form.numbers or lookup(SHIFTS, names[0], "kind of shift")
    if at and not (form.drawn or (key == "shift" and names == ("noise",))):
        raise UsageError(f"{text}: nothing is drawn there, so @{draw} would have no effect")
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if amount not in numbers:
        raise UsageError(f"{text}: {number!r} is not {numbers}")
    return Modifier(key, names, amount, int(draw or 0))


def _place(modifier: Modifier, classes: Sequence[str]) -> tuple[int, int]:
    within = list(SHIFTS) if modifier.key == "shift" else classes
    known = modifier.names and modifier.names[0] in within  # the first of several `only` may have other classes left
    return list(FORMS).index(modifier.key), within.index(modifier.names[0]) if known else -1


def _misspelt(text: str, key: str) -> UsageError:
    return UsageError(f"{text!r} is not of the form {key}={FORMS[key].value}")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().replace(" ", "_")


def _quoted(name: str, classes: Sequence[str]) -> str:
    alone = [_plain(other) for other in classes].count(_plain(name)) == 1
    shown = name.replace(" ", "_") if alone else name
    return "".join(f"%{ord(letter):02X}" if letter in RESERVED else letter for letter in shown)


SHARE, PART = NumberRange("a share", 0, 1), NumberRange("a share", 0, 1, with_high=False)
SIGMA = NumberRange("a standard deviation in pixels", 0, 32)
# In the order in which they are applied, whatever the order written. Classes are chosen before anything is done to
# them. What happens to images happens as on the way through a camera: what stands before it, its optics, its sensor;
# then the test split's change of it. Training images are counted before some of their labels are changed, so that a
# share of wrong labels holds of the images that are trained on.
FORMS: dict[str, ModifierForm] = {
    "only": ModifierForm("CLASS+CLASS", ()),
    "mix": ModifierForm("CLASS:OTHER:SHARE[@DRAW]", (2,), SHARE, drawn=True),
    "vary": ModifierForm("CLASS:STRENGTH[@DRAW]", (1,), NumberRange("a strength", 0, 4), drawn=True),
    "blur": ModifierForm("CLASS:SIGMA", (1,), SIGMA),
    "low": ModifierForm("CLASS:PIXELS", (1,), NumberRange("a side in pixels", 1, 511, with_low=True, whole=True)),
    "shift": ModifierForm("KIND:AMOUNT (noise:AMOUNT[@DRAW])", (1,)),
    "train": ModifierForm("SHARE[@DRAW]", (0,), PART, drawn=True),
    "few": ModifierForm("CLASS:IMAGES[@DRAW]", (1,), NumberRange("of images", 1, 10**9, True, whole=True), True),
    "noise": ModifierForm("[CLASS:]SHARE[@DRAW]", (0, 1), SHARE, drawn=True),
}
SHIFTS: dict[str, NumberRange] = {
    "blur": SIGMA,
    "contrast": NumberRange("by how much it grows, of itself", -1, 4, with_low=True),
    "brightness": NumberRange("a part of the range from black to white", -1, 1, with_low=True),
    "noise": NumberRange("a standard deviation as a part of the range from black to white", 0, 1),
}
