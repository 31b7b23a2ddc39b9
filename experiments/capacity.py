"""Overfitting: is it width, depth or data, and what reduces it?

    python -m experiments.capacity
    python -m experiments.capacity --quick

Question. Validation accuracy rises, then falls while training accuracy goes on to 98 %. Courses prescribe a smaller
network, fewer dense parameters, L1, L2, dropout, augmentation, early stopping, more images. Which of them keeps the
best validation accuracy, and how much of the error is bias, the choice of training images, or the seed?

Hypothesis. On clean labels memorizing the training images hardly costs accuracy; validation falls where some of the
memorized labels are wrong. What prevents memorization (early stopping, strong penalties, mixed images, a decaying rate,
a network that is too small for it) then helps. On clean labels a wider network has a smaller error because its variance
is smaller, not larger.

Arms. `falls`: a small CNN on five reef species, a quarter of the images, 40 % of the labels wrong, at a constant rate
until it knows its training images: single changes. `dense`: the same images for perceptrons with many and few dense
parameters, and for convolutions. `size`: width, depth and training-set size on clean labels, at about the same number
of steps. `sets`: networks of four widths, one of them regularized, on three draws of a fifth of the images: bias and
variance of the class probabilities.

Refuted if: validation falls as much on clean labels; or the wider network has the larger variance.

Cost. 31 arms with 10 seeds and 15 networks and draws with 8, of 5 to 48 epochs.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.sweep.spec.recipe import Recipe

FISH = (
    "reef?only=Amphiprion_clarkii+Chaetodon_lunulatus+Chromis_chrysura+Dascyllus_reticulatus+Plectroglyphidodon_dickii"
)
CHANCE = 0.2
WRONG = "noise=0.4"
HEART = "as it is"
BASE = Recipe(
    task=f"{FISH}&train=0.25&{WRONG}",
    model="cnn",
    widths=(16, 32, 64),
    norm="batch",
    augment="none",
    batch_size=32,
    epochs=30,
)
LONG = replace(BASE, schedule="constant", epochs=45)  # a falling rate is one of the changes
FALLS: dict[str, dict[str, Any]] = {
    HEART: {},
    "quarter of the width": {"widths": (4, 8, 16)},
    "separable": {"model": "separable"},
    "ResNet": {"model": "resnet"},
    "L1": {"l1": 3e-4},
    "L2": {"l2": 0.01},
    "dropout": {"dropout": 0.5},
    "dropout in blocks": {"dropout": 0.3, "dropout_layers": "dense+blocks"},
    "augmentation": {"augment": "flip_shift"},
    "strong augmentation": {"augment": "strong"},
    "mixup": {"mixup": 0.4},
    "falling rate": {"schedule": "cosine"},
    "early stopping": {"patience": 4},
    "all images": {"task": f"{FISH}&{WRONG}", "epochs": 11},  # as many steps
    "clean labels": {"task": f"{FISH}&train=0.25"},
}
DENSE: dict[str, dict[str, Any]] = {
    "dense 256-128": {"model": "mlp", "widths": (256, 128)},
    "dense 16-16": {"model": "mlp", "widths": (16, 16)},
    "dense 256-128, dropout": {"model": "mlp", "widths": (256, 128), "dropout": 0.5},
    "convolutions": {},
}
WIDTHS = {"narrow": (4, 8, 16), "usual": (16, 32, 64)}
SHARES = {"a tenth": (0.1, 48), "a third": (0.33, 15), "all": (1.0, 5)}  # of the images, and epochs
NETWORKS: dict[str, dict[str, Any]] = {
    "width 4": {"widths": (4, 8, 16)},
    "width 8": {"widths": (8, 16, 32)},
    "width 16": {"widths": (16, 32, 64)},
    "width 16, L2": {"widths": (16, 32, 64), "l2": 0.01},
    "width 16, augmentation": {"widths": (16, 32, 64), "augment": "flip_shift"},
}
DRAWS = 3

GAP = "training accuracy, as trained with, less validation accuracy, at the end"


def size_arms() -> dict[str, dict[str, Any]]:
    """Width, depth and training-set size."""
    arms = {}
    for share, (part, epochs) in SHARES.items():
        for name, widths in WIDTHS.items():
            for depth in (1, 2):
                task = FISH if part == 1 else f"{FISH}&train={part:g}"
                label = f"{name}{', deep' * (depth > 1)}, {share}"
                arms[label] = {"task": task, "epochs": epochs, "widths": widths, "depth": depth}
    return arms


def draw_of(network: str, draw: int) -> str:
    """The label of a network on one draw of the training images, from 1."""
    return f"{network}, set {draw}"


def set_arms() -> dict[str, dict[str, Any]]:
    """Every network on every draw."""
    return {
        draw_of(name, draw): {"task": f"{FISH}&train=0.2@{draw}", **fields}
        for name, fields in NETWORKS.items()
        for draw in range(1, DRAWS + 1)
    }


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.derived_metrics import bias_variance_metric, drop_from_best, final_gap
    from fishnet.study.figures.answers import arms_panel, curves_panel, forest_panel
    from fishnet.study.figures.predictions import split_variance, variance_panel
    from fishnet.study.metrics import column_metric, final_metric

    kept = final_metric("val_accuracy", "validation accuracy at the end", margin=0.03, diverged=CHANCE)
    lost = drop_from_best("val_accuracy", "fall of validation accuracy from its best epoch", margin=0.03, diverged=1.0)
    best = column_metric("test_accuracy", "test accuracy at the best epoch", margin=0.03, diverged=CHANCE)
    gap = final_gap(
        "train_accuracy",
        "val_accuracy",
        GAP,
        diverged=1.0,
    )
    heart = final_metric(
        "train_accuracy", "training accuracy at the end, as trained with", larger_is_better=False, diverged=CHANCE
    )
    parts = {part: bias_variance_metric(part, words, diverged=2.0) for part, words in (
        ("error", "squared error of the probabilities"), ("bias", "bias^2"), ("variance", "variance over training sets")
    )}  # fmt: skip
    draws = {name: [draw_of(name, draw) for draw in range(1, DRAWS + 1)] for name in NETWORKS}
    first, usual = [labels[0] for labels in draws.values()], draw_of("width 16", 1)

    def over_draws(part: str, title: str) -> Contrast:
        arms = tuple(label for label in first if label != usual)
        beside = {labels[0]: labels[1:] for labels in draws.values()}
        return Contrast(part, title, "sets", parts[part], control=usual, arms=arms, requires=beside)

    def answer(evidence: Mapping) -> str:
        found = evidence["kept"].rows
        better = [name for name, row in found.items() if row.verdict == "better"]
        worse = [name for name, row in found.items() if row.verdict == "worse"]
        text = (
            f"With 40 % wrong labels the network reaches {evidence['heart'].row(HEART).mean:.0%} on its training "
            f"images, and validation ends {evidence['lost'].mean_text(HEART)} below its best epoch"
        )
        if "clean labels" in evidence["lost"].rows:
            text += f"; with clean labels it ends {evidence['lost'].mean_text('clean labels')} below"
        changes = [name for name in better if name not in ("all images", "clean labels")]
        if changes:
            best = evidence["kept"].best_arm(changes)
            text += f"; most is kept by {best} ({evidence['kept'].difference_text(best)})"
        text += (
            f".\nIt ends at {found[HEART].mean:.2f}; better: {join_names(better) if better else 'nothing for certain'}"
            + (f"; worse: {join_names(worse)}. " if worse else ". ")
        )
        variance = evidence["variance"].rows
        return text + (
            f"Over training sets the variance of the widest network is {variance[usual].mean:.3f}, that of the "
            f"narrowest {variance[first[0]].mean:.3f} ({evidence['variance'].difference_text(first[0])})."
        )

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        return [
            forest_panel(evidence["kept"], "validation at the end, 40 % wrong labels"),
            forest_panel(evidence["lost"], "fall from the best epoch"),
            forest_panel(evidence["dense"], "dense parameters"),
            forest_panel(evidence["size"], "gap, clean labels"),
            forest_panel(evidence["error"], "error over training sets"),
            forest_panel(evidence["variance"], "variance over training sets"),
        ]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        falls, sets = trials["falls"], trials["sets"]
        some = [
            name for name in (HEART, "falling rate", "mixup", "early stopping", "clean labels") if name in falls.labels
        ]
        splits = {
            name: split_variance(sets, labels) for name, labels in draws.items() if set(labels) <= set(sets.labels)
        }
        found = [
            curves_panel(falls, "train_accuracy", "training, 40 % wrong labels", "training accuracy", some),
            curves_panel(falls, "val_accuracy", "validation, 40 % wrong labels", "validation accuracy", some),
            variance_panel(splits, "what the error is made of"),
            arms_panel(trials["size"], gap, "clean labels"),
        ]
        return [panel for panel in found if panel]

    small = ["narrow, a tenth", "usual, a tenth", "narrow, all", "usual, all"]
    quick_sets = [*draws["width 4"], *draws["width 16"]]
    smoke_sets = [*draws["width 4"][:2], *draws["width 16"][:2]]
    return Question(
        name="capacity",
        about=__doc__,
        title="Capacity and memorization",
        question="Overfitting: why does validation accuracy fall while training reaches 98 %, and what prevents it?",
        plans=(
            Plan("falls", LONG, FALLS, seeds=10, sizes={
                "smoke": {"widths": (8,), "epochs": 1, "seeds": 2, "arms": [HEART, "L2", "mixup"]},
                "quick": {"epochs": 36, "seeds": 3, "arms": [
                    HEART, "dropout", "mixup", "falling rate", "early stopping", "clean labels"]},
            }),
            Plan("dense", LONG, DENSE, seeds=10, sizes={
                "smoke": {"epochs": 1, "seeds": 2, "arms": ["dense 256-128", "dense 16-16"]},
                "quick": {"epochs": 20, "seeds": 3},
            }),
            Plan("size", replace(BASE, task=FISH), size_arms(), seeds=10, sizes={
                "smoke": {"seeds": 2, "arms": ["usual, all", "narrow, all"]},
                "quick": {"seeds": 3, "arms": small},
            }),
            Plan("sets", replace(BASE, task=FISH, epochs=25), set_arms(), seeds=8, sizes={
                "smoke": {"epochs": 1, "seeds": 2, "arms": smoke_sets},
                "quick": {"epochs": 12, "seeds": 3, "arms": quick_sets},
            }),
        ),
        contrasts=(
            Contrast("kept", "Validation accuracy at the end", "falls", kept),
            Contrast("lost", "How far validation falls", "falls", lost),
            Contrast("heart", "Training accuracy at the end: learned by heart", "falls", heart),
            Contrast("best", "Test accuracy at the epoch that validation chose", "falls", best),
            Contrast("dense_lost", "Dense parameters: how far validation falls", "dense", lost),
            Contrast("dense", "Dense parameters: validation accuracy at the end", "dense", kept),
            Contrast("size", "Width, depth and training set: training less validation accuracy", "size", gap,
                     control="usual, all"),
            Contrast("size_kept", "Width, depth and training set: validation accuracy at the end", "size", kept,
                     control="usual, all"),
            over_draws("error", "Squared error over training sets"),
            over_draws("bias", "Bias over training sets"),
            over_draws("variance", "Variance over training sets"),
        ),
        answer=answer,
        evidence=Figure("What keeps the accuracy", panels, "Differences on the same seeds.", columns=2),
        mechanism=Figure(
            "Memorization, and what the error consists of",
            mechanism,
            "Accuracy after each epoch. Bars: squared error of the class probabilities on the test images as bias^2, "
            "variance that comes from the training set and from the seed. Below: every seed a dot.",
        ),
        claims=(
            Claim("A network with fewer parameters overfits less", "Goodfellow et al. 2016, section 5.2", "lost",
                  {"quarter of the width": "better"}),
            Claim("L2 regularisation reduces overfitting", "Krogh and Hertz 1992", "lost", {"L2": "better"}),
            Claim("Dropout prevents overfitting", "Srivastava et al. 2014", "lost", {"dropout": "better"}),
            Claim("Early stopping keeps a network from learning wrong labels by heart", "Li et al. 2020", "heart",
                  {"early stopping": "better"}, also={"kept": {"early stopping": "not worse"}}),
            Claim("A large learning rate suppresses the memorisation of noisy data", "You et al. 2019", "heart",
                  {"falling rate": "worse"}),
            Claim("Mixup keeps more of the accuracy where labels are wrong", "Zhang et al. 2018", "kept",
                  {"mixup": "better"}),
            Claim("Data augmentation reduces overfitting", "Krizhevsky et al. 2012", "lost",
                  {"augmentation": "better"}),
            Claim("Fewer dense parameters overfit less", "Lin et al. 2014 (network in network)", "dense_lost",
                  {"dense 16-16": "better"}),
            Claim("Depthwise-separable networks overfit less at equal accuracy", "folklore, after Howard et al. 2017",
                  "lost", {"separable": "better"}, also={"best": {"separable": "not worse"}}),
            Claim("Skip connections reduce overfitting", "folklore", "lost", {"ResNet": "better"}),
            Claim("More images reduce overfitting", "Goodfellow et al. 2016, section 5.2", "lost",
                  {"all images": "better"}),
            Claim("The variance of a wider network is smaller", "Neal et al. 2018", "variance",
                  {first[0]: "worse"}),
        ),
        limits=(
            "Wrong labels are spread evenly over the other species; real ones gather on look-alikes.",
            "Training accuracy is that of the steps themselves, with dropout, augmentation and mixing on.",
            "Early stopping is read when it stops, four epochs after the best one; what it keeps is better than that.",
            "A fall from the best of many epochs is above zero by chance alone, and less so over fewer epochs: with "
            "all images, and where training is stopped early.",
            "A ResNet is deeper than the network that it is compared with, not that network with connections added.",
            "Bias holds what the photographs leave open: it is not only the network's.",
            "Training sets overlap: draws of a fifth of the same images, so that their variance is too small. There "
            f"are {DRAWS} of them, the same for all seeds: intervals over seeds say nothing of other draws.",
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(question))
