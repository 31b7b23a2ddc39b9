"""`--lane-width auto`: what is timed, chosen, written down and kept."""

import dataclasses

import pytest

from fishnet.errors import UserError
from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.folder import read_sweep_file
from tests.sweep.conftest import TINY, Stopper


def test_the_fastest_layout_is_taken_written_down_and_kept(tmp_path):
    out = tmp_path / "out"
    sweep = Sweep(dataclasses.replace(TINY, epochs=2), seeds=4)
    with pytest.raises(UserError, match="stopped by SIGTERM"):
        run_sweep(sweep, out, lane_width="auto", devices=1, display=Stopper(2.0))
    (plan,) = read_sweep_file(out)["plan"]
    timings = plan["timings"]
    assert set(timings) == {"width 1, gemm", "width 4, gemm"}  # four runs agree in their kinds: no group of 16
    assert f"width {plan['lane_width']}, {plan['lowering']}" == min(timings, key=timings.get)
    again = run_sweep(sweep, out, lane_width="auto", devices=1)  # goes on without timing anew
    assert (again.runs["status"] == "ok").all()
    (kept,) = read_sweep_file(out)["plan"]
    assert all(kept[name] == plan[name] for name in ("lane_width", "lowering", "timings"))
