"""Regularization: which kind helps, do recommended combinations beat others, and does a network know what it does not?

    python -m experiments.regularization
    python -m experiments.regularization --quick

Question. L1, L2, dropout, max-norm and their combinations are all said to improve generalization; "he, elu, batch norm,
one-cycle" and "lecun, selu, alpha dropout" are recommended defaults; Monte-Carlo dropout is said to make probabilities
honest. Which of these holds for small networks on few images, at the same steps and seeds?

Hypothesis. Each regularizer narrows the gap between training and validation, few of them raise accuracy, and
combinations add little to the best of their parts. Normalization and schedule account for what the recommended defaults
gain. Monte-Carlo dropout changes accuracy little, makes overconfident networks less confident, and its entropy finds
wrong predictions no better than the entropy of a single pass.

Arms. `fish`: a small CNN without norm, its gradients clipped, on five reef species, a quarter of the images: single
regularizers and combinations. `digits`: a perceptron of ten hidden layers of 64 units: the recommended defaults and
what differs from them in one thing. Each arm of both at the best of five and of six rates, found with other seeds by
`tune fish` and `tune digits`. `doubt`: the same CNN trained with dropout at rate 0.1, evaluated in one pass and with 50
passes of Monte-Carlo dropout.

Refuted if: a regularizer that leaves the gap as it is raises accuracy; an alternative to the defaults is better; or
Monte-Carlo dropout leaves calibration as it is where the network is overconfident.

Cost. 30 arms, 10 seeds each, and 23 at five or six rates with 2 seeds to tune, 10 to 25 epochs.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.study.tuning import label_at, set_tuned_rates, tuning_plan, warn_of_grid_ends
from fishnet.sweep.spec.recipe import Recipe

FISH = (
    "reef?only=Amphiprion_clarkii+Chaetodon_lunulatus+Chromis_chrysura+Dascyllus_reticulatus"
    "+Plectroglyphidodon_dickii&train=0.25"
)
PLAIN = "none"
GAP = "training accuracy, as trained with, less validation accuracy, at the end"
BASE = Recipe(
    task=FISH,
    model="cnn",
    widths=(16, 32, 64),
    norm="none",
    augment="none",
    batch_size=32,
    lr=0.1,
    clip=1.0,  # without norm and clipping a seed in ten does not train, and hides every difference
    epochs=25,
)
L1, L2, LIMIT, RATE = {"l1": 3e-4}, {"l2": 3e-3}, {"max_norm": 2.0}, {"dropout": 0.5}
SELU = {"activation": "selu", "init": "lecun_normal"}
ARMS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "L1": L1,
    "L2": L2,
    "L1 and L2": L1 | L2,
    "dropout": RATE,
    "spatial dropout in blocks": {"dropout": 0.2, "dropout_kind": "spatial", "dropout_layers": "blocks"},
    "max-norm": LIMIT,
    "dropout and max-norm": RATE | LIMIT,
    "dropout and L2": RATE | L2,
    "dropout, max-norm and L2": RATE | LIMIT | L2,
    "selu": SELU,
    "selu, dropout": SELU | RATE,
    "selu, alpha dropout": SELU | RATE | {"dropout_kind": "alpha"},
}
DEEP = Recipe(
    task="mnist-mini",
    model="mlp",
    widths=(64,),
    depth=10,
    norm="none",
    schedule="onecycle",
    batch_size=64,
    epochs=10,
)
BATCHED, SELF = "he, elu, batch norm, one-cycle", "lecun, selu, alpha dropout, one-cycle"
ELU = {"init": "he_normal", "activation": "elu"}
DIGITS: dict[str, dict[str, Any]] = {
    BATCHED: ELU | {"norm": "batch"},
    "relu instead": {"init": "he_normal", "activation": "relu", "norm": "batch"},
    "glorot instead": ELU | {"init": "glorot_normal", "norm": "batch"},
    "no norm instead": ELU,
    "layer norm instead": ELU | {"norm": "layer"},
    "constant rate instead": ELU | {"norm": "batch", "schedule": "constant"},
    "cosine instead": ELU | {"norm": "batch", "schedule": "cosine"},
    SELF: SELU | {"dropout": 0.05, "dropout_kind": "alpha"},
    "selu, plain dropout": SELU | {"dropout": 0.05},
    "selu, no dropout": SELU,
}
DOUBT: dict[str, dict[str, Any]] = {
    "no dropout": {},
    "dropout .3": {"dropout": 0.3},
    "dropout .5": {"dropout": 0.5},
    "dropout .2 everywhere": {"dropout": 0.2, "dropout_layers": "dense+blocks"},
}
GRIDS: dict[str, tuple[float, ...]] = {
    "fish": (0.02, 0.05, 0.1, 0.2, 0.4),
    "digits": (0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
}
PROBED: Mapping[str, tuple[str, ...]] = {"fish": ("sparsity",), "digits": ()}
AGAIN = {f"{name}, Monte-Carlo": name for name in DOUBT if name != "no dropout"}


def question() -> Question:
    """See the module."""
    from fishnet.metrics.selective import rejection_area
    from fishnet.models.mc_dropout import entropy
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.derived_metrics import final_gap, prediction_metric
    from fishnet.study.figures.answers import arms_panel, curves_panel, forest_panel, steps_panel
    from fishnet.study.figures.predictions import rejection_panel
    from fishnet.study.metrics import column_metric, final_metric, probe_metric
    from fishnet.study.monte_carlo import MonteCarloRuns

    accuracy = column_metric("test_accuracy", "test accuracy", margin=0.02, diverged=0.2)
    digits = column_metric("test_accuracy", "test accuracy", margin=0.01, diverged=0.1)
    small_weights = probe_metric(
        "small_weights", "fraction of weights close to zero at the end", margin=0.02, within=(0.0, 1.0)
    )
    late = final_metric("val_accuracy", "validation accuracy at the end", margin=0.02, diverged=0.2)
    gap = final_gap(
        "train_accuracy",
        "val_accuracy",
        GAP,
        diverged=1.0,
    )
    ece = column_metric("test_ece", "calibration error", larger_is_better=False, margin=0.01, diverged=1.0)
    loss = column_metric("test_loss", "test loss, nats", larger_is_better=False, diverged=10.0)
    sorted_out = prediction_metric(
        lambda labels, p: rejection_area(p.argmax(-1) == labels, entropy(p)),
        "accuracy over all fractions that are answered",
        margin=0.01,
        diverged=0.2,
    )
    pairs = AGAIN

    def of_pairs(name: str, title: str, measure) -> list:
        return [
            Contrast(f"{name}, {base}", f"{title}: {base}", "doubt", measure, control=base, arms=(again,))
            for again, base in pairs.items()
        ]

    def answer(evidence: Mapping) -> str:
        better = [name for name, row in evidence["fish"].rows.items() if row.verdict == "better"]
        harmless = [name for name, row in evidence["fish"].rows.items() if row.verdict in ("better", "equivalent")]
        narrower = [name for name, row in evidence["gap"].rows.items() if row.verdict == "better" and name in harmless]
        batched, self_made = (evidence["digits"].rows.get(name) for name in (BATCHED, SELF))
        best = evidence["fish"].best_arm()
        text = (
            f"On few fish photographs the network without regularization reaches "
            f"{evidence['fish'].mean_text(PLAIN)}; what is added changes it "
            f"at best by {evidence['fish'].difference_text(best)} ({best}).\n"
            f"Accuracy is shown to be higher with {join_names(better)}; the gap to training is narrower, at no loss of "
            f"accuracy, with {join_names(narrower)}. "
        )
        if batched and self_made:
            text += (
                f"On digits {BATCHED} reaches {batched.mean:.3f}, {SELF} {self_made.mean:.3f} "
                f"({evidence['digits'].difference_text(SELF)}). "
            )
        return (
            text
            + "Monte-Carlo dropout changes the calibration error by "
            + "; ".join(
                f"{evidence[name].difference_text(again)} ({base})"
                for again, base in pairs.items()
                if (name := f"ece, {base}") in evidence
            )
            + "."
        )

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        found = [
            forest_panel(evidence["fish"], "fish, accuracy"),
            forest_panel(evidence["digits"], "digits, ten layers"),
        ]
        for kind, title in (("accuracy", "accuracy"), ("ece", "calibration error"), ("rejection", "rejection")):
            found += [
                forest_panel(evidence[f"{kind}, {base}"], f"Monte-Carlo, {title}")
                for base in pairs.values()
                if f"{kind}, {base}" in evidence
            ]
        return found

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        fish, doubt = trials["fish"], trials["doubt"]
        some = [name for name in (PLAIN, "L2", "dropout", "dropout, max-norm and L2") if name in fish.labels]
        sparse = [name for name in (PLAIN, "L1", "L2", "dropout") if name in fish.labels]
        asked = [name for name in ("no dropout", "dropout .5", "dropout .5, Monte-Carlo") if name in doubt.labels]
        found = [
            arms_panel(fish, gap, "fish"),
            arms_panel(doubt, ece, "with and without passes"),
            curves_panel(fish, "val_loss", "fish", "validation loss, nats", some),
            steps_panel(fish, "small_weights", "fish", "share of weights next to zero", sparse),
            rejection_panel(doubt, asked, "rejected by entropy"),
        ]
        return [panel for panel in found if panel]

    some = [PLAIN, "L1", "L2", "dropout", "max-norm", "dropout and max-norm", "dropout, max-norm and L2"]
    small = {"fish": {"widths": (8,), "epochs": 1}, "digits": {"task": "synthetic", "epochs": 1, "depth": 2}}
    kept = {"fish": [PLAIN, "L2", "dropout"], "digits": [BATCHED, SELF]}

    def tuning(name: str, recipe: Recipe, arms: Mapping, quick: dict[str, Any]) -> tuple[Plan, Plan]:
        """The plan that finds the rates of a sweep's arms, and the one that compares them at these."""
        grid = GRIDS[name]
        rates = dict.fromkeys(arms, grid)
        found = f"tune {name}"
        shown = quick.get("arms", list(arms))
        tune = tuning_plan(found, recipe, arms, rates, {
            "smoke": small[name] | {"seeds": 2, "arms": [label_at(arm, grid[2]) for arm in kept[name]]},
            "quick": quick | {"seeds": 1, "arms": [label_at(arm, rate) for arm in shown for rate in grid[1:3]]},
        })  # fmt: skip
        compared = replace(recipe, probes=PROBED[name])
        return tune, Plan(name, compared, lambda trials: set_tuned_rates(arms, rates, trials[found]), seeds=10, sizes={
            "smoke": small[name] | {"seeds": 2, "arms": kept[name]}, "quick": quick | {"seeds": 3},
        })  # fmt: skip

    def problems(trials: Mapping, evidence: Mapping) -> list[str]:
        return [
            f"{name.capitalize()}: {sentence[0].lower()}{sentence[1:]}"
            for name, arms in (("fish", ARMS), ("digits", DIGITS))
            for sentence in warn_of_grid_ends(trials[f"tune {name}"], list(arms), dict.fromkeys(arms, GRIDS[name]))
        ]

    doubt = Plan("doubt", replace(BASE, select_by="val_accuracy"), DOUBT, seeds=10, sizes={
        "smoke": {"widths": (8,), "epochs": 1, "seeds": 2, "arms": ["no dropout", "dropout .5"]},
        "quick": {"epochs": 20, "seeds": 3, "arms": ["no dropout", "dropout .5", "dropout .2 everywhere"]},
    })  # fmt: skip
    return Question(
        name="regularization",
        about=__doc__,
        title="Regularization",
        question="Which regularization helps a small network on few images, and does it know what it does not know?",
        plans=(
            *tuning("fish", BASE, ARMS, {"epochs": 15, "arms": some}),
            *tuning("digits", DEEP, DIGITS, {"epochs": 4}),
            MonteCarloRuns(doubt, AGAIN),
        ),
        contrasts=(
            Contrast("fish", "Accuracy on few fish photographs", "fish", accuracy),
            Contrast("gap", "Training less validation accuracy", "fish", gap),
            Contrast("sparse", "Weights next to zero, below a hundredth of their layer's rms", "fish", small_weights,
                     arms=("L1", "L2", "L1 and L2", "dropout", "max-norm")),
            Contrast("late", "Validation accuracy after the last epoch, not at the best one", "fish", late),
            Contrast("max_norm", "Max-norm beside dropout", "fish", accuracy, control="dropout",
                     arms=("dropout and max-norm",)),
            Contrast("digits", "Recommended defaults on digits", "digits", digits),
            Contrast("alpha", "Dropout for selu on digits", "digits", digits, control=SELF,
                     arms=("selu, plain dropout", "selu, no dropout")),
            *of_pairs("accuracy", "Accuracy with Monte-Carlo dropout", accuracy),
            *of_pairs("ece", "Calibration with Monte-Carlo dropout", ece),
            *of_pairs("loss", "Log loss with Monte-Carlo dropout", loss),
            *of_pairs("rejection", "Rejection by entropy with Monte-Carlo dropout", sorted_out),
        ),
        answer=answer,
        evidence=Figure("What regularization changes", panels, "Differences on the same seeds.", columns=2),
        mechanism=Figure(
            "The gap, the calibration and the doubt",
            mechanism,
            "Every seed a dot. Weights next to zero are below a hundredth of the rms of their layer. Last: "
            "accuracy of the answers that are left when the most doubtful are rejected.",
        ),
        claims=(
            Claim("Weight decay (L2) improves generalisation", "Krogh and Hertz 1992", "fish", {"L2": "better"}),
            Claim("Dropout improves generalisation", "Srivastava et al. 2014", "fish", {"dropout": "better"}),
            Claim("Weight decay (L2) helps where training is not stopped early", "folklore, after Krogh and Hertz 1992",
                  "late", {"L2": "better"}),
            Claim("Dropout helps where training is not stopped early", "folklore, after Srivastava et al. 2014", "late",
                  {"dropout": "better"}),
            Claim("L1 makes weights sparse, L2 does not", "Goodfellow et al. 2016, section 7.1.2", "sparse",
                  {"L1": "better", "L2": "not better"}),
            Claim("Max-norm with dropout is better than dropout alone", "Srivastava et al. 2014", "max_norm",
                  {"dropout and max-norm": "better"}),
            Claim("Self-normalising networks train better than batch norm in deep dense networks",
                  "Klambauer et al. 2017", "digits", {SELF: "better", "selu, no dropout": "better"}),
            Claim("Selu needs alpha dropout: plain dropout breaks self-normalisation", "Klambauer et al. 2017",
                  "alpha", {"selu, plain dropout": "worse"}),
            Claim("He initialisation, elu, batch norm and one-cycle are a default that is hard to beat", "Géron 2019",
                  "digits", {name: "not better" for name in DIGITS if name.endswith("instead")}),
            Claim("MC dropout improves the log-likelihood", "Gal and Ghahramani 2016", "loss, dropout .5",
                  {"dropout .5, Monte-Carlo": "better"}),
            Claim("MC dropout improves calibration", "folklore, after Gal and Ghahramani 2016", "ece, dropout .5",
                  {"dropout .5, Monte-Carlo": "better"}),
            Claim("MC dropout improves accuracy", "folklore, after Gal and Ghahramani 2016", "accuracy, dropout .5",
                  {"dropout .5, Monte-Carlo": "better"}),
        ),
        limits=(
            "One strength of each regularizer; rates are tuned with two seeds, and for Monte-Carlo dropout not at all.",
            "Training accuracy is that of the steps themselves, with dropout on.",
            "Test figures are those of each run's best epoch: what is found is what an arm adds to stopping early.",
            "Selu's dropout rate is .05, as is recommended; more of it may tell alpha dropout from plain dropout.",
            "Dropout stands before the head alone unless an arm says otherwise; the features have 64 dimensions.",
            "Calibration error in 15 bins of 373 test images: differences of a percent are within its noise.",
        ),
        problems=problems,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(question))
