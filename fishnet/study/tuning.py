"""Learning-rate tuning before arms are compared: a grid for each arm, separate seeds, validation loss."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fishnet.stats.lr_range import Suggestion, suggest
from fishnet.study.plan import Arms, Plan
from fishnet.study.question import join_names
from fishnet.sweep.spec.recipe import Recipe

if TYPE_CHECKING:
    from fishnet.study.trials import Trial

Rates = Mapping[str, Sequence[float]]  # label -> its grid, ascending
FIRST_SEED = 1000  # beyond those that arms are compared on


def label_at(label: str, rate: float) -> str:
    """The label of an arm at one rate of its grid."""
    return f"{label} @ {rate:g}"


def expand_rates(arms: Arms, rates: Rates) -> dict[str, dict[str, Any]]:
    """Expands every arm to every rate of its grid: the arms of the tuning plan."""
    return {label_at(label, rate): {**fields, "lr": rate} for label, fields in arms.items() for rate in rates[label]}


def tuning_plan(
    name: str, recipe: Recipe, arms: Arms, rates: Rates, sizes: Mapping[str, Mapping[str, Any]], seeds: int = 2
) -> Plan:
    """Plan of every arm at every rate of its grid, over seeds that no comparison uses."""
    return Plan(name, recipe, expand_rates(arms, rates), seeds=seeds, sizes=sizes, first_seed=FIRST_SEED)


def suggest_rates(trial: "Trial", labels: Sequence[str], rates: Rates) -> dict[str, Suggestion | None]:
    """Suggests a rate for every arm: the one with the lowest mean validation loss over the tuning seeds.

    Args:
        trial: whose arms are those of `expand_rates`, or some of them.
        labels: of the arms that are tuned; those that the trial does not have are left out.
        rates: the grids.

    Returns:
        None where a run diverged at every rate.
    """
    losses = _losses(trial)
    found = {}
    for label in labels:
        own = [rate for rate in rates[label] if label_at(label, rate) in losses]
        if own:
            found[label] = suggest(own, np.array([losses[label_at(label, rate)] for rate in own]))
    return found


def set_tuned_rates(arms: Arms, rates: Rates, trial: "Trial") -> dict[str, dict[str, Any]]:
    """Sets every tuned arm to its best rate, or to the lowest of its grid where none trained."""
    return {
        label: {**arms[label], "lr": best.rate if best else min(rates[label])}
        for label, best in suggest_rates(trial, list(arms), rates).items()
    }


def warn_of_grid_ends(trial: "Trial", labels: Sequence[str], rates: Rates) -> list[str]:
    """Sentences that name the arms whose tuning is not conclusive.

    That is where the best rate is the last one tried, as a better one may lie beyond; where all rates are alike; and
    where a run diverged at all of them.
    """
    found, losses = suggest_rates(trial, labels, rates), _losses(trial)
    sentences = []
    flat = [label for label, best in found.items() if best and _alike(losses, label, rates[label])]
    if flat:
        sentences.append(f"As good, or bad, at every rate that was tried: {join_names(flat)}.")
    found = {label: best for label, best in found.items() if label not in flat}
    if diverged := [label for label, best in found.items() if best is None]:
        sentences.append(f"Diverged at every rate that was tried: {join_names(diverged)}.")
    for end in ("lowest", "highest"):
        if at_end := [f"{label} ({best.rate:g})" for label, best in found.items() if best and best.end == end]:
            sentences.append(
                f"Best at the {end} rate that was tried, and maybe better beyond it: {join_names(at_end)}."
            )
    return sentences


def _losses(trial: "Trial") -> dict[str, list[float]]:
    """The validation loss of every arm of a tuning plan, [seed]."""
    from fishnet.study.metrics import column_metric

    return trial.by_seed(column_metric("val_loss", "validation loss"))


def _alike(losses: Mapping[str, Sequence[float]], label: str, rates: Sequence[float]) -> bool:
    """Whether the mean losses at all rates of a grid are within a hundredth of each other: the choice is luck."""
    means = [np.mean(losses[label_at(label, rate)]) for rate in rates if label_at(label, rate) in losses]
    return len(means) > 1 and bool(np.ptp(means) <= 0.01 * np.min(means))
