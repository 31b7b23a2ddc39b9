"""Recipes, axes and seeds as they are written and read."""

import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishnet.checks.value_types import format_value
from fishnet.errors import UsageError
from fishnet.sweep import Recipe, Sweep
from fishnet.sweep.spec.field_parsing import coerce, parse_value
from fishnet.sweep.spec.recipe import FIELDS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "0.01", 0.01),
        ("lr", "1e-3", 1e-3),
        ("lr", "auto", "auto"),
        ("epochs", "12", 12),
        ("widths", "16-32-64", (16, 32, 64)),
        ("widths", "8", (8,)),
        ("norm_layers", "all", "all"),
        ("norm_layers", "1-3", (1, 3)),
        ("image_size", "auto", "auto"),
        ("image_size", "64", 64),
        ("batch_size", "all", "all"),
        ("batch_size", "32", 32),
        ("task", "folder:/a b/c", "folder:/a b/c"),
    ],
)
def test_values_are_read_as_their_field_says(name, text, value):
    assert parse_value(name, text) == value
    assert parse_value(name, format_value(value)) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("lr", "fast"), ("lr", "nan"), ("epochs", "2.5"), ("widths", "16,32"), ("widths", "16-x"), ("norm_layers", "no")],
)
def test_text_of_another_type_is_repeated_in_the_error(name, text):
    with pytest.raises(UsageError, match=f"{name}: '{text}'"):
        parse_value(name, text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_being_written(value):
    assert parse_value("lr", format_value(value)) == value


def test_a_negative_zero_is_zero_whatever_came_before():
    for zero in (-0.0, 0.0, -0.0):
        assert np.copysign(1, coerce("init_bias", zero)) == np.copysign(1, coerce("weight_decay", zero)) == 1


def test_every_field_has_a_docstring_and_a_default_of_its_type():
    for name in FIELDS:
        assert coerce(name, getattr(Recipe(), name)) == getattr(Recipe(), name)


def test_values_from_python_take_the_type_of_their_field():
    sweep = Sweep(Recipe(widths=[8, 16], lr=1), axes={"lr": [1, np.float32(0.5)]}, seeds=np.array([4, 2]).tolist())
    assert sweep.recipe.widths == (8, 16)
    assert sweep.recipe.lr == 1.0
    assert isinstance(sweep.recipe.lr, float)
    assert sweep.axes["lr"] == (1.0, 0.5)
    assert sweep.seeds == (4, 2)


def test_arms_and_runs_are_numbered_with_the_last_axis_fastest():
    sweep = Sweep(Recipe(), axes={"activation": ["relu", "elu"], "norm": ["none", "batch"]}, seeds=[7, 1])
    runs = sweep.runs()
    assert [run.index for run in runs] == list(range(8))
    assert [run.arm for run in runs[::2]] == [
        "activation=relu norm=none",
        "activation=relu norm=batch",
        "activation=elu norm=none",
        "activation=elu norm=batch",
    ]
    assert [run.recipe.seed for run in runs] == [7, 1] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"activatoin": ["relu"]}}, "did you mean 'activation'"),
        ({"axes": {"seed": [1, 2]}}, "--seeds"),
        ({"axes": {"lr": []}}, "lr has no values"),
        ({"axes": {"lr": [0.1, 0.1]}}, "'0.1' twice"),
        ({"axes": {"lr": 0.1}}, "not a list"),
        ({"axes": {"epochs": [1.5]}}, "epochs: 1.5"),
        ({"axes": {"epochs": [True]}}, "epochs: True"),
        ({"seeds": 0}, "seeds: 0"),
        ({"seeds": -1}, "seeds: -1"),
        ({"seeds": []}, "empty"),
        ({"seeds": [1, 1]}, "1 is given twice"),
        ({"seeds": [-3]}, "-3"),
        ({"seeds": "3"}, "'3'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Sweep(**changes)


def test_a_recipe_has_values_of_its_fields_types():
    with pytest.raises(UsageError, match=r"widths: \(\)"):
        Recipe(widths=())
    assert Recipe(widths=[8, 16], lr=1, probes=["gradients"]) == Recipe(widths=(8, 16), lr=1.0, probes=("gradients",))


def test_hash_changes_with_everything_that_changes_results_and_with_nothing_else():
    base = Sweep(Recipe(), axes={"lr": [0.1]}, seeds=2)
    assert base.hash() == Sweep(Recipe(seed=9), axes={"lr": [0.1]}, seeds=[0, 1]).hash()
    others = [
        Sweep(dataclasses.replace(Recipe(), epochs=9), axes={"lr": [0.1]}, seeds=2),
        Sweep(Recipe(), axes={"lr": [0.2]}, seeds=2),
        Sweep(Recipe(), axes={"lr": [0.1]}, seeds=3),
    ]
    hashes = {sweep.hash() for sweep in [base, *others]}
    hashes |= {base.hash({"activation=mine": "a digest"}), base.hash(options={"strict": True})}
    assert len(hashes) == 6


def test_a_sweep_survives_pickling():
    sweep = Sweep(Recipe(), axes={"lr": [0.1, 0.2]}, seeds=2)
    assert pickle.loads(pickle.dumps(sweep)) == sweep


def test_recipes_and_their_flags_are_read_without_jax():
    code = (
        "import sys; from experiments.ablation import EXPERIMENT; from fishnet.cli.sweep_flags import parse_request; "
        "parse_request(EXPERIMENT, ['--loss', 'focal', '--focal-gamma', '1']); "
        "sys.exit('jax' in sys.modules or 'scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
