"""What counts as a difference between the tables of two versions."""

import re

import numpy as np
import pandas as pd
import pytest

from benchmarks.same_bits import CASES, RESPELLED, add_sources, differences, respell
from fishnet.losses import LOSSES
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import NORMS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.schedules import SCHEDULES
from fishnet.probes import PROBES


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": [0, 1, 2],
            "norm": ["none", "weight_standardised", None],
            "val_loss": [0.5, np.nan, -0.0],
            "best_epoch": pd.array([1, None, 3], dtype="Int64"),
            "p": np.float32([0.1, 0.2, np.nan]),
            "train_seconds": [1.0, 2.0, 3.0],
        }
    )


def test_equal_tables_have_no_difference(table):
    again = table.assign(train_seconds=[7.0, 8.0, 9.0])
    assert differences({"runs": table}, {"runs": again}, {}) == []


@pytest.mark.parametrize(
    ("column", "values", "where"),
    [
        ("val_loss", [np.nextafter(0.5, 1), np.nan, -0.0], "row 0"),
        ("val_loss", [0.5, np.nan, 0.0], "row 2"),
        ("val_loss", [0.5, 0.0, -0.0], "row 1"),
        ("best_epoch", pd.array([1, 2, 3], dtype="Int64"), "row 1"),
        ("best_epoch", pd.array([1, None, 4], dtype="Int64"), "row 2"),
        ("norm", ["none", "weight_standardised", "none"], "row 2"),
        ("p", np.nextafter(np.float32([0.1, 0.2, np.nan]), np.float32([0.1, 1, 1])), "row 1"),
        ("p", np.float64([0.1, 0.2, np.nan]), "float32 in base, float64 now"),
        ("run", np.int32([0, 1, 2]), "int64 in base, int32 now"),
    ],
)
def test_the_smallest_change_is_a_difference_and_is_named(table, column, values, where):
    (line,) = differences({"runs": table}, {"runs": table.assign(**{column: values})}, {})
    assert line.startswith(f"runs.{column}: ") and where in line


def test_rows_columns_and_tables_that_are_missing(table):
    assert "3 rows in base, 2 now" in differences({"runs": table}, {"runs": table[:2]}, {})[0]
    assert "['p']" in differences({"runs": table}, {"runs": table.drop(columns="p")}, {})[0]
    assert "another order" in differences({"runs": table}, {"runs": table[table.columns[::-1]]}, {})[0]
    assert differences({"runs": table}, {}, {}) == ["runs: only in base"]
    assert differences({}, {}, {}) == ["no table"]


def test_respelled_values_and_columns_are_equal_and_others_are_not(table):
    now = table.rename(columns={"norm": "normalization"})
    now["normalization"] = ["none", "weight_standardized", None]
    respelled = {"norm": "normalization", "weight_standardised": "weight_standardized"}
    assert differences({"runs": table}, {"runs": now}, respelled) == []
    assert differences({"runs": table}, {"runs": now}, {"norm": "normalization"}) != []
    assert differences({"runs": table}, {"runs": now}, {}) != []


def test_flags_and_whole_words_are_respelled():
    respelled = {"layer_rate": "layer_lr_scale", "trunk": "backbone"}
    flags = {
        "--layer-rate": "--layer-lr-scale",
        "layer_rate=1": "layer_lr_scale=1",
        "--trunk": "--backbone",
        "freeze=none,trunk": "freeze=none,backbone",
        "trunks": "trunks",
    }
    assert {flag: respell(flag, respelled) for flag in flags} == flags


def test_every_component_is_in_some_case():
    named = {RESPELLED.get(name, name) for name in re.findall(r"\w+", " ".join(CASES.values()))}
    tables = [ACTIVATIONS, NORMS, INITIALIZERS, OPTIMIZERS, SCHEDULES, LOSSES, PROBES]
    assert [name for table in tables for name in table if name not in named] == []


def test_a_case_that_reads_the_folder_of_another_brings_it():
    assert add_sources(["transfer"]) == {"transfer", "pretrained"}
