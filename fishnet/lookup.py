"""Names to objects, in one way everywhere."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

from fishnet.errors import UsageError

T = TypeVar("T")

# Values of earlier versions -> how they are spelled now.
RENAMED = {
    "weight_standardised": "weight_standardized",
    "initialisers": "initializers",
    "plants": "corruptions",
    "regularisation": "regularization",
}


class Table(dict[str, T]):
    """Components by name, to which users may add, and which remembers the entries that fishnet put there.

    Args:
        entries: fishnet's own.
    """

    def __init__(self, entries: Mapping[str, T]) -> None:
        super().__init__(entries)
        self.original = dict(entries)

    def is_own(self, name: str) -> bool:
        """Whether the entry of a name is fishnet's: not the user's own, and not replaced."""
        return name in self.original and self.get(name) is self.original[name]

    def users(self) -> dict[str, T]:
        """Entries that the user added or replaced."""
        return {name: value for name, value in self.items() if not self.is_own(name)}


def unknown_name(what: str, name: object, valid: Iterable[str]) -> UsageError:
    """Makes the error for a name that is not in a table: repeats it as typed, and lists the valid ones and the nearest.

    A name of an earlier version is refused with the one that it has now.

    Args:
        what: what the name stands for, in the singular, such as "activation".
        name: the value as the user typed it.
        valid: the names that would have been accepted.

    Returns:
        A `UsageError` to raise.
    """
    valid = list(valid)
    if (now := RENAMED.get(str(name))) in valid:
        return UsageError(f"{what}: {str(name)!r} is now spelled {now!r}")
    near = difflib.get_close_matches(str(name), valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {what} {str(name)!r}: valid are {', '.join(valid)}{hint}")


def lookup(table: Mapping[str, T], name: str | Callable, what: str) -> T:
    """Looks up the object that `name` stands for in `table`; a callable passes through.

    Args:
        table: a visible dictionary such as `ACTIVATIONS`.
        name: a key of it, or an object to use as it is.
        what: what the table holds, in the singular, for the message.

    Raises:
        UsageError: the name is not in the table; the message lists the valid names and the nearest one.
    """
    if callable(name):
        return cast(T, name)
    if name not in table:
        raise unknown_name(what, name, table)
    return table[name]
