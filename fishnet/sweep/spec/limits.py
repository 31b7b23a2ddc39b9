"""Limits on the size of a sweep, checked by arithmetic before any list is built."""

import math
from collections.abc import Sequence

import numpy as np

from fishnet.errors import UsageError

# Three times what the benchmark plans within seconds; all arms are checked before anything is compiled.
MOST_RUNS = 2**15
# An epoch of a run has about half a kilobyte of curves in memory, for 15 classes: a gigabyte for all.
MOST_EPOCHS = 2**21
MOST_STEPS = 2**31 - 1  # of a run, counted in int32
MOST_WIDTH = 2**16  # channels or units of a layer
MOST_LAYERS = 256  # widths times depth: what a compiler takes minutes for
SMALLEST, LARGEST = (float(edge) for edge in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


def check_runs(axes: Sequence[int], draws: int, seeds: int) -> None:
    """Refuses more runs than a sweep can hold.

    Args:
        axes: number of values of each.
        draws: of the samples; 1 without.
        seeds: number of them.

    Raises:
        UsageError: with how many there would be.
    """
    arms = math.prod(axes) * draws
    if arms * seeds > MOST_RUNS:
        raise UsageError(
            f"axes, draws and seeds make {format_count(arms * seeds)} runs, "
            f"more than the {MOST_RUNS:,} that a sweep can hold"
        )


def check_count(what: str, number: int) -> None:
    """Refuses a number of seeds or draws that is beyond any sweep.

    Raises:
        UsageError: with the number.
    """
    if number > MOST_RUNS:
        raise UsageError(f"{what}: {format_count(number)} is more than the {MOST_RUNS:,} runs that a sweep can hold")


def format_count(number: int) -> str:
    """A whole number above 0 in a message: Python does not write those of thousands of digits."""
    return str(number) if number < 10**15 else f"about 10^{math.log10(number):.0f}"


def check_epochs(runs: int, epochs: int) -> None:
    """Refuses more epochs of all runs than their curves have room for.

    Raises:
        UsageError: with how many there would be.
    """
    if runs * epochs > MOST_EPOCHS:
        raise UsageError(
            f"{runs:,} runs of up to {epochs:,} epochs are more than the {MOST_EPOCHS:,} epochs that a sweep can hold"
        )


def in_float32(value: float) -> bool:
    """Whether a number is 0 or a normal number of float32: smaller ones are 0 in a compiled program."""
    return value == 0 or SMALLEST <= abs(value) <= LARGEST
