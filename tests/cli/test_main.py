"""What a command passes on to the sweep that it runs."""

import pytest

from experiments import ablation
from fishnet.cli.main import train
from fishnet.cli.sweep_flags import parse_request
from fishnet.errors import UsageError


def test_flags_that_override_the_plan_reach_the_sweep(monkeypatch, tmp_path):
    passed = {}

    def record(sweep, out, **options):
        passed.update(options, sweep=sweep, out=out)
        raise UsageError("recorded")

    monkeypatch.setattr("fishnet.sweep.run_sweep", record)
    words = (
        f"--task synthetic --out {tmp_path / 'a'} --lane-width 4 --lowering gemm --devices 1 --share-batches --quiet"
    )
    with pytest.raises(UsageError, match="recorded"):
        train(parse_request(ablation.EXPERIMENT, words.split()))
    assert passed["sweep"].recipe.task == "synthetic" and passed["out"] == tmp_path / "a"
    expected = {"lane_width": 4, "lowering": "gemm", "devices": 1, "share_batches": True, "quiet": True}
    assert {name: passed[name] for name in expected} == expected
