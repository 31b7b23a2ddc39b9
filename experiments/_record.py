"""answer.json: what an experiment leaves for the ledger of claims, checked whenever it is written or read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fishnet.errors import UserError
from fishnet.files import read_regular_file

SIZES = ("smoke", "quick", "full")
VERDICTS = ("supported", "refuted", "undecided")
# What an answer has, each a text.
TEXTS = ("experiment", "size", "question", "answer")
CLAIM = ("text", "source", "verdict", "measure", "control")
MADE = ("command", "runs", "time", "device", "versions", "finished")


class BadAnswer(UserError):
    """An answer that the ledger cannot use."""


def read_answer(path: Path, experiment: str) -> dict[str, Any] | None:
    """Reads the answer of an experiment; None where there is none.

    Raises:
        BadAnswer: it cannot be read, or lacks something; in one line that names the file.
    """
    try:
        record = json.loads(read_regular_file(path).decode(), parse_constant=_no_constant)
        check_answer(record, experiment)
    except FileNotFoundError:
        return None
    except BadAnswer as error:
        raise BadAnswer(f"{path} cannot be used: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise BadAnswer(f"{path} cannot be read: {reason}") from error
    return record


def check_answer(record: Any, experiment: str) -> None:
    """Refuses a record that is no answer of an experiment.

    Args:
        record: as JSON has it.
        experiment: the name of its module.

    Raises:
        BadAnswer: with the first thing that is wrong.
    """
    record = _mapping("the answer", record)
    for name in TEXTS:
        _text(name, record.get(name), lines=name == "answer")
    _one_of("experiment", record["experiment"], (experiment,))
    _one_of("size", record["size"], SIZES)
    claims = record.get("claims")
    if not isinstance(claims, list):
        raise BadAnswer(f"claims: {_shown(claims)} is no list")
    for number, claim in enumerate(claims, start=1):
        where = f"claim {number}"
        claim = _mapping(where, claim)
        for name in CLAIM:
            _text(f"{where}: {name}", claim.get(name))
        _one_of(f"{where}: verdict", claim["verdict"], VERDICTS)
        for arm, phrase in _mapping(f"{where}: effects", claim.get("effects")).items():
            _text(f"{where}: effect of {arm}", phrase)
    made = _mapping("made", record.get("made"))
    for name in MADE:
        _text(f"made: {name}", made.get(name), lines=True, empty=True)  # a command may name a folder of two lines


def _mapping(what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadAnswer(f"{what}: {_shown(value)} is no object with names and values")
    return value


def _text(what: str, value: Any, lines: bool = False, empty: bool = False) -> None:
    if not isinstance(value, str) or not (value.strip() or empty) or (len(value.splitlines()) > 1 and not lines):
        raise BadAnswer(f"{what}: {_shown(value)} is no text" + (" of one line" if not lines else ""))


def _one_of(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise BadAnswer(f"{what}: {_shown(value)} is not {' or '.join(valid)}")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
