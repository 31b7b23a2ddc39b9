"""No recipe field is decoration: each changes what is trained, and nothing but what it says."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from fishnet.checks.valid_values import Interval, Names
from fishnet.data import Task, load_task
from fishnet.data.task import make_task
from fishnet.host.interrupt import Interrupt
from fishnet.sweep import Recipe, Run
from fishnet.sweep.plan.grouping import group_runs
from fishnet.sweep.plan.layout import make_layouts
from fishnet.sweep.program.build import plain_model
from fishnet.sweep.program.config import ProgramFeatures, static_key
from fishnet.sweep.program.traced_config import trace_recipes
from fishnet.sweep.run.progress import Display
from fishnet.sweep.run.supervised import SupervisedPhase
from fishnet.sweep.spec.fields import Field
from fishnet.sweep.spec.history import CURVES, LOWER_IS_BETTER, History
from fishnet.sweep.spec.recipe import FIELDS, SELECTABLE, is_used, resolve, value_names
from fishnet.sweep.spec.validation import check_recipe
from fishnet.sweep.store.checkpoint_store import CheckpointStore
from tests.sweep.conftest import TINY

BASE = dataclasses.replace(TINY, widths=(8, 8))
# field -> another value, and what else the recipe must say for the field to matter; of others both are found by
# `example`, from the declaration.
EXAMPLES = {
    "activation": ("elu", {}),
    "act_coefficient": (0.3, {"activation": "elu"}),
    "norm": ("layer", {}),
    "norm_layers": ((2,), {}),
    "init": ("glorot_uniform", {}),
    "init_gain": (0.5, {"norm": "none"}),
    "init_bias": (0.2, {}),
    "optimizer": ("adam", {"lr": 0.02}),
    "lr": (0.013, {}),
    "momentum": (0.5, {}),
    "weight_decay": (0.1, {}),
    "clip": (0.05, {}),
    "clip_by": ("value", {"clip": 0.05}),
    "l1": (0.01, {}),
    "l2": (0.1, {}),
    "max_norm": (0.5, {}),
    "max_norm_layers": ((1, 3), {"max_norm": 0.5}),
    "eval_statistics": ("precise", {}),
    "unfreeze": ((1,), {}),
    "unfreeze_rates": ((0.3,), {}),
    "layer_rate": (0.5, {}),
    "ema": (0.9, {}),
    "schedule": ("constant", {}),
    "lr_min": (0.01, {}),
    "cycles": (2.0, {"schedule": "cyclic_sine"}),
    "plateau_factor": (0.5, {"schedule": "plateau", "plateau_patience": 0, "lr": 0.3}),
    "plateau_patience": (0, {"schedule": "plateau", "lr": 0.3}),
    "warmup": (0.3, {}),
    "loss": ("focal", {}),
    "focal_gamma": (1.0, {"loss": "focal"}),
    "poly_epsilon": (2.0, {"loss": "poly1"}),
    "ldam_margin": (0.2, {"loss": "ldam"}),
    "ldam_scale": (2.0, {"loss": "ldam"}),
    "logit_tau": (0.5, {"loss": "logit_adjusted"}),
    "class_weighting": ("inverse", {}),
    "reweight_from": (0.5, {"class_weighting": "inverse"}),
    "class_sampling": (1.0, {}),
    "hard_classes": ("rising", {"hard_classes": "horizontal", "hard_sampling": 3.0}),
    "hard_augment": ("flip", {"hard_classes": "horizontal", "augment": "none"}),
    "hard_sampling": (3.0, {"hard_classes": "horizontal"}),
    "label_smoothing": (0.1, {}),
    "dropout": (0.3, {}),
    "dropout_kind": ("alpha", {"dropout": 0.3}),
    "mixup": (0.4, {}),
    "cutmix": (1.0, {}),
    "cutout": (4, {}),
    "augment": ("flip", {"augment": "none"}),
    "epochs": (2, {}),
    "patience": (1, {"lr": 1e-12, "select_by": "val_accuracy"}),
    "seed": (1, {}),
    "task": ("folder:photos", {}),
    "image_size": (16, {}),
    "model": ("cnn", {}),
    "widths": ((8,), {}),
    "depth": (2, {}),
    "stem_stride": (2, {"model": "resnet"}),
    "norm_position": ("post", {}),
    "ghost_batch": (8, {}),
    "dropout_layers": ("input", {"dropout": 0.3}),
    "input_norm": ("batch", {}),
    "block": ("preactivation", {"model": "resnet"}),
    "shortcut": ("none", {"model": "resnet"}),
    "se_reduction": (2, {"model": "cnn"}),
    "compound": (1.0, {"model": "efficientnet"}),
    "freeze": ("dense_0", {}),
    "pool": ("mean", {"model": "cnn"}),
    "precision": ("bfloat16", {}),
    "batch_size": (16, {}),
    "probes": (("gradients", "dead_units"), {}),
    "probe_every": (3, {"probes": ("gradients",)}),
    "probe_epochs": (2, {"probes": ("dead_units",)}),
    "probe_images": (0, {"probes": ("dead_units",)}),
}
# These need something that the lanes of one program with the others do not have. Those of one context share a program.
PRETRAINED = {"pretrain": "autoencoder", "pretrain_epochs": 2}
ELSEWHERE = {
    "rho": (0.5, {"optimizer": "sam"}),
    "stochastic_depth": (0.5, {"model": "resnet", "depth": 1}),
    "pretrain": ("none", PRETRAINED),
    "pretrain_epochs": (1, PRETRAINED),
    "pretrain_lr": (0.03, PRETRAINED),
}
# Needs a trained run: see test_transfer.py.
TRANSFER = ("trunk",)


def example(name: str) -> tuple[Any, dict[str, Any]]:
    """Another value of a field, and fields that make it matter: the first name of any table that does."""
    if name in EXAMPLES:
        return EXAMPLES[name]
    field = FIELDS[name]
    value = (
        next(name for name in field.valid if name != field.default)
        if isinstance(field.valid, Names)
        else (between_ends(field))
    )
    contexts = [{}] + [{other: choice} for other, choices in value_names().items() for choice in choices]
    recipes = (dataclasses.replace(BASE, **context | {name: value}) for context in contexts)
    return value, next(c for c, recipe in zip(contexts, recipes, strict=True) if is_used(recipe, name))


def between_ends(field: Field) -> float:
    """A valid number half-way from the default to the nearer end that it is not at."""
    assert isinstance(field.valid, Interval)
    ends = [end for end in (field.valid.low, field.valid.high) if end != field.default]
    end = min(ends, key=lambda end: abs(end - field.default))
    return type(field.default)((field.default + end) / 2)


STATIC = {name: example(name) for name, field in FIELDS.items() if field.role == "static"}
TRACED = {
    name: example(name)
    for name, field in FIELDS.items()
    if field.role != "static" and name not in (*ELSEWHERE, *TRANSFER, "select_by")
}


def test_examples_are_valid_and_no_default():
    for field, (value, context) in (TRACED | STATIC | ELSEWHERE).items():
        before = dataclasses.replace(BASE, **context)
        assert getattr(before, field) != value or field == "pretrain"
        if field != "task":
            check_recipe(dataclasses.replace(before, **{field: value}))


def test_a_new_number_needs_no_example(monkeypatch):
    monkeypatch.delitem(EXAMPLES, "focal_gamma")
    monkeypatch.delitem(EXAMPLES, "l2")
    monkeypatch.delitem(EXAMPLES, "pool")
    assert example("focal_gamma") == (1.0, {"loss": "focal"})
    assert example("l2") == (5e5, {})
    assert example("pool") == ("mean", {"model": "cnn"})


@pytest.mark.parametrize("field", FIELDS)
def test_a_role_is_what_programs_make_of_a_field(field):
    """Static fields set programs apart, traced ones change traced values, those of the host do neither."""
    value, context = (TRACED | STATIC | ELSEWHERE | {"trunk": ("runs/a:0", {}), "select_by": ("val_ece", {})})[field]
    before = resolve(dataclasses.replace(BASE, **context))
    after = resolve(dataclasses.replace(before, **{field: value}))
    role = FIELDS[field].role
    assert (static_key(before) != static_key(after)) == (role == "static")
    if role == "static":
        return
    features = ProgramFeatures.of([before, after])
    traced = trace_recipes([before, after], features, uneven_task(), sites=3, steps_per_epoch=8)
    differ = [not np.array_equal(leaf[0], leaf[1], equal_nan=True) for leaf in jax.tree.leaves(traced)]
    assert any(differ) == (role in ("traced", "scalar"))
    assert (role == "scalar") == (field in traced.hparams.scalars)


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, Recipe], History]:
    """All lanes of one program: for each field a run with its default and one without, and one for each `select_by`."""
    recipes = {}
    for field, (value, context) in TRACED.items():
        recipes[f"{field} before"] = dataclasses.replace(BASE, **context)
        recipes[f"{field} after"] = dataclasses.replace(BASE, **context | {field: value})
    for name in SELECTABLE:
        recipes[name] = dataclasses.replace(BASE, select_by=name, lr=0.2)
    return recipes, history_of(recipes)


def uneven_task() -> Task:
    """A task of unequal classes: the weights of equal ones are all alike."""
    task = load_task("synthetic", 8)
    train = np.concatenate([task.splits["train"][task.labels[task.splits["train"]] != 0], task.splits["train"][:20]])
    return make_task("uneven", task.images, task.labels, task.splits | {"train": np.unique(train)}, task.classes)


def history_of(recipes: dict[str, Recipe]) -> History:
    """What the runs of one program have done when all are at their end."""
    runs = [Run(i, name, {}, resolve(recipe)) for i, (name, recipe) in enumerate(recipes.items())]
    (layout,) = make_layouts(runs, {("synthetic", 8): uneven_task()}, jax.devices()[:1])

    def ignore(*_):
        return None

    nowhere = Path("nowhere")
    checkpoints = CheckpointStore(nowhere, nowhere, "cohort_0", range(len(runs)), "a hash")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SupervisedPhase, "save", ignore)
        phase = SupervisedPhase(layout, jax.devices()[:1], checkpoints, Interrupt(), Display(), ignore, ignore)
        phase.prepare()
        phase.run()
    assert (phase.history.first_bad_step < 0).all()
    return phase.history


@pytest.mark.parametrize("fields", [["rho"], ["stochastic_depth"], ["pretrain", "pretrain_epochs", "pretrain_lr"]])
@pytest.mark.slow
def test_another_value_trains_otherwise_elsewhere(fields):
    before = dataclasses.replace(BASE, **ELSEWHERE[fields[0]][1])
    recipes = {field: dataclasses.replace(before, **{field: ELSEWHERE[field][0]}) for field in fields}
    history = history_of({"before": before} | recipes)
    for run in range(1, len(fields) + 1):
        assert not np.array_equal(curves(history, 0), curves(history, run))


def curves(history: History, run: int) -> np.ndarray:
    """The measured part [epoch, figure] of one run."""
    return history.curves[run, : history.epochs[run]]


@pytest.mark.parametrize("field", TRACED)
def test_another_value_trains_otherwise(trained, field):
    recipes, history = trained
    names = list(recipes)
    before, after = (curves(history, names.index(f"{field} {when}")) for when in ("before", "after"))
    assert not np.array_equal(before, after)
    if field == "patience":
        assert (len(before), len(after)) == (3, 2)
        np.testing.assert_array_equal(before[:2], after)
    elif field == "epochs":
        assert (len(before), len(after)) == (3, 2)
        assert before[0, CURVES.index("lr")] != after[0, CURVES.index("lr")]
    else:
        assert before.shape == after.shape


def test_equal_recipes_train_equally(trained):
    recipes, history = trained
    groups: dict[Recipe, list[int]] = {}
    for run, recipe in enumerate(recipes.values()):
        groups.setdefault(recipe, []).append(run)
    alike = [runs for runs in groups.values() if len(runs) > 1]
    assert len(alike[0]) > 10
    for first, *others in alike:
        for other in others:
            np.testing.assert_array_equal(curves(history, first), curves(history, other))


def test_select_by_chooses_the_epoch_and_nothing_else(trained):
    recipes, history = trained
    runs = [list(recipes).index(name) for name in SELECTABLE]
    for name, run in zip(SELECTABLE, runs, strict=True):
        np.testing.assert_array_equal(curves(history, run), curves(history, runs[0]))
        column = curves(history, run)[:, CURVES.index(name)]
        best = column.argmin() if name in LOWER_IS_BETTER else column.argmax()
        assert history.best_epoch[run] == best + 1
    assert len({int(history.best_epoch[run]) for run in runs}) > 1


@pytest.mark.parametrize("field", STATIC)
def test_a_static_field_makes_another_program(field):
    value, context = STATIC[field]
    before = dataclasses.replace(BASE, **context)
    after = dataclasses.replace(before, **{field: value})
    runs = [Run(i, str(i), {}, recipe) for i, recipe in enumerate([before, after])]
    assert len(group_runs(runs)) == 2
    # Of the data, the gradients (see test_transfer.py) and what is measured (see test_probing.py), not of the network.
    if field in ("task", "image_size", "batch_size", "freeze") or field.startswith("probe"):
        return

    def program(recipe: Recipe) -> str:
        model = plain_model(recipe, classes=tuple("abcd"), sites=100)
        images = jax.ShapeDtypeStruct((16, 8, 8, 3), np.uint8)
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        return str(jax.make_jaxpr(lambda i: model.init_with_output(keys, i, train=True)[0])(images))

    assert program(before) != program(after)
    assert program(before) == program(dataclasses.replace(before))
