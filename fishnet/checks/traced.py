"""Range checks for numbers that may be traced: known ones are checked, traced ones pass."""

from collections.abc import Callable

import jax
import jax.core
import numpy as np
from jax.typing import ArrayLike

from fishnet.errors import UsageError


def violates(value: ArrayLike, holds: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether an element of a known value violates a condition; False for a traced value.

    Args:
        value: a Python number, or an array [...] of NumPy or JAX.
        holds: elementwise condition; comparisons with NaN are false, so NaN breaks it.
    """
    return not isinstance(value, jax.core.Tracer) and not np.all(holds(np.asarray(value)))


def is_whole_in(low: int, high: int) -> Callable[[np.ndarray], np.ndarray]:
    """Makes a condition for `violates`: whole numbers in [low, high), whatever their type."""
    return lambda value: (value >= low) & (value < high) & (value == np.floor(value))


def check_progress(progress: ArrayLike) -> None:
    """Refuses known progress outside [0, 1], such as a step in place of the fraction of all steps.

    Raises:
        UsageError: it is outside [0, 1], or NaN.
    """
    if violates(progress, lambda progress: (progress >= 0) & (progress <= 1)):
        raise UsageError(f"progress {progress} is not in [0, 1]: it is the step divided by the number of all steps")
