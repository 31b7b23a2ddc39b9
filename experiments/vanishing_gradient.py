"""Vanishing and exploding gradients: which networks have them, as theory says, and what restores the early layers?

    python -m experiments.vanishing_gradient
    python -m experiments.vanishing_gradient --quick

Question. In a deep network the gradient is a product of one factor a layer. Where the factors stay below 1 the first
layers hardly learn, where they stay above 1 training blows up. Which of activation, initialiser, norm, optimizer and
skip connection mends it, at the same number of steps? And does a network that fits its training images but not new ones
show vanishing gradients at all?

Hypothesis. The length of each layer's first gradient follows mean-field theory; a network learns where the ratio of
first to last is near 1, and what brings the ratio there brings the accuracy. Clipping mends a gradient that explodes,
but not a forward pass that overflows. Overfitting has nothing to do with it.

Arms. `depth`: a perceptron of 10 hidden layers of 64 units on digits: sigmoid units, and single changes. `skip`: a
convolutional network of 26 layers on reef fish, with and without skip connections and norm. `explode`: the perceptron
with weights that are too large, with and without clipping. `overfit`: a network that learns a fifth of the fish
photographs by heart.

Refuted if: the measured profile is not the predicted one; an arm with a vanishing ratio learns as well as one without;
the overfitted network's ratio is as small as that of the deep sigmoid network.

Cost. 26 arms, 10 seeds each (skip: 9).
"""

import sys
from collections.abc import Mapping, Sequence

from experiments._plan import Plan
from experiments._question import Figure, Question, listed, main
from fishnet.sweep.recipe import Recipe

DEPTH, WIDTH = 10, 64
PROBED = ("gradients", "activations", "first_bad")
DEEP = Recipe(
    task="mnist-mini",
    model="mlp",
    widths=(WIDTH,),
    depth=DEPTH,
    norm="none",
    activation="sigmoid",
    init="glorot_normal",
    epochs=10,
    batch_size=64,
    probes=PROBED,
    probe_every=20,
)
ARMS = {
    "sigmoid": {},
    "sigmoid, he": {"init": "he_normal"},
    "sigmoid, gain 4": {"init_gain": 4.0},
    "sigmoid, lsuv": {"init": "lsuv"},
    "sigmoid, batch norm": {"norm": "batch"},
    "sigmoid, layer norm": {"norm": "layer"},
    "sigmoid, adam": {"optimizer": "adam"},
    "tanh": {"activation": "tanh"},
    "relu, glorot": {"activation": "relu"},
    "relu, he": {"activation": "relu", "init": "he_normal"},
    "leaky_relu, he": {"activation": "leaky_relu", "init": "he_normal"},
    "elu, he": {"activation": "elu", "init": "he_normal"},
    "selu, lecun": {"activation": "selu", "init": "lecun_normal"},
}
PLAIN = ("sigmoid", "sigmoid, gain 4", "tanh", "relu, he", "selu, lecun")
NORMED = ("sigmoid", "sigmoid, batch norm", "sigmoid, layer norm")
# fan-in times the variance of a weight, in layers of equal width, and what the theory is asked about.
VARIANCES = {"glorot_normal": 1.0, "lecun_normal": 1.0, "he_normal": 2.0}
SKIP = Recipe(
    task="reef",
    model="resnet",
    widths=(8, 16, 32),
    depth=4,
    norm="none",
    shortcut="none",
    batch_size=64,
    epochs=6,
    probes=PROBED,
    probe_every=12,
)
LARGE = Recipe(
    task="mnist-mini",
    model="mlp",
    widths=(WIDTH,),
    depth=DEPTH,
    norm="none",
    activation="relu",
    init="he_normal",
    init_gain=3.0,
    epochs=10,
    batch_size=64,
    probes=PROBED,
    probe_every=20,
)
HEART = Recipe(
    task="reef?train=0.2",
    model="cnn",
    widths=(16, 32, 64),
    norm="none",
    augment="none",
    batch_size=32,
    epochs=40,
    probes=PROBED,
    probe_every=14,
)


def theory(fields: Mapping[str, object], depth: int):
    """What mean-field theory says of the sizes of the kernels' gradients, [layer], the last hidden one's being 1."""
    from fishnet.nn.activations import ACTIVATIONS
    from fishnet.probes.mean_field import gradient_profile, mean_field

    init = str(fields.get("init", DEEP.init))
    gain = float(fields.get("init_gain", 1.0))
    activation = ACTIVATIONS[str(fields.get("activation", DEEP.activation))]
    return gradient_profile(mean_field(activation, VARIANCES[init] * gain**2, depth))


def question() -> Question:
    """See the module."""
    from fishnet.report.answer_figures import forest, layers_panel, steps_panel
    from fishnet.report.evidence import Claim, Contrast, at_end, column, probed

    digits = column("test_accuracy", "test accuracy", margin=0.02, diverged=0.1)
    fish = column("test_balanced_accuracy", "balanced test accuracy", margin=0.03, diverged=1 / 15)
    ratio = probed("gradient_ratio", "first over last layer's gradient, at the start", when="first", digits=4)
    fitted = at_end("train_accuracy", "training accuracy at the end", diverged=1 / 15)

    def answer(evidence: Mapping) -> str:
        found = evidence["depth"].rows
        cured = [name for name, row in found.items() if row.verdict == "better"]
        start = evidence["ratio"].rows
        worst = min(start.values(), key=lambda row: row.mean)
        heart = next(iter(evidence["heart"].rows.values()))
        text = (
            f"With {DEPTH} layers of sigmoid units the first layer's gradient is {start['sigmoid'].mean:.1g} times the "
            f"last one's, and the network ends at {found['sigmoid'].mean:.2f} test accuracy (smallest ratio: "
            f"{worst.arm}, {worst.mean:.1g}). "
        )
        text += f"Better: {listed(cured)}." if cured else "Nothing that was tried is better for certain."
        return text + (
            f" A network that learns its training images by heart has a ratio of {heart.mean:.2g}: "
            "overfitting is no vanishing gradient."
            if heart.mean > 0.05
            else f" A network that learns its training images by heart has a ratio of {heart.mean:.2g} as well."
        )

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        return [
            forest(evidence["depth"], f"{DEPTH} layers on digits"),
            forest(evidence["skip"], "26 layers on fish"),
            forest(evidence["explode"], "weights three times too large"),
        ]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        trial = trials["depth"]
        depth = int(trial.looks[0].results.sweep["recipe"]["depth"])
        expected = {
            label: theory(ARMS[label], depth) * last_gradient(trial, label)
            for label in trial.labels
            if set(ARMS[label]) <= {"activation", "init", "init_gain"} and ARMS[label].get("init") != "lsuv"
        }
        some = [label for label in PLAIN if label in trial.labels]
        normed = [label for label in NORMED if label in trial.labels]
        found = [
            layers_panel(trial, "gradient_rms", "before the first step", "gradient, rms", some,
                         expected=expected, only="dense"),
            layers_panel(trial, "gradient_rms", "with norms", "gradient, rms", normed, only="dense"),
            layers_panel(trials["skip"], "gradient_rms", "26 layers on fish", "gradient, rms", only="conv"),
            steps_panel(trials["overfit"], "gradient_ratio", "learned by heart", "first over last layer's gradient"),
        ]  # fmt: skip
        return [panel for panel in found if panel]

    quick = ["sigmoid", "sigmoid, gain 4", "sigmoid, batch norm", "tanh", "relu, he", "selu, lecun"]
    small = {"task": "synthetic", "widths": (8,), "depth": 2, "epochs": 1, "seeds": 2, "arms": quick[:3]}
    fish_small = {"task": "synthetic", "widths": (8,), "depth": 1, "epochs": 1, "seeds": 2}
    return Question(
        name="vanishing_gradient",
        about=__doc__,
        title="Vanishing and exploding gradients",
        question="Which deep networks cannot train their first layers, and what mends it?",
        plans=(
            Plan(
                "depth",
                DEEP,
                ARMS,
                seeds=10,
                sizes={"smoke": small, "quick": {"seeds": 3, "arms": quick, "epochs": 5}},
            ),
            Plan(
                "skip",
                SKIP,
                {
                    "plain": {},
                    "skip": {"shortcut": "identity"},
                    "batch norm": {"norm": "batch"},
                    "skip, batch norm": {"shortcut": "identity", "norm": "batch"},
                },
                seeds=9,
                sizes={"smoke": fish_small, "quick": {"seeds": 3, "epochs": 2}},
            ),
            Plan(
                "explode",
                LARGE,
                {
                    "large weights": {},
                    "clipped by norm": {"clip": 1.0},
                    "clipped by value": {"clip": 0.01, "clip_by": "value"},
                    "batch norm": {"norm": "batch"},
                    "a hundredth of the rate": {"lr": 5e-4},
                    "overflow": {"init_gain": 1e5},
                    "overflow, clipped": {"init_gain": 1e5, "clip": 1.0},
                },
                seeds=10,
                sizes={"smoke": {k: v for k, v in small.items() if k != "arms"}, "quick": {"seeds": 3, "epochs": 5}},
            ),
            Plan(
                "overfit",
                HEART,
                {"by heart": {}, "augmented": {"augment": "flip_shift"}},
                seeds=10,
                sizes={
                    "smoke": {"task": "synthetic", "widths": (8,), "epochs": 1, "seeds": 2},
                    "quick": {"seeds": 3, "epochs": 20},
                },
            ),
        ),
        contrasts=(
            Contrast("depth", f"Accuracy of {DEPTH} layers on digits", "depth", digits),
            Contrast("ratio", "Where the gradient starts", "depth", ratio),
            Contrast("skip", "Accuracy of 26 layers on fish", "skip", fish),
            Contrast("explode", "Accuracy with weights that are too large", "explode", digits),
            Contrast("heart", "The gradient of a network that overfits", "overfit", ratio),
            Contrast("fitted", "Training accuracy of the network that overfits", "overfit", fitted),
        ),
        answer=answer,
        evidence=Figure("Accuracy against the network with the problem", panels, "At the same number of steps."),
        mechanism=Figure(
            "Size of the gradient, layer by layer",
            mechanism,
            "Root mean square (rms) over the weights of a layer, means over seeds before the first step; crosses: "
            "mean-field theory, scaled to the last layer. Last: the ratio while images are learned by heart.",
        ),
        claims=(
            Claim("Deep sigmoid networks do not train", "Glorot and Bengio 2010", "depth", {"relu, he": "better"}),
            Claim("He initialisation prevents vanishing gradients with ReLU", "He et al. 2015", "ratio",
                  {"relu, he": "better"}),
            Claim("Batch norm lets deep sigmoid networks train", "Ioffe and Szegedy 2015", "depth",
                  {"sigmoid, batch norm": "better"}),
            Claim("A sigmoid network trains if its weights are scaled to keep the gradient", "Mishkin and Matas 2016",
                  "depth", {"sigmoid, gain 4": "better"}),
            Claim("Adam overcomes vanishing gradients, as it rescales each parameter's step", "folklore", "depth",
                  {"sigmoid, adam": "better"}),
            Claim("Self-normalising networks train at depth without norms", "Klambauer et al. 2017", "depth",
                  {"selu, lecun": "better"}),
            Claim("Skip connections make deep networks trainable", "He et al. 2016", "skip", {"skip": "better"}),
            Claim("Clipping by norm cures exploding gradients", "Pascanu et al. 2013", "explode",
                  {"clipped by norm": "better"}),
            Claim("Clipping by value cures exploding gradients", "Goodfellow et al. 2016, section 10.11.1", "explode",
                  {"clipped by value": "better"}),
            Claim("Clipping cures a forward pass that overflows", "folklore", "explode",
                  {"overflow, clipped": "better"}),
        ),
        limits=(
            "Perceptrons of one width and depth; the theory is for infinite width.",
            "One learning rate for all arms of a sweep, so that an arm may be better at another.",
        ),
    )  # fmt: skip


def last_gradient(trial, label: str) -> float:
    """Root mean square of the last hidden kernel's first gradient, geometric mean over seeds; NaN if unknown."""
    import numpy as np

    look = trial.looks[0]
    table = look.results.probes
    mine = table[(table["probe"] == "gradient_rms") & table["run"].isin(look.runs(label)) & (table["step"] == 0)]
    names = [name for name in dict.fromkeys(mine["layer"]) if str(name).startswith("dense_")]
    if not names:
        return float("nan")
    return float(np.exp(np.log(mine[mine["layer"] == names[-1]]["value"].astype(float)).mean()))


if __name__ == "__main__":
    sys.exit(main(question))
