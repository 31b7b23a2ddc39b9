"""What cannot work is refused before any data is read."""

import dataclasses

import jax.numpy as jnp
import pytest

from fishnet.errors import UsageError, UserError
from fishnet.nn.activations import ACTIVATIONS
from fishnet.source_hash.digest import hash_each
from fishnet.sweep import Recipe, Sweep
from fishnet.sweep.plan.user_components import user_functions
from fishnet.sweep.spec.recipe import resolve, value_names
from fishnet.sweep.spec.validation import check_sweep


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("activation", "rellu", "did you mean 'relu'"),
        ("norm", "bacth", "did you mean 'batch'"),
        ("norm", "weight_standardised", "norm: 'weight_standardised' is now spelled 'weight_standardized'"),
        ("model", "vgg", "valid are mlp, cnn, resnet, separable"),
        ("optimizer", "adm", "adam"),
        ("schedule", "cosin", "did you mean 'cosine'"),
        ("init", "he", "he_normal"),
        ("loss", "msee", "did you mean 'mse'"),
        ("select_by", "test_accuracy", "val_accuracy"),
        ("task", "ref", "did you mean 'reef'"),
        ("task", "folder:/nowhere/at/all", "/nowhere/at/all"),
        ("task", "reef?noise=2", "noise=2: '2' is not a number"),
        ("task", "reef?few=Chromis:20", "unknown class 'Chromis': valid are .*Zebrasoma scopas; did you mean 'Chromis"),
        ("image_size", 48, "48"),
        ("lr", 0.0, "lr: '0'"),
        ("lr", -1.0, "lr: '-1'"),
        ("momentum", 1.0, "momentum: '1'"),
        ("dropout", 1.0, "dropout: '1'"),
        ("clip", -0.5, "clip: '-0.5'"),
        ("epochs", 0, "epochs: '0'"),
        ("batch_size", 0, "batch_size: '0'"),
        ("widths", (16, 0), "widths: '0' is not at least 1"),
        ("label_smoothing", 1.5, "label_smoothing: '1.5'"),
        ("norm_layers", (0, 1), "norm_layers: '0' is not at least 1"),
        ("patience", 8, "never end a run"),
    ],
)
def test_each_bad_value_is_repeated(field, value, message):
    with pytest.raises(UserError, match=message):
        check_sweep(Sweep(dataclasses.replace(Recipe(), **{field: value}), seeds=1))
    if field != "patience":
        with pytest.raises(UserError, match=message):
            check_sweep(Sweep(Recipe(), axes={field: [value]}, seeds=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "group", "widths": (12, 16)},
        {"norm": "instance", "model": "mlp"},
        {"stem_stride": 2, "model": "cnn"},
        {"norm": "weight", "norm_position": "post"},
        {"ghost_batch": 7},
        {"stochastic_depth": 0.1},
        {"dropout": 0.1, "dropout_layers": "dense+head"},
        {"dropout": 0.1, "dropout_layers": "blocks", "model": "mlp"},
        {"schedule": "cosine", "lr_min": 1.0},
        {"loss": "hinge", "label_smoothing": 0.1},
        {"norm": "weight", "init": "lsuv"},
        {"model": "resnet", "block": "preactivation", "norm_position": "post"},
        {"model": "resnet", "shortcut": "none", "stochastic_depth": 0.1},
        {"model": "resnet", "block": "preactivation", "norm": "weight"},
        {"model": "mlp", "se_reduction": 4},
        {"model": "hybrid"},
        {"unfreeze": (3, 2)},
        {"unfreeze": (8,)},
        {"unfreeze": (1,), "unfreeze_rates": (1.0, 0.1, 0.01)},
        {"optimizer": "schedule_free", "layer_rate": 0.5},
        {"trunk": "runs/a"},
        {"pretrain": "jigsaw"},
        {"dropout": 1.0, "dropout_kind": "alpha"},
    ],
)
def test_bad_combinations_are_refused(changes):
    with pytest.raises(UsageError):
        check_sweep(Sweep(dataclasses.replace(Recipe(), **changes), seeds=1))


def test_only_combinations_that_occur_are_checked():
    check_sweep(Sweep(Recipe(widths=(12, 16)), axes={"norm": ["none", "batch", "layer", "instance"]}, seeds=1))


def test_auto_is_written_out():
    reef, digits = resolve(Recipe(task="reef", optimizer="adam")), resolve(Recipe(task="mnist", optimizer="sgd"))
    assert (reef.lr, reef.image_size, reef.augment) == (1e-3, 32, "flip_shift")
    assert (digits.lr, digits.image_size, digits.augment) == (0.1, 28, "none")
    assert resolve(Recipe(lr=0.5, augment="none")).lr == 0.5
    for name, augment in {
        "reef?train=0.5": "flip_shift",
        "mnist?noise=0.1": "none",
        "folder:/a?b": "flip_shift",
    }.items():
        assert resolve(Recipe(task=name)).augment == augment
    assert resolve(Recipe(task="mnist?train=0.5")).image_size == 28


def test_a_function_of_the_users_own_is_found_and_hashed(monkeypatch):
    def mine(x):
        return jnp.sin(x)

    monkeypatch.setitem(ACTIVATIONS, "mine", mine)
    sweep = Sweep(Recipe(), axes={"activation": ["relu", "mine"]}, seeds=1)
    check_sweep(sweep)
    assert user_functions(sweep) == {"activation=mine": mine}
    assert sweep.hash(hash_each(user_functions(sweep))) != sweep.hash()


def test_every_name_in_every_table_is_accepted():
    base = dataclasses.replace(Recipe(), clip=1.0, dropout=0.1, dropout_layers="input")
    hard = {"hard_classes": "abudefduf_vaigiensis"}
    needs = {
        "block": {"model": "resnet"},
        "shortcut": {"model": "resnet"},
        "hard_augment": hard | {"hard_sampling": 2.0},
    }
    for field, table in value_names().items():
        for name in table:
            extra = hard if name == "hybrid" else needs.get(field, {})
            check_sweep(Sweep(dataclasses.replace(base, **extra, **{field: name}), seeds=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 0.5, "optimizer": "sgd"}, "momentum: '0.5' would have no effect in any run"),
        ({"focal_gamma": 1.0}, "used only with loss focal or class_balanced_focal"),
        ({"dropout_kind": "spatial", "dropout": 0.1}, "spatial dropout with dropout_layers input or blocks"),
        ({"ghost_batch": 8, "norm": "layer"}, "used only with norm batch"),
        ({"pool": "mean", "model": "resnet"}, "used only with model cnn, separable or hybrid"),
        ({"block": "preactivation"}, "used only with model resnet"),
        ({"compound": 1.0}, "used only with model efficientnet"),
        ({"hard_classes": "a+b"}, "model hybrid, or hard_augment other than same, or hard_sampling other"),
        ({"hard_sampling": 2.0}, "used only with hard_classes other than none"),
        ({"eval_statistics": "precise", "norm": "layer"}, "used only with norm batch, or input_norm batch"),
        ({"max_norm_layers": (1,)}, "used only with max_norm above 0"),
        ({"pretrain_epochs": 3}, "used only with pretrain other than none"),
    ],
)
def test_a_field_without_effect_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        check_sweep(Sweep(dataclasses.replace(Recipe(), **changes), seeds=1))


def test_a_field_may_have_an_effect_in_some_arms_only():
    check_sweep(Sweep(Recipe(momentum=0.5), axes={"optimizer": ["sgd", "momentum"]}, seeds=1))
