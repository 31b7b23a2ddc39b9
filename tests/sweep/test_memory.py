"""What does not fit into memory gets a smaller layout before it is trained, and says so."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from fishnet.errors import UserError
from fishnet.host import memory
from fishnet.host.memory import USABLE, bytes_text, host_bytes
from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.program import program
from fishnet.sweep.run.progress import Display
from fishnet.sweep.store.folder import read_sweep_file
from tests.sweep.conftest import TINY, Stopper, assert_same_run

# Most of what a call needs are its batches: 1.4 MB more for eight lanes at once than for one.
WIDE = Sweep(dataclasses.replace(TINY, batch_size=128, epochs=2), seeds=8)
LITTLE, TOO_LITTLE = 950_000, 300_000  # bytes: enough for two lanes at a time on one device; not for the state


class Notes(Display):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def plan(self, view) -> None:
        self.lines += view["notes"]


def has(patch, number: int) -> None:
    patch.setattr(memory, "host_bytes", lambda: number / USABLE)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """`WIDE` two lanes at a time, as memory will have it below."""
    out = tmp_path_factory.mktemp("narrow") / "out"
    run_sweep(WIDE, out, lane_width=2, devices=1)
    return out


@pytest.mark.slow
def test_a_lane_width_that_does_not_fit_is_lowered_and_kept(tmp_path, monkeypatch, narrow):
    has(monkeypatch, LITTLE)
    notes, out = Notes(), tmp_path / "out"
    run_sweep(WIDE, out, lane_width=8, devices=1, display=notes)
    (plan,) = read_sweep_file(out)["plan"]
    assert (plan["lane_width"], plan["asked_width"]) == (2, 8)
    assert any(line.startswith("lane width 8 needs ") and line.endswith("lowered to 2") for line in notes.lines)
    for run in range(8):
        assert_same_run(out, run, narrow, run)


@pytest.mark.slow
def test_a_sweep_goes_on_at_its_lowered_width_however_much_memory_there_is_then(tmp_path, monkeypatch, narrow):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        has(patch, LITTLE)
        with pytest.raises(UserError, match="stopped by SIGTERM"):
            run_sweep(WIDE, out, lane_width=8, devices=1, display=Stopper(9.0))
    run_sweep(WIDE, out, lane_width=8, devices=1)  # the same command
    assert read_sweep_file(out)["plan"][0]["lane_width"] == 2
    assert_same_run(out, 0, narrow, 0)


def test_what_does_not_fit_one_lane_at_a_time_is_refused_with_the_figures(tmp_path, monkeypatch):
    has(monkeypatch, TOO_LITTLE)
    with pytest.raises(UserError, match=r"out of memory: 8 x mlp, .* need \d+ KiB of 293 KiB: choose a smaller batch"):
        run_sweep(WIDE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["compiling", "training"])
def test_a_backend_that_runs_out_of_memory_gets_a_smaller_layout(tmp_path, monkeypatch, narrow, when):
    exhausted = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    def fail(*_, **__):
        raise exhausted

    compile_program = program.CompiledProgram.compile

    def compiled(self, names, interrupt):
        wide = self.config.lane_width > 2
        if wide and when == "compiling":
            self.trace = fail
        compile_program(self, names, interrupt)
        if wide:
            self._compiled["train"] = [fail] * len(self.devices)

    monkeypatch.setattr(program.CompiledProgram, "compile", compiled)
    notes, out = Notes(), tmp_path / "out"
    run_sweep(WIDE, out, devices=1, display=notes)
    assert notes.lines == [f"lane width {wide} needs more than there is: lowered to {wide // 2}" for wide in (8, 4)]
    assert_same_run(out, 3, narrow, 3)


@pytest.mark.slow
def test_devices_that_do_not_fit_side_by_side_are_fewer(tmp_path, monkeypatch, narrow):
    has(monkeypatch, LITTLE)
    notes, out = Notes(), tmp_path / "out"
    run_sweep(WIDE, out, lane_width=1, devices=2, display=notes)
    (plan,) = read_sweep_file(out)["plan"]
    assert (plan["lane_width"], plan["devices"], plan["most_devices"]) == (1, 1, 1)
    assert notes.lines[-1].startswith("2 devices side by side need ")
    losses = [pd.read_parquet(folder / "curves.parquet").train_loss for folder in (out, narrow)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_memory_is_that_of_the_machine_within_its_container(tmp_path, monkeypatch):
    assert 2**20 < host_bytes() < 2**50
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    free = host_bytes()
    (tmp_path / "memory.max").write_text("50000000\n")
    (tmp_path / "memory.current").write_text("30000000\n")
    (tmp_path / "memory.stat").write_text("anon 20000000\ninactive_file 5000000\n")
    assert host_bytes() == 25_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert host_bytes() > free / 2


def test_sizes_in_words():
    sizes = (312, 2048, 61 * 2**30, 2**42)
    assert [bytes_text(n) for n in sizes] == ["312 bytes", "2.0 KiB", "61 GiB", "4096 GiB"]
