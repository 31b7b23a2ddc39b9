"""Vanishing and exploding gradients: which networks have them, as theory says, and what restores the early layers?

    python -m experiments.vanishing_gradient
    python -m experiments.vanishing_gradient --quick

Question. In a deep network the gradient is a product of one factor a layer. Where the factors stay below 1 the first
layers hardly learn, where they stay above 1 training blows up. Which of activation, initializer, norm, optimizer and
skip connection fixes it, at the same number of steps? And does a network that fits its training images but not new ones
show vanishing gradients at all?

Hypothesis. The length of each layer's first gradient follows mean-field theory; a network learns where the ratio of
first to last is near 1, and what brings the ratio there brings the accuracy. Clipping fixes a gradient that explodes,
but not a forward pass that overflows. Overfitting has nothing to do with it.

Arms. `depth`: a perceptron of 10 hidden layers of 64 units on digits: sigmoid units, and single changes, each at the
best of four rates, found with other seeds by `tune`. `depths`: 3, 10 and 20 layers. `skip`: a convolutional network of
26 layers (with --quick 14, at half the resolution) on reef fish, with and without skip connections and norm. `explode`:
the perceptron with weights that are too large, or a rate that is, with and without clipping. `overfit`: a network that
memorizes a fifth of the fish photographs.

Refuted if: the measured profile is not the predicted one; an arm with a vanishing ratio learns as well as one without;
the overfitted network's ratio is as small as that of the deep sigmoid network.

Cost. 42 arms, 10 seeds each (skip: 9), and 13 at four rates with 2 seeds to tune.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fishnet.study.failures import first_bad
from fishnet.study.mean_field import distance_to_theory, has_theory, last_gradient, predict_profile
from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, main
from fishnet.study.tuning import label_at, set_tuned_rates, tuning_plan, warn_of_grid_ends
from fishnet.sweep.spec.recipe import Recipe

if TYPE_CHECKING:
    from fishnet.study.trials import Trial

DEPTH, WIDTH = 10, 64
PROBED = ("gradients", "activations", "first_bad")
SHOWN = ("gradients", "first_bad")  # what the page tells of
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
GRID = (0.003, 0.01, 0.03, 0.1)
RATES = {name: tuple(rate / 10 for rate in GRID) if "adam" in name else GRID for name in ARMS}
# Numbers of layers besides the usual one; at a rate at which all of them train.
DEPTHS, SHALLOW_RATE = (3, 20), 0.01
OF_DEPTHS = ("sigmoid", "tanh", "relu, he", "selu, lecun")
PLAIN = ("sigmoid", "sigmoid, gain 4", "tanh", "relu, he", "selu, lecun")
NORMED = ("sigmoid", "sigmoid, batch norm", "sigmoid, layer norm")
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


HIGH: dict[str, object] = {"init_gain": 1.0, "lr": 0.5}  # weights as they should be, ten times the usual rate


def select_depths() -> dict[str, dict[str, Any]]:
    """Some of the networks with fewer and more layers."""
    return {
        depth_label(name, depth): {**ARMS[name], "depth": depth, "lr": SHALLOW_RATE}
        for depth in (DEPTH, *DEPTHS)
        for name in OF_DEPTHS
    }


def depth_label(name: str, depth: int) -> str:
    """Label of a network with `depth` layers."""
    return f"{name}, {depth} layers"


def fish_label(trial: "Trial") -> str:
    """`26 layers on fish`: two convolutions a block, the stem and the head."""
    recipe = trial.looks[0].results.sweep["recipe"]
    return f"{2 * int(recipe['depth']) * len(recipe['widths']) + 2} layers on fish"


def question() -> Question:
    """See the module."""
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast
    from fishnet.study.derived_metrics import layer_ratio_metric, log10_metric
    from fishnet.study.figures.answers import forest_panel, layers_panel, steps_panel
    from fishnet.study.figures.numbers import numbers_panel
    from fishnet.study.metrics import Metric, column_metric, final_metric, probe_metric

    def trains(text: str, source: str, arm: str) -> Claim:
        """Better than the sigmoid network that does not train, and no worse than the relu network that does."""
        return Claim(text, source, "depth", {arm: "better"}, also={"relu": {arm: "not worse"}})

    digits = column_metric("test_accuracy", "test accuracy", margin=0.01, diverged=0.1)
    fish = column_metric("test_balanced_accuracy", "balanced test accuracy", margin=0.03, diverged=1 / 15)
    ratio = probe_metric("gradient_ratio", "first over last layer's gradient, at the start", when="first", digits=6)
    start = log10_metric(ratio, "log10 of the first over the last layer's gradient, at the start", digits=2)
    later = probe_metric("gradient_ratio", "first over last layer's gradient, at the end", digits=3)
    uneven = layer_ratio_metric(
        "gradient_rms",
        gradient_ratio_by_weight,
        "decades from the first to the last hidden layer",
        larger_is_better=False,
        margin=0.3,
        digits=2,
    )
    reached = layer_ratio_metric(
        "gradient_rms",
        first_gradient,
        "log10 of the first layer's gradient (rms)",
        margin=0.1,
        digits=2,
        magnitude=False,
    )
    apart = Metric("decades from mean-field theory, worst layer", distance_to_theory(DEEP), larger_is_better=False,
                    margin=0.3, digits=2)  # fmt: skip
    fitted = final_metric("train_accuracy", "training accuracy at the end", diverged=1 / 15)
    fresh = final_metric("val_accuracy", "validation accuracy at the end", diverged=1 / 15)

    def tuned(trials: Mapping) -> dict[str, dict[str, Any]]:
        return set_tuned_rates(ARMS, RATES, trials["tune"])

    def answer(evidence: Mapping) -> str:
        found = evidence["depth"].rows
        ratios = {label: 10**row.mean for label, row in evidence["ratio"].rows.items()}  # geometric means
        worst = min(ratios, key=ratios.__getitem__)
        cured = [f"{name} ({row.mean:.2f})" for name, row in found.items() if row.verdict == "better"]
        best = evidence["depth"].best_arm()
        text = (
            f"With {DEPTH} layers of sigmoid units the first layer's gradient is {ratios['sigmoid']:.1g} times the "
            f"last one's, and the network ends at {evidence['depth'].mean_text('sigmoid')} test accuracy; "
            f"most of what is lost is restored by {best} ({evidence['depth'].difference_text(best)}).\n"
            f"The smallest ratio: {worst}, {ratios[worst]:.1g}. "
        )
        off = evidence["theory"].rows
        least, most = (choose(off.values(), key=lambda row: row.mean) for choose in (min, max))
        text += (
            f"Before the first step the gradients of the hidden layers are {least.mean:.2f} ({least.arm}) to "
            f"{most.mean:.2f} decades ({most.arm}) away from mean-field theory in the worst layer. "
        )
        text += f"Better: {join_names(cured)}." if cured else "Nothing that was tried is better for certain."
        if "skip_normed" in evidence:
            text += " Skip connections change the accuracy of the convolutional network by "
            text += f"{evidence['skip'].difference_text('skip')}, with batch norm in both by "
            text += f"{evidence['skip_normed'].difference_text('skip, batch norm')}."
        trained, validated, later = (
            next(iter(evidence[name].rows.values())).mean for name in ("fitted", "fresh", "later")
        )
        return (
            f"{text} A network that reaches {trained:.0%} on its training and {validated:.0%} on validation images "
            f"ends with a ratio of {later:.2g}{describe_memorizing(trained, validated, later, ratios['sigmoid'])}."
        )

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        return [
            forest_panel(evidence["depth"], f"{DEPTH} layers on digits"),
            forest_panel(evidence["skip"], fish_label(trials["skip"])),
            forest_panel(evidence["explode"], "weights three times too large"),
            forest_panel(evidence["fast"], "a rate ten times too high"),
        ]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        trial = trials["depth"]
        depth = int(trial.looks[0].results.sweep["recipe"]["depth"])
        expected = {
            label: predict_profile(ARMS[label], DEEP, depth) * last_gradient(trial, label)
            for label in trial.labels
            if has_theory(ARMS[label], DEEP)
        }
        some = [label for label in PLAIN if label in trial.labels]
        normed = [label for label in NORMED if label in trial.labels]
        ratios = trials["depths"].by_seed(ratio)
        lines: dict[str, dict[float, str]] = {
            name: {depth: depth_label(name, depth) for depth in (DEPTHS[0], DEPTH, DEPTHS[1])} for name in OF_DEPTHS
        }
        found = [
            layers_panel(trial, "gradient_rms", "before the first step", "gradient, rms", some,
                         expected=expected, only="dense"),
            layers_panel(trial, "gradient_rms", "with norms", "gradient, rms", normed, only="dense"),
            numbers_panel(ratios, ratio, lines, "by depth", "hidden layers", logarithmic=False,
                          logarithmic_values=True),
            layers_panel(trials["skip"], "gradient_rms", fish_label(trials["skip"]), "gradient, rms", only="conv"),
            steps_panel(trials["overfit"], "gradient_ratio", "memorized", "first over last layer's gradient"),
        ]  # fmt: skip
        return [panel for panel in found if panel]

    def caption(trials: Mapping, evidence: Mapping) -> str:
        return (
            "Root mean square (rms) over the weights of a layer, means over seeds before the first step; crosses: "
            "mean-field theory, scaled to the last layer. Last: the ratio while images are memorized. What went "
            "non-finite first, with large weights, a high rate or on fish: "
            + ("; ".join(sentence for name in ("explode", "skip") for sentence in first_bad(trials[name])) or "nothing")
            + "."
        )

    quick = ["sigmoid", "sigmoid, gain 4", "sigmoid, batch norm", "tanh", "relu, he", "selu, lecun"]
    smallest = {"task": "synthetic", "widths": (8,), "depth": 2, "epochs": 1}
    small = smallest | {"seeds": 2, "arms": quick[:3]}
    fish_small = {"task": "synthetic", "widths": (8,), "depth": 1, "epochs": 1, "seeds": 2}
    return Question(
        name="vanishing_gradient",
        about=__doc__,
        title="Vanishing and exploding gradients",
        question="Which deep networks cannot train their first layers, and what fixes it?",
        plans=(
            tuning_plan(
                "tune",
                replace(DEEP, probes=(), probe_every=Recipe().probe_every),
                ARMS,
                RATES,
                {
                    "smoke": smallest | {"seeds": 2, "arms": [label_at(name, RATES[name][1]) for name in quick[:3]]},
                    "quick": {
                        "seeds": 1,
                        "epochs": 5,
                        "arms": [label_at(name, rate) for name in quick for rate in RATES[name][1:3]],
                    },
                },
            ),
            Plan(
                "depth",
                DEEP,
                tuned,
                seeds=10,
                sizes={"smoke": small, "quick": {"seeds": 3, "arms": quick, "epochs": 5, "probes": SHOWN}},
            ),
            Plan(
                "depths",
                DEEP,
                select_depths(),
                seeds=10,
                sizes={
                    "smoke": smallest | {"seeds": 2, "arms": [depth_label("sigmoid", 3), depth_label("tanh", 3)]},
                    "quick": {
                        "seeds": 3,
                        "epochs": 3,
                        "probes": SHOWN,
                        "arms": [depth_label(name, depth) for name in ("sigmoid", "relu, he") for depth in (3, DEPTH)],
                    },
                },
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
                sizes={
                    "smoke": fish_small,
                    "quick": {"seeds": 3, "epochs": 2, "depth": 2, "stem_stride": 2, "probes": SHOWN},
                },
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
                    "overflow, clipped by value": {"init_gain": 1e5, "clip": 0.01, "clip_by": "value"},
                    "high rate": HIGH,
                    "high rate, clipped by norm": HIGH | {"clip": 1.0},
                    "high rate, clipped by value": HIGH | {"clip": 0.01, "clip_by": "value"},
                },
                seeds=10,
                sizes={"smoke": smallest | {"seeds": 2}, "quick": {"seeds": 3, "epochs": 5, "probes": SHOWN}},
            ),
            Plan(
                "overfit",
                HEART,
                {"by heart": {}, "augmented": {"augment": "flip_shift"}},
                seeds=10,
                sizes={
                    "smoke": {"task": "synthetic", "widths": (8,), "epochs": 1, "seeds": 2},
                    "quick": {"seeds": 3, "epochs": 20, "probes": SHOWN},
                },
            ),
        ),
        contrasts=(
            Contrast("depth", f"Accuracy of {DEPTH} layers on digits", "depth", digits),
            Contrast("ratio", "Where the gradient starts", "depth", start),
            Contrast("uneven", "How uneven the first gradients are, layer to layer", "depth", uneven),
            Contrast("theory", "How far the first gradients are from mean-field theory", "depth", apart,
                     arms=tuple(label for label in ARMS if label != "sigmoid" and has_theory(ARMS[label], DEEP))),
            Contrast("reached", "What reaches the first layer, relu", "depth", reached, control="relu, glorot",
                     arms=("relu, he",)),
            Contrast("relu", "Accuracy against relu with he's initialization", "depth", digits, control="relu, he"),
            Contrast("skip", "Accuracy of the convolutional network on fish", "skip", fish),
            Contrast("skip_normed", "Skip connections where both have batch norm", "skip", fish, control="batch norm",
                     arms=("skip, batch norm",)),
            Contrast("explode", "Accuracy with weights that are too large", "explode", digits,
                     arms=("clipped by norm", "clipped by value", "batch norm", "a hundredth of the rate")),
            Contrast("cured", "Against batch norm, with weights that are too large", "explode", digits,
                     control="batch norm", arms=("clipped by norm", "clipped by value", "a hundredth of the rate")),
            Contrast("overflow", "Accuracy with weights at which the forward pass overflows", "explode", digits,
                     control="overflow", arms=("overflow, clipped", "overflow, clipped by value")),
            Contrast("fast", "Accuracy at a rate that is too high", "explode", digits, control="high rate",
                     arms=("high rate, clipped by norm", "high rate, clipped by value")),
            Contrast("fitted", "Training accuracy of the network that overfits", "overfit", fitted),
            Contrast("fresh", "Validation accuracy of the network that overfits", "overfit", fresh),
            Contrast("later", "The gradient of the network that overfits", "overfit", later),
        ),
        answer=answer,
        evidence=Figure("Accuracy against the network with the problem", panels, "At the same number of steps."),
        mechanism=Figure(
            "Size of the gradient, layer by layer",
            mechanism,
            caption,
        ),
        claims=(
            Claim("Deep networks of sigmoid units learn less than rectified ones", "Glorot and Bengio 2010", "depth",
                  {"relu, he": "better"}),
            Claim("He initialisation brings more of the gradient to the first layer of a deep ReLU network",
                  "He et al. 2015", "reached", {"relu, he": "better"}),
            Claim("Deep ReLU networks learn more from He than from Glorot initialisation", "He et al. 2015", "relu",
                  {"relu, glorot": "worse"}),
            trains("Batch norm lets deep sigmoid networks train", "Ioffe and Szegedy 2015", "sigmoid, batch norm"),
            trains("Layer norm lets deep sigmoid networks train", "folklore, after Ba et al. 2016",
                   "sigmoid, layer norm"),
            trains("A sigmoid network trains if its weights are scaled up", "folklore, after Schoenholz et al. 2017",
                   "sigmoid, gain 4"),
            trains("LSUV initialization lets deep sigmoid networks train", "folklore, after Mishkin and Matas 2016",
                   "sigmoid, lsuv"),
            trains("Adam overcomes vanishing gradients, as it rescales each parameter's step", "folklore",
                   "sigmoid, adam"),
            trains("Self-normalizing networks train at depth without norms", "Klambauer et al. 2017", "selu, lecun"),
            Claim("Skip connections make deep networks without norm trainable, at the rate that is usual with norms",
                  "folklore", "skip", {"skip": "better"}),
            Claim("Skip connections make deep networks with batch norm better", "He et al. 2016", "skip_normed",
                  {"skip, batch norm": "better"}),
            Claim("Clipping by norm helps where gradients explode", "Pascanu et al. 2013", "explode",
                  {"clipped by norm": "better"}),
            Claim("Clipping by value helps where gradients explode", "Goodfellow et al. 2016, section 10.11.1",
                  "explode", {"clipped by value": "better"}),
            Claim("Clipping cures exploding gradients: it is as good as what keeps them from exploding", "folklore",
                  "cured", {"clipped by norm": "not worse", "clipped by value": "not worse"}),
            Claim("Clipping helps at a rate that is too high", "Zhang et al. 2020", "fast",
                  {"high rate, clipped by norm": "better"}),
            Claim("Clipping cures a forward pass that overflows", "folklore", "overflow",
                  {"overflow, clipped": "better", "overflow, clipped by value": "better"}),
        ),
        limits=(
            "Perceptrons of one width and depth; the theory is for infinite width.",
            "Rates are tuned for 10 layers on digits only; elsewhere the arms of a sweep share one, and an arm may be "
            "better at another.",
            "Skip connections add to an unscaled branch: without norm the variance doubles at each of them. A lower "
            "rate than the usual one was not tried there.",
            "Gradients are clipped at one threshold each, norm 1 and value .01, which are not steps of equal length.",
        ),
        problems=lambda trials, evidence: warn_of_grid_ends(trials["tune"], list(ARMS), RATES),
    )  # fmt: skip


def describe_memorizing(trained: float, validated: float, ratio: float, vanishing: float) -> str:
    """Sentence on whether a memorizing network has a vanishing gradient.

    Args:
        trained: accuracy on training images.
        validated: on others.
        ratio: of the first to the last layer's gradient.
        vanishing: the same of the deep sigmoid network.
    """
    if trained < 0.95 or trained - validated < 0.1:
        return ": it does not memorize"
    return ": overfitting, no vanishing gradient" if ratio > 10 * vanishing else ": a vanishing gradient as well"


def first_gradient(sizes: Sequence[float]) -> float:
    """Gradient rms of the first layer."""
    return sizes[0]


def gradient_ratio_by_weight(sizes: Sequence[float]) -> float:
    """Ratio of gradient rms, first over last hidden layer, relative to the weights."""
    return sizes[0] / sizes[-2]


if __name__ == "__main__":
    sys.exit(main(question))
