"""Arrays of the user checked at the door, before they are truncated or wrapped. Imports no JAX."""

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike

from fishnet.errors import UsageError


def whole_numbers(values: ArrayLike, what: str, low: int, high: int) -> Int64[np.ndarray, "..."]:
    """Integers from an array-like of whole numbers; nothing is rounded, wrapped or parsed.

    Args:
        values: integers, or floats that are whole numbers, [...].
        what: what they are, plural, for messages.
        low: the least that is allowed.
        high: the first that is not.

    Returns:
        [...] int64.

    Raises:
        UsageError: another type (bool, text, objects), a value that is not whole, or one outside [low, high).
    """
    array = np.asarray(values)
    if array.dtype == bool:
        raise UsageError(f"{what} must be whole numbers, not bool; np.flatnonzero turns a mask into indices")
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{what} must be whole numbers, not of type {array.dtype}")
    wrong = array[~(array == np.floor(array))] if array.dtype.kind == "f" else array[:0]  # NaN equals nothing
    if not wrong.size:
        wrong = array[~((array >= low) & (array < high))]
    if wrong.size:
        raise UsageError(f"{what} must be whole numbers in [{low}, {high}), got {wrong.flat[0]}")
    return array.astype(np.int64)
