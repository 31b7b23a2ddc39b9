"""Slices of work: every group takes every step once, and a call is as long as it should be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishnet.sweep.run.call_pacer import UNMEASURED, CallPacer


def run(pace: CallPacer, counts: np.ndarray, start: int, end: int, seconds: float) -> list[list[list[int]]]:
    """The steps that each group of each device takes, with calls of `seconds` a group and step."""
    taken = [[[] for _ in range(count)] for count in counts]
    for window, at, stop in pace.calls(counts, start, end):
        for device, (low, high) in enumerate(window):
            for group in range(low, high):
                taken[device][group].extend(range(at, stop))
        pace.measured(window, stop - at, seconds * (window[:, 1] - window[:, 0]).max() * (stop - at))
    return taken


@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=3).filter(any),
    start=st.integers(0, 50),
    steps=st.integers(1, 60),
    seconds=st.floats(1e-3, 10),
)
def test_every_group_takes_every_step_once_and_in_order(counts, start, steps, seconds):
    taken = run(CallPacer(2.0), np.array(counts), start, start + steps, seconds)
    assert all(group == list(range(start, start + steps)) for device in taken for group in device)


def test_calls_take_about_as_long_as_they_should():
    pace = CallPacer(2.0)
    run(pace, np.array([3]), 0, 40, 0.1)
    assert pace.fitting == 20
    assert [(at, stop) for _, at, stop in pace.calls(np.array([1]), 0, 50)] == [(0, 20), (20, 40), (40, 50)]
    windows = [window.tolist() for window, _, _ in pace.calls(np.array([5, 2]), 0, 10)]
    assert windows == [[[0, 2], [0, 2]], [[2, 4], [2, 2]], [[4, 5], [2, 2]]]


def test_the_first_call_is_short_and_the_second_measured():
    pace, calls = CallPacer(2.0), []
    for window, at, stop in pace.calls(np.array([4]), 0, 100):
        calls.append(stop - at)
        pace.measured(window, stop - at, 0.04 * (stop - at))
    assert calls[:3] == [UNMEASURED, 50, 100 - UNMEASURED - 50]


def test_a_window_has_no_more_groups_than_it_may():
    pace = CallPacer(2.0)
    pace.measured(np.array([[0, 1]]), 1, 1e-3)
    assert [w.tolist() for w in pace.windows(np.array([5]), 2, most=2)] == [[[0, 2]], [[2, 4]], [[4, 5]]]


@pytest.mark.parametrize("seconds", [1e-9, 100.0])
def test_however_fast_or_slow_a_call_does_something(seconds):
    pace = CallPacer(2.0)
    pace.measured(np.array([[0, 1]]), 1, seconds)
    assert pace.fitting >= 1


@pytest.mark.parametrize("seconds", [0.0, -5.0, 1e9])
def test_a_clock_that_stands_still_or_jumps_costs_no_steps(seconds):
    """A call that seems to have taken no time, or years; later ones are measured again."""
    pace = CallPacer(2.0)
    assert run(pace, np.array([2]), 0, 9, seconds) == [[list(range(9))] * 2]
    assert pace.fitting >= 1
    for _ in range(60):
        run(pace, np.array([1]), 0, 9, 0.1)
    assert pace.fitting == 20
