"""Stopped by a signal and started again, a sweep ends with exactly the numbers of an undisturbed one.

What kill -9 leaves behind is gone on with in tests/faults.
"""

import signal

import pandas as pd
import pytest

from fishnet.sweep import Interrupted, run_sweep
from fishnet.sweep.run import phase
from tests.sweep.conftest import Stopper, assert_same_results, assert_same_run, trained


@pytest.mark.parametrize(
    ("undisturbed", "after", "number", "code"),
    [("tiny", 5.4, signal.SIGTERM, 143), pytest.param("mixed", 20.5, signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_saves_at_once_and_the_sweep_goes_on(undisturbed, after, number, code, request, tmp_path, monkeypatch):
    """Within the second epoch, when some runs are behind others: lanes side by side, or one by one on two devices."""
    sweep, result = request.getfixturevalue(undisturbed)
    out, devices = tmp_path / "out", 1 if undisturbed == "tiny" else 2
    monkeypatch.setattr(phase, "CALL_SECONDS", 1e-6)
    with pytest.raises(Interrupted) as stop:
        run_sweep(sweep, out, devices=devices, display=Stopper(after, number))
    assert stop.value.exit_code == code
    assert (pd.read_parquet(out / "runs.parquet").status == "running").any()
    steps = trained(out)["history"]["steps"]
    assert (steps % (trained(result.out)["history"]["steps"].max() // sweep.recipe.epochs) > 0).any()
    run_sweep(sweep, out, devices=devices)
    for run in range(len(result.runs)):
        assert_same_run(result.out, run, out, run)
    assert_same_results(result.out, out)


def test_finished_sweep_changes_nothing(tiny):
    sweep, result = tiny
    before = {p: p.stat().st_mtime_ns for p in result.out.rglob("*") if p.is_file()}
    again = run_sweep(sweep, result.out)
    assert again.finished
    pd.testing.assert_frame_equal(again.runs, result.runs, check_exact=True)
    assert {p: p.stat().st_mtime_ns for p in result.out.rglob("*") if p.is_file()} == before
