"""How many seconds to 99 and to 99.5 % on MNIST, as the mean of eight seeds, and what makes it fast?

    python -m experiments.mnist_speed --data-dir FOLDER
    python -m experiments.mnist_speed --quick
    python -m experiments.mnist_speed --smoke          # on mnist-mini, without the files of MNIST

Question. Accuracy after a long training says nothing of speed, and one lucky run says nothing of either. How many
seconds does a network train until the mean test accuracy of eight seeds is above 99.0 and 99.5 %, and which of batch
norm, one cycle, Adam, shifted images, larger batches and a wider network shortens that?

Hypothesis. At a fixed short length, what lets a high rate be used and then falls (batch norm, one cycle) decides, and
shifted images cost accuracy. For 99.0 % a wider network and a few epochs are enough; 99.5 % takes a deeper one, shifted
images and several times as long.

Arms. `short`: a small convolutional network with batch norm and one cycle for one, two and three epochs, and single
changes to the run of two epochs. `long`: what was found on validation images of other runs: a wider network for 99.0 %;
for 99.5 % two convolutions before each pooling, shifted images and smoothed labels. A length is a schedule of its own:
a run is not stopped when it happens to pass.

Refuted if: the run of two epochs is as good without batch norm or at a constant rate; shifted images help at two
epochs; the wider network is not above 99.0 % or the deeper one not above 99.5 %.

Cost. 11 arms, 8 seeds each, on the 55,000 training images of MNIST, which are fetched where they are not found.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.sweep.spec.recipe import Recipe

if TYPE_CHECKING:
    from fishnet.stats import Comparison

LEVELS = (0.990, 0.995)
SHORT = Recipe(
    task="mnist",
    model="cnn",
    widths=(8, 16, 32),
    norm="batch",
    optimizer="momentum",
    lr=0.1,
    schedule="onecycle",
    batch_size=64,
    epochs=2,
)
LONG = replace(SHORT, widths=(8, 32, 64), depth=2, augment="shift", label_smoothing=0.1, epochs=10)
CONTROL = "2 epochs"
ARMS: dict[str, dict[str, Any]] = {
    CONTROL: {},
    "1 epoch": {"epochs": 1},
    "3 epochs": {"epochs": 3},
    "no norm": {"norm": "none"},
    "constant rate": {"schedule": "constant", "lr": 0.05},
    "adam": {"optimizer": "adam", "lr": 0.005},
    "shifted images": {"augment": "shift"},
    "batches of 256": {"batch_size": 256, "lr": 0.4},
    "wider": {"widths": (16, 32, 64)},
}
LENGTHS = ("1 epoch", "3 epochs")
APART = ("batches of 256", "wider")  # arms with programs of their own, and so with seconds of their own
CHANGES = tuple(label for label in ARMS if label not in (CONTROL, *LENGTHS))
DEEPER, WIDER = "deeper, 10 epochs", "wider, 3 epochs"
FAR: dict[str, dict[str, Any]] = {
    DEEPER: {},
    WIDER: {"widths": (16, 32, 64), "depth": 1, "augment": "none", "label_smoothing": 0.0, "epochs": 3},
}


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.figures.answers import curves_panel, forest_panel
    from fishnet.study.figures.numbers import trade_panel
    from fishnet.study.metrics import column_metric

    accuracy = column_metric("test_accuracy", "test accuracy", margin=0.001, diverged=0.1, digits=4)
    seconds = column_metric("train_seconds", "seconds of training a run", larger_is_better=False, digits=1)

    def answer(evidence: Mapping) -> str:
        shown = [name for name in ("short", "lengths", "long") if name in evidence]
        found = {}
        for name in shown:
            times = (
                evidence[f"{name}_seconds"].rows if f"{name}_seconds" in evidence else evidence["lengths_seconds"].rows
            )
            same = next(iter(times.values()))  # of what trains beside the control, as long as it
            found |= {label: (row, times.get(label, same)) for label, row in evidence[name].rows.items()}
        first, second = (describe_fastest(found, level) for level in LEVELS)
        headline, sentences = f"{first[:-1]}, and {second[0].lower()}{second[1:]}", []
        best = max(found, key=lambda label: found[label][0].mean)
        of = next(evidence[name] for name in shown if best in evidence[name].rows)
        sentences.append(f"The highest mean is {of.mean_text(best)}: {best}.")
        rows = evidence["short"].rows
        helped, hurt = ([name for name, row in rows.items() if row.verdict == word] for word in ("better", "worse"))
        sentences.append(f"Against two epochs as they are: better {join_names(helped)}; worse {join_names(hurt)}.")
        return f"{headline}\n{' '.join(sentences)}"

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        titles = {"short": "short runs", "lengths": "lengths", "long": "long runs"}
        return [forest_panel(evidence[name], title) for name, title in titles.items() if name in evidence]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        drawn = [trade_panel(trials[name], seconds, accuracy, f"{name} runs", LEVELS) for name in ("short", "long")]
        drawn.append(curves_panel(trials["short"], "val_accuracy", "short runs", "validation accuracy"))
        return [panel for panel in drawn if panel]

    smoke = {"task": "mnist-mini", "epochs": 1, "seeds": 2}
    return Question(
        name="mnist_speed",
        about=__doc__,
        title="Seconds to 99 % on MNIST",
        question="How many seconds to a mean test accuracy of 99.0 and 99.5 % on MNIST, and what makes it fast?",
        plans=(
            Plan("short", SHORT, ARMS, seeds=8,
                 sizes={"smoke": smoke | {"arms": [CONTROL, "no norm", "constant rate"]},
                        "quick": {"seeds": 4, "arms": [CONTROL, "1 epoch", "no norm"]}}),
            Plan("long", LONG, FAR, seeds=8,
                 sizes={"smoke": {"task": "synthetic", "widths": (8,), "epochs": 1, "seeds": 2, "arms": [DEEPER]},
                        "quick": {"seeds": 2, "arms": [WIDER]}}),
        ),
        contrasts=(
            Contrast("short", "Short runs: test accuracy", "short", accuracy, arms=CHANGES),
            Contrast("short_seconds", "Short runs: seconds", "short", seconds, arms=APART),
            Contrast("lengths", "Lengths: test accuracy", "short", accuracy, arms=LENGTHS),
            Contrast("lengths_seconds", "Lengths: seconds", "short", seconds, arms=LENGTHS),
            Contrast("long", "Long runs: test accuracy", "long", accuracy, control=DEEPER, arms=(WIDER,)),
            Contrast("long_seconds", "Long runs: seconds", "long", seconds, control=DEEPER, arms=(WIDER,)),
        ),
        answer=answer,
        evidence=Figure("Test accuracy", panels, "Means over seeds, at the epoch that validation chose."),
        mechanism=Figure(
            "What a second buys", mechanism, "Test accuracy against seconds of training; dotted: 99.0 and 99.5 %."
        ),
        claims=(
            Claim("With batch norm two epochs get further", "Ioffe and Szegedy 2015", "short", {"no norm": "worse"}),
            Claim("With one cycle two epochs get further than at a constant rate (super-convergence)",
                  "Smith and Topin 2018", "short", {"constant rate": "worse"}),
            Claim("With Adam two epochs get further than with momentum", "Kingma and Ba 2015", "short",
                  {"adam": "better"}),
            Claim("Augmentation improves accuracy, also in short runs", "folklore", "short",
                  {"shifted images": "better"}),
            Claim("Larger batches with a larger rate lose nothing", "Goyal et al. 2017", "short",
                  {"batches of 256": "not worse"}),
        ),
        limits=(
            "Seconds are of this machine, as in the line `device`: of training and validation, without compilation, "
            "and a run's share of the time in which all train side by side.",
            "Lengths are whole epochs and few; the fastest of them that passes is an upper bound.",
            "All runs of a program and length train side by side and have the same seconds: what a norm or an "
            "optimizer costs by itself is not measured here. Batches of 256 and the wider network are programs "
            "of their own.",
            "Rates were set by hand for the network with batch norm, not tuned for each arm.",
        ),
        problems=lambda trials, evidence: (
            [] if "long" in evidence else ["Of the long runs this size trains one arm: it is in the last figure alone."]
        ),
    )  # fmt: skip


def describe_fastest(found: Mapping[str, tuple["Comparison", "Comparison"]], level: float) -> str:
    """Sentence that names the arm that passes a level soonest.

    Args:
        found: label -> test accuracy and seconds of training.
        level: to be passed by the mean.
    """
    passed = [label for label, (accuracy, _) in found.items() if accuracy.mean > level]
    if not passed:
        best = max(found, key=lambda label: found[label][0].mean)
        return f"No arm has a mean above {level:.1%}: {best} comes to {percent_interval(found[best][0])}.".replace(
            "%", " %"
        )
    label = min(passed, key=lambda label: found[label][1].mean)
    accuracy, seconds = found[label]
    sentence = (
        f"The mean of {accuracy.n} seeds is above {level:.1%} after {seconds.mean:.0f} s a run ({label}: "
        f"{percent_interval(accuracy)}"
    )
    if not accuracy.interval.low > level:
        sentence += ", an interval that holds the level"
    return f"{sentence}); {accuracy.n * seconds.mean:.0f} s for all of them.".replace("%", " %")


def percent_interval(row: "Comparison") -> str:
    """`99.12% [99.05, 99.19]`."""
    return f"{row.mean:.2%} [{100 * row.interval.low:.2f}, {100 * row.interval.high:.2f}]"


if __name__ == "__main__":
    sys.exit(main(question))
