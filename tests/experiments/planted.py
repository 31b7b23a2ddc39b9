"""Tables of a question's sweeps made up from a known truth: what is planted must come out in the answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fishnet.report.results import Results
from fishnet.study.claims import Judgment, judge
from fishnet.study.contrasts import Evidence, evaluate_contrast
from fishnet.study.question import Question, select_claims, select_contrasts
from fishnet.study.trials import Look, Trial

EPOCHS, IMAGES = 4, 40
BASE = {
    "test_accuracy": 0.7, "test_balanced_accuracy": 0.7, "test_loss": 1.0, "test_ece": 0.2, "val_accuracy": 0.7,
    "train_accuracy": 0.9, "val_loss": 1.0, "train_loss": 0.3, "peak": 0.75, "auc": 0.9, "own_auc": 0.6, "probe": 0.5,
    "sharp": 1.5,
}  # fmt: skip
Planted = Mapping[tuple[str, str], Mapping[str, float]]  # (trial, arm) -> what is added to `BASE`


def trials_of(question: Question, size: str, planted: Planted, classes: tuple[str, ...], own: str) -> dict[str, Trial]:
    """A trial a plan, with effects of the seed that all arms share and little noise.

    Args:
        question: whose plans.
        size: of the plans.
        planted: the effects; the others have none.
        classes: of every task.
        own: the class whose AUC is `own_auc`.
    """
    trials: dict[str, Trial] = {}
    for plan in question.plans:
        trials[plan.name] = Trial(plan.name, (look_of(plan.settled(trials), size, planted, classes, own),))
    return trials


def look_of(plan: Any, size: str, planted: Planted, classes: tuple[str, ...], own: str) -> Look:
    """The tables of one sweep."""
    rng = np.random.default_rng(0)
    inner, labels, seeds = getattr(plan, "plan", plan), plan.labels(size), plan.seeds_from(size)
    trained = inner.labels(size)
    recipes = {run.index: run for run in inner.sweep(size, labels=trained).runs()}
    shared = rng.normal(0, 0.02, len(seeds))
    truth = rng.integers(0, len(classes), IMAGES)
    tables: dict[str, list] = {name: [] for name in ("runs", "curves", "class_curves", "per_class", "predictions")}
    probes = []
    for place, label in enumerate(labels):
        base = getattr(plan, "again", {}).get(label, label)
        for i, seed in enumerate(seeds):
            run = place * len(seeds) + i
            effect = planted.get((plan.name, label), {})
            value = {
                name: start + effect.get(name, 0.0) + shared[i] + rng.normal(0, 0.002) for name, start in BASE.items()
            }
            arm = recipes[trained.index(base) * len(seeds) + i].arm
            tables["runs"].append({"run": run, "arm": arm, "seed": seed, "status": "ok", "train_seconds": 1.0} | value)
            for epoch in range(1, EPOCHS + 1):
                last = epoch == EPOCHS
                row = value | {"val_accuracy": value["val_accuracy"] if last else value["peak"] * epoch / (EPOCHS - 1)}
                tables["curves"].append({"run": run, "epoch": epoch} | row)
            for c, name in enumerate(classes):
                auc = value["own_auc"] if name == own else value["auc"]
                tables["per_class"].append({"run": run, "class": name, "support": IMAGES, "auc": auc, "recall": auc})
                probes += [
                    {"run": run, "epoch": 1, "step": 9, "probe": figure, "layer": None, "index": c, "class": name,
                     "value": value["probe"]}
                    for figure in ("nearest_class_cosine", "class_margin")
                ]  # fmt: skip
                tables["class_curves"] += [
                    {"run": run, "epoch": e, "class": name, "val_auc": auc, "val_loss": 2 - auc, "train_loss": 1.0}
                    for e in range(1, EPOCHS + 1)
                ]
            logits = value["sharp"] * np.eye(len(classes))[truth] + rng.normal(0, 1, (IMAGES, len(classes)))
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            columns = {f"p_{name}": p[:, c] for c, name in enumerate(classes)}
            fixed = {"run": run, "split": "test", "example": np.arange(IMAGES), "label": truth}
            tables["predictions"].append(pd.DataFrame(fixed | columns))
    frames = {name: pd.concat(rows) if name == "predictions" else pd.DataFrame(rows) for name, rows in tables.items()}
    sweep = inner.sweep(size).spec() | {"device": "cpu x 2", "versions": {"jax": "0"}, "finished": "2026-01-01"}
    return Look(Results(Path("nowhere") / plan.name, sweep, probes=pd.DataFrame(probes), **frames), labels)


def weighed(question: Question, trials: Mapping[str, Trial], size: str) -> tuple[dict[str, Evidence], list[Judgment]]:
    """The evidence of all contrasts of a size, and what becomes of the claims."""
    plans = {plan.name: plan.settled(trials) for plan in question.plans}
    evidence = {of.name: evaluate_contrast(of, trials[of.trial]) for of in select_contrasts(question, plans, size)}
    return evidence, [judge(claim, evidence) for claim in select_claims(question, evidence, size)]
