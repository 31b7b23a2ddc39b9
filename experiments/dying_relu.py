"""Dying ReLUs: when do units die, and is it their death that costs accuracy?

    python -m experiments.dying_relu
    python -m experiments.dying_relu --quick
    python -m experiments.dying_relu --until-decided

Question. A unit whose input is negative for every image passes no gradient and never learns again. Courses blame a
high learning rate and a negative bias for it, and prescribe leaky slopes, elu, selu, he's initialisation, lower rates
or batch norm. Which of these brings back the accuracy, and which only the units?

Hypothesis. Where many units die, keeping them alive at the same rate and from the same start restores accuracy; where
accuracy is lost although units live, a high rate is to blame and a leaky slope does not help.

Arms. A small CNN learns reef fish. `cause`: death is planted by a negative initial bias at the usual rate, and single
changes are made to that network. `rate`: the rate is raised instead, and the same changes are made.
Each run measures the share of channels that are active for no image of the training split, after every epoch.

Refuted if: units that are kept alive (leaky, prelu) do not do better than dead ones from the same start; or if a
network with hardly any dead units at the high rate is as bad as one with many.

Cost. 22 arms, 10 seeds and 8 epochs each.
"""

import sys
from collections.abc import Mapping, Sequence

from experiments._plan import Plan
from experiments._question import Figure, Question, listed, main
from fishnet.sweep.recipe import Recipe

BIAS, RATE = -2.0, 0.2
CURES: Mapping[str, Mapping[str, object]] = {
    "leaky_relu": {"activation": "leaky_relu"},
    "prelu": {"activation": "prelu"},
    "elu": {"activation": "elu"},
    "selu": {"activation": "selu"},
    "gelu": {"activation": "gelu"},
    "batch norm": {"norm": "batch"},
    "tenth of the rate": {},
}
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


def arms_of(start: Mapping[str, object], lr: float) -> dict[str, dict[str, object]]:
    """The network that dies, and single changes to it."""
    arms = {"relu": dict(start, lr=lr)}
    for name, change in CURES.items():
        arms[name] = dict(start, lr=lr / 10 if name == "tenth of the rate" else lr, **change)
    return arms


def question() -> Question:
    """See the module."""
    from fishnet.report.answer_figures import arms_panel, forest, steps_panel
    from fishnet.report.evidence import Claim, Contrast, column, probed

    accuracy = column("test_balanced_accuracy", "balanced test accuracy", margin=0.03, diverged=1 / 15)
    dead = probed(
        "dead_units", "share of dead units at the end", larger_is_better=False, margin=0.03, diverged=1.0, digits=2
    )
    planted = arms_of({"init_bias": BIAS}, 0.05)
    planted["no bias"] = {"init_bias": 0.0, "lr": 0.05}
    fast = arms_of({"init_bias": 0.0}, RATE)
    fast["bias +0.1"] = {"init_bias": 0.1, "lr": RATE}
    fast["small weights"] = {"init_bias": 0.0, "lr": RATE, "init_gain": 0.3}
    fast["clipping at 1"] = {"init_bias": 0.0, "lr": RATE, "clip": 1.0}

    def answer(evidence: Mapping) -> str:
        saved = [name for name, row in evidence["cause"].rows.items() if row.verdict == "better"]
        alive = evidence["cause_dead"]
        leaky = evidence["rate"].row("leaky_relu")
        text = (
            f"With every hidden bias at {BIAS}, {alive.row('relu').mean:.0%} of the units end dead; "
            f"accuracy comes back with {listed(saved)}."
            if saved
            else f"With every hidden bias at {BIAS} nothing that was tried brought accuracy back for certain."
        )
        share = evidence["rate_dead"].row("relu").mean
        return (
            f"{text} At {RATE / 0.05:.0f} times the usual rate {share:.0%} are dead, and a leaky slope makes a "
            f"difference of {evidence['rate'].phrase('leaky_relu')}: there death "
            + ("is the cause." if leaky.verdict == "better" else "only accompanies the loss." if leaky.decided
               else "is not shown to be the cause.")
        )  # fmt: skip

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        return [forest(evidence["cause"], "dead by bias"), forest(evidence["rate"], "dead by rate")]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        shown = [
            steps_panel(trials[name], "dead_units", title, "share of dead units")
            for name, title in (("cause", "dead by bias"), ("rate", "dead by rate"))
        ]
        return [
            *[panel for panel in shown if panel],
            *[arms_panel(trials[name], dead, title) for name, title in (("cause", "by bias"), ("rate", "by rate"))],
        ]

    return Question(
        name="dying_relu",
        about=__doc__,
        title="Dying ReLUs",
        question="When do rectified units die for good, and is it their death that costs accuracy?",
        plans=(
            Plan("cause", BASE, planted, seeds=10, sizes=SMALL),
            Plan("rate", BASE, fast, seeds=10, sizes=SMALL),
        ),
        contrasts=(
            Contrast("cause", "Accuracy, where a negative bias kills units", "cause", accuracy),
            Contrast("cause_dead", "Dead units, where a negative bias kills them", "cause", dead),
            Contrast("rate", "Accuracy, where the rate is too high", "rate", accuracy),
            Contrast("rate_dead", "Dead units, where the rate is too high", "rate", dead),
        ),
        answer=answer,
        evidence=Figure("Accuracy against the network whose units die", panels, "Balanced test accuracy."),
        mechanism=Figure(
            "Units that no image of the training split activates",
            mechanism,
            "Left over the epochs, below at the end: mean over all layers, every seed a dot.",
        ),
        claims=(
            Claim("Leaky ReLU revives a network whose ReLUs have died", "Maas et al. 2013", "cause",
                  {"leaky_relu": "better"}),
            Claim("A learned slope (PReLU) cures dying units", "He et al. 2015", "cause", {"prelu": "better"}),
            Claim("ELU and SELU do not die and train where ReLU does not", "Clevert et al. 2016", "cause",
                  {"elu": "better", "selu": "better"}),
            Claim("Batch norm keeps units alive whatever their initial bias", "Ioffe and Szegedy 2015", "cause_dead",
                  {"batch norm": "better"}),
            Claim("A small positive bias keeps ReLUs alive", "Goodfellow et al. 2016, section 6.3.1", "rate_dead",
                  {"bias +0.1": "better"}),
            Claim("A lower learning rate prevents dying units", "CS231n notes", "rate_dead",
                  {"tenth of the rate": "better"}),
            Claim("At a high rate leaky units restore the accuracy that dying ReLUs lose", "CS231n notes", "rate",
                  {"leaky_relu": "better"}),
        ),
        limits=(
            "One architecture of three convolutions, on photographs of 32 pixels.",
            "A unit is a channel: one that is active at a single pixel of a single image counts as alive.",
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(question))
