"""Main job: which activation with which norm? Every combination with several seeds, in one compiled program.

    python -m experiments.ablation
    python -m experiments.ablation --task mnist-mini --model mlp --axis init=he_normal,glorot_normal --epochs 4
    python -m experiments.ablation --task folder:/path/to/photos --axis optimizer=sgd,momentum,adam --seeds 5
    python -m experiments.ablation --full            # or --quick or --smoke: the question below, with verdicts

By default a small CNN learns 15 species of reef fish from real under-water photographs, with 4 activations, 4 norms and
3 seeds: 48 networks. Validation selects the epoch and ranks the arms; test metrics are reported at the selected epoch.
Stop it at any moment: the same command resumes. Once finished, it prints its table again.

Question (--full, --quick, --smoke). Each new activation and each new norm was published as better than the one before
it. Which of them are, in a small network with a short budget, on fish and on digits?

Hypothesis. Norms make a larger difference than activations; activations that are smooth at zero do not differ from relu
by more than the margin, saturating ones are worse; what is better on one task is not always better on the other.

Arms. A CNN of three convolutions. `fish` (reef) and `digits` (mnist-mini): every activation without norm, every norm
with relu, and the CNN, a ResNet and a depthwise-separable network of the same widths, each with batch norm.

Refuted if: activations differ more than norms do, or the two tasks agree on every arm.

Cost. 27 arms a task, 10 seeds (fewer could decide nothing among 16 arms), 4 epochs.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fishnet.cli.main import main
from fishnet.cli.sweep_flags import Experiment
from fishnet.study.plan import Plan
from fishnet.study.question import Figure, Question, join_names, names_a_size
from fishnet.study.question import main as ask
from fishnet.sweep.spec.recipe import Recipe

EXPERIMENT = Experiment(
    name="ablation",
    about=__doc__,
    recipe=Recipe(task="reef", model="cnn", widths=(16, 32, 64), batch_size=32, epochs=6),
    axes={"activation": ("relu", "leaky_relu", "elu", "gelu"), "norm": ("none", "batch", "layer", "group")},
    seeds=3,
)
CONTROL, NORMED = "relu, no norm", "batch norm"
FISH = replace(EXPERIMENT.recipe, norm="none", lr=0.02, epochs=4, probes=("gradients", "first_bad"), probe_every=36)
DIGITS = replace(FISH, task="mnist-mini", widths=(8, 16, 32), lr=0.01, probe_every=80)
TASKS = {"fish": FISH, "digits": DIGITS}
OTHER_MODELS = ("resnet", "separable")
NORM_WORDS = {"layer_channel": "layer norm over channels", "weight_standardized": "weight standardization"}
SMOKE = {
    "task": "synthetic",
    "widths": (8, 8),
    "epochs": 1,
    "seeds": 2,
    "arms": [CONTROL, "elu", NORMED, "group norm"],
}
FEW = ["leaky_relu", "elu", "gelu", "tanh", NORMED, "layer norm", "group norm", "resnet"]


def make_arms(activations: Sequence[str], norms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Arms with every activation, norm and model: one thing changed at a time."""
    arms: dict[str, dict[str, Any]] = {CONTROL: {}}
    arms |= {name: {"activation": name} for name in activations if name != "relu"}
    arms |= {norm_label(name): {"norm": name} for name in norms if name != "none"}
    return arms | {name: {"model": name, "norm": "batch"} for name in OTHER_MODELS}


def norm_label(name: str) -> str:
    """`batch` as `batch norm`."""
    return NORM_WORDS.get(name, f"{name} norm")


def question() -> Question:
    """See the module."""
    from fishnet.nn.activations import ACTIVATIONS
    from fishnet.nn.norms import NORMS
    from fishnet.study.claims import Claim
    from fishnet.study.contrasts import Contrast, Evidence
    from fishnet.study.figures.answers import aggregate_panel, arms_panel, forest_panel
    from fishnet.study.metrics import column_metric, probe_metric

    measures = {
        "fish": column_metric("test_balanced_accuracy", "balanced test accuracy on fish", margin=0.03, diverged=1 / 15),
        "digits": column_metric("test_accuracy", "test accuracy on digits", margin=0.01, diverged=0.1),
    }
    chance = {"fish": 1 / 15, "digits": 0.1}
    ratio = probe_metric("gradient_ratio", "first over last layer's gradient, at the start", when="first", digits=3)
    activations = tuple(name for name in ACTIVATIONS if name != "relu")
    norms = tuple(norm_label(name) for name in NORMS if name != "none")

    def contrasts_of(task: str) -> list[Contrast]:
        of = measures[task]
        return [
            Contrast(f"{task}, activations", f"Activations on {task}, without norm", task, of, arms=activations),
            Contrast(f"{task}, norms", f"Norms on {task}, with relu", task, of, arms=norms),
            Contrast(f"{task}, batch", f"Batch norm against other norms on {task}", task, of, control=NORMED,
                     arms=tuple(name for name in norms if name != NORMED)),
            Contrast(f"{task}, models", f"Models on {task}, with batch norm", task, of, control=NORMED,
                     arms=OTHER_MODELS),
        ]  # fmt: skip

    def on_both(text: str, source: str, kind: str, expected: Mapping[str, str]) -> Claim:
        """A claim that is asked of fish and of digits."""
        return Claim(text, source, f"fish, {kind}", expected, also={f"digits, {kind}": expected})

    def widest(evidence: Evidence) -> float:
        """The largest difference to the control, for better or worse."""
        return max(abs(row.difference) for row in list(evidence.rows.values())[1:])

    def answer(evidence: Mapping) -> str:
        said, heads = [], []
        for task in TASKS:
            of_activations, of_norms = evidence[f"{task}, activations"], evidence[f"{task}, norms"]
            first, second = of_activations.best_arm(), of_norms.best_arm()
            heads.append(
                f"on {task} {first} is the best of the activations "
                f"({of_activations.difference_text(first)}, against relu) "
                f"and {second} of the norms ({of_norms.difference_text(second)}, against none)"
            )
            better, worse = ([[name for name, row in of.rows.items() if row.verdict == word]
                              for of in (of_activations, of_norms)] for word in ("better", "worse"))  # fmt: skip
            said.append(
                f"On {task}, of {len(of_activations.rows) - 1} activations {join_names(better[0])} "
                f"{choose_verb(better[0])} better than relu and {join_names(worse[0])} worse (differences up to "
                f"{widest(of_activations):.2f}); of {len(of_norms.rows) - 1} norms {join_names(better[1])} "
                f"{choose_verb(better[1])} better than none and {join_names(worse[1])} worse "
                f"(up to {widest(of_norms):.2f})."
            )
        headline = "; ".join(heads)
        return f"{headline[0].upper()}{headline[1:]}.\n{' '.join(said)}"

    def scores(trials: Mapping) -> dict[str, list[list[float]]]:
        """Arm -> task -> accuracy of every seed, 0 at chance and 1 where all is right; diverged runs are at chance."""
        by_task = {task: trials[task].by_seed(measures[task]) for task in TASKS}
        found = {}
        for label in trials["fish"].labels:
            if all(label in values for values in by_task.values()):
                found[label] = [
                    [(v - chance[task]) / (1 - chance[task]) if v == v else 0.0 for v in values[label]]
                    for task, values in by_task.items()
                ]
        return found

    def panels(trials: Mapping, evidence: Mapping) -> Sequence:
        found = [
            forest_panel(evidence[f"{task}, {kind}"], f"{task}, {kind}")
            for kind in ("activations", "norms", "models")
            for task in TASKS
            if f"{task}, {kind}" in evidence
        ]
        return [*found, aggregate_panel(scores(trials), "both tasks", "interquartile mean, 0: chance, 1: perfect")]

    def mechanism(trials: Mapping, evidence: Mapping) -> Sequence:
        return [arms_panel(trials[task], ratio, task) for task in TASKS]

    return Question(
        name="ablation",
        about=__doc__,
        title="Which activation, norm and model",
        question="Which activation, which norm and which convolutional model is better, on fish and on digits?",
        plans=[
            Plan(task, recipe, make_arms(tuple(ACTIVATIONS), tuple(NORMS)), seeds=10,
                 sizes={"smoke": SMOKE, "quick": {"seeds": 3, "epochs": recipe.epochs // 2, "arms": [CONTROL, *FEW]}})
            for task, recipe in TASKS.items()
        ],
        contrasts=[of for task in TASKS for of in contrasts_of(task)],
        answer=answer,
        evidence=Figure(
            "Accuracy against relu without norm, and of models against the CNN",
            panels,
            "Differences on the same seeds. Last: both tasks together, with the stratified bootstrap's interval from "
            "five seeds on.",
        ),
        mechanism=Figure(
            "How much of the gradient reaches the first layer",
            mechanism,
            "Length of the first layer's gradient over that of the last, at the first step; every seed a dot.",
        ),
        claims=(
            on_both("GELU is better than ReLU", "Hendrycks and Gimpel 2016", "activations", {"gelu": "better"}),
            on_both("Swish (SiLU) is better than ReLU", "Ramachandran et al. 2017", "activations", {"silu": "better"}),
            on_both("Mish is better than ReLU", "Misra 2019", "activations", {"mish": "better"}),
            on_both("ELU learns faster than ReLU", "Clevert et al. 2016", "activations", {"elu": "better"}),
            on_both("Leaky ReLU is better than ReLU", "folklore, after Maas et al. 2013", "activations",
                    {"leaky_relu": "better"}),
            on_both("Saturating units learn worse than ReLU", "Glorot et al. 2011", "activations",
                    {"tanh": "worse", "sigmoid": "worse"}),
            on_both("Beside max pooling a network needs units that are not linear", "folklore", "activations",
                    {"identity": "worse"}),
            on_both("Batch norm trains better within a short budget", "Ioffe and Szegedy 2015", "norms",
                    {NORMED: "better"}),
            on_both("Layer norm does not work as well as batch norm in convolutional networks", "Ba et al. 2016",
                    "batch", {"layer norm": "worse"}),
            on_both("Group norm is as good as batch norm", "Wu and He 2018", "batch", {"group norm": "not worse"}),
            on_both("Residual networks are better than plain ones", "He et al. 2016", "models", {"resnet": "better"}),
            on_both("Depthwise-separable convolutions cost little accuracy", "Howard et al. 2017", "models",
                    {"separable": "not worse"}),
        ),
        limits=(
            "Four epochs: what is ahead is what starts fastest, and need not be after many.",
            "The digits are those of mnist-mini, a tenth of MNIST.",
            "One learning rate for all arms of a task; each would have its own best one (see experiments.optimizers): "
            "what diverges here may train at a lower one.",
            "A ResNet of the same widths has more layers and parameters than the CNN.",
        ),
        problems=lambda trials, evidence: warn_of_linear_arms(evidence),
    )  # fmt: skip


def warn_of_linear_arms(evidence: Mapping) -> list[str]:
    """Warns where linear units are ahead of relu: the difference is then not one of expressiveness."""
    found = [
        task
        for task in TASKS
        for of in [evidence[f"{task}, activations"].rows]
        if "identity" in of and of["identity"].verdict == "better"
    ]
    return [
        f"On {task} linear units (identity), with max pooling as the only part that is not linear, are better than "
        "relu: there activations differ in how fast a network starts at this rate, not in what it can learn."
        for task in found
    ]


def choose_verb(names: Sequence[str]) -> str:
    """The verb for a list of names."""
    return "are" if len(names) > 1 else "is"


def train_or_ask(argv: Sequence[str] | None = None) -> int:
    """The main job, or the question in the size that is named; exit codes as for every experiment."""
    words = sys.argv[1:] if argv is None else argv
    return ask(question, words) if names_a_size(words) else main(EXPERIMENT, words)


if __name__ == "__main__":
    sys.exit(train_or_ask())
