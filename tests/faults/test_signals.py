"""SIGTERM at any moment: it ends within ten seconds, saved, and the same command goes on."""

import random
import select
import signal
import time

import pytest

from tests.faults.conftest import assert_same, finished, start

pytestmark = pytest.mark.fault


def test_sigterm_at_any_moment_ends_within_ten_seconds(undisturbed, programs, tmp_path):
    """While it starts, pretrains, trains and writes; no checkpoint is due, so that what is saved is the signal's."""
    whole, _ = undisturbed("mixed")
    out, rng = tmp_path / "out", random.Random(6)
    options, said = ["--sweep", "mixed", "--checkpoint-seconds", "1000"], ""
    for attempt in range(5):
        process = start(out, *options, programs=programs)
        if attempt:
            assert process.stdout.readline() == "training\n"
            time.sleep(rng.uniform(0, 0.2))
        else:  # while it starts: on a fast machine the whole sweep takes no longer than that does on a slow one
            select.select([process.stdout], [], [], rng.uniform(1, 6))
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        _, complaints = process.communicate(timeout=60)
        assert time.monotonic() - sent < 10
        assert process.returncode in (143, -signal.SIGTERM), complaints  # the latter before fishnet was imported
        said += complaints
    assert "saved: the same command goes on from here" in said
    finished(start(out, *options, programs=programs))
    assert_same(out, whole)
