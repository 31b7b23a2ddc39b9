"""Runs that are asked again: what is kept, how they are numbered, and that their figures are those of their answers."""

import numpy as np
import pandas as pd
import pytest

from fishnet.data import load_task
from fishnet.errors import UsageError
from fishnet.metrics.classification import ece
from fishnet.models.mc_dropout import mc_dropout
from fishnet.report.results import load_results
from fishnet.study import monte_carlo as _monte_carlo
from fishnet.study.monte_carlo import TABLE, MonteCarloRuns, add_monte_carlo, predict_again
from fishnet.study.plan import Plan
from fishnet.study.question import QuestionArgs
from fishnet.sweep import load_run, run_sweep
from fishnet.sweep.run.progress import display_for
from fishnet.sweep.spec.recipe import Recipe

RECIPE = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), norm="none", batch_size=64, epochs=1)
PLAN = Plan("doubt", RECIPE, {"plain": {}, "dropped": {"dropout": 0.5}}, seeds=2)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("asked") / "doubt"
    run_sweep(PLAN.sweep("full"), out)
    return load_results(out)


def test_answers_are_those_of_monte_carlo_dropout(results):
    import jax

    found = add_monte_carlo(results, {"again": [2, 3]}, passes=3)
    assert found.runs["run"].tolist() == [0, 1, 2, 3, 4, 5]
    loaded, task = load_run(results.out, 3), load_task("synthetic", 8)
    test = task.splits["test"]
    key = jax.random.key(0, impl="threefry2x32")
    expected = mc_dropout(loaded.model, loaded.variables, task.images[test], key, 3).probabilities
    rows = found.predictions[(found.predictions["run"] == 5) & (found.predictions["split"] == "test")]
    p = rows[[name for name in rows if name.startswith("p_")]].to_numpy()
    np.testing.assert_allclose(p, expected, atol=1e-5)
    row = found.row(5)
    assert row["test_ece"] == pytest.approx(ece(task.labels[test], p), abs=1e-6)
    assert row["test_accuracy"] == pytest.approx((p.argmax(1) == task.labels[test]).mean())
    assert np.isnan(row["val_accuracy"]) and row["seed"] == 1
    assert set(found.per_class.loc[found.per_class["run"] == 5, "class"]) == set(task.classes)


def test_what_was_asked_is_not_asked_again(results, monkeypatch):
    before = add_monte_carlo(results, {"again": [2, 3]}, passes=2)
    monkeypatch.setattr(_monte_carlo, "predict_again", lambda *_: pytest.fail("asked once more"))
    after = add_monte_carlo(results, {"again": [2, 3]}, passes=2)
    pd.testing.assert_frame_equal(before.runs, after.runs)
    assert (results.out / TABLE).exists()
    with pytest.raises(pytest.fail.Exception, match="once more"):
        add_monte_carlo(results, {"again": [2, 3]}, passes=4)


def test_a_network_without_dropout_has_no_doubt_to_ask_for(results):
    with pytest.raises(UsageError, match=r"run 0 of .* was trained without dropout"):
        predict_again(results, {4: 0}, 2)


def test_a_plan_has_the_new_arms_behind_its_own(results):
    asked = QuestionArgs("full", results.out.parent, until_decided=False, devices=None, quiet=True, command="a command")
    plan = MonteCarloRuns(PLAN, {"again": "dropped"}, passes=2)
    assert plan.labels("full") == ("plain", "dropped", "again")
    assert plan.arms["again"] == {"dropout": 0.5}
    look = plan.train(asked, results.out, display_for(True), range(2), plan.labels("full"))
    assert (look.runs("dropped"), look.runs("again")) == ([2, 3], [4, 5])
    assert set(look.results.runs["run"]) == set(range(6))
