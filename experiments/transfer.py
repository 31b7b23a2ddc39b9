"""Few labels: does a network that has seen other species, or images without labels, learn new ones better?

    python -m experiments.transfer
    python -m experiments.transfer --quick
    python -m experiments.transfer --until-decided

Question. Three species of damselfish are classified from a handful of training photographs each. Is it better to start
from scratch, or from a network that has learned twelve other species from the same reefs, with labels or without
(autoencoder, denoising, rotation, contrastive, GAN)? And should its trunk stay frozen, be unfrozen in stages, or be
trained with the rest? How does that change with the number of labels?

Hypothesis. With about ten photographs a species a trunk that was trained with labels is better than none, and frozen is
no worse than trained on; with all photographs the advantage is gone and a frozen trunk is worse. Of the pretext tasks
those that must distinguish shapes (rotation, contrastive) help more than those that reconstruct pixels.

Arms. `sources`: a small convolutional network on twelve species: with labels, and with each pretext task, whose trunk
is then frozen so that no label shapes it. `3 %`, `10 %`, `30 %`, `100 %`: that fraction of the photographs of three
other species, each seed from a source of its own: from scratch, labels frozen, staged and trained on, and every pretext
task trained on.

Refuted if: at 3 % no trunk is better than from scratch; at 100 % a trunk is still better, or a frozen one no worse.

Cost. 46 arms, 10 seeds each.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.sweep.spec.recipe import Recipe

TARGET = ("Chromis chrysura", "Dascyllus reticulatus", "Plectroglyphidodon dickii")
SOURCE = (
    "Abudefduf vaigiensis",
    "Acanthurus nigrofuscus",
    "Amphiprion clarkii",
    "Canthigaster valentini",
    "Chaetodon lunulatus",
    "Chaetodon trifascialis",
    "Hemigymnus fasciatus",
    "Hemigymnus melapterus",
    "Myripristis kuntee",
    "Neoniphon sammara",
    "Pomacentrus moluccensis",
    "Zebrasoma scopas",
)
PRETEXTS = ("autoencoder", "denoising", "rotation", "contrastive", "gan")
# Share of the training photographs -> passes over them: fewer photographs, more passes, though fewer steps.
PASSES = {0.03: 90, 0.1: 50, 0.3: 25, 1.0: 10}
BASE = Recipe(task=f"reef?only={'+'.join(SOURCE)}", model="cnn", widths=(16, 32, 64), norm="batch", batch_size=32)
SOURCES = replace(BASE, epochs=8, pretrain_epochs=10)
SLOWER = "trained on, tenth of the rate"
WAYS = ("frozen", "unfrozen in stages", "trained on", SLOWER)  # to use a trunk that was trained with labels
FEW, MANY = "3 %", "100 %"


def format_fraction(share: float) -> str:
    """`3 %`: the plan of a share of the photographs."""
    return f"{share:.0%}".replace("%", " %")


def target(share: float) -> Recipe:
    """The recipe of the arms that see a share of the photographs."""
    only = f"reef?only={'+'.join(TARGET)}"
    task = only if share == 1 else f"{only}&train={share:g}"
    # Chosen by accuracy: a network that begins with a trunk is surest, and wrongly so, while its accuracy still rises.
    return replace(BASE, task=task, batch_size=16, epochs=PASSES[share], select_by="val_accuracy")


def trunk(trials: Mapping, label: str) -> str:
    """The runs of a source, one a seed, as the field `trunk` has them."""
    look = trials["sources"].looks[0]
    runs = look.runs(label)
    return f"{look.results.out}:{runs[0]}-{runs[-1]}"


def arm_maker(epochs: int, sources: Sequence[str]):
    """Makes the function that builds the arms for a fraction of the photographs from the trial of the sources.

    Args:
        epochs: of the share, in which the stages of unfreezing lie.
        sources: the labels of all sources; one that a smaller size does not train is an arm that it does not have.
    """

    def arms(trials: Mapping) -> dict[str, dict[str, Any]]:
        trained = [name for name in sources if trials["sources"].looks[0].runs(name)]
        found: dict[str, dict[str, Any]] = {"from scratch": {}}
        if "labels" in trained:
            start = {"trunk": trunk(trials, "labels")}
            found |= {
                "frozen": start | {"freeze": "trunk"},
                "unfrozen in stages": start | {"unfreeze": (epochs // 4, epochs // 2)},
                "trained on": start,
                SLOWER: start | {"lr": 0.005},
            }
        return found | {name: {"trunk": trunk(trials, name)} for name in trained if name != "labels"}

    return arms


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.figures.answers import arms_panel, curves_panel, forest_panel
    from fishnet.study.figures.numbers import numbers_panel
    from fishnet.study.metrics import column_metric

    accuracy = column_metric("test_accuracy", "test accuracy", margin=0.03, diverged=1 / 3)
    source_accuracy = column_metric("test_accuracy", "test accuracy on the source's species", diverged=1 / 12)
    shares = {format_fraction(share): share for share in PASSES}
    sources = {"labels": {}} | {name: {"pretrain": name, "freeze": "trunk"} for name in PRETEXTS}
    methods = ("from scratch", *WAYS, *PRETEXTS)

    def answer(evidence: Mapping) -> str:
        sentences = []
        for name in shares:
            rows = evidence[name].rows
            found = {word: [of for of, row in rows.items() if row.verdict == word] for word in ("better", "worse")}
            sentences.append(
                f"With {name} of the photographs from scratch reaches {rows['from scratch'].mean:.2f}; better: "
                f"{join_names(found['better'])}; worse: {join_names(found['worse'])}."
            )
        few, many = (evidence[name] for name in (FEW, MANY))
        helps = [name for name in shares if any(row.verdict == "better" for row in evidence[name].rows.values())]
        headline = (
            f"A trunk that has learned elsewhere is better than none with {join_names(helps)} of the photographs"
            if helps
            else "No trunk that has learned elsewhere is shown to be better than none, with any fraction of photographs"
        )
        best = [few.best_arm(), many.best_arm()]
        headline += (
            f": from scratch {few.mean_text('from scratch')} with {FEW}, "
            f"the best trunk {few.difference_text(best[0])} ({best[0]}); "
            f"{many.mean_text('from scratch')} with all of them, {many.difference_text(best[1])} ({best[1]})"
        )
        return f"{headline}.\n{' '.join(sentences)}"

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        return [forest_panel(evidence[name], f"{name} of the photographs") for name in shares]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        values = {f"{name}: {of}": seeds for name in shares for of, seeds in trials[name].by_seed(accuracy).items()}
        counts = {name: share * images(trials[MANY]) for name, share in shares.items()}
        lines = {of: {counts[name]: f"{name}: {of}" for name in shares} for of in methods}
        with_labels = {of: lines[of] for of in methods[:5]}
        without = {of: lines[of] for of in ("from scratch", *PRETEXTS)}
        drawn = [
            numbers_panel(values, accuracy, with_labels, "trunks trained with labels", "labeled photographs"),
            numbers_panel(values, accuracy, without, "trunks trained without", "labeled photographs"),
            arms_panel(trials["sources"], source_accuracy, "the sources: a head on each trunk"),
            curves_panel(trials[FEW], "val_loss", f"{FEW} of the photographs", "validation loss"),
        ]
        return [panel for panel in drawn if panel]

    def images(trial) -> int:
        """Training photographs of a trial's task, whole batches of them: what its epochs see."""
        view = trial.looks[0].results.sweep
        return view["plan"][0]["steps_per_epoch"] * view["recipe"]["batch_size"]

    tiny = {"task": "synthetic", "widths": (8, 8), "epochs": 4, "seeds": 2}
    some = ["from scratch", "frozen", "trained on", "rotation"]
    plans = [
        Plan(
            "sources",
            SOURCES,
            sources,
            seeds=10,
            sizes={
                "smoke": tiny | {"epochs": 1, "pretrain_epochs": 1, "arms": ["labels", "rotation"]},
                "quick": {"seeds": 3, "epochs": 4, "pretrain_epochs": 3, "arms": ["labels", "rotation"]},
            },
        )
    ]
    for name, share in shares.items():
        smoke = tiny | {"arms": ["from scratch", "trained on", *(["frozen"] if name == FEW else [])]}
        quick = {"seeds": 3, "arms": some} | ({"epochs": 4} if name == MANY else {})
        plans.append(
            Plan(
                name,
                target(share),
                arm_maker(PASSES[share], list(sources)),
                seeds=10,
                sizes={"smoke": smoke, "quick": quick},
            )
        )
    return Question(
        name="transfer",
        about=__doc__,
        title="Few labels",
        question="Does a network that has seen other species, or images without labels, learn new species better?",
        plans=tuple(plans),
        contrasts=(
            *(Contrast(name, f"{name} of the photographs, against from scratch", name, accuracy) for name in shares),
            *(Contrast(f"{name} how", f"{name}: how a trunk is used, against training it on", name, accuracy,
                       control="trained on", arms=("frozen", "unfrozen in stages", SLOWER)) for name in (FEW, MANY)),
            Contrast(f"{FEW} labels", f"{FEW}: pretext tasks against labels of other species", FEW, accuracy,
                     control="trained on", arms=PRETEXTS),
        ),
        answer=answer,
        evidence=Figure("Test accuracy against from scratch", panels, "Three species of damselfish."),
        mechanism=Figure(
            "How the advantage changes with the number of labels",
            mechanism,
            "Means over seeds, each from a source of its own.",
        ),
        claims=(
            Claim("Features that were learned on other classes transfer, and help with few labels",
                  "folklore, after Yosinski et al. 2014", FEW, {"trained on": "better"}),
            Claim("With few labels freeze the trunk: training it on overfits", "CS231n notes", f"{FEW} how",
                  {"frozen": "better"}),
            Claim("Unfreezing in stages is better than training everything at once", "Howard and Ruder 2018",
                  f"{FEW} how", {"unfrozen in stages": "better"}),
            Claim("Unsupervised pretraining with autoencoders helps", "Erhan et al. 2010", FEW,
                  {"autoencoder": "better"}),
            Claim("Predicting rotations learns features that help with few labels", "Gidaris et al. 2018", FEW,
                  {"rotation": "better"}),
            Claim("Contrastive pretraining is as good as pretraining with labels", "Chen et al. 2020",
                  f"{FEW} labels", {"contrastive": "not worse"}),
            Claim("The discriminator of a GAN learns features that help", "Radford et al. 2016", FEW,
                  {"gan": "better"}),
            Claim("With all labels a pretrained trunk is no better than training from scratch", "He et al. 2019", MANY,
                  {"trained on": "not better"}),
        ),
        limits=(
            "Sources of about 1,300 photographs: pretraining without labels usually has thousands of times as many.",
            "A small network with batch norm, one rate for every arm, and no tuning of a pretext task.",
            "A frozen trunk keeps its batch norms' statistics too: those of the photographs that it has learned from.",
            "The epoch is chosen by accuracy on all validation photographs, of which there are more than there are to "
            "train on at 3 %: as one would choose who had them.",
            "Fewer photographs are seen in more passes but fewer steps; a share is of each species, the same "
            "photographs for all seeds: the intervals are of that draw.",
            "Seeds beyond the tenth (--until-decided) begin with the same ten sources again.",
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(question))
