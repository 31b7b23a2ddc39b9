"""How many seconds to 99 and to 99.5 % on MNIST, as the mean of eight seeds, and what makes it fast?

    python -m experiments.mnist_speed --data-dir FOLDER
    python -m experiments.mnist_speed --quick
    python -m experiments.mnist_speed --smoke          # on mnist-mini, without the files of MNIST

Question. Accuracy after a long training says nothing of speed, and one lucky run says nothing of either. How many
seconds does a network train until the mean test accuracy of eight seeds is above 99.0 and 99.5 %, and which of batch
norm, one cycle, Adam, shifted images, larger batches and a wider network shortens that?

Hypothesis. At a fixed short length, what lets a high rate be used and then falls (batch norm, one cycle) decides;
shifted images cost accuracy in a short run and bring it in a long one, so that 99.5 % needs them and 99.0 % does not.

Arms. `short`: a small convolutional network with batch norm and one cycle for one, two and three epochs, and single
changes to the run of two epochs. `long`: lengths at which 99.5 % comes into reach, with and without shifted images.
A length is a schedule of its own: a run is not stopped when it happens to pass.

Refuted if: the run of two epochs is as good without batch norm or at a constant rate; shifted images help at two epochs
or do not help at the long length.

Cost. 12 arms, 8 seeds each, on the 55,000 training images of MNIST, which are fetched where they are not found.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from experiments._plan import Plan
from experiments._question import Figure, Question, listed, main
from fishnet.sweep.recipe import Recipe
from fishnet.sweep.wording import counted

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
LONG = replace(SHORT, widths=(8, 32, 64), augment="shift")
CONTROL = "2 epochs"
ARMS: Mapping[str, Mapping[str, object]] = {
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
CHANGES = tuple(label for label in ARMS if label not in (CONTROL, *LENGTHS))
FAR: Mapping[str, Mapping[str, object]] = {
    "8 epochs": {"epochs": 8},
    "4 epochs": {"epochs": 4},
    "8 epochs, not shifted": {"epochs": 8, "augment": "none"},
}


def question() -> Question:
    """See the module."""
    from fishnet.report.answer_figures import curves_panel, forest
    from fishnet.report.claims import Claim
    from fishnet.report.evidence import Contrast, column
    from fishnet.report.number_figures import trade_panel

    accuracy = column("test_accuracy", "test accuracy", margin=0.001, diverged=0.1, digits=4)
    seconds = column("train_seconds", "seconds of training a run", larger_is_better=False, digits=1)

    def answer(evidence: Mapping) -> str:
        found = {
            label: (row.mean, evidence[f"{name}_seconds"].row(label).mean, row.n)
            for name in ("short", "lengths", "long")
            for label, row in evidence[name].rows.items()
        }
        headline, *sentences = [fastest(found, level) for level in LEVELS]
        best = max(found, key=lambda label: found[label][0])
        of = next(evidence[name] for name in ("short", "lengths", "long") if best in evidence[name].rows)
        sentences.append(f"The highest mean is {of.level(best)}: {best}.")
        rows = evidence["short"].rows
        helped, hurt = ([name for name, row in rows.items() if row.verdict == word] for word in ("better", "worse"))
        sentences.append(f"Against two epochs as they are: better {listed(helped)}; worse {listed(hurt)}.")
        return f"{headline}\n{' '.join(sentences)}"

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        titles = {"short": "short runs", "lengths": "lengths", "long": "long runs"}
        return [forest(evidence[name], title) for name, title in titles.items() if name in evidence]

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
                 sizes={"smoke": {"task": "synthetic", "seeds": 2, "arms": ["8 epochs", "4 epochs"]},
                        "quick": {"seeds": 1, "arms": ["4 epochs"]}}),
        ),
        contrasts=(
            Contrast("short", "Short runs: test accuracy", "short", accuracy, arms=CHANGES),
            Contrast("short_seconds", "Short runs: seconds", "short", seconds, arms=CHANGES),
            Contrast("lengths", "Lengths: test accuracy", "short", accuracy, arms=LENGTHS),
            Contrast("lengths_seconds", "Lengths: seconds", "short", seconds, arms=LENGTHS),
            Contrast("long", "Long runs: test accuracy", "long", accuracy),
            Contrast("long_seconds", "Long runs: seconds", "long", seconds),
        ),
        answer=answer,
        evidence=Figure("Test accuracy", panels, "Mean of eight seeds, at the epoch that validation chose."),
        mechanism=Figure(
            "What a second buys", mechanism, "Test accuracy against seconds of training; dotted: 99.0 and 99.5 %."
        ),
        claims=(
            Claim("Batch norm speeds up training", "Ioffe and Szegedy 2015", "short", {"no norm": "worse"}),
            Claim("One cycle trains faster than a constant rate (super-convergence)", "Smith and Topin 2018", "short",
                  {"constant rate": "worse"}),
            Claim("Adam trains faster than momentum", "Kingma and Ba 2015", "short", {"adam": "better"}),
            Claim("Augmentation improves accuracy, also in short runs", "folklore", "short",
                  {"shifted images": "better"}),
            Claim("Augmentation improves accuracy, given time", "Simard et al. 2003", "long",
                  {"8 epochs, not shifted": "worse"}),
            Claim("Larger batches with a larger rate lose nothing", "Goyal et al. 2017", "short",
                  {"batches of 256": "equivalent"}),
        ),
        limits=(
            "Seconds are of this machine, as in the line `device`: of training and validation, without compilation, "
            "and a run's share of the time in which all train side by side.",
            "Lengths are whole epochs and few; the fastest of them that passes is an upper bound.",
            "Rates were set by hand for the network with batch norm, not tuned for each arm.",
        ),
    )  # fmt: skip


def fastest(found: Mapping[str, tuple[float, float, int]], level: float) -> str:
    """Which arm passes a level soonest, in a sentence.

    Args:
        found: label -> mean accuracy, mean seconds a run and number of seeds.
        level: that the mean must be above.
    """
    passing = {label: of for label, of in found.items() if of[0] > level}
    if not passing:
        label, (accuracy, _, _) = max(found.items(), key=lambda item: item[1][0])
        return f"No arm has a mean above {level:.1%}: {label} comes to {accuracy:.2%}."
    label, (accuracy, seconds, seeds) = min(passing.items(), key=lambda item: item[1][1])
    return (
        f"The mean of {counted(seeds, 'seed')} is above {level:.1%} after {seconds:.0f} s a run "
        f"({seconds * seeds:.0f} s for all of them one after the other): {label}, {accuracy:.2%}."
    )


if __name__ == "__main__":
    sys.exit(main(question))
