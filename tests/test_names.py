"""Names as text that can be shown: nothing is lost, and nothing reaches a terminal, a page or a shell as a command."""

import csv
import io
import subprocess
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishnet.host.names import escape_cell, escape_name, escape_text, is_escaped, quote_command, quote_word

ANY = st.text(st.one_of(st.characters(), st.sampled_from("\\xu0\x1b\udcff\udc80\x00 \t\n\u202e"))).filter(bool)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Chromis chrysura", "Chromis chrysura"),
        ("数 é e\u0301 \U0001f420 عربي", "数 é e\u0301 \U0001f420 عربي"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner belongs to the word
        (r"a\b", r"a\b"),
        ("a\x1b[31m", r"a\x1b[31m"),
        ("a\tb\nc\r\x7f\x85", r"a\x09b\x0ac\x0d\x7f\x85"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\udcff"),
        (r"\udcff", r"\\udcff"),
        (r"\xff", r"\\xff"),
        ("\uffff\U0010ffff", r"\uffff\U0010ffff"),
        (" ", r"\x20"),
        (" cat ", r"\x20cat\x20"),
        ("a\\\x1b", r"a\\\x1b"),
    ],
)  # fmt: skip
def test_only_what_cannot_be_shown_is_escaped(name, text):
    assert escape_name(name) == text
    assert is_escaped(text)


@given(ANY)
def test_what_is_shown_is_harmless_and_can_be_read_back(name):
    text = escape_name(name)
    assert is_escaped(text)
    # XML, UTF-8, one line, no control, no direction, no space at the ends
    assert ElementTree.fromstring(f"<a>{text.replace('&', '&amp;').replace('<', '&lt;')}</a>").text == text
    assert text.encode().decode() == text
    assert len(text.splitlines()) == 1
    assert text.strip() == text
    assert not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)
    assert not any(unicodedata.bidirectional(letter) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
                   for letter in text)  # fmt: skip
    # Python's own codec knows what was escaped, unless nothing was: so no two names have one text.
    escaped = text != name
    plain = "".join(letter if ord(letter) < 128 else f"\\U{ord(letter):08x}" for letter in text)
    assert (plain.encode("ascii").decode("unicode_escape") if escaped else text) == name


@given(ANY, ANY)
def test_different_names_stay_different(one, other):
    assert (escape_name(one) == escape_name(other)) == (one == other)


def test_twins_of_escapes_stay_different():
    raw = ["\x1b", r"\x1b", r"\\x1b", r"\\\x1b", "\udcff", r"\udcff", "\\\udcff", " ", r"\x20", "  ", "a\\", "a\\\\"]
    assert len(set(map(escape_name, raw))) == len(raw)


@given(ANY)
def test_a_word_for_the_shell_can_be_shown(word):
    try:
        word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no path can be so
        return
    assert escape_text(quote_word(word)) == quote_word(word)


def test_bash_reads_back_what_is_printed():
    words = [
        "a b",
        "it's",
        "$HOME",
        "`id`",
        "a\x1b[0m'\\n",
        "\udcff\udc80.png",
        "tab\tnew\nline",
        "é",
        "-x",
        "*",
        "\u202ex",
    ]
    command = quote_command(["printf", r"%s\0", *words])
    assert escape_text(command) == command
    done = subprocess.run(["bash", "-c", command.encode("utf-8")], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in words]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("cod", "cod"), ("+", "+"), ("-", "-"), ("-1.5", "-1.5"), ("+7", "+7"), ("a=b", "a=b"),
        ("=1+1", r"\x3d1+1"), ("@SUM(A1)", r"\x40SUM(A1)"), ("+cmd|' /C calc'!A0", r"\x2bcmd|' /C calc'!A0"),
        ("-2+3+cmd", r"\x2d2+3+cmd"),
    ],
)  # fmt: skip
def test_no_cell_is_a_formula(text, cell):
    assert escape_cell(text) == cell
    file = io.StringIO()
    csv.writer(file).writerow([cell, "x"])
    assert next(csv.reader(io.StringIO(file.getvalue()))) == [cell, "x"]
