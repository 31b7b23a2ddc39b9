"""The same code lowers for GPUs and TPUs, of which this machine has none."""

import jax
import pytest

from fishnet.data import load_task
from fishnet.sweep import Sweep
from fishnet.sweep.plan import make_cohorts
from fishnet.sweep.program import Program
from fishnet.sweep.validate import resolve
from tests.sweep.conftest import BASE


@pytest.fixture(scope="module", params=["native", "gemm"])
def program(request) -> Program:
    """Four lanes side by side, with what is dearest to lower: drawing, sorting, decomposing, choosing."""
    from dataclasses import replace

    axes = {"activation": ["relu", "gelu"], "init": ["orthogonal", "lsuv"], "augment": ["none", "strong"]}
    runs = [replace(run, recipe=resolve(run.recipe)) for run in Sweep(BASE, axes=axes, seeds=2).runs()]
    task, devices = load_task("synthetic", 8), jax.devices()[:1]
    (cohort,) = make_cohorts(runs, {("synthetic", 8): task}, 4, request.param, devices)
    return Program(cohort.shape, cohort.padded_knobs(), task, devices, chunk=64)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["init", "train", "evaluate", "keep"])
def test_every_function_lowers_for_accelerators(program, name, platform):
    text = program.trace(name, 0).lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo" in text
    if name in ("train", "evaluate"):
        assert ("stablehlo.convolution" in text) == (program.shape.lowering == "native")
        assert "stablehlo.dot_general" in text


def test_what_is_trained_in_place_is_given_up(program):
    """Donated buffers: the state of the lanes is there once."""
    text = program.trace("train", 0).lower().as_text()
    assert text.count("tf.aliasing_output") + text.count("jax.buffer_donor") >= len(
        jax.tree.leaves(program.abstract_lanes.params)
    )
