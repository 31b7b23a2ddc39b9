"""What the displays print, and that they never get in the way of a sweep."""

import io

import pytest

from fishnet.host.numbers import seconds_text
from fishnet.sweep.plan.past_times import PastTime
from fishnet.sweep.run import progress
from fishnet.sweep.run.progress import Display, LineDisplay, LiveDisplay, display_for

COHORT = {
    "runs": 6,
    "lane_width": 1,
    "lowering": "gemm",
    "devices": 2,
    "last_time": PastTime({"compiling": 12.0, "training": 48.0}, "2026-11-22"),
    "steps_per_epoch": 36,
    "epochs": 8,
    "dropped_images": 1,
    "reason": "all runs share one program",
    "params": None,
}
PLAN = {
    "device": "cpu x 2 (a cpu)",
    "devices": 2,
    "visible_accelerators": ["NVIDIA H100"],
    "runs": 6,
    "arms": 2,
    "seeds": 3,
    "programs": 1,
    "out": "runs/[b]x[/b]",
    "cohorts": [COHORT],
    "notes": ["2 files skipped"],
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


def drive(display):
    display.note("a note")
    display.stage("reading reef")
    display.plan(PLAN)
    display.stage("compiling program 1 of 1")
    display.start(48, 6)
    for done in (6, 24, 48):
        display.advance(done, 1, 8, "norm=batch seed 0: validation accuracy 0.781", 1)
    display.finish()
    display.finish()


@pytest.mark.parametrize("make", [Display, lambda: LineDisplay(io.StringIO()), lambda: LiveDisplay(Terminal())])
def test_every_display_goes_through_a_sweep(make):
    drive(make())


@pytest.mark.parametrize("kind", [LineDisplay, LiveDisplay])
def test_a_closed_stream_does_not_stop_a_sweep(kind):
    drive(kind(Closed()))


def test_lines_say_device_first_and_warn_of_unused_accelerators():
    stream = io.StringIO()
    drive(LineDisplay(stream))
    lines = stream.getvalue().splitlines()
    assert lines[2] == "warning: NVIDIA H100 is visible, but training runs on cpu x 2 (a cpu)"
    assert lines[3] == "device    cpu x 2 (a cpu)"
    assert "runs      6 = 2 arms x 3 seeds, in 1 compiled program" in lines
    assert "output    runs/[b]x[/b]" in lines
    assert "estimate  about 1 min 00 s: compiling 12 s, training 48 s; as it took on 2026-11-22" in lines
    assert any("each epoch drops the 1 image of its incomplete last batch" in line for line in lines)
    assert lines[-1].startswith("100 %  epoch 1 of 8")
    assert "1 diverged" in lines[-1]
    assert "\x1b" not in stream.getvalue()


def test_lines_of_progress_are_rare(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    display = LineDisplay(stream, every=10)
    display.start(100)
    for done in range(1, 101):
        now[0] += 1.0
        display.advance(done, 1, 1)
    display.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("  1 %") and "1 min 39 s left" in lines[0]  # from the first calls on
    assert lines[5].startswith(" 51 %") and "49 s left" in lines[5]


def test_time_left_counts_only_this_session(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    clock = progress.Clock(100, 80)
    now[0] = 10.0
    clock.advance(90)
    assert clock.left_text() == "10 s left"


@pytest.mark.parametrize("display", [LineDisplay(io.StringIO()), LiveDisplay(Terminal())])
def test_time_left_does_not_count_what_else_is_done(monkeypatch, display):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display.start(100, 10)
    display.stage("pretraining")
    now[0] = 300.0
    display.advance(12, 1, 1)
    assert display._clock.left_text() == "time left: not known yet"
    now[0] = 304.0
    display.advance(20, 1, 1)
    assert display._clock.left_text() == "40 s left"
    display.stage("compiling")
    now[0] = 900.0
    display.advance(21, 1, 1)
    assert display._clock.left_text() == "40 s left"
    display.finish()


def test_a_live_bar_only_on_a_terminal():
    assert type(display_for(False, Terminal())) is LiveDisplay
    assert type(display_for(True, Terminal())) is LineDisplay
    assert type(display_for(False, io.StringIO())) is LineDisplay


def test_durations():
    texts = [seconds_text(s) for s in (0.44, 9.96, 59.6, 252, 3900)]
    assert texts == ["0.4 s", "10 s", "1 min 00 s", "4 min 12 s", "1 h 05 min"]
