"""Regularisation: answers, claims and figures follow from tables with a known truth, and runs that are asked again."""

import pytest

from experiments.regularization import AGAIN, BATCHED, GRIDS, SELF, question
from fishnet.study.tuning import label_at
from fishnet.sweep.spec.validation import check_sweep
from tests.experiments.planted import trials_of, weighed

CLASSES = ("a", "b", "c", "d", "e")
PLANTED = {
    ("fish", "dropout"): {"test_accuracy": 0.1, "train_accuracy": -0.1},
    ("fish", "L2"): {"train_accuracy": -0.1},
    ("fish", "dropout and max-norm"): {"test_accuracy": 0.1},
    ("digits", SELF): {"test_accuracy": -0.05},
    ("digits", "selu, no dropout"): {"test_accuracy": 0.02},
    ("doubt", "dropout .5, Monte-Carlo"): {"test_ece": -0.05},
}


@pytest.fixture(scope="module")
def asked():
    return question()


@pytest.fixture(scope="module")
def trials(asked):
    return trials_of(asked, "full", PLANTED, CLASSES, "a")


def test_the_answer_names_what_was_planted_and_nothing_else(asked, trials):
    evidence, judgments = weighed(asked, trials, "full")
    text = asked.answer(evidence)
    assert "\nAccuracy is shown to be higher with dropout and “dropout and max-norm”; the gap" in text
    assert text.splitlines()[0].endswith(("(dropout).", "(dropout and max-norm)."))
    assert f"{BATCHED} reaches 0.70" in text and "worse" in text
    found = {judgment.claim.text: judgment.verdict for judgment in judgments}
    assert len(found) == len(asked.claims)
    assert found["Dropout improves generalisation"] == "supported"
    assert found["Weight decay (L2) improves generalisation"] == "refuted"
    assert found["MC dropout improves calibration"] == "supported"
    assert found["MC dropout improves accuracy"] == "refuted"
    assert found["Self-normalising networks train better than batch norm in deep dense networks"] == "refuted"


def test_figures_have_something_to_show(asked, trials):
    evidence, _ = weighed(asked, trials, "full")
    assert len(asked.evidence.panels(trials, evidence)) == 2 + 3 * len(AGAIN)
    assert len(asked.mechanism.panels(trials, evidence)) == 4


@pytest.mark.parametrize("size", ["smoke", "quick", "full"])
def test_every_sweep_is_sound_and_keeps_its_predictions(asked, size):
    trials = trials_of(asked, size, {}, CLASSES, "a")
    for plan in asked.plans:
        settled = plan.settled(trials)
        sweep = getattr(settled, "plan", settled).sweep(size)
        check_sweep(sweep)
        assert len(sweep.runs()) <= 200  # beyond, predictions are those of a few runs only


def test_every_arm_gets_the_rate_that_was_best_for_it(asked, trials):
    planted = {("tune digits", label_at(SELF, 0.005)): {"val_loss": -0.5}}
    tuned = trials_of(asked, "full", planted, CLASSES, "a")
    digits = next(plan for plan in asked.plans if plan.name == "digits").settled(tuned)
    assert digits.arms[SELF]["lr"] == 0.005 and digits.arms[SELF]["activation"] == "selu"
    assert any("Digits: best at the lowest rate" in said and SELF in said for said in asked.problems(tuned, {}))


def test_the_cost_that_is_told_is_that_of_the_plans(asked, trials):
    compared, tuned = (
        [plan for plan in asked.plans if plan.name.startswith("tune") == tuning] for tuning in (False, True)
    )
    assert f"Cost. {sum(len(trials[plan.name].labels) for plan in compared)} arms" in asked.about
    arms = sum(len(trials[plan.name].labels) // len(GRIDS[plan.name.removeprefix("tune ")]) for plan in tuned)
    assert f"and {arms} at five or six rates" in asked.about
