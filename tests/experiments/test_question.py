"""Experiments with a question: what they train and compare in each size, without any training."""

import hashlib
import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import predict
from fishnet.errors import UsageError, UserError
from fishnet.report.html import write_report
from fishnet.report.results import Results
from fishnet.study import question as q
from fishnet.study.claims import Claim
from fishnet.study.contrasts import Contrast, evaluate_contrast
from fishnet.study.custom_runs import CustomRuns
from fishnet.study.metrics import column_metric, epochs_until
from fishnet.study.plan import Plan
from fishnet.study.question import QuestionArgs, select_claims, select_contrasts
from fishnet.study.trials import Look, Trial
from fishnet.study.tuning import expand_rates, set_tuned_rates, suggest_rates, warn_of_grid_ends
from fishnet.sweep import load_run
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.store import folder

ACCURACY = column_metric("test_accuracy", "test accuracy")
BASE = Recipe(task="synthetic", model="mlp", widths=(8,), epochs=2)


def asked(size: str, out: Path) -> QuestionArgs:
    return QuestionArgs(size, out, until_decided=False, devices=None, quiet=True, command="a command")


def trial_of(columns, seeds=3, name="planted") -> Trial:
    """A trial whose arms have given values by seed; `columns`: column -> label -> values."""
    labels = list(next(iter(columns.values())))
    rows = [
        {"run": i * seeds + s, "status": "ok"} | {name: float(of[label][s]) for name, of in columns.items()}
        for i, label in enumerate(labels)
        for s in range(seeds)
    ]
    nothing = pd.DataFrame()
    results = Results(Path("nowhere"), {"seeds": list(range(seeds))}, pd.DataFrame(rows), nothing, nothing, nothing)
    return Trial(name, (Look(results, tuple(labels)),))


@pytest.mark.parametrize("name", q.QUESTIONS)
def test_every_size_has_its_arms_and_the_full_one_everything(name):
    """Labels in sizes, contrasts and claims are those of the plans; arms that depend on trials are settled later."""
    question = importlib.import_module(f"experiments.{name}").question()
    plans = {plan.name: plan for plan in question.plans}
    contrasts = {of.name: of for of in question.contrasts}
    assert question.name == name
    assert len(contrasts) == len(question.contrasts)
    for plan in question.plans:
        assert set(plan.sizes) == {"smoke", "quick"}
        if not callable(plan.arms):
            for size in q.SIZES:
                assert set(plan.labels(size)) <= set(plan.arms)
                assert len(plan.seeds_from(size)) >= 1
                if isinstance(plan, Plan):
                    plan.sweep(size)
    for of in question.contrasts:
        assert of.trial in plans
    for claim in question.claims:
        assert claim.source
        plan = plans[contrasts[claim.contrast].trial]
        assert callable(plan.arms) or set(claim.expected) <= set(plan.arms)


def test_arms_may_depend_on_earlier_trials():
    def arms(trials):
        best = max(trials["first"].by_seed(ACCURACY).items(), key=lambda item: np.mean(item[1]))[0]
        return {"default": {}, "as found": {"lr": float(best)}}

    plan = Plan("second", BASE, arms, seeds=4, first_seed=7)
    trial = trial_of({"test_accuracy": {"0.1": [0.3, 0.4, 0.5], "0.2": [0.6, 0.5, 0.7]}})
    settled = plan.settled({"first": trial})
    assert settled.arms["as found"] == {"lr": 0.2}
    sweep = settled.sweep("full")
    assert sweep.seeds == (7, 8, 9, 10)
    assert [arm["lr"] for arm in sweep.arms()] == ["auto", 0.2]
    assert settled.seeds_from("full", done=4) == range(11, 15)
    assert settled.settled({}) is settled


def test_arms_that_are_alike_are_trained_once_and_seen_twice(monkeypatch, tmp_path):
    plan = Plan("one", BASE, {"a": {"lr": 0.1}, "b": {"lr": 0.2}, "a again": {"lr": 0.1}}, seeds=2)
    assert len(plan.sweep("full").runs()) == 4
    results = trial_of({"test_accuracy": {"a": [1, 2], "b": [3, 4]}}, seeds=2).looks[0].results
    monkeypatch.setattr("fishnet.sweep.run_sweep", lambda *args, **more: None)
    monkeypatch.setattr("fishnet.report.html.write_report", lambda *args, **more: None)
    monkeypatch.setattr("fishnet.report.results.load_results", lambda out: results)
    look = plan.train(asked("full", tmp_path), tmp_path, Display(), range(2), ("a", "b", "a again"))
    assert [look.runs(label) for label in ("a", "b", "a again", "c")] == [[0, 1], [2, 3], [0, 1], []]


def test_a_smaller_size_compares_what_it_trains():
    plan = Plan("one", BASE, {"a": {}, "b": {"lr": 0.1}, "c": {"lr": 0.2}}, sizes={"smoke": {"arms": ["a", "b"]}})
    contrasts = (
        Contrast("all", "", "one", ACCURACY),
        Contrast("some", "", "one", ACCURACY, arms=("b", "c")),
        Contrast("other", "", "one", ACCURACY, control="c"),
        Contrast("gone", "", "one", ACCURACY, arms=("c",)),
    )
    claims = (Claim("b", "x", "some", {"b": "better"}), Claim("c", "x", "some", {"b": "better", "c": "worse"}))
    question = q.Question("n", "", "", "", (plan,), contrasts, None, None, None, claims)
    plans = {"one": plan}
    assert {of.name: of.arms for of in select_contrasts(question, plans, "smoke")} == {"all": None, "some": ("b",)}
    assert select_contrasts(question, plans, "full") == list(contrasts)
    trial = trial_of({"test_accuracy": {"a": [1, 1, 1], "b": [2, 2, 2]}})
    evidence = {of.name: evaluate_contrast(of, trial) for of in select_contrasts(question, plans, "smoke")}
    assert select_claims(question, evidence, "smoke") == [claims[0]]
    assert select_claims(question, evidence, "full") == list(claims)
    mistyped = replace(question, contrasts=(Contrast("x", "", "one", ACCURACY, arms=("d",)),))
    with pytest.raises(UsageError, match="'d'"):
        select_contrasts(mistyped, plans, "full")


def test_rates_are_tuned_by_validation():
    arms, rates = {"x": {"optimizer": "adam"}, "y": {}, "z": {}}, {"x": (0.1, 0.2, 0.4), "y": (1.0, 2.0), "z": (1.0,)}
    tried = expand_rates(arms, rates)
    assert tried["x @ 0.2"] == {"optimizer": "adam", "lr": 0.2}
    assert list(tried) == ["x @ 0.1", "x @ 0.2", "x @ 0.4", "y @ 1", "y @ 2", "z @ 1"]
    losses = {"x @ 0.1": [3, 3, 3], "x @ 0.2": [1, 1.5, 1], "x @ 0.4": [0, 0, np.nan], "y @ 1": [2, 2, 2]}
    trial = trial_of({"val_loss": losses | {"y @ 2": [1, 1, 1]}})
    assert set_tuned_rates(arms, rates, trial) == {"x": {"optimizer": "adam", "lr": 0.2}, "y": {"lr": 2.0}}
    assert suggest_rates(trial, ["x"], rates)["x"].loss == pytest.approx(3.5 / 3)
    assert warn_of_grid_ends(trial, list(arms), rates) == [
        "Best at the highest rate that was tried, and maybe better beyond it: y (2)."
    ]
    flat = trial_of({"val_loss": {"y @ 1": [2.302] * 3, "y @ 2": [2.3] * 3}})
    assert warn_of_grid_ends(flat, ["y"], rates) == ["As good, or bad, at every rate that was tried: y."]
    never = trial_of({"val_loss": {"y @ 1": [np.nan] * 3, "y @ 2": [np.nan] * 3}})
    assert set_tuned_rates(arms, rates, never) == {"y": {"lr": 1.0}}
    assert "Diverged at every rate" in warn_of_grid_ends(never, ["y"], rates)[0]


def test_how_soon_a_level_is_passed():
    curves = pd.DataFrame(
        [
            {"run": run, "epoch": e + 1, "loss": value}
            for run, of in enumerate(([3, 0.5, 2], [3, 2, 1], [3]))
            for e, value in enumerate(of)
        ]
    )
    results = Results(Path("nowhere"), {"seeds": [0, 1, 2]}, curves, curves, curves, curves)
    assert epochs_until("loss", 1.0, "").of(results) == {0: 2, 1: 4, 2: 4}
    assert epochs_until("loss", 2.5, "", falling=False).of(results) == {0: 1, 1: 1, 2: 1}
    assert not epochs_until("loss", 1.0, "").larger_is_better


def made_up(fields, seed):
    """A run of no cost whose figures say what it was given; a list in this module would count as a part of it."""
    with open(fields["log"], "a") as log:
        log.write(f"{fields['by']} {seed}\n")
    if Path(fields.get("fails_while", "")).is_file():
        raise KeyboardInterrupt
    value = seed + 10.0 * fields["by"]
    return {
        "runs": [{"status": "ok", "test_accuracy": value}],
        "curves": [{"epoch": e, "train_loss": value / e} for e in (1, 2)],
    }


@pytest.fixture
def own_arms(tmp_path):
    """`own_arms(n)`: so many arms of `made_up`, which log their calls."""
    return lambda number: {label: {"by": by, "log": str(tmp_path / "log")} for by, label in enumerate("abc"[:number])}


@pytest.fixture
def calls(tmp_path):
    """`calls()`: arm and seed of each call of `made_up` since it was last asked."""

    def found():
        log = tmp_path / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [tuple(map(int, line.split())) for line in lines]

    return found


def test_runs_of_an_experiments_own_are_weighed_like_a_sweep(tmp_path, own_arms, calls):
    own, out = CustomRuns("own", made_up, own_arms(3), seeds=3, first_seed=5), tmp_path / "out"
    look = own.train(asked("full", out), out, Display(), own.seeds_from("full"), ("a", "b", "c"))
    assert calls() == [(by, seed) for by in (0, 1, 2) for seed in (5, 6, 7)]
    trial = Trial("own", (look,))
    assert trial.by_seed(ACCURACY) == {"a": [5, 6, 7], "b": [15, 16, 17], "c": [25, 26, 27]}
    assert trial.by_seed(epochs_until("train_loss", 4.0, ""))["a"] == [2, 2, 2]
    assert (look.results.runs["train_seconds"] >= 0).all()
    found = evaluate_contrast(Contrast("x", "", "own", ACCURACY), trial)
    assert found.row("b").difference == 10
    # Finished: nothing is run again, and other runs are refused.
    own.train(asked("full", out), out, Display(), own.seeds_from("full"), ("a", "b", "c"))
    assert calls() == []
    with pytest.raises(UserError, match="other runs"):
        own.train(asked("full", out), out, Display(), (1, 2), ("a", "b", "c"))


@pytest.mark.parametrize("table", ["runs", "curves"])
def test_own_runs_whose_tables_are_lost_or_damaged_are_run_again(tmp_path, own_arms, calls, table):
    own, out = CustomRuns("own", made_up, own_arms(2), seeds=2), tmp_path / "out"

    def train():
        return own.train(asked("full", out), out, Display(), (0, 1), ("a", "b")).results

    first, path = train(), out / f"{table}.parquet"
    calls()
    for damage in (path.unlink, lambda: path.write_bytes(b""), lambda: first.runs[:2].to_parquet(path)):
        train()
        assert calls() == []
        damage()
        results = train()
        assert calls() == [(0, 0), (0, 1), (1, 0), (1, 1)]
        pd.testing.assert_frame_equal(results.curves, first.curves)
        assert results.runs["test_accuracy"].tolist() == [0, 1, 10, 11]


def test_own_runs_have_no_network_to_load(tmp_path, own_arms, capsys):
    own = CustomRuns("own", made_up, own_arms(1), seeds=2)
    own.train(asked("full", tmp_path), tmp_path, Display(), (0, 1), ("a",))
    for attempt in (load_run, write_report):
        with pytest.raises(UserError, match="trained with code of its own: there is no network in it"):
            attempt(tmp_path)
    photograph = Path(__file__).parents[2] / "docs" / "figures"
    assert predict.main(["--run", str(tmp_path), "--images", str(photograph)]) == 1
    error = capsys.readouterr().err
    assert "there is no network in it" in error and error.count("\n") == 1


def test_own_runs_that_end_before_they_say_so_still_know_their_tables(tmp_path, own_arms, calls, monkeypatch):
    own, out = CustomRuns("own", made_up, own_arms(1), seeds=2), tmp_path / "out"
    write = folder.write_sweep_file

    def write_until_finished(out, content):
        if content["finished"]:
            raise KeyboardInterrupt
        write(out, content)

    monkeypatch.setattr(folder, "write_sweep_file", write_until_finished)
    with pytest.raises(KeyboardInterrupt):
        own.train(asked("full", out), out, Display(), (0, 1), ("a",))
    monkeypatch.undo()
    own.train(asked("full", out), out, Display(), (0, 1), ("a",))
    assert calls() == [(0, 0), (0, 1)]
    kept = folder.read_sweep_file(out)["tables"]
    assert kept["runs"] == hashlib.sha256((out / "runs.parquet").read_bytes()).hexdigest()


def test_own_runs_go_on_where_they_were_stopped(tmp_path, own_arms, calls):
    arms, out, fails = own_arms(3), tmp_path / "out", tmp_path / "fails"
    arms["b"]["fails_while"] = str(fails)
    own = CustomRuns("own", made_up, arms, seeds=2)
    fails.touch()
    with pytest.raises(KeyboardInterrupt):
        own.train(asked("full", out), out, Display(), (0, 1), tuple(arms))
    fails.unlink()
    look = own.train(asked("full", out), out, Display(), (0, 1), tuple(arms))
    assert calls() == [(0, 0), (0, 1), (1, 0), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert look.results.runs["run"].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(look.results.curves) == 12
