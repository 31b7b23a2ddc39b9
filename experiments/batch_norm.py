"""Batch norm that hurts: with which batches, where, and on which test images does it make a network worse?

    python -m experiments.batch_norm
    python -m experiments.batch_norm --quick

Question. Batch norm speeds up training, but what a network computes then depends on its batch in training and on
running averages in evaluation. When does adding it make generalization worse, and what replaces it?

Hypothesis. With batches of 32 it helps. With two images a batch its statistics are noise and the running averages are
not those that the network was trained with: its loss with running statistics differs from that with batch statistics,
and norms that look at one image alone (layer, group), or at the weights, do better. On darkened test
photographs the running statistics are wrong; statistics of the test batch fix that.

Arms. `batch 32` and `batch 2`: norms on a small CNN on reef fish, batch norm behind each convolution alone, before or
after the activation, in ghost batches, evaluated with running, batch or precise statistics, and no norm with dropout,
a fifth of the rate or one cycle of it. `sizes`: no norm, batch and group norm with batches of 4, 8 and 128. `shift`:
darkened test photographs.

Refuted if: batch norm at batches of two is as good as group norm; or the gap between batch and running statistics is
as wide where it helps as where it hurts.

Cost. 35 arms, 10 seeds each.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.sweep.spec.recipe import Recipe

BASE = Recipe(
    task="reef",
    model="cnn",
    widths=(16, 32, 64),
    norm="none",
    batch_size=32,
    epochs=8,
    probes=("norm_gap", "gradients", "first_bad"),
    probe_every=36,
    probe_images=512,
)
BATCH = {"norm": "batch"}
ARMS = {
    "no norm": {},
    "batch": BATCH,
    "batch, layer 1 only": BATCH | {"norm_layers": (1,)},
    "batch, layer 2 only": BATCH | {"norm_layers": (2,)},
    "batch, layer 3 only": BATCH | {"norm_layers": (3,)},
    "batch, after activation": BATCH | {"norm_position": "post"},
    "batch, ghost of 8": BATCH | {"ghost_batch": 8},
    "batch, precise": BATCH | {"eval_statistics": "precise"},
    "layer": {"norm": "layer"},
    "group": {"norm": "group"},
    "weight": {"norm": "weight"},
    "no norm, dropout": {"dropout": 0.3},
    "no norm, fifth of the rate": {"lr": 0.01},
    "no norm, one cycle": {"schedule": "onecycle"},
}
# Batch size -> rate and epochs: fewer images a step, smaller steps.
SIZES_OF_BATCH = {4: (0.01, 4), 8: (0.02, 4), 128: (0.1, 8)}
NTH = {1: "first", 2: "second", 3: "third"}
KIN = tuple(name for name in ARMS if name not in ("no norm", "batch"))
FEW = ("no norm", "batch", "batch, precise", "layer", "group", "weight", "no norm, fifth of the rate")
SHIFTED = ("no norm", "batch", "layer", "group")
SMOKE = {"task": "synthetic", "widths": (8, 8), "epochs": 1, "seeds": 2, "arms": ["no norm", "batch"]}


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.figures.answers import forest_panel, steps_panel
    from fishnet.study.metrics import column_metric, probe_metric

    accuracy = column_metric("test_balanced_accuracy", "balanced test accuracy", margin=0.03, diverged=1 / 15)
    gap = probe_metric("logit_gap_running", "distance of logits, running to batch statistics", larger_is_better=False)
    small_rate = {"lr": 0.005}  # two images a step
    small = {name: small_rate | ARMS[name] for name in FEW if "rate" not in name}
    small["no norm, fifth of the rate"] = {"lr": 0.001}
    shifted = {name: ARMS[name] for name in SHIFTED}
    shifted["batch, of the test batch"] = BATCH | {"eval_statistics": "batch"}

    sizes = {
        f"{norm}, {number}": {"batch_size": number, "lr": lr, "epochs": epochs, "norm": norm}
        for number, (lr, epochs) in SIZES_OF_BATCH.items()
        for norm in ("none", "batch", "group")
    }

    def answer(evidence: Mapping) -> str:
        usual, two, dark, kin = (evidence[name] for name in ("usual", "two", "shift", "kin"))
        found = {32: usual.difference_text("batch"), 2: two.difference_text("batch")}
        for number in SIZES_OF_BATCH:
            if (of := evidence.get(f"size {number}")) is not None:
                found[number] = of.difference_text(f"batch, {number}")
        ends = [f"{found[number]} with {number}" for number in (32, 2)]
        between = "; ".join(f"{found[number]} with {number}" for number in sorted(found) if number not in (2, 32))
        good = [name for name, row in kin.rows.items() if row.verdict in ("better", "equivalent")]
        bad = [name for name, row in kin.rows.items() if row.verdict == "worse"]

        def apart_by(name: str, number: int) -> str:
            if name not in evidence:
                return ""
            level = evidence[name].mean_text("batch")
            return f"Running and batch statistics put the logits of one network {level} apart with {number}. "

        behind = {k: f"batch, layer {k} only" for k in (1, 2, 3) if f"batch, layer {k} only" in usual.rows}
        alone = "Behind one convolution alone it changes the accuracy by " * bool(behind)
        alone += "; ".join(
            f"{usual.difference_text(label)} (the {NTH[k]})" for k, label in behind.items()
        ) + ". " * bool(behind)
        return (
            f"Batch norm changes the accuracy by {ends[0]} images a batch, and by {ends[1]}.\n"
            + f"By {between}. " * bool(between)
            + f"With two, group norm changes it by {two.difference_text('group')}. "
            f"With 32, as good as batch norm or better: {join_names(good)}; worse: "
            f"{join_names(bad)}. "
            + apart_by("gap", 32)
            + apart_by("gap_two", 2)
            + alone
            + f"On darkened test photographs batch norm makes a difference of {dark.difference_text('batch')}."
        )

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        titles = {"usual": "batches of 32", "two": "batches of 2", "kin": "against batch norm, batches of 32"}
        titles |= {f"size {number}": f"batches of {number}" for number in SIZES_OF_BATCH}
        titles["shift"] = "darkened test images"
        return [forest_panel(evidence[name], title) for name, title in titles.items() if name in evidence]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        found = []
        for name, title in (("batch 32", "batches of 32"), ("batch 2", "batches of 2")):
            normed = [label for label in trials[name].labels if label.startswith("batch")]
            for figure, unit in (("logit_gap_running", "distance of logits"), ("loss_running", "loss, running")):
                found.append(steps_panel(trials[name], figure, title, unit, normed))
        return [panel for panel in found if panel]

    return Question(
        name="batch_norm",
        about=__doc__,
        title="Batch norm that hurts",
        question="When does batch norm make a network worse, and what does as well without its fault?",
        plans=(
            Plan("batch 32", BASE, ARMS, seeds=10,
                 sizes={"smoke": SMOKE, "quick": {"seeds": 3, "epochs": 3, "arms": list(FEW)}}),
            Plan("batch 2", replace(BASE, batch_size=2, epochs=4, probe_every=600), small, seeds=10,
                 sizes={"smoke": SMOKE, "quick": {"seeds": 3, "epochs": 1, "arms": ["no norm", "batch", "group"]}}),
            Plan("sizes", BASE, sizes, seeds=10,
                 sizes={"smoke": SMOKE | {"arms": ["none, 4", "batch, 4"]},
                        "quick": {"seeds": 3, "epochs": 2, "arms": ["none, 8", "batch, 8", "group, 8"]}}),
            Plan("shift", replace(BASE, task="reef?shift=brightness:-0.25"), shifted, seeds=10,
                 sizes={"smoke": SMOKE, "quick": {"seeds": 3, "epochs": 3}}),
        ),
        contrasts=(
            Contrast("usual", "Accuracy with batches of 32", "batch 32", accuracy),
            Contrast("two", "Accuracy with batches of 2", "batch 2", accuracy),
            Contrast("two_group", "Batches of 2: against group norm", "batch 2", accuracy, control="group",
                     arms=("batch",)),
            Contrast("kin", "Batches of 32: against batch norm", "batch 32", accuracy, control="batch", arms=KIN),
            *(Contrast(f"size {number}", f"Accuracy with batches of {number}", "sizes", accuracy,
                       control=f"none, {number}", arms=(f"batch, {number}", f"group, {number}"))
              for number in SIZES_OF_BATCH),
            Contrast("shift", "Accuracy on darkened test photographs", "shift", accuracy),
            Contrast("shift_batch", "Darkened test photographs: against running statistics", "shift", accuracy,
                     control="batch", arms=("batch, of the test batch",)),
            Contrast("gap", "Running against batch statistics, batches of 32", "batch 32", gap, control="batch",
                     arms=("batch, ghost of 8", "batch, precise")),
            Contrast("gap_two", "Running against batch statistics, batches of 2", "batch 2", gap, control="batch",
                     arms=("batch, precise",)),
        ),
        answer=answer,
        evidence=Figure("Accuracy against the network without norm", panels, "Balanced test accuracy.", columns=3),
        mechanism=Figure(
            "What running statistics do to the same network",
            mechanism,
            "Root mean square distance between the logits with running and with batch statistics, and the loss with "
            "running ones, on training images after each epoch.",
        ),
        claims=(
            Claim("Batch norm improves generalisation", "Ioffe and Szegedy 2015", "usual", {"batch": "better"}),
            Claim("Batch norm hurts with small batches", "Wu and He 2018", "two", {"batch": "worse"}),
            Claim("Group norm is better than batch norm with small batches", "Wu and He 2018", "two_group",
                  {"batch": "worse"}),
            Claim("Batch norm belongs behind every convolution, not behind one of them", "folklore", "kin",
                  {f"batch, layer {k} only": "worse" for k in NTH}),
            Claim("Batch norm works as well after the activation", "Mishkin et al. 2017", "kin",
                  {"batch, after activation": "not worse"}),
            Claim("Statistics of ghost batches generalise better than those of the whole batch", "Hoffer et al. 2017",
                  "kin", {"batch, ghost of 8": "better"}),
            Claim("Normalised weights do what batch norm does", "Salimans and Kingma 2016", "kin",
                  {"weight": "not worse"}),
            Claim("Without norm a lower rate is enough", "folklore", "kin",
                  {"no norm, fifth of the rate": "not worse"}),
            Claim("Statistics of the test batch mend a shift between training and test", "Nado et al. 2020",
                  "shift_batch", {"batch, of the test batch": "better"}),
        ),
        limits=(
            "Three convolutions; batch norm's part may be larger in deeper networks.",
            "One rate for all arms of a sweep and batch size, and as many epochs, not steps, for batches of 2 to 8.",
            "Between batch sizes the rate and the number of epochs change too. Where norms without batch statistics "
            "(layer, group) lose to no norm as well, not all that batch norm loses is due to these.",
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(question))
