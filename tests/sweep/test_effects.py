"""No option is ignored: for each field of a recipe and each option of a sweep, where it has an effect and where not."""

import dataclasses

import pytest

from fishnet.errors import UsageError
from fishnet.sweep import Recipe, Sweep
from fishnet.sweep.plan.layout import check_overrides
from fishnet.sweep.spec.random_search import Samples
from fishnet.sweep.spec.recipe import FIELDS
from fishnet.sweep.spec.search_space import Range
from fishnet.sweep.spec.stopping import Stopping, parse_target
from fishnet.sweep.spec.validation import check_lowering, check_sweep

BASE = Recipe(task="synthetic", model="cnn", widths=(8,), epochs=8)
RESNET, EFFICIENTNET = {"model": "resnet"}, {"model": "efficientnet"}
WEIGHTED, PLATEAU = {"class_weighting": "inverse"}, {"schedule": "plateau"}
PRETRAINED = {"pretrain": "rotation"}
SPATIAL = {"dropout": 0.1, "dropout_layers": "blocks"}
# field -> (value, fields with which it has an effect, fields with which it has none)
WHERE = {
    "stem_stride": (2, RESNET, {}),
    "block": ("preactivation", RESNET, EFFICIENTNET),
    "shortcut": ("none", RESNET, {}),
    "se_reduction": (4, {}, {"model": "mlp"}),
    "compound": (1.0, EFFICIENTNET, RESNET),
    "act_coefficient": (0.2, {"activation": "elu"}, {"activation": "relu"}),
    "norm_layers": ((1,), {"norm": "layer"}, {"norm": "none"}),
    "ghost_batch": (8, {"norm": "batch"}, {"norm": "layer"}),
    "eval_statistics": ("precise", {"norm": "batch"}, {"norm": "layer"}),
    "init_gain": (2.0, {"init": "orthogonal"}, {"init": "lsuv", "norm": "none"}),
    "momentum": (0.5, {"optimizer": "adam"}, {"optimizer": "sgd"}),
    "rho": (0.1, {"optimizer": "sam"}, {"optimizer": "momentum"}),
    "clip_by": ("value", {"clip": 1.0}, {}),
    "max_norm_layers": ((1,), {"max_norm": 1.0}, {}),
    "lr_min": (1e-4, {"schedule": "cosine"}, {"schedule": "constant"}),
    "cycles": (2.0, {"schedule": "cyclic_sine"}, {"schedule": "cosine"}),
    "plateau_factor": (0.5, PLATEAU | {"epochs": 6}, PLATEAU | {"epochs": 5}),
    "plateau_patience": (1, PLATEAU | {"epochs": 4}, PLATEAU | {"epochs": 3}),
    "pretrain_epochs": (2, PRETRAINED, {}),
    "pretrain_lr": (0.01, PRETRAINED, {}),
    "focal_gamma": (1.0, {"loss": "focal"}, {"loss": "ldam"}),
    "poly_epsilon": (2.0, {"loss": "poly1"}, {"loss": "focal"}),
    "ldam_margin": (0.3, {"loss": "ldam"}, {"loss": "focal"}),
    "ldam_scale": (2.0, {"loss": "ldam"}, {"loss": "focal"}),
    "logit_tau": (2.0, {"loss": "logit_adjusted"}, {"loss": "focal"}),
    "reweight_from": (0.5, WEIGHTED, {}),
    "hard_classes": ("rising", {"hard_sampling": 2.0}, {}),
    "hard_augment": ("flip", {"hard_classes": "rising"}, {}),
    "hard_sampling": (2.0, {"hard_classes": "rising"}, {}),
    "label_smoothing": (0.1, {"loss": "cross_entropy"}, {"loss": "hinge"}),
    "dropout_kind": ("spatial", SPATIAL, {"dropout": 0.1, "dropout_layers": "dense"}),
    "dropout_layers": ("input", {"dropout": 0.1}, {}),
    "stochastic_depth": (0.1, RESNET, {}),
    "patience": (7, {"epochs": 8}, {"epochs": 7}),
    "pool": ("mean", {}, RESNET),
    "probe_every": (5, {"probes": ("gradients",)}, {"probes": ("dead_units",)}),
    "probe_epochs": (2, {"probes": ("dead_units",), "epochs": 2}, {"probes": ("dead_units",), "epochs": 1}),
    "probe_images": (64, {"probes": ("dead_units",)}, {"probes": ("gradients",)}),
}


def test_every_field_that_some_recipes_make_no_use_of_is_in_the_table():
    assert {name for name, field in FIELDS.items() if field.used_by} <= set(WHERE)


@pytest.mark.parametrize("name", WHERE)
def test_a_field_is_refused_exactly_where_it_has_no_effect(name):
    value, where, elsewhere = WHERE[name]
    useful = dataclasses.replace(BASE, **where | {name: value})
    useless = dataclasses.replace(BASE, **elsewhere | {name: value})
    check_sweep(Sweep(useful, seeds=1))
    with pytest.raises(UsageError, match=name):
        check_sweep(Sweep(useless, seeds=1))
    default = FIELDS[name].default
    if name not in ("hard_classes", "stem_stride", "stochastic_depth", "patience", "se_reduction"):
        check_sweep(Sweep(dataclasses.replace(BASE, **elsewhere | {name: default}), seeds=1))


# --- what ends arms ---

TWO = {"lr": (0.1, 0.2)}


@pytest.mark.parametrize("rule", [{"halving": 3}, {"median": True}])
def test_rules_that_compare_arms(rule):
    check_sweep(Sweep(BASE, TWO, 1, Stopping(**rule)))
    check_sweep(Sweep(BASE, seeds=1, stopping=Stopping(**rule), samples=Samples({"lr": Range(0.1, 1.0)}, 2)))
    with pytest.raises(UsageError, match="compares arms, and there is one"):
        check_sweep(Sweep(BASE, {"lr": (0.1,)}, 5, Stopping(**rule)))
    check_sweep(Sweep(BASE, TWO, 1, Stopping(first=7, **rule)))
    with pytest.raises(UsageError, match="the first rung, after 8 epochs, is not before the last of 8 epochs"):
        check_sweep(Sweep(BASE, TWO, 1, Stopping(first=8, **rule)))
    check_sweep(Sweep(BASE, {"epochs": (8, 9)}, 1, Stopping(first=8, **rule)))


def test_a_target_that_could_never_end_an_arm():
    check_sweep(Sweep(BASE, seeds=1, stopping=Stopping(target="val_accuracy>=0.8")))
    once = dataclasses.replace(BASE, epochs=1)
    with pytest.raises(UsageError, match="the arms have one epoch"):
        check_sweep(Sweep(once, seeds=1, stopping=Stopping(target="val_accuracy>=0.8")))
    for text in ("val_accuracy>=80", "val_loss<=-1", "val_macro_f1>=1.01"):
        with pytest.raises(UsageError, match="it could never end an arm"):
            parse_target(text)
    for text in ("val_accuracy>=1", "val_loss>=5", "val_ece<=0"):
        parse_target(text)


# --- data and plan ---


def test_options_for_data_that_no_task_reads(tmp_path):
    with pytest.raises(UsageError, match="would have no effect: it belongs to the task mnist"):
        check_sweep(Sweep(BASE, seeds=1), data_dir=str(tmp_path))
    with pytest.raises(UsageError, match="strict would have no effect"):
        check_sweep(Sweep(BASE, seeds=1), strict=True)
    with pytest.raises(UsageError, match="group regex"):
        check_sweep(Sweep(BASE, seeds=1), group_regex="a")


def test_sharing_batches_in_lanes_of_width_1():
    check_overrides(2, None, None, share_batches=True)
    check_overrides(None, None, None, share_batches=True)
    for width in (1, "auto"):
        with pytest.raises(UsageError, match=f"no effect with lane width {width}"):
            check_overrides(width, None, None, share_batches=True)


def test_a_lowering_of_convolutions_where_there_are_none():
    mlp = dataclasses.replace(BASE, model="mlp")
    check_lowering(Sweep(BASE), "gemm")
    check_lowering(Sweep(BASE, {"model": ("mlp", "cnn")}), "gemm")
    check_lowering(Sweep(dataclasses.replace(mlp, pretrain="autoencoder")), "gemm")
    check_lowering(Sweep(mlp), None)
    with pytest.raises(UsageError, match="an mlp has no convolutions"):
        check_lowering(Sweep(mlp), "gemm")
