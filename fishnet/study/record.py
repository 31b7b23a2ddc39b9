"""answer.json: what an experiment leaves for the ledger of claims, checked whenever it is written or read."""

import json
from pathlib import Path
from typing import Any, NoReturn

from fishnet.checks.arguments import check_mapping, check_text, check_type, quote_value
from fishnet.errors import UsageError, UserError, first_line
from fishnet.host.files import read_regular_file

SIZES = ("smoke", "quick", "full")
VERDICTS = ("supported", "refuted", "undecided")
# What an answer has, each a text.
TEXTS = ("experiment", "size", "question", "answer")
CLAIM = ("text", "source", "verdict", "measure", "control")
MADE = ("command", "runs", "time", "device", "versions", "finished")
OBJECT = "an object with names and values"


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
        reason = getattr(error, "strerror", None) or first_line(error)
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
    try:
        _check_answer(record, experiment)
    except UsageError as error:
        raise BadAnswer(str(error)) from error


def _check_answer(record: Any, experiment: str) -> None:
    check_mapping("the answer", record, OBJECT)
    for name in TEXTS:
        _check_words(name, record.get(name), lines=name == "answer")
    _check_one_of("experiment", record["experiment"], (experiment,))
    _check_one_of("size", record["size"], SIZES)
    check_type("claims", record.get("claims"), list, "a list")
    for number, claim in enumerate(record["claims"], start=1):
        where = f"claim {number}"
        check_mapping(where, claim, OBJECT)
        for name in CLAIM:
            _check_words(f"{where}: {name}", claim.get(name))
        _check_one_of(f"{where}: verdict", claim["verdict"], VERDICTS)
        check_mapping(f"{where}: effects", claim.get("effects"), OBJECT)
        for arm, phrase in claim["effects"].items():
            _check_words(f"{where}: effect of {arm}", phrase)
    check_mapping("made", record.get("made"), OBJECT)
    for name in MADE:
        check_text(f"made: {name}", record["made"].get(name))  # a command may name a folder of two lines


def _check_words(what: str, value: Any, lines: bool = False) -> None:
    valid = "a text that says something" + (", in one line" if not lines else "")
    check_text(what, value, valid)
    if not value.strip() or (len(value.splitlines()) > 1 and not lines):
        raise UsageError(f"{what}: {quote_value(value)} is not {valid}")


def _check_one_of(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UsageError(f"{what}: {quote_value(value)} is not {' or '.join(valid)}")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
