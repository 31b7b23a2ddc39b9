"""A lane whose loss, gradient or data are not finite is frozen and named; the others never hear of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.data import load_task
from fishnet.data.tasks import TASKS, Source
from fishnet.nn.activations import ACTIVATIONS
from fishnet.report.html import write_report
from fishnet.sweep import Recipe, Sweep, run_sweep
from tests.faults.conftest import trained

pytestmark = pytest.mark.fault
BASE = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=32, epochs=2, dropout=0.1)


def nan_loss(x):
    """NaN from the first image on."""
    return x * jnp.nan


def infinite_loss(x):
    """Logits of the order of 1e30, the squares of which overflow."""
    return x * 1e30


@jax.custom_vjp
def nan_gradient(x):
    """A finite value without a finite derivative."""
    return x


nan_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (gradient * jnp.nan,))


@jax.custom_vjp
def infinite_gradient(x):
    """A finite value with a derivative that overflows."""
    return x


infinite_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (gradient * jnp.inf,))


BAD = [nan_loss, infinite_loss, nan_gradient, infinite_gradient]


def same_lane(one, run: int, other, again: int) -> None:
    """Run `run` of one folder ended as run `again` of another, bit for bit."""
    a, b = trained(one)["cohort_0"], trained(other)["cohort_0"]
    lanes = [jax.tree.map(lambda leaf, r=r: leaf[r], tree["lanes"]["params"]) for tree, r in ((a, run), (b, again))]
    jax.tree.map(np.testing.assert_array_equal, *lanes)
    np.testing.assert_array_equal(a["history"]["curves"][run], b["history"]["curves"][again])


def test_lanes_that_are_not_finite_touch_nobody(tmp_path, monkeypatch):
    for function in BAD:
        monkeypatch.setitem(ACTIVATIONS, function.__name__, lambda x, f=function: f(x))
    base = dataclasses.replace(BASE, loss="mse")
    names = [function.__name__ for function in BAD]
    both = run_sweep(Sweep(base, axes={"activation": [*names, "tanh"]}, seeds=1), tmp_path / "both")
    alone = run_sweep(Sweep(base, axes={"activation": ["tanh"]}, seeds=1), tmp_path / "alone")
    bad = both.runs[both.runs.activation != "tanh"]
    assert (bad.status == "diverged").all()
    assert (bad.first_bad_step == 0).all()
    assert bad.best_epoch.isna().all() and bad.test_accuracy.isna().all()
    assert (both.runs[both.runs.activation == "tanh"].status == "ok").all()
    same_lane(both.out, len(BAD), alone.out, 0)
    weights = trained(both.out)["cohort_0"]["lanes"]["params"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))  # frozen before the first bad update
    assert "nan_gradient" in write_report(both.out).read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite_end_every_lane_and_no_other_task(tmp_path, monkeypatch, value):
    """Pixels are whole numbers; what standardises them is not."""
    task = load_task("synthetic", 8)
    poisoned = dataclasses.replace(task, name="poisoned", mean=np.full_like(task.mean, value))
    monkeypatch.setitem(TASKS, "poisoned", Source(lambda request: poisoned, (8,), 8))
    sweep = Sweep(BASE, axes={"task": ["synthetic", "poisoned"]}, seeds=1)
    result = run_sweep(sweep, tmp_path / "out")
    found = result.runs.set_index("task")
    assert found.status.to_dict() == {"synthetic": "ok", "poisoned": "diverged"}
    assert found.first_bad_step["poisoned"] == 0
    assert np.isfinite(found.val_loss["synthetic"]) and np.isnan(found.test_loss["poisoned"])
    assert run_sweep(sweep, tmp_path / "out").finished
