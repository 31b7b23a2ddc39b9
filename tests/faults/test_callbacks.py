"""An exception in what the caller hands over: it comes out as it is, what was saved stays, the same call goes on."""

import pytest

from fishnet.nn.activations import ACTIVATIONS
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.run import phase
from fishnet.sweep.run.progress import Display
from fishnet.sweep.store.tables import Tables
from tests.faults.conftest import assert_same

pytestmark = pytest.mark.fault
BASE = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=32, epochs=4, dropout=0.1)
SWEEP = Sweep(BASE, axes={"lr": [0.02, 0.1]}, seeds=2)


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """A checkpoint after every epoch."""
    monkeypatch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the sweep that nothing happened to."""
    return run_sweep(SWEEP, tmp_path_factory.mktemp("whole") / "out").out


class Raising(Display):
    """Raises in one of its methods, the n-th time that it is called."""

    def __init__(self, method: str, n: int) -> None:
        self.left = n
        setattr(self, method, self._raise)

    def _raise(self, *_: object) -> None:
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError("the caller's own mistake")


@pytest.mark.parametrize(("method", "n"), [("plan", 1), ("stage", 1), ("start", 1), ("advance", 1), ("advance", 6)])
def test_a_display_that_raises(whole, tmp_path, method, n):
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError, match="the caller's own mistake"):
        run_sweep(SWEEP, out, display=Raising(method, n))
    if method == "advance" and n > 1:
        load_run(out, 0)  # the checkpoint under way was written to its end
    run_sweep(SWEEP, out)
    assert_same(out, whole)


def test_a_table_that_cannot_be_made(whole, tmp_path, monkeypatch):
    """What `on_epoch` does fails before the checkpoint of the second epoch is written."""
    out, real, calls = tmp_path / "out", Tables.update, []

    def update(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise ZeroDivisionError("no such table")
        real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError, match="no such table"):
        patch.setattr(Tables, "update", update)
        run_sweep(SWEEP, out)
    load_run(out, 0)
    run_sweep(SWEEP, out)
    assert_same(out, whole)


def test_an_activation_that_raises_when_it_is_traced(tmp_path, monkeypatch):
    """In the plan, where nothing is left behind, and in the program, by whose threads it comes out just the same."""
    raising_at = {"batch": 1}

    def mine(x):
        if len(x) == raising_at["batch"]:
            raise ZeroDivisionError("not for these images")
        return x

    monkeypatch.setitem(ACTIVATIONS, "mine", mine)
    sweep = Sweep(BASE, axes={"activation": ["relu", "mine"]}, seeds=1)
    with pytest.raises(ZeroDivisionError, match="not for these images"):
        run_sweep(sweep, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    raising_at["batch"] = BASE.batch_size
    with pytest.raises(ZeroDivisionError, match="not for these images"):
        run_sweep(sweep, tmp_path / "out")
    raising_at["batch"] = None
    assert (run_sweep(sweep, tmp_path / "out").runs.status == "ok").all()
