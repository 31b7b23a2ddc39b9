"""Answers follow from the verdicts: differences are planted, and the sentence says them."""

import importlib
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.from_scratch import describe_refused
from experiments.mnist_speed import describe_fastest
from experiments.optimizers import sort_by_verdict
from experiments.stagnation import CAUSES, FOUND, NOTHING_HELPED, make_range_test_arms, remedies, sharpness_over_limit
from experiments.vanishing_gradient import ARMS, DEEP, describe_memorizing
from fishnet.stats import compare
from fishnet.study.claims import judge
from fishnet.study.contrasts import Evidence
from fishnet.study.mean_field import distance_to_theory, last_gradient, predict_profile
from fishnet.study.trials import Look, Trial
from tests.experiments.test_question import trial_of

SEEDS = 10


def evidence_of(question, labels, effects, start=0.5):
    """Evidence of every contrast of a question from made-up values.

    Args:
        question: with its contrasts.
        labels: trial -> its arms, where the question's plan does not have them yet.
        effects: (contrast, label) -> by how much its values differ from `start`.
    """
    arms = {plan.name: labels.get(plan.name) or list(plan.arms) for plan in question.plans}
    made = {}
    for place, of in enumerate(question.contrasts):
        shared = np.random.default_rng(place).normal(start, 0.02, SEEDS)
        control = of.control or arms[of.trial][0]
        names = [control, *(of.arms or [label for label in arms[of.trial] if label != control])]
        values = {}
        for i, name in enumerate(names):
            noise = np.random.default_rng(100 * place + i).normal(0, 0.003, SEEDS)
            values[name] = shared + noise + effects.get((of.name, name), 0.0)
        metric = of.metric
        rows = compare(
            values,
            control,
            margin=metric.margin,
            larger_is_better=metric.larger_is_better,
            diverged=metric.diverged,
            test=of.test,
        )
        made[of.name] = Evidence(of, rows)
    return made


def asked(name):
    return importlib.import_module(f"experiments.{name}").question()


def verdicts(question, evidence):
    return {claim.text: judge(claim, evidence).verdict for claim in question.claims}


def test_stagnation_names_what_helped_for_each_cause():
    question = asked("stagnation")
    effects = {("saddle", name): -0.3 for name in ("momentum .99", "adam", "he weights", "rate x 10")}
    effects |= {("saddle_free", "momentum .9"): -30.0, ("saddle_free", "adam"): 30.0}
    effects |= {("high", "usual rate"): -0.3, ("alike_rank", "he weights"): 2.0, ("found", "three times it"): -0.2}
    evidence = evidence_of(question, {"found": [*FOUND, "one cycle to three times it"]}, effects)
    text = question.answer(evidence)
    assert "Weights too small (loss 0.5" in text
    headline = (
        "Momentum .99 and adam bring the loss below 1 for 1 of the 5 causes, no remedy for all (weights too small"
    )
    assert text.startswith(headline)
    assert "lower at the end with momentum .99 and adam; also with rate x 10 and he weights." in text
    assert text.count(NOTHING_HELPED) == 4
    assert "sooner with momentum .9 (" in text
    judged = verdicts(question, evidence)
    assert judged["Momentum carries training across plateaus"] == "supported"
    assert judged["Adaptive methods escape saddles where gradient descent is stuck"] == "refuted"
    assert judged["Units that begin with equal weights stay equal, whatever the optimizer"] == "supported"
    assert judged["A range test of a few epochs finds the rate"] == "refuted"


def test_early_signs_are_those_that_differ_from_the_healthy_network():
    question = asked("stagnation")
    effects = {("unstable", "rate too high"): 0.4, ("dead_units", "rate too high"): 0.3}
    effects |= {("effective_rank", "units alike"): -0.3, ("gradient_norm", "weights too small"): -0.4}
    text = question.answer(evidence_of(question, {"found": [*FOUND, "one cycle to three times it"]}, effects))
    assert text.endswith(
        "Early on they are told from the healthy network: rate too high by sharpness and dead units; weights too small "
        "by the first gradient; units alike by the rank of the features."
    )


def test_sharpness_is_taken_against_the_rate():
    rows = [
        {"run": run, "step": step, "probe": figure, "layer": None, "class": None, "value": value * (1 + step)}
        for run, pair in enumerate(((4.0, 2.0), (1.0, 8.0)))
        for figure, value in zip(("sharpness", "two_over_lr"), pair, strict=True)
        for step in (0, 10)
    ]
    rows.append({"run": 2, "step": 0, "probe": "sharpness", "layer": None, "class": None, "value": 1.0})
    assert sharpness_over_limit(SimpleNamespace(probes=pd.DataFrame(rows))) == {0: 2.0, 1: 0.125}


def test_a_loss_that_is_lower_but_not_low_is_no_cure():
    question = asked("stagnation")
    effects = {("saddle", "momentum .99"): -0.3, ("low", "adam"): -0.3}
    evidence = evidence_of(question, {"found": [*FOUND, "one cycle to three times it"]}, effects, start=2.3)
    text = question.answer(evidence)
    assert text.startswith("None of these schedules, momenta and optimizers is shown to bring the loss below 1.")
    assert "lower at the end with momentum .99." in text


def test_stagnation_builds_on_its_range_test():
    trial = trial_of({"val_loss": {"sgd @ 0.03": [2, 2, 2], "sgd @ 0.1": [1, 1, 1], "sgd @ 0.3": [2, 2, 2]}})
    arms = make_range_test_arms({"range": trial})
    assert {label: arms[label]["lr"] for label in FOUND} == {
        "from the range test": 0.1,
        "a tenth of it": 0.01,
        "a third of it": 0.0333,
        "three times it": 0.3,
    }
    assert {float(of["lr"]) for name, of in remedies(0.1).items() if name.startswith("nesterov")} == {0.1}
    assert set(CAUSES) == {"low", "high", "saddle", "alike", "narrow"}


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ({}, "that rate is not shown to cost accuracy"),
        ({"usual rate": 0.2}, "there death only accompanies the loss"),
        ({"usual rate": 0.2, "prelu": 0.2}, "there death costs accuracy"),
        ({"usual rate": 0.2, "leaky_relu": -0.3}, "there death only accompanies the loss"),
        (
            {"usual rate": 0.2, "clipping at 1": 0.3, "leaky_relu, clipped": 0.3},
            "there death only accompanies the loss",
        ),
    ],
)
def test_death_is_blamed_for_what_living_units_win_back(effects, verdict):
    question = asked("dying_relu")
    planted = {("rate", name): effect for name, effect in effects.items()} | {("cause", "elu"): 0.3}
    text = question.answer(evidence_of(question, {}, planted))
    headline, more = text.splitlines()
    assert headline.endswith(f"{verdict}.") and "accuracy is better with elu." in more
    assert headline.startswith(
        "Where a negative bias kills units, their death is not shown to cost accuracy; at 2 times"
    )


def test_units_that_cannot_die_show_what_a_bias_costs():
    question = asked("dying_relu")
    text = question.answer(evidence_of(question, {}, {("cause", "prelu"): 0.3}))
    assert text.startswith("Where a negative bias kills units, their death costs the accuracy (+0.")
    assert "better, 10 seeds, with prelu); at 2 times" in text


@pytest.mark.parametrize(
    ("trained", "validated", "ratio", "verdict"),
    [
        (0.99, 0.6, 0.8, ": overfitting, no vanishing gradient"),
        (0.99, 0.6, 2e-6, ": a vanishing gradient as well"),
        (0.99, 0.95, 0.8, ": it does not memorize"),
        (0.7, 0.5, 0.8, ": it does not memorize"),
    ],
)
def test_overfitting_is_told_from_a_vanishing_gradient(trained, validated, ratio, verdict):
    assert describe_memorizing(trained, validated, ratio, vanishing=1e-6) == verdict


def test_gradients_are_compared_with_mean_field_theory_layer_by_layer():
    """A profile that is the theory's in any unit is 0 decades away, one layer ten times as large 1."""
    depth = 4
    arms = [
        {"activation": "relu", "init": "he_normal", "init_gain": 1.0, "norm": "none"},
        {"activation": "sigmoid", "init": "glorot_normal", "init_gain": 4.0, "norm": "none"},
        {"activation": "sigmoid", "init": "lsuv", "init_gain": 1.0, "norm": "none"},
        {"activation": "relu", "init": "he_normal", "init_gain": 1.0, "norm": "batch"},
    ]
    rows = []
    for run in range(2 * len(arms)):
        fields = arms[run // 2]
        known = {name: value for name, value in fields.items() if name != "norm"} | {"init": "he_normal"}
        profile = 3.7 * np.asarray(predict_profile(known if run // 2 != 1 else fields, DEEP, depth))
        profile[1] *= 10.0 ** (run % 2)
        for step in (0, 20):
            rows += [
                {"run": run, "step": step, "probe": "gradient_rms", "layer": f"dense_{i}", "index": i, "value": value}
                for i, value in enumerate(profile * (1 + step))
            ]
        rows.append({"run": run, "step": 0, "probe": "gradient_rms", "layer": "head", "index": depth, "value": 99.0})
    runs = pd.DataFrame([{"run": run, **arms[run // 2]} for run in range(2 * len(arms))])
    found = distance_to_theory(DEEP)(SimpleNamespace(probes=pd.DataFrame(rows), runs=runs))
    assert found == pytest.approx({0: 0.0, 1: 1.0, 2: 0.0, 3: 1.0}, abs=1e-6)
    assert distance_to_theory(DEEP)(SimpleNamespace(probes=pd.DataFrame(), runs=runs)) == {}
    results = SimpleNamespace(probes=pd.DataFrame(rows), sweep={"seeds": [0, 1]})
    look = Look(results, ("relu", "sigmoid", "lsuv", "normed"))
    assert last_gradient(Trial("t", (look,)), "relu") == pytest.approx(3.7)
    assert np.isnan(last_gradient(Trial("t", (look,)), "none"))


def test_deep_networks_that_are_better_are_named_with_their_level():
    question = asked("vanishing_gradient")
    effects = {("depth", "relu, he"): 0.3, ("skip_normed", "skip, batch norm"): 0.1, ("reached", "relu, he"): 0.4}
    evidence = evidence_of(question, {"depth": list(ARMS)}, effects)
    text = question.answer(evidence)
    assert f"Better: “relu, he ({evidence['depth'].row('relu, he').mean:.2f})”." in text
    judged = verdicts(question, evidence)
    assert judged["Deep networks of sigmoid units learn less than rectified ones"] == "supported"
    assert (
        judged["He initialisation brings more of the gradient to the first layer of a deep ReLU network"] == "supported"
    )
    skipped = "Skip connections make deep networks without norm trainable, at the rate that is usual with norms"
    assert judged[skipped] == "refuted"
    assert judged["Batch norm lets deep sigmoid networks train"] == "refuted"
    assert judged["Skip connections make deep networks with batch norm better"] == "supported"


def test_optimizers_are_sorted_by_verdict():
    question = asked("optimizers")
    labels = {
        "digits": [of for c in question.contrasts if c.trial == "digits" for of in (c.control, *c.arms)],
        "fish": ["momentum", "sgd", "nesterov", "adagrad", "rmsprop", "adam", "nadam", "adamw", "lamb", "lion"],
    }
    effects = {("optimizers", "sgd, constant"): -0.1, ("optimizers", "adam, constant"): 0.1}
    effects |= {("schedules", "momentum, one cycle"): 0.05, ("schedules", "momentum, exponential"): 0.05}
    effects |= {("fish", name): -0.2 for name in ("adam", "rmsprop", "adagrad")}
    effects |= {("adam_schedules", "adam, exponential"): 0.05}
    evidence = evidence_of(question, labels, effects)
    text = question.answer(evidence)
    assert "better: adam; worse: sgd; equivalent: nesterov" in text
    assert "adam, constant is better on the digits (+0.1" in text.splitlines()[0]
    assert "better: exponential and one cycle" in text
    judged = verdicts(question, evidence)
    assert judged["Adam is better than gradient descent with momentum"] == "refuted"  # on fish it is worse
    assert judged["A rate that falls to the end is better than a constant one"] == "supported"
    assert judged["One cycle is better than a constant rate"] == "refuted"  # not for Adam
    assert judged["Nesterov's momentum is better than plain momentum"] == "refuted"
    assert judged["Adam requires little tuning: its default rate is as good as a tuned one"] == "supported"
    assert judged["Momentum reaches more than adaptive methods on new images, also in a short run"] == "refuted"
    assert "momentum" not in sort_by_verdict(evidence["fish"].rows).split("equivalent")[0]


def test_from_scratch_tells_harm_from_what_the_check_finds():
    question = asked("from_scratch")
    effects = {("errors", name): -0.3 for name in ("raw pixels", "no 1/m")}
    effects |= {("failed", name): 1.0 for name in ("no 1/m", "softmax over the images")}
    effects |= {("mending", "all mended"): 0.4, ("lower", "max shift, rate 1e-7"): -0.4}
    effects |= {("sooner", "momentum, rate .03"): -20.0}
    evidence = evidence_of(question, {}, effects)
    text = question.answer(evidence)
    raw, summed = (f"{name} ({evidence['errors'].row(name).mean:.2f})" for name in ("raw pixels", "no 1/m"))
    assert "near guessing by raw pixels" not in text  # half of it is left
    assert f"Worse with: {raw} and {summed}; no worse with: no max shift," in text
    assert "A gradient check finds: no 1/m and softmax over the images." in text
    assert f"better with: all mended ({evidence['mending'].row('all mended').mean:.2f})." in text
    judged = verdicts(question, evidence)
    assert judged["Inputs must be scaled, or training fails"] == "supported"
    assert judged["Without the shift by the maximum the softmax overflows and training fails"] == "refuted"
    assert judged["Any lower rate makes up for raw pixels and a missing 1/m"] == "refuted"
    assert judged["Momentum speeds up full-batch descent"] == "supported"


def test_a_check_that_refuses_a_right_gradient_is_told():
    question = asked("from_scratch")
    text = question.answer(evidence_of(question, {}, {("failed", "no 1/m"): 1.0}, start=0.0))
    assert "It also refuses gradients whose equations are right: " in text  # noise above 0 counts as that
    none = compare({"right": [0.0] * 10, "no 1/m": [1.0] * 10, "raw pixels": [0.0] * 10}, "right")
    assert describe_refused(Evidence(question.contrasts[2], none)) == ""


def test_batch_norm_is_told_by_batch_size_and_what_does_as_well():
    question = asked("batch_norm")
    effects = {("usual", "batch"): 0.1, ("two", "batch"): -0.2, ("two_group", "batch"): -0.2, ("shift", "batch"): -0.1}
    effects |= {("shift_batch", "batch, of the test batch"): 0.2, ("kin", "no norm, dropout"): -0.1}
    effects |= {("size 4", "batch, 4"): -0.1, ("kin", "no norm, fifth of the rate"): -0.1, ("kin", "layer"): 0.1}
    evidence = evidence_of(question, {}, effects)
    text = question.answer(evidence)
    said = re.findall(r"(\w+), 10 seeds with (\d+)", text)
    assert said == [("better", "32"), ("worse", "2"), ("worse", "4"), ("equivalent", "8"), ("equivalent", "128")]
    assert text.splitlines()[0].endswith("10 seeds with 2.")
    assert "worse: “no norm, dropout” and “no norm, fifth of the rate”. Running and batch statistics put" in text
    assert "equivalent, 10 seeds (the third). On darkened" in text
    assert "layer" in re.search("or better: (.*); worse", text)[1]
    judged = verdicts(question, evidence)
    assert judged["Batch norm improves generalisation"] == "supported"
    assert judged["Batch norm hurts with small batches"] == "supported"
    assert judged["Without norm a lower rate is enough"] == "refuted"
    assert judged["Statistics of the test batch mend a shift between training and test"] == "supported"


def test_batch_norm_without_effect_is_not_blamed():
    question = asked("batch_norm")
    evidence = evidence_of(question, {}, {})
    text = question.answer(evidence)
    assert "worse: nothing" in text and ", worse," not in text and ", better," not in text
    judged = verdicts(question, evidence)
    assert judged["Batch norm hurts with small batches"] == judged["Batch norm improves generalisation"] == "refuted"
    assert judged["Normalised weights do what batch norm does"] == "supported"


def test_the_fastest_that_passes_is_named():
    spread = np.linspace(-1e-4, 1e-4, 8)
    accuracies = {"a": 0.9912, "b": 0.9931, "c": 0.9899, "d": 0.99002}
    seconds = {"a": 20.0, "b": 12.0, "c": 3.0, "d": 5.0}
    of = [
        compare({name: value + width * spread for name, value in values.items()}, "a")
        for values, width in ((accuracies, 1), (seconds, 100))
    ]
    found = {name: (of[0][name], of[1][name]) for name in "abc"}
    assert describe_fastest(found, 0.99) == (
        "The mean of 8 seeds is above 99.0 % after 12 s a run (b: 99.31 % [99.30, 99.32]); 96 s for all of them."
    )
    assert describe_fastest(found, 0.995) == "No arm has a mean above 99.5 %: b comes to 99.31 % [99.30, 99.32]."
    near = describe_fastest(found | {"d": (of[0]["d"], of[1]["d"])}, 0.99)
    assert near.startswith("The mean of 8 seeds is above 99.0 % after 5 s a run (d: 99.00 % [99.00, 99.01]")
    assert ", an interval that holds the level)" in near


def test_mnist_speed_puts_both_lengths_together():
    question = asked("mnist_speed")
    effects = {("short", "no norm"): -0.02, ("long", "wider, 3 epochs"): -0.01}
    effects |= {("long_seconds", "wider, 3 epochs"): -0.2}
    evidence = evidence_of(question, {}, effects, start=0.9965)
    text = question.answer(evidence)
    assert "worse no norm." in text
    headline = text.splitlines()[0]
    assert headline.startswith("The mean of 10 seeds is above 99.0 % after") and "above 99.5 % after" in headline
    judged = verdicts(question, evidence)
    assert judged["With batch norm two epochs get further"] == "supported"


def test_transfer_says_it_for_each_number_of_labels():
    question = asked("transfer")
    arms = ["from scratch", "frozen", "unfrozen in stages", "trained on", "trained on, tenth of the rate"]
    arms += ["autoencoder", "denoising", "rotation", "contrastive", "gan"]
    labels = {plan.name: arms for plan in question.plans[1:]}
    effects = {("3 %", "trained on"): 0.2, ("3 %", "autoencoder"): -0.2, ("3 % how", "frozen"): 0.1}
    evidence = evidence_of(question, labels, effects)
    text = question.answer(evidence)
    assert "With 3 % of the photographs from scratch reaches 0.5" in text
    assert "better: trained on; worse: autoencoder." in text
    headline = "A trunk that has learned elsewhere is better than none with 3 % of the photographs: from scratch 0.5"
    assert text.startswith(headline) and "better, 10 seeds (trained on); " in text.splitlines()[0]
    judged = verdicts(question, evidence)
    assert judged["With all labels a pretrained trunk is no better than training from scratch"] == "supported"
    assert judged["Unsupervised pretraining with autoencoders helps"] == "refuted"
    assert judged["With few labels freeze the trunk: training it on overfits"] == "supported"


def test_sources_are_dealt_to_the_seeds():
    transfer = importlib.import_module("experiments.transfer")
    trial = trial_of({"test_accuracy": {"labels": [1, 1, 1], "rotation": [1, 1, 1]}})
    arms = transfer.arm_maker(40, ["labels", "rotation", "gan"])({"sources": trial})
    assert arms["frozen"] == {"trunk": "nowhere:0-2", "freeze": "trunk"}
    assert arms["unfrozen in stages"] == {"trunk": "nowhere:0-2", "unfreeze": (10, 20)}
    assert arms["rotation"] == {"trunk": "nowhere:3-5"}
    assert "gan" not in arms


@pytest.mark.parametrize("name", ["stagnation", "optimizers", "from_scratch", "mnist_speed", "transfer"])
def test_claims_have_sources_and_limits_are_told(name):
    question = asked(name)
    assert 4 <= len(question.claims) <= 12
    assert len(question.limits) >= 3
    assert question.about == importlib.import_module(f"experiments.{name}").__doc__


@pytest.mark.parametrize("name", ["batch_norm", "dying_relu", "mnist_speed"])
def test_the_cost_that_is_told_is_that_of_the_plans(name):
    question = asked(name)
    told = re.search(r"Cost\. (\d+) arms", question.about)
    assert told and int(told[1]) == sum(len(plan.arms) for plan in question.plans)
