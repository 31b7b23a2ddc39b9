"""Which runs share a program, and which of their lanes can be vectorized together."""

from collections.abc import Sequence

import jax
import numpy as np

from fishnet.sweep.program.config import static_key
from fishnet.sweep.program.traced_config import TracedConfig
from fishnet.sweep.spec.sweep import Run


def group_runs(runs: Sequence[Run]) -> dict[tuple, list[Run]]:
    """Runs by the program that they need (`static_key`), in order of first appearance."""
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


def vmap_key(traced: TracedConfig, same_seed: bool) -> list[tuple]:
    """Key of each run of `traced` [run, ...]: its choices among functions, in which the lanes of a group agree.

    With `same_seed` they agree in their seed as well, and look at the same images in the same order.
    """
    columns = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(traced.ids)]
    if same_seed:
        columns.append([key.tobytes() for key in np.asarray(traced.hparams.keys)])
    return list(zip(*columns, strict=True))


def sharing_costs_nothing(traced: TracedConfig, width: int) -> bool:
    """Tells whether groups of `width` lanes that also agree in their seed are as few as those that need not."""
    runs = range(len(traced.hparams.keys))
    free, bound = (form_groups(runs, vmap_key(traced, same_seed), width) for same_seed in (False, True))
    return len(bound) == len(free)
