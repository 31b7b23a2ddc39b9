"""Every name of every table is planned, compiled and trained for a few steps: does fishnet work with these versions?

    python -m pytest -m smoke tests/smoke

A quick check of an installation (another JAX, another Python, another machine), in few programs of tiny networks. The
arms are made from the tables, so that a new entry is among them.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fishnet.data import load_task
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.sweep import Recipe, Run, Samples, Sweep, load_run, run_sweep
from fishnet.sweep.plan.grouping import group_runs
from fishnet.sweep.spec.recipe import resolve, value_names
from fishnet.sweep.spec.validation import check_recipe

pytestmark = pytest.mark.smoke
BASE = Recipe(
    task="synthetic",
    image_size=8,
    model="cnn",
    widths=(8, 8),
    batch_size=32,
    epochs=2,
    dropout=0.1,
    dropout_layers="blocks",
)
DENSE = {"model": "mlp", "widths": (8,), "dropout_layers": "dense"}
# What a name needs beside itself; names with a program of their own are tried together.
NEEDS: dict[str, Mapping[str, Any]] = {
    "model=mlp": DENSE | {"dropout_layers": "input+dense", "dropout": 0.2, "precision": "bfloat16"},
    "model=separable": {"norm_position": "post", "input_norm": "batch", "pool": "mean"},
    "model=resnet": {"block": "preactivation", "se_reduction": 2, "stochastic_depth": 0.3},
    "model=efficientnet": {"compound": 0.5, "norm": "batch", "ghost_batch": 8},
    "model=hybrid": {"hard_classes": "rising", "freeze": "conv_0"},
    "shortcut=none": {"model": "resnet"},
    "activation=exponential": {"norm": "batch", "lr": 0.001},  # otherwise it overflows
    **{f"optimizer={name}": DENSE for name, optimizer in OPTIMIZERS.items() if optimizer.own_program},
    "eval_statistics": {"norm": "batch"},
    "hard_augment": {"hard_classes": "rising"},
    "pretrain": DENSE | {"pretrain_epochs": 1},
    "clip_by": {"clip": 0.1},
    "augment": {"mixup": 0.2, "cutmix": 0.5, "cutout": 2},
    "init": {"norm": "none"},
    "schedule": {"ema": 0.5, "warmup": 0.2},
    "block": {"model": "resnet"},
}


def arms_of(tables: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The base recipe, and every name that it does not have, once."""
    arms: list[dict[str, Any]] = [{}]
    tried = set(dataclasses.asdict(BASE).items())
    for field, table in tables.items():
        for name in table:
            if (field, name) not in tried and name != "auto":
                arms.append({**NEEDS.get(field, {}), **NEEDS.get(f"{field}={name}", {}), field: name})
                tried |= set(arms[-1].items())
    return arms


def programs_of(arms: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The arms that share a program, by what is special about the first of them."""
    runs = [Run(i, str(i), {}, resolve(dataclasses.replace(BASE, **arm))) for i, arm in enumerate(arms)]
    groups = [[arms[run.index] for run in members] for members in group_runs(runs).values()]
    return {" ".join(f"{k}={v}" for k, v in of[0].items()) or "shared by most": of for of in groups}


def sweep_of(arms: Sequence[Mapping[str, Any]]) -> Sweep:
    """One sweep of arms that are given one by one."""
    fields = list(dict.fromkeys(field for arm in arms for field in arm))
    if not fields:
        return Sweep(BASE, seeds=1)
    draws = [{field: arm.get(field, getattr(BASE, field)) for field in fields} for arm in arms]
    space = {field: list(dict.fromkeys(draw[field] for draw in draws)) for field in fields}
    return Sweep(BASE, seeds=1, samples=Samples(space, draws))


ARMS = arms_of(value_names())
PROGRAMS = programs_of(ARMS)


def test_every_name_of_every_table_is_among_the_arms():
    recipes = [dataclasses.replace(BASE, **arm) for arm in ARMS]
    for recipe in recipes:
        check_recipe(recipe)
    for field, table in value_names().items():
        assert {getattr(recipe, field) for recipe in recipes} >= set(table) - {"auto"}, field


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_trained_is_finite_and_the_plain_model_says_the_same(name, tmp_path):
    """Planned, compiled, trained, saved, loaded: its test figures, again in Flax and NumPy."""
    result = run_sweep(sweep_of(PROGRAMS[name]), tmp_path / "out")
    wrong = result.runs.index[result.runs["status"] != "ok"]
    assert not len(wrong), [PROGRAMS[name][run] for run in wrong]
    curves = pd.read_parquet(result.out / "curves.parquet")
    assert np.isfinite(curves[["train_loss", "val_loss"]].to_numpy(float)).all()
    assert (curves.groupby("run")["train_loss"].nunique() == BASE.epochs).all()  # every lane moves
    task = load_task("synthetic", BASE.image_size)
    test = task.splits["test"]
    differing = {formulas(arm): run for run, arm in enumerate(PROGRAMS[name])}  # of networks that are alike, one
    for run in differing.values():
        trained = load_run(result.out, run)
        if trained.recipe.eval_statistics == "batch":
            continue  # judged in chunks, with their own statistics
        with warnings.catch_warnings(action="ignore"):
            logits = np.asarray(trained.model.apply(trained.variables, task.images[test], train=False), np.float64)
        losses = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        loss = (losses - logits[np.arange(len(test)), task.labels[test]]).mean()
        tolerance = 3e-2 if trained.recipe.precision == "bfloat16" else 1e-4
        np.testing.assert_allclose(
            result.runs["test_loss"][run], loss, rtol=tolerance, err_msg=str(PROGRAMS[name][run])
        )


def formulas(arm: Mapping[str, Any]) -> tuple:
    """What a network of a program is evaluated with."""
    recipe = dataclasses.replace(BASE, **arm)
    return recipe.activation, recipe.norm, recipe.eval_statistics
