"""Runs a computation that only informs the user: a failure becomes a note."""

from collections.abc import Callable
from typing import TypeVar

from fishnet.errors import UserError, first_line

T = TypeVar("T")

RAISE = False  # the tests set it: there a failure is a mistake to be seen


def best_effort(what: str, compute: Callable[[], T], note: Callable[[str], None], otherwise: T) -> T:
    """Value of `compute()`, or `otherwise` where it fails.

    Args:
        what: name of the value, as the subject of a sentence, such as "the time of this sweep".
        compute: may raise anything; a `UserError` is a refusal, not a failure, and passes.
        note: takes one sentence that says what is unknown and why.
        otherwise: stands for an unknown value.
    """
    try:
        return compute()
    except UserError:
        raise
    except Exception as error:
        if RAISE:
            raise
        kind = type(error).__name__
        reason = f"{kind}: {first_line(error)}".removesuffix(f": {kind}")
        note(f"{what} is unknown, which changes no result: {reason}")
        return otherwise
