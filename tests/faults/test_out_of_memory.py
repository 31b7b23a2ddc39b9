"""Out of memory while it trains: it goes on with less, or says so in one line, and nothing saved is lost."""

import jax
import pytest

from fishnet.errors import UserError
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.program.compile import BoundProgram
from fishnet.sweep.run import phase
from fishnet.sweep.run.progress import Display
from tests.faults.conftest import assert_same

pytestmark = pytest.mark.fault
BASE = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=32, epochs=4, dropout=0.1)
SWEEP = Sweep(BASE, axes={"lr": [0.02, 0.1]}, seeds=2)
TEXT = "RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.\nAllocation summary: ..."


class Notes(Display):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def failing(patch: pytest.MonkeyPatch, error: Exception, devices: int) -> None:
    """Has the twelfth call fail, and all of more than so many devices from then on."""
    real, calls = BoundProgram.call, []

    def call(self, name, arguments):
        calls.append(1)
        if len(calls) == 12 or (len(calls) > 12 and len(self.devices) > devices):
            raise error
        return real(self, name, arguments)

    patch.setattr(BoundProgram, "call", call)


ERRORS = {"device": jax.errors.JaxRuntimeError(TEXT), "host": MemoryError("Unable to allocate 8 GiB")}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_call_that_runs_out_of_memory_is_made_again_on_fewer_devices(tmp_path, monkeypatch, error):
    """From the newest checkpoint, at the same lane width: the numbers stay what they are."""
    monkeypatch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)
    whole = run_sweep(SWEEP, tmp_path / "whole", lane_width=2, devices=2).out
    notes, out = Notes(), tmp_path / "out"
    with monkeypatch.context() as patch:
        failing(patch, error, devices=1)
        run_sweep(SWEEP, out, lane_width=2, devices=2, display=notes)
    assert notes.lines == ["2 devices side by side need more than there is: lowered to 1"]
    assert_same(out, whole)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_where_nothing_takes_less_it_is_said_in_one_line_and_what_was_saved_is_kept(tmp_path, monkeypatch, error):
    monkeypatch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)
    whole, out = run_sweep(SWEEP, tmp_path / "whole", lane_width=2, devices=1).out, tmp_path / "out"
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"^out of memory: 4 x mlp, .* 2 at a time") as is_,
    ):
        failing(patch, error, devices=1)
        run_sweep(SWEEP, out, lane_width=2, devices=1)
    assert "\n" not in str(is_.value)
    load_run(out, 0)
    run_sweep(SWEEP, out, devices=1)
    assert_same(out, whole)


def test_another_error_of_the_device_is_not_taken_for_it(tmp_path, monkeypatch):
    def call(self, name, arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(BoundProgram, "call", call)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: something else"):
        run_sweep(SWEEP, tmp_path / "out")
