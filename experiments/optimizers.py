"""Optimizers and schedules: which is best when each is tuned with the same number of runs?

    python -m experiments.optimizers
    python -m experiments.optimizers --quick
    python -m experiments.optimizers --until-decided

Question. Comparisons of optimizers mostly compare how much their rates were tuned. With a grid of six rates each, the
same number of runs for it, and a choice by validation on seeds that are not compared: which optimizer and which
schedule is better than momentum at a constant rate, and how much does an optimizer lose at its default rate?

Hypothesis. Tuned alike, the optimizers with momentum or adaptive rates differ by less than a hundredth in accuracy;
plain gradient descent and AdaGrad need more steps; what falls to a small rate at the end (exponential, one cycle) is
better than a constant rate by more than any optimizer is than another.

Arms. `tune`: a perceptron on digits, every optimizer with every schedule at six rates around its documented default.
`digits`: each at the rate with the lowest validation loss, and at its default rate. `tune fish` and `fish`: the same
for a small convolutional network on reef fish, at one schedule, cosine.

Refuted if: an optimizer with momentum or adaptive rates is better or worse than momentum by more than a hundredth on
the digits; a schedule that falls is no better than the constant rate.

Cost. 396 arms with 2 seeds to tune, 71 with 10 seeds to compare.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.study.tuning import label_at, set_tuned_rates, tuning_plan, warn_of_grid_ends
from fishnet.sweep.spec.recipe import Recipe

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # on the documented default rate
# Those that share a step; weight decay as documented, without which adamw is adam.
SHARED: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "momentum"},
    "sgd": {"optimizer": "sgd"},
    "nesterov": {"optimizer": "nesterov"},
    "adagrad": {"optimizer": "adagrad"},
    "rmsprop": {"optimizer": "rmsprop"},
    "adam": {"optimizer": "adam"},
    "nadam": {"optimizer": "nadam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01},
    "lamb": {"optimizer": "lamb"},
    "lion": {"optimizer": "lion"},
}
# Those that step in their own way, and so have programs of their own.
OWN: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": "muon"},
    "sam": {"optimizer": "sam"},
    "schedule_free": {"optimizer": "schedule_free"},
}
SCHEDULES = {
    "constant": {"schedule": "constant"},
    "exponential": {"schedule": "exponential"},
    "plateau": {"schedule": "plateau", "plateau_patience": 0},
    "one cycle": {"schedule": "onecycle"},
    "cyclic": {"schedule": "cyclic_triangular"},
}
DIGITS = Recipe(task="mnist-mini", model="mlp", widths=(64,), depth=2, norm="none", batch_size=64, epochs=6)
FISH = Recipe(task="reef", model="cnn", widths=(16, 32, 64), norm="none", batch_size=32, epochs=5, schedule="cosine")
CONTROL = "momentum, constant"
AT_DEFAULT = ("momentum", "sgd", "adagrad", "rmsprop", "adam")
QUICK = ("momentum, constant", "sgd, constant", "adagrad, constant", "adam, constant", "momentum, one cycle")
SMOKE = ("momentum, constant", "adam, constant")


def defaults() -> dict[str, float]:
    """The documented default rate of every optimizer."""
    from fishnet.optim.optimizers import OPTIMIZERS

    return {name: OPTIMIZERS[name].default_lr for name in (*SHARED, *OWN)}


def grid(lr: float) -> tuple[float, ...]:
    """The rates tried around a default: about half a decade apart."""
    return tuple(float(f"{factor * lr:.3g}") for factor in FACTORS)


def digits_arms() -> dict[str, dict[str, Any]]:
    """Every optimizer with every schedule; those with programs of their own at a constant rate alone."""
    arms = {f"{name}, {how}": {**fields, **SCHEDULES[how]} for how in SCHEDULES for name, fields in SHARED.items()}
    return arms | {f"{name}, constant": {**fields, **SCHEDULES["constant"]} for name, fields in OWN.items()}


def at_default(name: str) -> str:
    """The label of an optimizer at its documented default rate."""
    return f"{name}, default rate"


def smaller_plan_labels(arms: Sequence[str], rates: Mapping, number: int) -> list[str]:
    """The labels of a smaller tuning plan: some arms, at the middle of their grids."""
    start = (len(FACTORS) - number) // 2 + number % 2
    return [label_at(label, rate) for label in arms for rate in rates[label][start : start + number]]


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.figures.answers import forest_panel
    from fishnet.study.figures.numbers import cells_panel, numbers_panel
    from fishnet.study.metrics import column_metric

    accuracy = column_metric("test_accuracy", "test accuracy on digits", margin=0.01, diverged=0.1)
    balanced = column_metric("test_balanced_accuracy", "balanced test accuracy on fish", margin=0.03, diverged=1 / 15)
    val_loss = column_metric("val_loss", "validation loss", larger_is_better=False)
    lr, digits = defaults(), digits_arms()
    rates = {label: grid(lr[label.split(",")[0]]) for label in digits}
    fish: dict[str, dict[str, Any]] = dict(SHARED | OWN)
    fish_rates = {name: grid(lr[name]) for name in fish}

    def compared(trials: Mapping) -> dict[str, dict[str, Any]]:
        arms = set_tuned_rates(digits, rates, trials["tune"])
        usual = {name: {"lr": float(f"{lr[name]:.3g}")} for name in AT_DEFAULT}  # as in the grids: trained once
        return arms | {
            at_default(name): {**SHARED[name], **SCHEDULES["constant"], **usual[name]} for name in AT_DEFAULT
        }

    def compared_fish(trials: Mapping) -> dict[str, dict[str, Any]]:
        return set_tuned_rates(fish, fish_rates, trials["tune fish"])

    def answer(evidence: Mapping) -> str:
        rows, fishes = evidence["optimizers"].rows, evidence["fish"].rows
        how = evidence["schedules"].rows
        return (
            f"At tuned rates momentum reaches {evidence['optimizers'].mean_text(CONTROL)} on the digits and "
            f"{evidence['fish'].mean_text('momentum')} on the fish; {describe_better(evidence)}.\n"
            f"On the digits, at constant rates, {sort_by_verdict(rows, ', constant')}. {describe_defaults(evidence)}"
            "Of schedules for momentum, "
            f"{sort_by_verdict(how, before='momentum, ')}. On the fish {sort_by_verdict(fishes)}."
        )

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        titles = {
            "optimizers": "digits, constant rates",
            "fish": "reef fish, cosine",
            "schedules": "schedules for momentum",
            "adam_schedules": "schedules for Adam",
            "defaults": "default rates",
        }
        found = [forest_panel(evidence[name], title) for name, title in titles.items() if name in evidence]
        cells = {(name, how): f"{name}, {how}" for name in SHARED for how in SCHEDULES}
        grid = cells_panel(trials["digits"], accuracy, cells, "every optimizer with every schedule, digits")
        return [*found, *([grid] if grid else [])]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        drawn = []
        tuned, tuned_fish = (trials[name].by_seed(val_loss) for name in ("tune", "tune fish"))
        constant = [label for label in digits if label.endswith(", constant")]
        for some in (constant[:5], constant[5:10], constant[10:]):
            lines = {
                label.split(",")[0]: {rate / lr[label.split(",")[0]]: label_at(label, rate) for rate in rates[label]}
                for label in some
            }
            drawn.append(numbers_panel(tuned, val_loss, lines, "digits", "rate over the default rate", most=1.0))
        lines = {
            name: {rate / lr[name]: label_at(name, rate) for rate in fish_rates[name]}
            for name in ("momentum", "sgd", "adagrad", "rmsprop", "adam")
        }
        drawn.append(numbers_panel(tuned_fish, val_loss, lines, "reef fish", "rate over the default rate", most=3.0))
        return [panel for panel in drawn if panel]

    constants = tuple(f"{name}, constant" for name in (*SHARED, *OWN) if name != "momentum")
    tiny = {"task": "synthetic", "widths": (8,), "depth": 1, "batch_size": 32, "epochs": 1, "seeds": 2}
    tiny_fish = {"task": "synthetic", "widths": (8, 8), "epochs": 1, "seeds": 2}
    few, fewer = ["momentum", "adam", "adagrad"], ["momentum", "adam"]
    quick_fish = {"seeds": 3, "epochs": 3}
    return Question(
        name="optimizers",
        about=__doc__,
        title="Optimizers and schedules at equal tuning",
        question="Which optimizer and which schedule is best when every rate is tuned in equally many runs?",
        plans=(
            tuning_plan("tune", DIGITS, digits, rates,
                        {"smoke": tiny | {"arms": smaller_plan_labels(SMOKE, rates, 2)},
                         "quick": {"arms": smaller_plan_labels(QUICK, rates, 4), "epochs": 4}}),
            Plan("digits", DIGITS, compared, seeds=10,
                 sizes={"smoke": tiny | {"arms": list(SMOKE)},
                        "quick": {"seeds": 4, "epochs": 4, "arms": [*QUICK, at_default("adam")]}}),
            tuning_plan("tune fish", FISH, fish, fish_rates,
                        {"smoke": tiny_fish | {"arms": smaller_plan_labels(fewer, fish_rates, 2)},
                         "quick": quick_fish | {"seeds": 1, "arms": smaller_plan_labels(few, fish_rates, 3)}}),
            Plan("fish", FISH, compared_fish, seeds=10,
                 sizes={"smoke": tiny_fish | {"arms": fewer}, "quick": quick_fish | {"arms": few}}),
        ),
        contrasts=(
            Contrast("optimizers", "Optimizers at tuned constant rates, digits", "digits", accuracy, control=CONTROL,
                     arms=constants),
            Contrast("schedules", "Schedules for momentum, each at its own rate", "digits", accuracy, control=CONTROL,
                     arms=tuple(f"momentum, {how}" for how in SCHEDULES if how != "constant")),
            Contrast("adam_schedules", "Schedules for Adam, each at its own rate", "digits", accuracy,
                     control="adam, constant", arms=tuple(f"adam, {how}" for how in SCHEDULES if how != "constant")),
            Contrast("adam", "Adam's kin against Adam", "digits", accuracy, control="adam, constant",
                     arms=("nadam, constant", "adamw, constant", "rmsprop, constant")),
            *(Contrast(f"default_{name}", f"The default rate of {name} against its tuned one", "digits", accuracy,
                       control=f"{name}, constant", arms=(at_default(name),)) for name in AT_DEFAULT),
            Contrast("defaults", "Default rates, against Adam's", "digits", accuracy, control=at_default("adam"),
                     arms=tuple(at_default(name) for name in AT_DEFAULT if name != "adam")),
            Contrast("fish", "Optimizers at tuned rates, reef fish", "fish", balanced, control="momentum"),
        ),
        answer=answer,
        evidence=Figure(
            "Test accuracy at tuned rates",
            panels,
            "Right of zero: better. Last: means over seeds with half their intervals, each at its own tuned rate; the "
            "best is framed, which is luck among many that are nearly alike.",
            columns=3,
        ),
        mechanism=Figure(
            "How much each optimizer depends on its rate",
            mechanism,
            "Validation loss of the tuning runs over the rate, in multiples of the documented default; rates at which "
            "a run diverged are left out.",
        ),
        claims=(
            Claim("Adam is better than gradient descent with momentum", "folklore; Kingma and Ba 2015", "optimizers",
                  {"adam, constant": "better"}, also={"fish": {"adam": "better"}}),
            Claim("Momentum reaches more than adaptive methods on new images, also in a short run",
                  "folklore, after Wilson et al. 2017", "fish",
                  {"adam": "worse", "rmsprop": "worse", "adagrad": "worse"},
                  also={"optimizers": {f"{name}, constant": "worse" for name in ("adam", "rmsprop", "adagrad")}}),
            Claim("Momentum is better than plain gradient descent", "Sutskever et al. 2013", "optimizers",
                  {"sgd, constant": "worse"}, also={"fish": {"sgd": "worse"}}),
            Claim("Nesterov's momentum is better than plain momentum", "Sutskever et al. 2013", "optimizers",
                  {"nesterov, constant": "better"}, also={"fish": {"nesterov": "better"}}),
            Claim("Adam requires little tuning: its default rate is as good as a tuned one", "Kingma and Ba 2015",
                  "default_adam", {at_default("adam"): "not worse"}),
            Claim("Nadam improves on Adam", "Dozat 2016", "adam", {"nadam, constant": "better"}),
            Claim("A rate that falls to the end is better than a constant one", "Goodfellow et al. 2016, section 8.3.1",
                  "schedules", {"momentum, exponential": "better"},
                  also={"adam_schedules": {"adam, exponential": "better"}}),
            Claim("One cycle is better than a constant rate", "Smith and Topin 2018", "schedules",
                  {"momentum, one cycle": "better"}, also={"adam_schedules": {"adam, one cycle": "better"}}),
            Claim("A cyclic rate is better than a constant one", "Smith 2017", "schedules",
                  {"momentum, cyclic": "better"}, also={"adam_schedules": {"adam, cyclic": "better"}}),
        ),
        limits=(
            "Equal steps, not equal seconds: sam takes two gradients a step, muon and lamb compute more for each.",
            "A perceptron on 6,000 digits for six epochs, a small convolutional network on fish for five: who needs "
            "more steps is worse here than after a longer run.",
            "Only the rate is tuned; momentum, beta 2, the shape of a schedule and adamw's decay (0.01) stay at their "
            "documented defaults.",
            "Rates are chosen by validation loss, which on the fish follows the common species; compared is balanced "
            "accuracy.",
            "Two seeds a rate to tune with: a choice between neighboring rates is partly luck, alike for all.",
        ),
        problems=lambda trials, evidence: [
            *warn_of_grid_ends(trials["tune"], list(digits), rates),
            *warn_of_grid_ends(trials["tune fish"], list(fish), fish_rates),
        ],
    )  # fmt: skip


def describe_defaults(evidence: Mapping) -> str:
    """A sentence that names the optimizers whose default rate is the one that was found by tuning, if any."""
    labels = {name: at_default(name) for name in AT_DEFAULT if f"default_{name}" in evidence}
    found = [name for name, label in labels.items() if label in evidence[f"default_{name}"].same]
    return f"Tuning finds the documented default rate again for {join_names(found)}. " if found else ""


def describe_better(evidence: Mapping) -> str:
    """Sentence that names, for digits and fish, the best optimizer or schedule that is better than the control."""
    found = []
    for name, words in (("optimizers", "digits"), ("schedules", "digits"), ("fish", "fish")):
        of = evidence[name]
        better = [label for label, row in of.rows.items() if row.verdict == "better"]
        if better:
            best = of.best_arm(better)
            found.append(f"{best} is better on the {words} ({of.difference_text(best)})")
    return "; ".join(found) if found else "nothing is better for certain"


def sort_by_verdict(rows: Mapping, after: str = "", before: str = "") -> str:
    """`better: a, b; worse: c; equivalent: d; undecided: e`, of the arms that are compared.

    Args:
        rows: by label.
        after: how all labels end, which is left out.
        before: how all labels begin, which is left out.
    """
    found: dict[str, list[str]] = {}
    for label, row in rows.items():
        if row.verdict != "control":
            found.setdefault(row.verdict, []).append(label.removesuffix(after).removeprefix(before))
    order = ("better", "worse", "equivalent", "undecided")
    return "; ".join(f"{verdict}: {join_names(found[verdict])}" for verdict in order if verdict in found)


if __name__ == "__main__":
    sys.exit(main(question))
