"""Activations, norms and models: the answer and the claims follow from tables with a known truth."""

import pytest

from experiments import ablation
from experiments.ablation import CONTROL, NORMED, TASKS, question, train_or_ask
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.norms import NORMS
from fishnet.stats import fewest_seeds
from fishnet.sweep.spec.validation import check_sweep
from tests.experiments.planted import trials_of, weighed

GAIN = {"test_balanced_accuracy": 0.1, "test_accuracy": 0.1}
LOSS = {name: -value for name, value in GAIN.items()}
PLANTED = {
    ("fish", "gelu"): GAIN,
    ("fish", "tanh"): LOSS,
    ("fish", "sigmoid"): LOSS,
    ("fish", NORMED): GAIN,
    ("fish", "layer norm"): LOSS,
    ("fish", "separable"): GAIN,
    ("digits", "elu"): GAIN,
    ("digits", "layer norm"): LOSS,
}


@pytest.fixture(scope="module")
def asked():
    return question()


@pytest.fixture(scope="module")
def trials(asked):
    return trials_of(asked, "full", PLANTED, ("a", "b"), "a")


def test_every_activation_norm_and_model_is_an_arm(asked):
    for plan in asked.plans:
        arms = plan.sweep("full").arms()
        assert {arm["activation"] for arm in arms} == set(ACTIVATIONS)
        assert {arm["norm"] for arm in arms} == set(NORMS)
        assert {arm["model"] for arm in arms} == {"cnn", "resnet", "separable"}
        assert plan.seeds >= max(8, fewest_seeds(arms=len(ACTIVATIONS) - 1))
        for size in ("smoke", "quick", "full"):
            check_sweep(plan.sweep(size))


def test_the_answer_names_what_was_planted_and_nothing_else(asked, trials):
    evidence, judgments = weighed(asked, trials, "full")
    text = asked.answer(evidence)
    fish, digits = text.splitlines()[0].split("; ")
    assert fish.startswith("On fish gelu is the best of the activations (+0.09") and "batch norm of the norms" in fish
    assert digits.startswith("on digits elu is the best of the activations (+0.")
    others = f"of {len(ACTIVATIONS) - 1} activations"
    assert f"On fish, {others} gelu is better than relu and tanh and sigmoid worse (differences up to" in text
    assert f"of {len(NORMS) - 1} norms batch norm is better than none and layer norm worse" in text
    assert f"On digits, {others} elu is better than relu and nothing worse" in text
    found = {judgment.claim.text: judgment.verdict for judgment in judgments}
    assert len(found) == len(asked.claims)
    assert found["GELU is better than ReLU"] == "refuted"  # on fish alone it is
    assert found["Mish is better than ReLU"] == "refuted"
    assert found["Saturating units learn worse than ReLU"] == "refuted"
    assert found["Layer norm does not work as well as batch norm in convolutional networks"] == "supported"
    assert found["Group norm is as good as batch norm"] == "refuted"
    assert found["Residual networks are better than plain ones"] == "refuted"


def test_linear_units_that_are_ahead_of_relu_are_a_warning(asked, trials):
    evidence, _ = weighed(asked, trials, "full")
    assert asked.problems(trials, evidence) == []
    ahead = trials_of(asked, "full", PLANTED | {("digits", "identity"): GAIN}, ("a", "b"), "a")
    evidence, _ = weighed(asked, ahead, "full")
    (warning,) = asked.problems(ahead, evidence)
    assert warning.startswith("On digits linear units (identity), with max pooling")


def test_both_tasks_together_rank_the_arms(asked, trials):
    evidence, _ = weighed(asked, trials, "full")
    panels = asked.evidence.panels(trials, evidence)
    assert len(panels) == 3 * len(TASKS) + 1
    ranked = panels[-1].alt.partition(". ")[2].split("; ")
    assert len(ranked) == len(trials["fish"].labels)
    values = [float(line.split()[-1]) for line in ranked]
    assert values == sorted(values, reverse=True)
    assert ranked[-1].startswith(("tanh", "sigmoid", "layer norm"))
    plain = dict(line.rsplit(" ", 1) for line in ranked)[CONTROL]
    # the values of fish lie about .70, those of digits too: the mean of (.70 - 1/15) / (14/15) and (.70 - .1) / .9
    assert float(plain) == pytest.approx((0.70 - 1 / 15) / (14 / 15) / 2 + (0.70 - 0.1) / 0.9 / 2, abs=0.03)


@pytest.mark.parametrize(
    ("words", "asks"), [(["--quick"], True), (["--out", "x", "--full"], True), ([], False), (["--out", "full"], False)]
)
def test_a_size_asks_the_question_and_else_the_main_job_runs(monkeypatch, words, asks):
    monkeypatch.setattr(ablation, "ask", lambda question, words: ("question", words))
    monkeypatch.setattr(ablation, "main", lambda experiment, words: ("job", words))
    assert train_or_ask(words) == ("question" if asks else "job", words)
