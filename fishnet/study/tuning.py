"""Rates tuned before arms are compared: every arm over a grid of its own, with seeds of their own, by validation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fishnet.stats.lr_range import Suggestion, suggest
from fishnet.study.plan import Arms, Plan
from fishnet.study.question import listed
from fishnet.sweep.spec.recipe import Recipe

if TYPE_CHECKING:
    from fishnet.study.contrasts import Trial

Rates = Mapping[str, Sequence[float]]  # label -> its grid, ascending
FIRST_SEED = 1000  # beyond those that arms are compared on


def tried(label: str, rate: float) -> str:
    """The label of an arm at one rate of its grid."""
    return f"{label} @ {rate:g}"


def at_all_rates(arms: Arms, rates: Rates) -> dict[str, dict[str, Any]]:
    """Every arm at every rate of its grid: the arms of the plan that tunes."""
    return {tried(label, rate): {**fields, "lr": rate} for label, fields in arms.items() for rate in rates[label]}


def tuning_plan(
    name: str, recipe: Recipe, arms: Arms, rates: Rates, sizes: Mapping[str, Mapping[str, Any]], seeds: int = 2
) -> Plan:
    """Every arm at every rate of its grid, over seeds that no comparison uses."""
    return Plan(name, recipe, at_all_rates(arms, rates), seeds=seeds, sizes=sizes, first_seed=FIRST_SEED)


def suggestions(trial: "Trial", labels: Sequence[str], rates: Rates) -> dict[str, Suggestion | None]:
    """What the trial of the tuning plan speaks for, by label: the lowest mean validation loss over its seeds.

    Args:
        trial: whose arms are those of `at_all_rates`, or some of them.
        labels: of the arms that are tuned; those that the trial does not have are left out.
        rates: the grids.

    Returns:
        None where a run diverged at every rate.
    """
    losses = _losses(trial)
    found = {}
    for label in labels:
        own = [rate for rate in rates[label] if tried(label, rate) in losses]
        if own:
            found[label] = suggest(own, np.array([losses[tried(label, rate)] for rate in own]))
    return found


def at_tuned_rates(arms: Arms, rates: Rates, trial: "Trial") -> dict[str, dict[str, Any]]:
    """Every arm that was tuned at its best rate, or at the lowest of its grid where none trained."""
    return {
        label: {**arms[label], "lr": best.rate if best else min(rates[label])}
        for label, best in suggestions(trial, list(arms), rates).items()
    }


def ends_of_grids(trial: "Trial", labels: Sequence[str], rates: Rates) -> list[str]:
    """Sentences that name the arms whose tuning tells little.

    That is where the best rate is the last one tried, as a better one may lie beyond; where all rates are alike; and
    where a run diverged at all of them.
    """
    found, losses = suggestions(trial, labels, rates), _losses(trial)
    sentences = []
    flat = [label for label, best in found.items() if best and _alike(losses, label, rates[label])]
    if flat:
        sentences.append(f"As good, or bad, at every rate that was tried: {listed(flat)}.")
    found = {label: best for label, best in found.items() if label not in flat}
    if diverged := [label for label, best in found.items() if best is None]:
        sentences.append(f"Diverged at every rate that was tried: {listed(diverged)}.")
    for end in ("lowest", "highest"):
        if at_end := [f"{label} ({best.rate:g})" for label, best in found.items() if best and best.end == end]:
            sentences.append(f"Best at the {end} rate that was tried, and maybe better beyond it: {listed(at_end)}.")
    return sentences


def _losses(trial: "Trial") -> dict[str, list[float]]:
    """The validation loss of every arm of a tuning plan, [seed]."""
    from fishnet.study.contrasts import column

    return trial.by_seed(column("val_loss", "validation loss"))


def _alike(losses: Mapping[str, Sequence[float]], label: str, rates: Sequence[float]) -> bool:
    """Whether the mean losses at all rates of a grid are within a hundredth of each other: the choice is luck."""
    means = [np.mean(losses[tried(label, rate)]) for rate in rates if tried(label, rate) in losses]
    return len(means) > 1 and bool(np.ptp(means) <= 0.01 * np.min(means))
