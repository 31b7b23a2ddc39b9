"""kill -9 at any moment, and the same command again: the end is that of an undisturbed sweep, bit for bit."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import assert_same, finished, start
from tests.faults.driver import LONGEST

pytestmark = pytest.mark.fault
KILLS = 20


def kill_after(out: Path, seconds: float, programs: Path) -> int:
    """Kills a process so long after it has begun to train; returns its exit code."""
    process = start(out, programs=programs)
    assert process.stdout.readline() == "training\n", process.communicate()
    time.sleep(seconds)
    process.kill()
    process.communicate()
    return process.returncode


def test_twenty_kills_in_a_row_change_nothing(undisturbed, programs, tmp_path):
    """By turns at an event, as at the third rename of a checkpoint, and after a time that no event marks."""
    whole, events = undisturbed("long")
    out, rng = tmp_path / "out", random.Random(4)
    for kill in range(KILLS):
        if kill % 2:
            at = rng.randrange(1, events // KILLS)
            finished(start(out, "--kill-at", str(at), programs=programs), code=-signal.SIGKILL)
        else:
            assert kill_after(out, rng.uniform(0, 0.3), programs) == -signal.SIGKILL
    finished(start(out, programs=programs))
    assert_same(out, whole)


def test_kills_all_the_way_through_pretraining_two_cohorts_and_the_last_tables(undisturbed, programs, tmp_path):
    """At events spread over a whole sweep, each in the session that the one before it left behind."""
    whole, events = undisturbed("mixed")
    out, rng, kills, code = tmp_path / "out", random.Random(5), 0, -signal.SIGKILL
    while code:
        at = rng.randrange(events // 12, events // 4)
        process = start(out, "--sweep", "mixed", "--kill-at", str(at), programs=programs)
        _, complaints = process.communicate(timeout=LONGEST)
        code = process.returncode
        assert code in (0, -signal.SIGKILL), complaints
        kills += code != 0
    assert kills >= 4
    assert_same(out, whole)
