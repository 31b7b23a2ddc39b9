"""Which runs share a program, and which of their lanes can be vectorised together."""

from collections.abc import Sequence

import jax

from fishnet.sweep.grid import Run
from fishnet.sweep.knobs import Knobs
from fishnet.sweep.menu import static_key


def group_runs(runs: Sequence[Run]) -> dict[tuple, list[Run]]:
    """Runs by the values of their static fields, in order of first appearance."""
    by_key: dict[tuple, list[Run]] = {}
    for run in runs:
        by_key.setdefault(static_key(run.recipe), []).append(run)
    return by_key


def form_groups(positions: Sequence[int], kinds: Sequence[tuple], width: int) -> list[list[int]]:
    """Splits lanes into groups of at most `width` that agree in their kinds, in order of first appearance."""
    by_kind: dict[tuple, list[int]] = {}
    for position, kind in zip(positions, kinds, strict=True):
        by_kind.setdefault(kind, []).append(position)
    return [lanes[i : i + width] for lanes in by_kind.values() for i in range(0, len(lanes), width)]


def kinds_of(knobs: Knobs, run: int) -> tuple:
    """The choices in which lanes of one group must agree."""
    return tuple(leaf[run].item() for leaf in jax.tree.leaves(knobs.kinds))
