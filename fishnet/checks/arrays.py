"""Checks of arrays that users pass in, before they are truncated or wrapped. Imports no JAX."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from fishnet.errors import UsageError


@runtime_checkable
class SupportsArray(Protocol):
    """Object that NumPy can turn into an array, such as an array of JAX."""

    def __array__(self) -> np.ndarray: ...


# A union, which jaxtyping can give a shape: NumPy's own is none any more from 2.5 on, and JAX's needs an import of JAX.
ArrayLike = np.ndarray | np.bool_ | np.number | bool | int | float | complex | SupportsArray

# What a function over leading axes returns: an array, or a number where there are no leading axes.
FloatOrArray = np.ndarray | np.floating | float


def check_whole_numbers(values: ArrayLike | Sequence, what: str, low: int, high: int) -> Int64[np.ndarray, "..."]:
    """Checks an array-like of whole numbers and returns it as int64; nothing is rounded, wrapped or parsed.

    Args:
        values: integers, or floats that are whole numbers, [...]; also as Python objects, as a column of a table has.
        what: name of the values in the plural, for messages.
        low: smallest allowed value.
        high: first value that is too large.

    Returns:
        [...] int64.

    Raises:
        UsageError: another type (bool, text), a value that is not whole, or one outside [low, high).
    """
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(value, int | np.integer) for value in array.flat):
        array = np.asarray(array.tolist())  # beyond 64 bits it stays objects
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
