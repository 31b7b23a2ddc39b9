"""Two processes on one output folder: the second is refused and disturbs nothing."""

import pytest

from tests.faults.conftest import assert_same, finished, start
from tests.faults.driver import LONGEST

pytestmark = pytest.mark.fault


def test_the_second_process_is_refused_while_the_first_trains(undisturbed, programs, tmp_path):
    whole, _ = undisturbed("long")
    out = tmp_path / "out"
    first = start(out, programs=programs)
    assert first.stdout.readline() == "training\n"
    seconds = [start(out, programs=programs) for _ in range(2)]
    for second in seconds:
        _, complaints = finished(second, code=1)
        assert complaints == f"{out} is in use by another process (process {first.pid})\n"
    assert first.poll() is None, "it ended before the others came"
    finished(first)
    assert_same(out, whole)


def test_of_two_processes_that_start_together_one_trains(undisturbed, programs, tmp_path):
    whole, _ = undisturbed("short")
    out = tmp_path / "out"
    both = [start(out, "--sweep", "short", programs=programs) for _ in range(2)]
    codes = sorted((process.communicate(timeout=LONGEST), process.returncode)[1] for process in both)
    assert codes in ([0, 1], [0, 0])  # the later one may find the sweep finished
    assert_same(out, whole)
