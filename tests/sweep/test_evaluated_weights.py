"""Averaged weights are evaluated, kept and loaded with statistics of their own; against NumPy and plain Flax."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from fishnet.data import load_task
from fishnet.host.interrupt import Interrupt
from fishnet.optim.optimizers import OPTIMIZERS, Optimizer
from fishnet.sweep import Sweep, load_run, run_sweep
from fishnet.sweep.plan.layout import make_layouts
from fishnet.sweep.program.config import averages_weights, estimates_statistics
from fishnet.sweep.spec.recipe import resolve
from tests.sweep.conftest import TINY, assert_same_run, trained

ONE = dataclasses.replace(TINY, epochs=1)
AVERAGED = dataclasses.replace(TINY, probes=("norm_gap",), probe_images=64)


@pytest.fixture(scope="module")
def task():
    return load_task("synthetic", 8)


@pytest.fixture(scope="module")
def averages(tmp_path_factory):
    """The same training, evaluated at its weights and at averages of them."""
    sweep = Sweep(AVERAGED, axes={"ema": [0.0, 0.9, 0.99]}, seeds=1)
    return run_sweep(sweep, tmp_path_factory.mktemp("averages") / "out", devices=1)


@pytest.fixture(scope="module")
def schedule_free(tmp_path_factory):
    recipe = dataclasses.replace(TINY, optimizer="schedule_free", schedule="constant")
    return run_sweep(Sweep(recipe, seeds=1), tmp_path_factory.mktemp("free") / "out", devices=1)


FREE = ("schedule_free", 0)


def first_outputs(task, params) -> np.ndarray:
    """The outputs of the first layer for all training images, [n, width] float64."""
    train = task.images[task.splits["train"]].astype(np.float64)
    x = ((train - train.mean((0, 1, 2))) / train.std((0, 1, 2))).reshape(len(train), -1)
    return x @ np.float64(params["dense_0"]["kernel"])


def by_hand(task, variables, split: str) -> float:
    """The mean loss of a split, by Flax's own batch norm and NumPy."""
    params, images = variables["params"], task.images[task.splits[split]].astype(np.float64)
    train = task.images[task.splits["train"]].astype(np.float64)
    x = ((images - train.mean((0, 1, 2))) / train.std((0, 1, 2))).reshape(len(images), -1)
    norm = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
    own = {"params": params["norm_0"], "batch_stats": variables["batch_stats"]["norm_0"]}
    hidden = np.maximum(np.float64(norm.apply(own, np.float32(x @ np.float64(params["dense_0"]["kernel"])))), 0)
    logits = hidden @ np.float64(params["head"]["kernel"]) + np.float64(params["head"]["bias"])
    labels = task.labels[task.splits[split]]
    return -log_softmax(logits, -1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize(("sweep", "run"), [("averages", 1), ("averages", 2), FREE])
@pytest.mark.slow
def test_statistics_are_those_of_the_training_images_under_the_evaluated_weights(request, task, sweep, run):
    loaded = load_run(request.getfixturevalue(sweep).out, run)
    outputs, found = first_outputs(task, loaded.variables["params"]), loaded.variables["batch_stats"]["norm_0"]
    np.testing.assert_allclose(found["mean"], outputs.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["var"], outputs.var(0), rtol=1e-4)


@pytest.mark.parametrize(("sweep", "run"), [("averages", 0), ("averages", 1), ("averages", 2), FREE])
@pytest.mark.slow
def test_a_loaded_run_has_the_loss_that_was_reported(request, task, sweep, run):
    result = request.getfixturevalue(sweep)
    variables = load_run(result.out, run).variables
    for split in ("val", "test"):
        assert by_hand(task, variables, split) == pytest.approx(result.runs[f"{split}_loss"][run], rel=1e-4)


@pytest.mark.slow
def test_an_average_changes_the_evaluation_only(averages):
    """Training, its running statistics, and what probes see of the network in training."""
    lanes = trained(averages.out)["lanes"]
    for name in ("params", "statistics", "slots"):
        for leaf in jax.tree.leaves(lanes[name]):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    probes = pd.read_parquet(averages.out / "probes.parquet").pivot(
        index=["epoch", "probe"], columns="run", values="value"
    )
    assert len(probes) and (probes[0] == probes[1]).all() and (probes[0] == probes[2]).all()
    assert averages.runs["val_loss"].nunique() == 3


@pytest.mark.slow
def test_an_averaged_lane_equals_its_solo_run(averages, tmp_path):
    alone = run_sweep(Sweep(dataclasses.replace(AVERAGED, ema=0.9), seeds=1), tmp_path / "out", devices=1)
    assert_same_run(averages.out, 1, alone.out, 0)


@pytest.mark.slow
def test_an_average_is_the_debiased_one_of_every_step(task):
    """Step by step, against `sum of decay^(t - k) p_k / sum of decay^(t - k)`: initial weights have no part in it."""
    recipe, decay = dataclasses.replace(ONE, ema=0.999, lr=0.5), 0.999
    (run,) = Sweep(recipe, seeds=1).runs()
    run = dataclasses.replace(run, recipe=resolve(recipe))
    (layout,) = make_layouts([run], {("synthetic", 8): task}, jax.devices()[:1])
    program = layout.bind(jax.devices())
    program.compile(["init", "train"], Interrupt())
    states, lr_scales, work = program.init(), [np.ones(program.lanes, np.float32)], layout.work([0])
    kernels = []
    for step in range(6):
        states = program.train(states, lr_scales, work, step, step + 1)
        (lanes,) = states
        kernels.append(np.float64(lanes.params["dense_0"]["kernel"][0]))
        weights = decay ** np.arange(step, -1, -1.0)
        expected = np.tensordot(weights / weights.sum(), np.stack(kernels), 1)
        np.testing.assert_allclose(lanes.average["dense_0"]["kernel"][0], expected, rtol=1e-5, atol=1e-6)


def test_what_evaluates_other_weights_is_no_list_of_names(monkeypatch):
    """An optimizer of the user's own that averages gets a program of its own, an average and its statistics."""
    theirs = Optimizer(OPTIMIZERS["sgd"].build, default_lr=0.1, evaluate=lambda params, state: params)
    monkeypatch.setitem(OPTIMIZERS, "theirs", theirs)
    recipe = dataclasses.replace(TINY, optimizer="theirs")
    assert theirs.own_program and averages_weights(recipe) and estimates_statistics(recipe)
    assert not averages_weights(TINY) and not estimates_statistics(TINY)
    assert not estimates_statistics(dataclasses.replace(TINY, ema=0.9, norm="layer"))
    assert estimates_statistics(dataclasses.replace(TINY, ema=0.9, norm="layer", input_norm="batch"))
    assert estimates_statistics(dataclasses.replace(TINY, ema=0.9, eval_statistics="batch"))  # a trunk for others
