"""Out of memory while it trains: one line that says what takes less, and nothing saved is lost."""

import jax
import pytest

from fishnet.errors import UserError
from fishnet.sweep import Recipe, Sweep, cohort, load_run, run_sweep
from fishnet.sweep.program import Calls
from tests.faults.conftest import assert_same

pytestmark = pytest.mark.fault
BASE = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=32, epochs=4, dropout=0.1)
SWEEP = Sweep(BASE, axes={"lr": [0.02, 0.1]}, seeds=2)
TEXT = "RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.\nAllocation summary: ..."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (jax.errors.JaxRuntimeError(TEXT), r"out of memory \(RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 "),
        (MemoryError("Unable to allocate 8 GiB"), r"out of memory \(Unable to allocate 8 GiB\)"),
    ],
    ids=["device", "host"],
)
def test_a_call_that_runs_out_of_memory(tmp_path, monkeypatch, error, line):
    monkeypatch.setattr(cohort, "CHECKPOINT_SECONDS", 0.0)
    whole = run_sweep(SWEEP, tmp_path / "whole", lane_width=2).out
    real, calls = Calls.__call__, []

    def call(self, arguments):
        calls.append(1)
        if len(calls) == 12:
            raise error
        return real(self, arguments)

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(UserError, match=line) as refusal:
        patch.setattr(Calls, "__call__", call)
        run_sweep(SWEEP, out, lane_width=2)
    text = str(refusal.value)
    assert "\n" not in text
    assert "go on with --devices 1, or start again with --lane-width 1 in another --out" in text
    load_run(out, 0)
    run_sweep(SWEEP, out, devices=1)
    assert_same(out, whole)


def test_another_error_of_the_device_is_not_taken_for_it(tmp_path, monkeypatch):
    def call(self, arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(Calls, "__call__", call)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: something else"):
        run_sweep(SWEEP, tmp_path / "out")
