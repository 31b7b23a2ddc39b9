"""Capacity: answers, claims and figures follow from tables with a known truth."""

import pytest

from experiments.capacity import HEART, NETWORKS, draw_of, question
from fishnet.sweep.spec.validation import check_sweep
from tests.experiments.planted import trials_of, weighed

CLASSES = ("a", "b", "c", "d", "e")
PLANTED = {
    ("falls", "mixup"): {"val_accuracy": 0.1},
    ("falls", "early stopping"): {"val_accuracy": 0.1},
    ("falls", "L1"): {"val_accuracy": -0.1, "peak": -0.1},
    ("falls", "clean labels"): {"val_accuracy": 0.15, "peak": 0.1},
    ("dense", "dense 16-16"): {"val_accuracy": 0.1},
    **{("sets", draw_of("width 4", draw)): {"sharp": -1.2} for draw in (1, 2, 3)},
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
    headline, more = text.splitlines()
    lost = evidence["lost"]
    assert (
        f"reaches 90% on its training images, and validation ends {lost.mean_text(HEART)} below its best epoch"
        in headline
    )
    assert f"with clean labels it ends {lost.mean_text('clean labels')} below" in headline
    assert "It ends at 0.70; better: mixup, early stopping and clean labels; worse: L1. " in more
    found = {judgment.claim.text: judgment.verdict for judgment in judgments}
    assert len(found) == len(asked.claims)
    assert found["Mixup keeps more of the accuracy where labels are wrong"] == "supported"
    assert found["Fewer dense parameters overfit less"] == "supported"
    assert found["Dropout prevents overfitting"] == "refuted"


def test_bias_and_variance_stand_for_all_draws_of_a_network(asked, trials):
    evidence, _ = weighed(asked, trials, "full")
    error, bias, variance = (evidence[name].row(draw_of("width 4", 1)) for name in ("error", "bias", "variance"))
    assert error.mean == pytest.approx(bias.mean + variance.mean)
    assert error.verdict == "worse"


def test_figures_have_something_to_show(asked, trials):
    evidence, _ = weighed(asked, trials, "full")
    assert len(asked.evidence.panels(trials, evidence)) == 6
    bars = asked.mechanism.panels(trials, evidence)[2]
    assert all(f"{name}: bias" in bars.alt for name in NETWORKS)


@pytest.mark.parametrize("size", ["smoke", "quick", "full"])
def test_every_sweep_is_sound_and_keeps_its_predictions(asked, size):
    for plan in asked.plans:
        sweep = plan.sweep(size)
        check_sweep(sweep)
        assert len(sweep.runs()) <= 200  # beyond, predictions are those of a few runs only
    assert asked.plans[0].labels(size)[0] == HEART
