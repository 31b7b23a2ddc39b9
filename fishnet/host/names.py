"""Escaping of file names as text that tables, pages, pictures and terminals can show.

A file may be called nearly anything: with control characters that steer a terminal, bytes that are no text, characters
that XML forbids. They are written as in Python (`\\x1b`, `\\u202e`, `\\udcff` for the byte FF), and different names
stay different texts.
"""

import re
import shlex
from collections.abc import Sequence

# Controls, line separators, directions of writing, what has no width (but the joiners that words are written with),
# bytes that are no UTF-8 (as Python reads them), and noncharacters.
UNSHOWN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\ufdd0-\ufdef"
    + "".join(f"\\U{plane << 16 | 0xFFFE:08x}-\\U{plane << 16 | 0xFFFF:08x}" for plane in range(17))
    + "]"
)
AT_ENDS = re.compile(r"\A\s+|\s+\Z")  # spaces that nobody sees
ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")  # what a name that was escaped holds
FORMULA = re.compile(r"[=@]|[+-](?![\d.,]*\Z)")  # at the start of a cell


def escape_name(name: str) -> str:
    """Escapes a name as printable text, unchanged if it is printable.

    Unprintable characters, and spaces at either end, are escaped. So is a backslash, if the name holds any of these or
    looks as if it had been escaped itself: no two names have the same text.
    """
    if not (UNSHOWN.search(name) or AT_ENDS.search(name) or ESCAPED.search(name)):
        return name
    name = UNSHOWN.sub(_escape, name.replace("\\", "\\\\"))
    return AT_ENDS.sub(lambda spaces: "".join(map(_escaped, spaces[0])), name)


def is_escaped(name: str) -> bool:
    """Tells whether a text needs no escaping, as every result of `escape_name`."""
    return bool(name) and not (UNSHOWN.search(name) or AT_ENDS.search(name))


def escape_text(text: str) -> str:
    """Escapes unprintable characters of a message, which may contain any path."""
    return UNSHOWN.sub(_escape, text)


def escape_lines(text: str) -> str:
    """Escapes unprintable characters of several lines, as `escape_text`."""
    return "\n".join(map(escape_text, text.split("\n")))


def escape_cell(text: str) -> str:
    """Escapes a name for a cell of a CSV file if a spreadsheet would take it for a formula."""
    return _escaped(text[0]) + text[1:] if FORMULA.match(text) else text


def quote_word(word: str) -> str:
    """Quotes a word of a shell command to be copied; as `$'...'` where it has unprintable characters."""
    if not UNSHOWN.search(word):
        return shlex.quote(word)
    return "$'" + "".join(map(_shell_letter, word)) + "'"


def quote_command(words: Sequence[str]) -> str:
    """Quotes the words of a command to be copied into a shell."""
    return " ".join(map(quote_word, words))


def with_flag(command: str, flag: str, value: str) -> str:
    """Sets a flag of a shell command, in place of other values that it has there: `--shard 3/4`, `--shard=3/4`."""
    try:
        words = shlex.split(command)
    except ValueError:  # not a command that a shell would take
        return f"{command} {flag} {value}"
    kept, skip = [], False
    for word in words:
        if not (skip or word == flag or word.startswith(f"{flag}=")):
            kept.append(word)
        skip = word == flag
    return shlex.join([*kept, flag, value])


def _escape(found: re.Match) -> str:
    return _escaped(found[0])


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _shell_letter(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if not UNSHOWN.match(letter):
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
