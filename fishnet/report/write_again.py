"""The command that writes the tables of an output folder again, wherever the folder is now."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fishnet.host.names import quote_word

# A word of a command as `fishnet.host.names.quote_word` writes it, quotes included.
WORD = re.compile(r"(?:\$'(?:\\.|[^\\'])*'|'[^']*'|\"(?:\\.|[^\\\"])*\"|\\.|[^\s'\"\\])+")
EXPERIMENT = "python -m experiments."
ANSWERS = ("answer.html", "answer.json")  # in the folder of an experiment whose sweeps are in folders within


def current_command(out: Path, command: str) -> str | None:
    """The command that a sweep was made with, for the folder as it is called now.

    Args:
        out: the folder, which may have been moved or copied since.
        command: as `sweep.json` has it.

    Returns:
        The command with this folder as its --out; None where it is not one of `experiments`, whose flags are known.
    """
    if not command.startswith(EXPERIMENT):
        return None
    words, kept = iter(WORD.findall(command)), []
    for word in words:
        if word == "--out":
            next(words, None)
        elif not word.strip("'\"").startswith("--out="):
            kept.append(word)
    within = any((out.absolute().parent / name).exists() for name in ANSWERS)
    folder = out.absolute().parent if within else out
    return " ".join([*kept, "--out", quote_word(str(folder))])


def rewrite_hint(out: Path, sweep: Mapping[str, Any]) -> str:
    """A sentence with the command that writes a table of the folder again.

    Args:
        out: the folder.
        sweep: its `sweep.json`.
    """
    command = current_command(out, sweep.get("command") or "")
    if command is not None:
        return f"this writes it again: {command}"
    return f"the same sweep with out={str(out)!r} writes it again"
