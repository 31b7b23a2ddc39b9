"""What no sweep can hold, and what float32 cannot: refused by arithmetic, before a list of it is made."""

import dataclasses
import time

import numpy as np
import pytest

from fishnet.checks.value_types import parse_number
from fishnet.errors import UsageError
from fishnet.sweep import Recipe, Sweep
from fishnet.sweep.spec.field_parsing import coerce, parse_value
from fishnet.sweep.spec.random_search import MOST_RUNS, Samples
from fishnet.sweep.spec.recipe import FIELDS, MOST_WIDTH
from fishnet.sweep.spec.search_space import Range
from fishnet.sweep.spec.validation import MOST_EPOCHS, MOST_LAYERS, check_recipe, check_sweep

TINY = Recipe(task="synthetic", model="mlp", widths=(8,))
TEN_AXES = {
    name: [0.001 * (i + 1) for i in range(50)]
    for name in (
        *("lr", "momentum", "weight_decay", "l1", "l2"),
        *("dropout", "mixup", "cutmix", "label_smoothing", "init_gain"),
    )
}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sweep(TINY, seeds=2**32),
        lambda: Sweep(TINY, seeds=10**7),
        lambda: Sweep(TINY, seeds=10**5000),
        lambda: Sweep(TINY, seeds=range(10**9)),
        lambda: Sweep(TINY, TEN_AXES),
        lambda: Sweep(TINY, {name: range(1, 20_000) for name in FIELDS if name.startswith(("probe_", "plateau_p"))}),
        lambda: Sweep(TINY, {"lr": [0.1, 0.2]}, seeds=MOST_RUNS),
        lambda: Samples({"lr": Range(0.1, 1.0)}, 10**9),
        lambda: Samples({"lr": Range(0.1, 1.0)}, 10**5000),
        lambda: Sweep(TINY, {"depth": [1, 2]}, 1, samples=Samples({"lr": Range(1e-5, 1.0, log=True)}, MOST_RUNS)),
    ],
)
def test_more_runs_than_a_sweep_can_hold(make):
    began = time.perf_counter()
    with pytest.raises(UsageError, match=rf"more than the {MOST_RUNS:,}"):
        make()
    assert time.perf_counter() - began < 10  # generous: a range test of SciPy's import; lists of them take minutes


def test_as_many_runs_as_a_sweep_can_hold():
    assert len(Sweep(TINY, seeds=MOST_RUNS).seeds) == MOST_RUNS
    assert len(Sweep(TINY, {"lr": [0.1, 0.2]}, seeds=MOST_RUNS // 2).seeds) == MOST_RUNS // 2
    with pytest.raises(UsageError, match="4999 is given twice"):
        Sweep(TINY, seeds=[*range(5000), 4999])
    with pytest.raises(UsageError, match=r"has the value '0\.5' twice"):
        Sweep(TINY, {"lr": [*np.linspace(0.5, 1, 5000), 0.5]})


def test_epochs_of_all_runs():
    one = dataclasses.replace(TINY, epochs=10**6)
    check_sweep(Sweep(one, seeds=2))
    with pytest.raises(UsageError, match=f"3 runs of up to 1,000,000 epochs are more than the {MOST_EPOCHS:,}"):
        check_sweep(Sweep(one, seeds=3))
    with pytest.raises(UsageError, match="1,000,000 epochs"):
        check_sweep(Sweep(TINY, {"epochs": [1, 10**6]}, seeds=2))


def test_layers():
    for recipe in (
        dataclasses.replace(TINY, widths=(8, MOST_WIDTH + 1)),
        dataclasses.replace(TINY, widths=(8,) * (MOST_LAYERS + 1)),
        dataclasses.replace(TINY, widths=(8,) * 5, depth=64),
    ):
        with pytest.raises(UsageError, match="widths"):
            check_recipe(recipe)
    check_recipe(dataclasses.replace(TINY, widths=(8,) * 4, depth=64))


# --- float32 ---


@pytest.mark.parametrize("name", ["lr", "l2", "weight_decay", "clip", "unfreeze_rates"])
def test_what_is_0_or_infinite_in_float32_is_refused(name):
    def given(value):
        return (value,) if name == "unfreeze_rates" else value

    tiny, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    for value in (1e-46, 1e-320, float(tiny) * 0.99, float(largest) * 1.01, 1e308, -1e-46, np.inf, np.nan, 10**400):
        with pytest.raises(UsageError, match=name):
            coerce(name, given(value))
        with pytest.raises(UsageError, match=name):
            Sweep(TINY, {name: [given(0.5), given(value)]})
    for value in (float(tiny), 1e-37, 0.1, 1e38):
        assert coerce(name, given(value)) == given(value)
        assert np.float32(value) != 0 and np.isfinite(np.float32(value))


@pytest.mark.parametrize("name", ["momentum", "ema", "dropout", "label_smoothing", "stochastic_depth", "warmup"])
def test_what_rounds_to_an_end_that_is_not_allowed_is_refused(name):
    """In float32 a dropout of 1 - 1e-9 drops everything, and divides by 0."""
    assert np.float32(1 - 1e-9) == 1
    with pytest.raises(UsageError, match=rf"{name}: '.*' is not at least 0 and below 1: in float32 it is 1"):
        check_recipe(dataclasses.replace(TINY, model="resnet", **{name: 1 - 1e-9}))
    check_recipe(dataclasses.replace(TINY, model="resnet", **{name: 1 - 1e-7}))


# --- numbers as text ---

NO_FLOATS = [
    "nan",
    "inf",
    "-inf",
    "infinity",
    "1e999",
    "1_000",
    "1e1_0",
    "٣",
    "0x10",
    "1,5",
    "1e",
    ".",
    "--1",
    "9" * 5000,
]
NO_WHOLE = [*NO_FLOATS, "1e3", "1.0", "²", "９", "5 5"]


@pytest.mark.parametrize("text", NO_FLOATS)
def test_what_is_no_number(text):
    with pytest.raises(ValueError):
        parse_number(text)
    with pytest.raises(UsageError, match="lr"):
        parse_value("lr", text)


@pytest.mark.parametrize("text", NO_WHOLE)
def test_what_is_no_whole_number(text):
    with pytest.raises(UsageError, match="epochs"):
        parse_value("epochs", text)
    with pytest.raises(UsageError, match="widths"):
        parse_value("widths", f"8-{text}" if text != "--1" else text)


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("+5", 5), (" 5 ", 5), ("5.", 5), (".5", 0.5), ("-1E-3", -0.001)]
)
def test_what_is_a_number(text, value):
    assert parse_number(text) == parse_value("lr", text) == value


def test_whole_numbers_beyond_64_bits():
    for value in (2**63, -(2**64), 10**5000):
        with pytest.raises(UsageError, match="bits is too large"):
            coerce("epochs", value)
        with pytest.raises(UsageError, match="bits is too large"):
            coerce("widths", [8, value])
