"""Stagnation: why does a training loss not fall, and which single change fixes it?

    python -m experiments.stagnation
    python -m experiments.stagnation --quick
    python -m experiments.stagnation --until-decided

Question. Over hundreds of epochs the training loss does not fall. The rate may be too low or too high, the
start may be a saddle or symmetric, the network may be too small: the curves look alike. Do cyclic rates, one cycle, a
rate that is cut on a plateau, momentum or Nesterov's fix it, how fast, and does that depend on the cause?

Hypothesis. No remedy works for every cause. Where gradients are small (a low rate, a saddle) anything that makes steps
larger helps, momentum and cycles by no more than the higher rate that they amount to; where units have died of a high
rate, or are all alike, or are too few, no schedule and no momentum helps, and what is measured in the first steps tells
these causes apart.

Arms. A perceptron of three hidden layers of 32 units on 3,000 digits, trained by plain gradient descent at a constant
rate in batches of 250.
`causes`: the healthy network and five that stagnate. `low`, `high`, `saddle`, `alike`, `narrow`: each of these
five, and the same single changes to it: rates ten times higher and lower, triangular and sine cycles between these, one
cycle, a cut on the plateau, momentum and Nesterov's up to .99, Adam, batch norm, and the cure of that cause. `range`: a
range test of two epochs a rate; `found`: what it speaks for, and rates above and below it, over the whole length, and
in 20 epochs with and without one cycle.

Refuted if: a schedule or momentum frees the network whose units are alike or too few; cycles leave the saddle sooner
than the constant rate at their top does.

Cost. 92 arms of 200 epochs, 10 seeds each, and a range test of 11 rates.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.study.tuning import expand_rates, suggest_rates, tuning_plan, warn_of_grid_ends
from fishnet.sweep.spec.recipe import Recipe

RATE = 0.1  # at which the healthy network trains
SHOWN = 3.0  # training loss up to which curves are drawn: a rate that is too high begins with 1e22
FREE = 1.0  # training loss below which a network has left its plateau; guessing costs 2.303
BASE = Recipe(
    task="mnist-mini?train=0.5",
    model="mlp",
    widths=(32,),
    depth=3,
    norm="none",
    optimizer="sgd",
    lr=RATE,
    schedule="constant",
    batch_size=250,
    epochs=200,
)
# What is planted, and what cures it for certain.
CAUSES: dict[str, dict[str, Any]] = {
    "low": {"lr": 1e-5},
    "high": {"lr": 2.0},
    "saddle": {"init_gain": 0.08, "lr": 0.03},
    "alike": {"init": "constant", "init_gain": 0.2},
    "narrow": {"widths": (2,), "depth": 1},
}
IN_WORDS = {
    "low": "rate too low",
    "high": "rate too high",
    "saddle": "weights too small",
    "alike": "units alike",
    "narrow": "network too small",
}
CURES: dict[str, dict[str, dict[str, Any]]] = {
    "low": {"usual rate": {"lr": RATE}},
    "high": {"usual rate": {"lr": RATE}, "clipping at 1": {"clip": 1.0}},
    "saddle": {"he weights": {"init_gain": 1.0}, "lsuv": {"init": "lsuv", "init_gain": 1.0}},
    "alike": {"he weights": {"init": "he_normal", "init_gain": 1.0}, "dropout": {"dropout": 0.1}},
    "narrow": {"32 units": {"widths": (32,)}},
}
PROBED = ("gradients", "gradient_cosine", "updates", "dead_units", "features", "sharpness", "first_bad")
SIGNS = {  # contrast -> in few words
    "gradient_norm": "the first gradient",
    "update_ratio": "the first step",
    "gradient_cosine": "how gradients turn",
    "unstable": "sharpness",
    "dead_units": "dead units",
    "effective_rank": "the rank of the features",
}
QUICK = ("stands still", "rate x 10", "triangular", "plateau", "momentum .99", "adam")
NOTHING_HELPED = "no schedule, no momentum, neither Adam nor batch norm ends lower for certain"
RATES = {"sgd": (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)}
IN_20, CYCLE_IN_20 = "constant, 20 epochs", "one cycle to three times it, 20 epochs"
FOUND = {"from the range test": 1.0, "a tenth of it": 0.1, "a third of it": 1 / 3, "three times it": 3.0}


def remedies(lr: float) -> dict[str, dict[str, Any]]:
    """Single changes that are tried whatever the cause, to a network trained at rate `lr`."""
    cycle = {"lr": 10 * lr, "lr_min": lr / 10}
    return {
        "stands still": {"lr": lr},
        "rate x 10": {"lr": 10 * lr},
        "rate / 10": {"lr": lr / 10},
        "triangular": {"schedule": "cyclic_triangular", **cycle},
        "sine": {"schedule": "cyclic_sine", **cycle},
        "one cycle": {"schedule": "onecycle", "lr": 10 * lr},
        "plateau": {"schedule": "plateau", "lr": lr},
        "momentum .5": {"optimizer": "momentum", "momentum": 0.5, "lr": lr},
        "momentum .9": {"optimizer": "momentum", "momentum": 0.9, "lr": lr},
        "momentum .99": {"optimizer": "momentum", "momentum": 0.99, "lr": lr},
        "nesterov .9": {"optimizer": "nesterov", "momentum": 0.9, "lr": lr},
        "nesterov .99": {"optimizer": "nesterov", "momentum": 0.99, "lr": lr},
        "adam": {"optimizer": "adam", "lr": "auto"},
        "batch norm": {"norm": "batch", "lr": lr},
    }


def make_arms(cause: str) -> dict[str, dict[str, Any]]:
    """Arms of a network that stagnates for one cause, and of every change to it."""
    planted = CAUSES[cause]
    lr = float(planted.get("lr", RATE))
    return {label: {**planted, "lr": lr, **change} for label, change in (remedies(lr) | CURES[cause]).items()}


def make_range_test_arms(trials: Mapping) -> dict[str, dict[str, Any]]:
    """Arms at the rate suggested by the range test, at rates around it, and with one cycle and momentum."""
    best = suggest_rates(trials["range"], list(RATES), RATES)["sgd"]
    rate = best.rate if best else RATE
    arms = {label: {"lr": float(f"{rate * factor:.3g}")} for label, factor in FOUND.items()}
    return arms | {
        "one cycle to three times it": {"lr": float(f"{3 * rate:.3g}"), "schedule": "onecycle"},
        IN_20: {"lr": rate, "epochs": 20},
        CYCLE_IN_20: {"lr": float(f"{3 * rate:.3g}"), "schedule": "onecycle", "epochs": 20},
        "momentum .9, a tenth of it": {"lr": float(f"{rate / 10:.3g}"), "optimizer": "momentum"},
    }


def find_telling_probes(evidence: Mapping) -> dict[str, list[str]]:
    """Planted cause -> early probes that are shown to differ from the healthy network."""
    return {
        words: [
            name
            for sign, name in SIGNS.items()
            if sign in evidence and words in evidence[sign].rows and evidence[sign].row(words).decided
            if evidence[sign].row(words).verdict != "equivalent"
        ]
        for words in IN_WORDS.values()
    }


def sharpness_over_limit(results) -> dict[int, float]:
    """Run -> the sharpness over 2 / learning rate at the first measurement."""
    from fishnet.study.metrics import probe_values

    sharp, limit = (probe_values(results.probes, figure, when="first") for figure in ("sharpness", "two_over_lr"))
    return {run: value / limit[run] for run, value in sharp.items() if run in limit}


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.derived_metrics import log10_metric
    from fishnet.study.figures.answers import arms_panel, curves_panel, forest_panel, steps_panel
    from fishnet.study.metrics import Metric, epochs_until, final_metric, probe_metric

    loss = final_metric(
        "train_loss", "training loss at the end", larger_is_better=False, margin=0.05, diverged=2.303, digits=3
    )
    magnitude = log10_metric(loss, "decimal logarithm of the training loss at the end", margin=0.1, digits=2)
    free = epochs_until("train_loss", FREE, f"epochs until the training loss is below {FREE:g}", margin=5.0, digits=1)
    rank = probe_metric("effective_rank", "effective rank of the features at the end", margin=0.5, digits=1)
    signs = {
        "gradient_norm": probe_metric("gradient_norm", "length of the first gradients", when="first", digits=4),
        "gradient_cosine": probe_metric("gradient_cosine", "cosine of successive gradients after an epoch",
                                        when="first", digits=2),
        "update_ratio": probe_metric("update_ratio", "first steps over the weights' length", layer="dense_0",
                                     when="first", digits=6),
        "unstable": Metric("sharpness over 2 / rate after ten epochs", sharpness_over_limit,
                           larger_is_better=False, digits=3),
        "dead_units": probe_metric("dead_units", "share of dead units after ten epochs", when="first",
                             larger_is_better=False, digits=2),
        "effective_rank": probe_metric("effective_rank", "effective rank of the features after ten epochs",
                                 when="first", digits=1),
    }  # fmt: skip

    def answer(evidence: Mapping) -> str:
        parts: list[str] = []
        helps: dict[str, list[str]] = {}  # remedy -> the causes for which it ends lower
        for cause, words in IN_WORDS.items():
            rows = evidence[cause].rows
            cures = set(CURES[cause]) | {"rate x 10", "rate / 10"}
            helped = [name for name, row in rows.items() if row.verdict == "better" and name not in cures]
            cured = [name for name, row in rows.items() if row.verdict == "better" and name in cures]
            for name in helped:
                if rows[name].mean < FREE:
                    helps.setdefault(name, []).append(cause)
            control = next(iter(rows.values()))
            parts.append(
                f"{words} (loss {control.mean:.2f}): "
                + (f"lower at the end with {join_names(helped)}" if helped else NOTHING_HELPED)
                + (f"; also with {join_names(cured)}." if cured else ".")
            )
        times = evidence["saddle_free"].rows
        ends = evidence["saddle"].rows
        sooner = [
            f"{name} ({row.mean:.0f}{', but ends above it' * (ends[name].mean > FREE)})"
            for name, row in times.items()
            if row.verdict == "better"
        ]
        parts.append(
            f"with weights too small the loss is below {FREE:g} after {next(iter(times.values())).mean:.0f} epochs "
            f"(201 or 51 means never); sooner with {join_names(sooner)}."
        )
        told = [f"{words} by {join_names(names)}" for words, names in find_telling_probes(evidence).items() if names]
        parts.append(f"early on they are told from the healthy network: {'; '.join(told) or 'by nothing measured'}.")
        headline = f"None of these schedules, momenta and optimizers is shown to bring the loss below {FREE:g}."
        if helps:
            most = max(map(len, helps.values()))
            best = [name for name in helps if len(helps[name]) == most]
            cause = helps[best[0]][0]
            headline = (
                f"{join_names(best).capitalize()} bring{'s' * (len(best) == 1)} the loss below {FREE:g} for "
                f"{most} of the {len(IN_WORDS)} causes, "
                f"{'no remedy for all' if most < len(IN_WORDS) else 'all of them'} "
                f"({IN_WORDS[cause]}, {best[0]}: {evidence[cause].difference_text(best[0])})."
            )
        return f"{headline}\n" + " ".join(part[0].upper() + part[1:] for part in parts)

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        return [forest_panel(evidence[cause], words) for cause, words in IN_WORDS.items()] + [
            forest_panel(evidence["found"], "around the rate of the range test")
        ]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        causes = trials["causes"]
        drawn = [curves_panel(causes, "train_loss", "the same picture, five causes", "training loss", most=SHOWN)]
        drawn += [arms_panel(causes, measure, "early on") for measure in signs.values()]
        drawn.append(steps_panel(causes, "gradient_norm", "while training", "length of the gradient"))
        shown = [label for label in QUICK if label in trials["saddle"].labels]
        drawn.append(curves_panel(trials["saddle"], "train_loss", "leaving the saddle", "training loss", shown, SHOWN))
        return [panel for panel in drawn if panel]

    small = {"task": "synthetic", "widths": (8,), "depth": 2, "batch_size": 32, "epochs": 3, "seeds": 2}
    cures = {cause: list(cures)[:1] for cause, cures in CURES.items()}
    plans = [
        Plan(
            "causes",
            replace(BASE, probes=PROBED, probe_every=12, probe_epochs=10, probe_images=0),
            {"healthy": {}} | {IN_WORDS[cause]: planted for cause, planted in CAUSES.items()},
            seeds=10,
            sizes={"smoke": small | {"probe_every": 8, "probe_epochs": 1,
                   "arms": ["healthy", IN_WORDS["low"], IN_WORDS["saddle"]]},
                   "quick": {"seeds": 3, "epochs": 50}},
        )
    ]  # fmt: skip
    for cause in CAUSES:
        kept = list(QUICK) + cures[cause]
        plans.append(
            Plan(
                cause,
                replace(BASE, probes=("features",), probe_epochs=50, probe_images=1000) if cause == "alike" else BASE,
                make_arms(cause),
                seeds=10,
                sizes={
                    "smoke": small | ({"probe_epochs": 1} if cause == "alike" else {}) | {"arms": kept[:4]},
                    "quick": {"seeds": 3, "epochs": 50, "arms": kept},
                },
            )
        )
    some = list(expand_rates({"sgd": {}}, {"sgd": RATES["sgd"][4:7]}))
    plans += [
        tuning_plan(
            "range",
            replace(BASE, epochs=2),
            {"sgd": {}},
            RATES,
            seeds=3,
            sizes={"smoke": small | {"epochs": 1, "arms": some}, "quick": {"seeds": 2}},
        ),
        Plan(
            "found",
            BASE,
            make_range_test_arms,
            seeds=10,
            sizes={"smoke": small | {"arms": list(FOUND)[:2]}, "quick": {"seeds": 3, "epochs": 50}},
        ),
    ]
    return Question(
        name="stagnation",
        about=__doc__,
        title="A loss that does not fall",
        question="Why does a training loss stand still for hundreds of epochs, and what gets it going?",
        plans=tuple(plans),
        contrasts=(
            Contrast("planted", "The planted causes", "causes", loss),
            *(Contrast(name, f"What tells them apart: {measure.name}", "causes", measure)
              for name, measure in signs.items()),
            *(Contrast(cause, f"Where it stands still: {words}", cause, loss) for cause, words in IN_WORDS.items()),
            *(Contrast(f"{cause}_free", f"How soon it is free: {IN_WORDS[cause]}", cause, free)
              for cause in ("low", "saddle")),
            Contrast("alike_rank", "Where units are alike: how many differ", "alike", rank),
            Contrast("saddle_cycles", "Cycles against the constant rate at their top, from small weights", "saddle",
                     free, control="rate x 10", arms=("triangular", "sine", "one cycle")),
            Contrast("saddle_momentum", "Momentum against the rate that it amounts to, from small weights", "saddle",
                     free, control="rate x 10", arms=("momentum .9",)),
            Contrast("saddle_nesterov", "Nesterov's against plain momentum, from small weights", "saddle", free,
                     control="momentum .9", arms=("nesterov .9",)),
            Contrast("found", "Around the rate of the range test", "found", magnitude,
                     arms=(*list(FOUND)[1:], "one cycle to three times it", "momentum .9, a tenth of it")),
            Contrast("short", "Twenty epochs at the rate of the range test", "found", magnitude, control=IN_20,
                     arms=(CYCLE_IN_20,)),
        ),
        answer=answer,
        evidence=Figure("Training loss against the network that stands still", panels, "Left of zero: lower loss."),
        mechanism=Figure(
            "What tells the causes apart, and how a saddle is left",
            mechanism,
            "Gradients, and steps over weights, at the first step; the cosine of two successive gradients "
            "after an epoch; sharpness, above 2 / rate of which descent is unstable, dead units and features after ten "
            "epochs.",
        ),
        claims=(
            Claim("Raising the rate in cycles lets training cross saddle point plateaus quickly",
                  "Smith 2017, section 3.1", "saddle_free", {"triangular": "better", "sine": "better"}),
            Claim("A cycle leaves a plateau sooner than the constant rate at its top", "folklore, after Smith 2017",
                  "saddle_cycles", {"triangular": "better"}),
            Claim("Momentum carries training across plateaus", "Goodfellow et al. 2016, section 8.3.2", "saddle_free",
                  {"momentum .9": "better"}),
            Claim("Momentum leaves a plateau sooner than a rate as high as its steps amount to", "folklore",
                  "saddle_momentum", {"momentum .9": "better"}),
            Claim("Nesterov's momentum is faster than plain momentum", "Sutskever et al. 2013", "saddle_nesterov",
                  {"nesterov .9": "better"}),
            Claim("Adaptive methods escape saddles where gradient descent is stuck", "Staib et al. 2019",
                  "saddle_free", {"adam": "better"}),
            Claim("When the loss has stopped falling, reduce the learning rate", "Keras, ReduceLROnPlateau", "high",
                  {"plateau": "better"}),
            Claim("Units that begin with equal weights stay equal, whatever the optimizer",
                  "Goodfellow et al. 2016, section 8.4", "alike_rank",
                  {"momentum .9": "not better", "adam": "not better", "he weights": "better"}),
            Claim("A range test of a few epochs finds the rate", "folklore, after Smith 2017, section 3.3", "found",
                  {"a tenth of it": "not better", "three times it": "not better"}),
            Claim("One cycle to a large rate gets further in few epochs (super-convergence)", "Smith and Topin 2018",
                  "short", {CYCLE_IN_20: "better"}),
        ),
        limits=(
            "One perceptron on one easy task; a training loss, not a test accuracy, is what stands still.",
            "Adam takes its documented rate whatever the planted one is: where the rate is the cause it is a cure.",
            "The range test trains anew at each rate of a grid; Smith's raises the rate within one run.",
            "The effective rank of features that are all zero has no value, and counts as the lowest one found.",
            f"A run counts as free below a training loss of {FREE:g}; one that never is counts as an epoch more than "
            "the longest run, so that the times of stuck runs are lower bounds.",
            "Cycles have one number and one range, a tenth to ten times the rate; momentum is compared at an equal "
            "rate, at which its steps are up to 1 / (1 - momentum) times as long, and from small weights also with "
            "a rate as high as that.",
        ),
        problems=lambda trials, evidence: warn_of_grid_ends(trials["range"], list(RATES), RATES),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(question))
