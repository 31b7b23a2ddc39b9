"""Where runs went non-finite, in words."""

import pandas as pd
import pytest

from fishnet.study.failures import first_bad
from tests.experiments.test_question import trial_of


def trial_with(**columns):
    """Two arms of three seeds with these columns of their runs."""
    trial = trial_of({"test_accuracy": {"calm": [1, 1, 1], "wild": [0, 0, 0]}})
    runs = trial.looks[0].results.runs
    for name, values in columns.items():
        runs[name] = pd.Series(values, runs.index)
    return trial


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_the_commonest_phase_and_layer_of_a_sweep_are_named(missing):
    phases = [missing] * 3 + ["forward", "backward", "forward"]
    layers = [missing] * 3 + ["dense_7", "head", "dense_7"]
    trial = trial_with(
        first_bad_phase=phases, first_bad_layer=layers, first_bad_step=[float("nan")] * 3 + [0.0, 9.0, 4.0]
    )
    assert first_bad(trial) == ["wild: 3 of 3 runs, most often forward of dense_7, step 2"]


def test_a_phase_may_have_no_layer():
    nothing = [None] * 6
    trial = trial_with(
        first_bad_phase=[None] * 3 + ["loss"] * 3, first_bad_layer=nothing, first_bad_step=[None] * 3 + [5, 5, 5]
    )
    assert first_bad(trial) == ["wild: 3 of 3 runs, loss, step 5"]


def test_own_runs_name_an_array():
    trial = trial_with(first_bad=["", "", "", "z1", "z1", "logits"], first_bad_step=[9, 9, 9, 3, 5, 1])
    assert first_bad(trial, "epoch") == ["wild: 3 of 3 runs, most often z1, epoch 4"]


def test_nothing_is_said_of_what_stays_finite():
    assert first_bad(trial_with()) == []
    assert first_bad(trial_with(first_bad=[""] * 6, first_bad_step=[0] * 6)) == []
