"""The same code lowers for GPUs and TPUs, of which this machine has none."""

import jax
import pytest

from fishnet.data import load_task
from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.plan.cohorts import LayoutChoice
from fishnet.sweep.plan.layout import make_layouts
from fishnet.sweep.program.program import CompiledProgram
from fishnet.sweep.run.supervised import SupervisedPhase
from fishnet.sweep.spec.recipe import resolve
from tests.sweep.conftest import BASE, TINY


@pytest.fixture(scope="module", params=["native", "gemm"])
def program(request) -> CompiledProgram:
    """Four lanes side by side, with what is dearest to lower: drawing, sorting, decomposing, choosing."""
    from dataclasses import replace

    axes = {"activation": ["relu", "gelu"], "init": ["orthogonal", "lsuv"], "augment": ["none", "strong"]}
    runs = [replace(run, recipe=resolve(run.recipe)) for run in Sweep(BASE, axes=axes, seeds=2).runs()]
    task, devices = load_task("synthetic", 8), jax.devices()[:1]
    (layout,) = make_layouts(runs, {("synthetic", 8): task}, devices, LayoutChoice(4, request.param))
    return layout.bind(devices)


@pytest.mark.parametrize("name", ["init", "train", "evaluate", "keep"])
def test_every_function_lowers_for_accelerators(program, name):
    """For both kinds at once: where they are lowered differently, the text has a branch for each."""
    text = program.trace(name, 0).lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert "stablehlo" in text
    if name in ("train", "evaluate"):
        assert ("stablehlo.convolution" in text) == (program.config.lowering == "native")
        assert "stablehlo.dot_general" in text


def test_what_is_trained_in_place_is_given_up(program):
    """Donated buffers: the state of the lanes is there once."""
    text = program.trace("train", 0).lower().as_text()
    assert text.count("tf.aliasing_output") + text.count("jax.buffer_donor") >= len(
        jax.tree.leaves(program.abstract_state.params)
    )


@pytest.mark.slow
def test_an_epoch_transfers_nothing_but_what_it_is_told(monkeypatch, tmp_path):
    """JAX refuses implicit transfers, of every thread, while the lanes of a sweep are trained."""
    epochs = []
    train_epoch = SupervisedPhase.train_epoch

    def guarded(self, *epoch):
        jax.config.update("jax_transfer_guard", "disallow")
        try:
            train_epoch(self, *epoch)
        finally:
            jax.config.update("jax_transfer_guard", "allow")
        epochs.append(self.epoch)

    monkeypatch.setattr(SupervisedPhase, "train_epoch", guarded)
    run_sweep(Sweep(TINY, axes={"lr": ["auto", 0.1]}, seeds=2), tmp_path / "out", devices=1)
    assert len(epochs) == TINY.epochs
