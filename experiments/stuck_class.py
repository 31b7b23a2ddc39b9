"""Stuck class: why is one species hardly better than chance while the others are classified well?

    python -m experiments.stuck_class
    python -m experiments.stuck_class --quick

Question. The network is trained with class weights, the other species pass an AUC of .85, and one is stuck. Its images
may be few, its labels wrong, its name given to others as well, it may look like another species or vary within itself,
the photographs may be out of focus, or the network too small. Each cause is planted by itself. Which of the usual
remedies moves the AUC of that class for which cause, and which cannot?

Hypothesis. A remedy works where it touches the cause: weights, margins and logit adjustment change how classes are
traded against each other, which hardly changes how one class is ranked; they help neither wrong labels nor a species
that looks like another. What takes the defect away, or brings images, does. A mark that one class bears alone is no
defect to the network but a cue: what varies is the class together with the species that it resembles, and what is
blurred is every photograph, so that those classes stay behind that have no colors of their own.

Arms. Five reef species of about equal frequency, a quarter of the training images. Each cause is a sweep of its own:
the stuck class with class weights, then single changes to that: no weights, focal, class-balanced focal, LDAM with
deferred weights, logit adjustment, stronger augmentation of the class, squeeze-and-excitation, an expert head for it
and for the species it resembles, more images, and the defect removed.

Refuted if: a loss that trades classes cures wrong labels or likeness; or removing the planted defect does not.

Cost. 7 causes of 11 arms, 10 seeds and 12 epochs each.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.sweep.spec.recipe import Recipe

SPECIES, ALIKE = "Dascyllus reticulatus", "Chromis chrysura"
OTHERS = ("Amphiprion clarkii", "Chaetodon lunulatus", "Plectroglyphidodon dickii")
PASSED = 0.85  # the AUC of a class that is classified well
STUCK, REMOVED, MORE = "class weights", "defect removed", "more images"
HARD = f"{SPECIES}+{ALIKE}"


ALL = S, A, *_ = [name.replace(" ", "_") for name in (SPECIES, ALIKE, *OTHERS)]  # as modifiers spell them


def task(*planted: str, train: float = 0.25) -> str:
    """The five species with a share of their training images and planted defects."""
    return "&".join([f"reef?only={'+'.join(ALL)}", *([f"train={train:g}"] if train < 1 else []), *planted])


@dataclass(frozen=True)
class Cause:
    """Planted cause of a class that stays behind."""

    words: str
    planted: tuple[str, ...] = ()  # modifiers of the task
    more: tuple[str, ...] = ()  # those with more images of the class; none: the same with more of all
    changes: Mapping[str, object] = field(default_factory=dict)  # of the recipe, instead of modifiers
    probes: tuple[str, ...] = ()  # where a figure shows them: they take longer to compile than the training


CAUSES: Mapping[str, Cause] = {
    "few": Cause("few images", (f"few={S}:2",), (f"few={S}:32",), probes=("classes",)),
    "labels": Cause("97 % wrong labels", (f"noise={S}:0.97",)),
    "mixed": Cause("labels mixed up", (f"noise={S}:0.97", *(f"noise={name}:0.25" for name in ALL if name != S))),
    "alike": Cause("looks like another", (f"mix={S}:{A}:0.9",), probes=("classes", "features")),
    "varied": Cause("varies, as its look-alike does", (f"vary={S}:3", f"vary={A}:3"), probes=("features",)),
    "blurred": Cause("all out of focus", tuple(f"blur={name}:8" for name in ALL), probes=("features",)),
    "small": Cause("network too small", changes={"widths": (2, 2, 2)}, probes=("features",)),
}
BASE = Recipe(
    task=task(),
    model="cnn",
    widths=(16, 32, 64),
    norm="batch",
    loss="class_weighted",
    batch_size=32,
    epochs=12,
)
PROBED = {"probe_epochs": 4, "probe_images": 256}
CURES: dict[str, dict[str, Any]] = {
    "unweighted": {"loss": "cross_entropy"},
    "focal": {"loss": "focal"},
    "class-balanced focal": {"loss": "class_balanced_focal"},
    "LDAM, deferred weights": {"loss": "ldam", "class_weighting": "effective", "reweight_from": 0.5},
    "logit adjustment": {"loss": "logit_adjusted"},
    "class augmentation": {"hard_classes": SPECIES, "hard_augment": "strong"},
    "squeeze-and-excitation": {"se_reduction": 4},
    "expert head": {"model": "hybrid", "hard_classes": HARD},
}
LOSSES = ("unweighted", "focal", "class-balanced focal", "LDAM, deferred weights", "logit adjustment")
QUICK = (STUCK, "unweighted", "focal", "logit adjustment", "class augmentation", REMOVED)


def make_plan(name: str) -> Plan:
    """The sweep of a cause."""
    cause = CAUSES[name]
    probed = {"probes": cause.probes, **PROBED} if cause.probes else {}
    base = replace(BASE, task=task(*cause.planted), **cause.changes, **probed)
    whole = {"widths": BASE.widths} if "widths" in cause.changes else {"task": task()}
    more = task(*cause.more) if cause.more else task(*cause.planted, train=0.75)
    tiny = {name: getattr(BASE, name) for name in ("probes", *PROBED)} if cause.probes else {}
    if name == "alike":  # has both probes
        tiny = {"probe_epochs": 1, "probe_images": 64}
    few = [STUCK, "logit adjustment", *([REMOVED] if name == "few" else [])]
    return Plan(
        name,
        base,
        {STUCK: {}, **CURES, MORE: {"task": more}, REMOVED: whole},
        seeds=10,
        sizes={
            "smoke": {"widths": (8,), "epochs": 1, "seeds": 2, "arms": few, **tiny},
            "quick": {"seeds": 3, "epochs": 8, "arms": list(QUICK)},
        },
    )


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.derived_metrics import other_classes_metric
    from fishnet.study.figures.answers import arms_panel, forest_panel
    from fishnet.study.figures.class_curves import all_classes_panel, class_curves_panel
    from fishnet.study.figures.predictions import auc_change, auc_changes_panel
    from fishnet.study.metrics import class_metric, probe_metric

    auc = class_metric("auc", f"AUC of {SPECIES}", SPECIES, margin=0.02, diverged=0.5)
    others = other_classes_metric("auc", "lowest AUC of the other species", SPECIES, margin=0.02, diverged=0.5)
    recall = class_metric("recall", f"recall of {SPECIES}", SPECIES, margin=0.05, diverged=0.0, within=(0.0, 1.0))
    cosine = probe_metric(
        "nearest_class_cosine", f"cosine of {SPECIES} to its nearest class", SPECIES, larger_is_better=False, digits=2
    )
    margin = probe_metric("class_margin", f"mean margin of {SPECIES} on training images, logits", SPECIES, digits=2)
    spread = probe_metric(
        "collapse", "variance within classes over that between them", larger_is_better=False, digits=2
    )
    contrasts = [Contrast(name, f"AUC of the class: {cause.words}", name, auc) for name, cause in CAUSES.items()]
    contrasts.append(
        Contrast("few_losses", "AUC of the class: few images, losses against plain cross-entropy", "few", auc,
                 control="unweighted", arms=(STUCK, *LOSSES[1:]))
    )  # fmt: skip
    contrasts.append(
        Contrast("few_recall", "How many of the class are found: few images, against plain cross-entropy", "few",
                 recall, control="unweighted", arms=(STUCK, *LOSSES[1:]))
    )  # fmt: skip
    contrasts += [
        Contrast(f"{name}_others", f"The other species: {cause.words}", name, others, arms=(REMOVED,))
        for name, cause in CAUSES.items()
    ]

    def answer(evidence: Mapping) -> str:
        parts = []
        for name, cause in CAUSES.items():
            rows = evidence[name].rows
            better, worse = (
                [label for label, row in rows.items() if row.verdict == word] for word in ("better", "worse")
            )
            start, least = rows[STUCK].mean, evidence[f"{name}_others"].row(STUCK).mean
            parts.append(
                f"{cause.words}: AUC {start:.2f} (the others from {least:.2f} on"
                f"{describe_other_classes(start, least)}), "
                + (f"better with {join_names(better)}" if better else "nothing is better for certain")
                + f", worse with {join_names(worse)}" * bool(worse)
            )
        moved = [label for label in (STUCK, *LOSSES) if beats_plain(evidence, label)]
        losses = (
            f"where images are few, its AUC is raised over that of plain cross-entropy by {join_names(moved)}"
            if moved
            else "where images are few, no loss is shown to raise its AUC over that of plain cross-entropy"
        )
        alone = [
            name
            for name in CAUSES
            if not describe_other_classes(evidence[name].row(STUCK).mean, evidence[f"{name}_others"].row(STUCK).mean)
        ]
        if alone:
            lowest = min(alone, key=lambda name: evidence[name].row(STUCK).mean)
            headline = (
                f"{SPECIES} stays behind while the other species are classified well, at an AUC of "
                f"{evidence[lowest].mean_text(STUCK)}, with {CAUSES[lowest].words}"
            )
            if REMOVED in evidence[lowest].rows:
                headline += f" (without that {evidence[lowest].difference_text(REMOVED)})"
        else:
            headline = f"No cause holds {SPECIES} back while the other species are classified well"
        text = "; ".join(parts)
        recalls = evidence["few_recall"]
        found = [
            f"{label} ({recalls.difference_text(label)})"
            for label, row in recalls.rows.items()
            if row.verdict == "better"
        ]
        text += (
            f". With few images its recall is {recalls.mean_text('unweighted')} with plain cross-entropy; higher with "
        )
        text += "; ".join(found) or "no other loss"
        return f"{headline}; {losses}.\n{text[0].upper()}{text[1:]}."

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        found = []
        for name, cause in CAUSES.items():
            arms = [label for label in trials[name].labels if label != STUCK]
            changes = [auc_change(trials[name], SPECIES, STUCK, label) for label in arms]
            found += [
                forest_panel(evidence[name], cause.words),
                auc_changes_panel(changes, f"{cause.words}, by test images"),
            ]
        return [panel for panel in found if panel]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        found = [all_classes_panel(trials["few"], "val_auc", STUCK, "few images: all species", "validation AUC")]
        for name in ("few", "labels", "mixed", "alike"):
            shown = [label for label in (STUCK, "logit adjustment", MORE, REMOVED) if label in trials[name].labels]
            title = f"{CAUSES[name].words}: loss of the class"
            found.append(class_curves_panel(trials[name], "val_loss", SPECIES, title, "validation loss, nats", shown))
        found += [
            arms_panel(trials[name], measure, CAUSES[name].words)
            for name, measure in (
                ("few", margin),
                ("alike", margin),
                ("alike", cosine),
                ("varied", spread),
                ("blurred", spread),
                ("small", cosine),
            )
        ]
        return [panel for panel in found if panel]

    return Question(
        name="stuck_class",
        about=__doc__,
        title="A class that stays behind",
        question="Why is one species hardly better than chance while others are classified well, and what fixes it?",
        plans=tuple(map(make_plan, CAUSES)),
        contrasts=tuple(contrasts),
        answer=answer,
        evidence=Figure(
            f"AUC of {SPECIES} against the stuck one, cause by cause",
            panels,
            "Left over the seeds. Right with the probabilities averaged over the seeds, hollow stuck, filled with the "
            "change: bars are DeLong's 95 % intervals of the difference, for the choice of test photographs.",
            columns=2,
        ),
        mechanism=Figure(
            "The class over time, and how far its features are from its neighbors'",
            mechanism,
            "Validation figures after each epoch. On training images at the end, every seed a dot: by how much the "
            "right logit exceeds the best other one; cosines between class means of the features, seen from their "
            "center, 1 where two classes are not told apart; and the features' variance within classes over that "
            "between them, 0 where every class is one point.",
        ),
        claims=(
            Claim("With class weights more images of a rare class are found", "He and Garcia 2009", "few_recall",
                  {STUCK: "better"}),
            Claim("Class weights rank the images of a rare class better", "folklore", "few_losses", {STUCK: "better"}),
            Claim("With focal loss more images of a hard class are found", "Lin et al. 2017", "few_recall",
                  {"focal": "better"}),
            Claim("Focal loss ranks the images of a hard class better", "folklore, after Lin et al. 2017",
                  "few_losses", {"focal": "better"}),
            Claim("With logit adjustment more images of a rare class are found", "Menon et al. 2021", "few_recall",
                  {"logit adjustment": "better"}),
            Claim("Margins that grow with rarity, and deferred weights, find more images of a rare class",
                  "Cao et al. 2019", "few_recall", {"LDAM, deferred weights": "better"}),
            Claim("Class weights cannot raise the AUC of a class that looks like another", "folklore", "alike",
                  {"unweighted": "not worse"}),
            Claim("More images of a rare class bring it up", "Halevy et al. 2009", "few", {MORE: "better"}),
            Claim("Wrong labels hold a class back until they are cleaned", "Northcutt et al. 2021", "labels",
                  {REMOVED: "better"}),
            Claim("No loss helps against labels that are mixed up", "folklore, after Northcutt et al. 2021", "mixed",
                  dict.fromkeys(LOSSES, "not better")),
            Claim("More images help against wrong labels", "Rolnick et al. 2017", "mixed", {MORE: "better"}),
            Claim("Squeeze-and-excitation helps to tell similar classes", "folklore, after Hu et al. 2018", "alike",
                  {"squeeze-and-excitation": "better"}),
            Claim("An expert for classes that are confused tells them apart", "Ahmed et al. 2016", "alike",
                  {"expert head": "better"}),
            Claim("Blur makes a class harder to recognise", "folklore, after Dodge and Karam 2016", "blurred",
                  {REMOVED: "better"}),
        ),
        limits=(
            "Five species with about as many images each, on photographs of 32 pixels; causes are planted one by one.",
            "Variation is planted in two of the five species: a mark that tells the two from the others.",
            "Wrong labels are drawn at random: of the class's 88 training images three keep the right one. Mixed up "
            "are also a quarter of the other species' labels, a quarter of which become this one's.",
            "A likeness of two classes takes from the AUC of both: it cannot hold back one alone. The five species are "
            "about equally frequent, so that class weights change little but where images are few.",
            "An AUC against all other species dilutes what is won or lost against the one that looks alike.",
        ),
    )  # fmt: skip


def beats_plain(evidence: Mapping, label: str) -> bool:
    """Tells whether a loss raises the AUC of a class with few images above that of plain cross-entropy."""
    row = evidence["few_losses"].rows.get(label)
    return bool(row) and row.verdict == "better"


def describe_other_classes(auc: float, least: float) -> str:
    """Remark where another class stays behind, or not this one alone."""
    if auc >= PASSED:
        return ": it is not stuck"
    return ": they are held back too" if least < PASSED else ""


if __name__ == "__main__":
    sys.exit(main(question))
