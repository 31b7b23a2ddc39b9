"""Dying ReLUs: when do units die, and is it their death that costs accuracy?

    python -m experiments.dying_relu
    python -m experiments.dying_relu --quick
    python -m experiments.dying_relu --until-decided

Question. A unit whose input is negative for every image passes no gradient and never learns again. Courses blame a
high learning rate and a negative bias for it, and prescribe leaky slopes, elu, selu, he's initialization, lower rates
or batch norm. Which of these brings back the accuracy, and which only the units?

Hypothesis. Where many units die, keeping them alive at the same rate and from the same start restores accuracy; where
accuracy is lost although units live, a high rate is to blame and a leaky slope does not help.

Arms. A small CNN learns reef fish. `cause`: death is planted by a negative initial bias at the usual rate, and single
changes are made to that network. `rate`: the rate is doubled instead, and the same changes are made; as a leaky network
may diverge where dead units brake a ReLU, both are compared with clipped gradients too. `dose`: biases, rates and
initializers, one at a time. Each run measures the fraction of channels that are active for no training image, after
every epoch.

Refuted if: units that are kept alive (leaky, prelu) do not do better than dead ones from the same start; or if a
network with hardly any dead units at the high rate is as bad as one with many.

Cost. 34 arms, 10 seeds and 8 epochs each.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.sweep.spec.recipe import Recipe

BIAS, USUAL, RATE = -2.0, 0.05, 0.1
CURES: dict[str, dict[str, Any]] = {
    "leaky_relu": {"activation": "leaky_relu"},
    "leaky_relu, slope .25": {"activation": "leaky_relu", "act_coefficient": 0.25},
    "prelu": {"activation": "prelu"},
    "elu": {"activation": "elu"},
    "selu, lecun": {"activation": "selu", "init": "lecun_normal"},
    "gelu": {"activation": "gelu"},
    "batch norm": {"norm": "batch"},
}
CLIPPED = "clipping at 1"
ALIVE = ("leaky_relu", "leaky_relu, slope .25", "prelu")  # rectified units that always pass a gradient
BIASES, RATES, INITS = (-3.0, -1.0, -0.5), (0.025, 0.1, 0.15), ("glorot_normal", "lecun_normal")
BASE = Recipe(
    task="reef",
    model="cnn",
    widths=(16, 32, 64),
    norm="none",
    batch_size=32,
    epochs=8,
    probes=("dead_units", "gradients", "first_bad"),
    probe_every=24,
    probe_images=0,
)
SMALL = {
    "smoke": {"task": "synthetic", "widths": (8, 8), "epochs": 1, "seeds": 2},
    "quick": {"seeds": 3, "epochs": 3},
}


def make_arms(start: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Arms of the network whose units die, and of single changes to it."""
    return {"relu": dict(start)} | {name: {**start, **change} for name, change in CURES.items()}


def doses() -> dict[str, dict[str, Any]]:
    """The bias, the rate and the initializer, one at a time."""
    arms: dict[str, dict[str, Any]] = {"relu": {"lr": USUAL}}
    arms |= {f"bias {bias:g}": {"lr": USUAL, "init_bias": bias} for bias in BIASES}
    arms |= {f"rate {rate:g}": {"lr": rate} for rate in RATES}
    return arms | {init: {"lr": USUAL, "init": init} for init in INITS}


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.figures.answers import arms_panel, forest_panel, steps_panel
    from fishnet.study.figures.numbers import numbers_panel
    from fishnet.study.metrics import column_metric, probe_metric

    accuracy = column_metric("test_balanced_accuracy", "balanced test accuracy", margin=0.03, diverged=1 / 15)
    dead = probe_metric(
        "dead_units",
        "share of dead units at the end",
        larger_is_better=False,
        margin=0.03,
        diverged=1.0,
        digits=2,
        within=(0.0, 1.0),
    )
    last = probe_metric("dead_units", "share of dead units behind the last convolution, at the end", layer="act_2",
                  larger_is_better=False, margin=0.03, diverged=1.0, digits=2, within=(0.0, 1.0))  # fmt: skip
    planted = make_arms({"init_bias": BIAS, "lr": USUAL})
    planted["tenth of the rate"] = {"init_bias": BIAS, "lr": USUAL / 10}
    planted["no bias"] = {"init_bias": 0.0, "lr": USUAL}
    fast = make_arms({"lr": RATE})
    fast["usual rate"] = {"lr": USUAL}
    fast["bias +0.1"] = {"lr": RATE, "init_bias": 0.1}
    fast["small weights"] = {"lr": RATE, "init_gain": 0.3}
    fast[CLIPPED] = {"lr": RATE, "clip": 1.0}
    fast |= {f"{name}, clipped": {"lr": RATE, "clip": 1.0, **CURES[name]} for name in ALIVE}
    clipped = tuple(f"{name}, clipped" for name in ALIVE)
    some = ["relu", "leaky_relu", "elu", "batch norm", "usual rate", "bias +0.1", CLIPPED, clipped[0]]

    def answer(evidence: Mapping) -> str:
        saved = [name for name, row in evidence["cause"].rows.items() if row.verdict == "better"]
        rows = evidence["rate"].rows
        share, usual = evidence["rate_dead"].row("relu").mean, rows["usual rate"]
        leaky = f"a leaky slope changes accuracy by {evidence['rate'].difference_text('leaky_relu')}"
        headline = (
            f"{describe_bias_deaths(evidence)}; at {RATE / USUAL:g} times the usual rate {share:.0%} of the units end "
        )
        headline += f"dead, and {leaky}: {describe_blame(evidence, usual.verdict == 'better')}"
        text = f"With every hidden bias at {BIAS}, {evidence['cause_dead'].row('relu').mean:.0%} of the units end dead"
        text += f" ({evidence['cause_last'].row('relu').mean:.0%} of the last convolution's)"
        text += f"; accuracy is better with {join_names(saved)}." if saved else " and nothing is shown to mend it."
        return (
            f"{headline}.\n{text} At the high rate accuracy is {rows['relu'].mean:.2f}, at the usual one "
            f"{usual.mean:.2f}; with clipped gradients {rows[CLIPPED].mean:.2f}, with "
            f"{evidence['rate_dead'].row(CLIPPED).mean:.0%} of the units dead, and a leaky slope changes that by "
            f"{evidence['clipped'].difference_text(clipped[0])}."
        )

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        titles = {"cause": "dead by bias", "rate": "dead by rate", "clipped": "dead by rate, all clipped"}
        return [forest_panel(evidence[name], title) for name, title in titles.items() if name in evidence]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        shown = [
            steps_panel(trials[name], "dead_units", title, "share of dead units")
            for name, title in (("cause", "dead by bias"), ("rate", "dead by rate"))
        ]
        found = [
            *shown,
            *[arms_panel(trials[name], dead, title) for name, title in (("cause", "by bias"), ("rate", "by rate"))],
        ]
        shares = trials["dose"].by_seed(dead)
        biases = {bias: f"bias {bias:g}" for bias in BIASES} | {0.0: "relu"}
        rates = {rate: f"rate {rate:g}" for rate in RATES} | {USUAL: "relu"}
        found.append(numbers_panel(shares, dead, {"relu": biases}, "by bias", "initial bias", logarithmic=False))
        found.append(numbers_panel(shares, dead, {"relu": rates}, "by rate", "learning rate"))
        return [panel for panel in found if panel]

    return Question(
        name="dying_relu",
        about=__doc__,
        title="Dying ReLUs",
        question="When do rectified units die for good, and is it their death that costs accuracy?",
        plans=(
            Plan("cause", BASE, planted, seeds=10, sizes=SMALL),
            Plan("rate", BASE, fast, seeds=10, sizes=SMALL | {"quick": SMALL["quick"] | {"arms": some}}),
            Plan("dose", BASE, doses(), seeds=10, sizes={
                "smoke": SMALL["smoke"] | {"arms": ["relu", "bias -3"]},
                "quick": SMALL["quick"] | {"arms": ["relu", "bias -3", "bias -1", "rate 0.15"]},
            }),
        ),
        contrasts=(
            Contrast("cause", "Accuracy, where a negative bias kills units", "cause", accuracy),
            Contrast("cause_dead", "Dead units, where a negative bias kills them", "cause", dead),
            Contrast("cause_last", "Dead units of the last convolution, where a bias kills them", "cause", last),
            Contrast("rate", "Accuracy, where the rate is too high", "rate", accuracy),
            Contrast("rate_dead", "Dead units, where the rate is too high", "rate", dead),
            Contrast("clipped", "Accuracy, where the rate is too high and gradients are clipped", "rate", accuracy,
                     control=CLIPPED, arms=clipped),
            Contrast("dose", "Dead units by bias, rate and initializer", "dose", dead),
        ),
        answer=answer,
        evidence=Figure("Accuracy against the network whose units die", panels, "Balanced test accuracy."),
        mechanism=Figure(
            "Units that no image of the training split activates",
            mechanism,
            "Mean over the layers: over the epochs, and at the end with every seed a dot. Last: one thing at a time.",
        ),
        claims=(
            Claim("A network whose ReLUs have died trains with leaky ones", "folklore, after Maas et al. 2013", "cause",
                  {"leaky_relu": "better"}),
            Claim("A network whose ReLUs have died trains with a learned slope (PReLU)",
                  "folklore, after He et al. 2015", "cause", {"prelu": "better"}),
            Claim("A network whose ReLUs have died trains with ELU", "folklore, after Clevert et al. 2016", "cause",
                  {"elu": "better"}),
            Claim("A network whose ReLUs have died trains with SELU", "folklore, after Klambauer et al. 2017", "cause",
                  {"selu, lecun": "better"}),
            Claim("Batch norm keeps units alive in spite of a negative bias", "folklore, after Ioffe and Szegedy 2015",
                  "cause_dead", {"batch norm": "better"}),
            Claim("A small positive bias keeps ReLUs alive", "Goodfellow et al. 2016, section 6.3.1", "rate_dead",
                  {"bias +0.1": "better"}),
            Claim("A lower learning rate prevents dying units", "CS231n notes", "rate_dead", {"usual rate": "better"}),
            Claim("A high rate kills ReLUs", "CS231n notes", "dose", {f"rate {RATES[-1]:g}": "worse"}),
            Claim("At a high rate leaky units restore the accuracy that dying ReLUs lose", "CS231n notes", "rate",
                  {"leaky_relu": "better"}),
        ),
        limits=(
            "One architecture of three convolutions, on photographs of 32 pixels.",
            "A unit is a channel: one that is active at a single pixel of a single image counts as alive.",
            "A leaky unit of the usual slope passes a hundredth of the gradient where its input is negative: one whose "
            "input always is counts as dead, and learns slowly.",
            "PReLU's slope begins at .25: only what it wins over a fixed slope of .25 is due to learning it.",
        ),
    )  # fmt: skip


def describe_bias_deaths(evidence: Mapping) -> str:
    """Test of whether units killed by a bias cost accuracy: units that cannot die train from the same start."""
    of = evidence["cause"]
    living = [label for label in ALIVE if label in of.rows]
    better = [label for label in living if of.row(label).verdict == "better"]
    if not better:
        return "Where a negative bias kills units, their death is not shown to cost accuracy"
    best = of.best_arm(better)
    return (
        f"Where a negative bias kills units, their death costs the accuracy ({of.difference_text(best)}, with {best})"
    )


def describe_blame(evidence: Mapping, lost: bool) -> str:
    """Test of whether dead units cost the accuracy lost at a high rate: units are kept alive at that rate."""
    if not lost:
        return "that rate is not shown to cost accuracy"
    # Not the clipped pairs: where gradients are clipped hardly a unit dies, so that they say nothing of death.
    rows = evidence["rate"].rows
    verdicts = [rows[label].verdict for label in ALIVE if label in rows]
    if "better" in verdicts:
        return "there death costs accuracy"
    if "undecided" in verdicts:
        return "dead units are not shown to cause the loss"
    return "there death only accompanies the loss"


if __name__ == "__main__":
    sys.exit(main(question))
