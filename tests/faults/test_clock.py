"""A clock that jumps: nothing that is trained or kept depends on it."""

import os
import signal

import pytest

from tests.faults.conftest import assert_same, finished, start

pytestmark = pytest.mark.fault
YEAR = 365 * 24 * 3600.0


def test_jumps_of_a_year_while_it_trains_and_between_two_starts(undisturbed, programs, tmp_path):
    whole, events = undisturbed("short")
    out = tmp_path / "out"
    jumping = ["--sweep", "short", "--clock", str(YEAR)]
    finished(start(out, *jumping, "--kill-at", str(events // 2), programs=programs), code=-signal.SIGKILL)
    paths = [path for path in out.rglob("*") if path.is_file()]
    for i, path in enumerate(paths):  # from before 1972 to after 2100, the newest first
        os.utime(path, ((len(paths) - i) * 4e9 / len(paths),) * 2)
    finished(start(out, *jumping, programs=programs))
    assert_same(out, whole)
