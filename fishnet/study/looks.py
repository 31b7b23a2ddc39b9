"""Looks: training the arms of a trial, and further seeds of the arms that are not decided yet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fishnet.study.plan import TrialPlan
from fishnet.sweep.run.progress import Display

if TYPE_CHECKING:
    from fishnet.study.contrasts import Contrast, Evidence
    from fishnet.study.question import QuestionArgs
    from fishnet.study.trials import Look, Trial

LOOKS = 3  # at most, with --until-decided


def train_first_look(plan: TrialPlan, asked: "QuestionArgs", display: Display) -> "Trial":
    """Trains the first look of a settled plan at the requested size."""
    from fishnet.study.trials import Trial

    seeds, labels = plan.seeds_from(asked.size), plan.labels(asked.size)
    return Trial(plan.name, (train_look(plan, asked, asked.out / plan.name, display, seeds, labels),))


def train_look(
    plan: TrialPlan,
    asked: "QuestionArgs",
    out: Path,
    display: Display,
    seeds: Sequence[int],
    labels: Sequence[str],
) -> "Look":
    """Trains some arms of a plan over some seeds, unless that is done already, and reads the tables."""
    try:
        return plan.train(asked, out, display, seeds, labels)
    finally:
        display.finish()


def train_until_decided(
    contrasts: Sequence["Contrast"],
    plans: Mapping[str, TrialPlan],
    asked: "QuestionArgs",
    trials: dict[str, "Trial"],
    display: Display,
) -> dict[str, "Evidence"]:
    """Trains up to `LOOKS` looks, each with further seeds of the undecided arms; returns the evidence.

    Every look spends its share of the error, so that looking repeatedly does not raise it. `trials` gets the looks.
    Arms that depend on other trials stay as they were settled at first.
    """
    from fishnet.stats import alpha_at_look, keep_decided
    from fishnet.study.contrasts import evaluate_contrast
    from fishnet.study.trials import Trial

    evidence: dict[str, Evidence] = {}
    for number in range(1, LOOKS + 1):
        alpha = alpha_at_look(number, LOOKS, 0.05)
        for of in contrasts:
            found = evaluate_contrast(of, trials[of.trial], alpha=alpha)
            if of.name in evidence:
                found = replace(found, rows=keep_decided(evidence[of.name].rows, found.rows))
            evidence[of.name] = found
        if number == LOOKS:
            break
        for name, trial in trials.items():
            of_trial = [found for found in evidence.values() if found.contrast.trial == name]
            labels = find_undecided(of_trial, trial.looks[-1].labels)
            if not labels:
                continue
            done = sum(look.seeds for look in trial.looks)
            seeds = plans[name].seeds_from(asked.size, done)
            more = train_look(plans[name], asked, asked.out / f"{name}-look{number + 1}", display, seeds, labels)
            trials[name] = Trial(name, (*trial.looks, more))
    return evidence


def find_undecided(found: Sequence["Evidence"], labels: Sequence[str]) -> list[str]:
    """Finds the arms that a further look trains: the undecided ones, and those they are compared with.

    Args:
        found: the evidence of the trial's contrasts.
        labels: of the last look.

    Returns:
        Some of `labels`: none where all are decided.
    """
    found = [of for of in found if not of.problem]  # what more seeds could decide
    open_ones = {row.arm for of in found for row in of.rows.values() if row.verdict == "undecided"}
    if not open_ones.intersection(labels):
        return []
    wanted = open_ones | {next(iter(of.rows)) for of in found}
    wanted |= {other for of in found for label in wanted for other in of.contrast.requires.get(label, ())}
    return [label for label in labels if label in wanted]
