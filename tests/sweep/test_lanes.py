"""A lane in a sweep gives what the same run gives alone."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from fishnet.sweep import Recipe, Sweep, run_sweep
from tests.sweep.conftest import FIGURES, TINY, assert_same_run, trained


def alone(sweep: Sweep, run: int) -> Sweep:
    """The sweep of one run of `sweep`."""
    chosen = sweep.runs()[run]
    return Sweep(dataclasses.replace(chosen.recipe, seed=0), seeds=[chosen.recipe.seed])


@pytest.mark.parametrize(("run", "devices"), [(7, 1), (13, 2)])
@pytest.mark.slow
def test_lane_equals_its_solo_run_bit_for_bit(mixed, tmp_path, run, devices):
    sweep, result = mixed
    run_sweep(alone(sweep, run), tmp_path / "alone", devices=devices)
    assert_same_run(result.out, run, tmp_path / "alone", 0)
    solo = pd.read_parquet(tmp_path / "alone" / "runs.parquet")
    for name in [*FIGURES, "params", "best_epoch"]:
        assert solo[name][0] == result.runs[name][run], name


@pytest.mark.slow
def test_number_of_devices_changes_nothing(mixed, tmp_path):
    sweep, result = mixed
    again = run_sweep(sweep, tmp_path / "one", devices=1)
    for run in range(len(again.runs)):
        assert_same_run(result.out, run, again.out, run)


@pytest.fixture(scope="module")
def mlp() -> Sweep:
    base = Recipe(
        task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=12, epochs=1, dropout=0.2, clip=1.0
    )
    axes = {"activation": ["relu", "tanh"], "norm": ["none", "batch"], "lr": [0.01, 0.03]}
    return Sweep(base, axes=axes, seeds=2)


@pytest.fixture(scope="module")
def mlp_at_width_4(mlp, tmp_path_factory):
    return run_sweep(mlp, tmp_path_factory.mktemp("mlp") / "out", lane_width=4)


@pytest.mark.parametrize("run", [14])
@pytest.mark.slow
def test_vectorised_lane_equals_its_solo_run_bit_for_bit(mlp, mlp_at_width_4, tmp_path, run):
    run_sweep(alone(mlp, run), tmp_path / "alone", lane_width=4, devices=1)
    assert_same_run(mlp_at_width_4.out, run, tmp_path / "alone", 0)


@pytest.mark.parametrize("width", [1, "all"])
@pytest.mark.slow
def test_lane_width_changes_little(mlp, mlp_at_width_4, tmp_path, width):
    """21 steps: the losses at other widths are within 1e-5."""
    other = run_sweep(mlp, tmp_path / "out", lane_width=width, devices=1)
    for folder in ("train_loss", "val_loss"):
        a = pd.read_parquet(mlp_at_width_4.out / "curves.parquet")[folder]
        b = pd.read_parquet(other.out / "curves.parquet")[folder]
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_lanes_of_one_seed_may_share_their_batches(mlp, mlp_at_width_4, tmp_path):
    shared = run_sweep(mlp, tmp_path / "shared", lane_width=4, share_batches=True)
    plan = json.loads((shared.out / "sweep.json").read_text())["plan"]
    assert [cohort["share_batches"] for cohort in plan] == [True]
    for name in ("train_loss", "val_loss"):
        a, b = (pd.read_parquet(out / "curves.parquet")[name] for out in (mlp_at_width_4.out, shared.out))
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)
    run_sweep(alone(mlp, 14), tmp_path / "alone", lane_width=4, share_batches=True, devices=1)
    assert_same_run(shared.out, 14, tmp_path / "alone", 0)


def test_diverged_lane_is_frozen_and_touches_nobody(tmp_path):
    """Calm and wild lanes are vectorised together here, and leave each other alone all the same."""
    base = dataclasses.replace(TINY, norm="none", activation="identity", optimizer="sgd", dropout=0.1)
    both = run_sweep(Sweep(base, axes={"lr": [0.05, 1e6]}, seeds=2), tmp_path / "both", devices=1)
    calm = run_sweep(Sweep(base, axes={"lr": [0.05]}, seeds=2), tmp_path / "calm", devices=1)
    wild = both.runs[both.runs.lr == 1e6]
    assert (wild.status == "diverged").all()
    assert wild.first_bad_step.between(1, 2 * 8).all()
    assert (both.runs[both.runs.lr == 0.05].status == "ok").all()
    assert both.runs[both.runs.lr == 0.05].first_bad_step.isna().all()
    for run in (0, 1):
        assert_same_run(both.out, run, calm.out, run)
    lanes = trained(both.out)["lanes"]
    assert np.isfinite(lanes["best_params"]["head"]["kernel"]).all()
