"""Prints what fishnet has: every component with its formula and its paper, and what goes well with what.

    python -m experiments.describe
    python -m experiments.describe --part optimizers
    python -m experiments.describe --part models --image-size 64 --widths 32-64-128

Each name is a value of the recipe field beside the heading: `--axis activation=relu,mish` on any experiment. Models are
listed with their parameters, multiply-adds and activations for one image.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments._cli import Parser, guarded
from fishnet.errors import UsageError

# part -> the recipe field its names are values of
PARTS = {
    "activations": "activation",
    "norms": "norm",
    "initialisers": "init",
    "dropout": "dropout_kind",
    "models": "model",
    "optimizers": "optimizer",
    "clipping": "clip_by",
    "schedules": "schedule",
    "losses": "loss",
    "class weights": "class_weighting",
    "augmentation": "augment",
    "pairings": "",
}

# activation -> (initialiser, dropout, why)
PAIRINGS = {
    "relu leaky_relu prelu rrelu relu6": ("he_normal", "plain or spatial", "half of the variance is cut off: He"),
    "elu gelu silu mish hard_swish softplus squareplus": ("he_normal", "plain or spatial", "nearly so for these"),
    "selu": ("lecun_normal", "alpha", "mean 0 and variance 1 are a fixed point, which alpha dropout keeps"),
    "tanh sigmoid": ("glorot_normal", "plain", "near 0 tanh is linear: forward and backward variance alike"),
    "identity": ("lecun_normal or orthogonal", "plain", "linear: the variance stays as it is"),
    "exponential": ("lecun_normal with a small init_gain", "plain", "it grows without bound: normalise as well"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return guarded(describe, argv)


def parser() -> Parser:
    """The flags."""
    made = Parser(prog="python -m experiments.describe", description=__doc__)
    made.add_argument("--part", metavar="NAME", help=f"only one of: {', '.join(PARTS)}")
    made.add_argument("--image-size", metavar="N", default="32", help="side of the images that models are counted for")
    made.add_argument("--widths", metavar="W-W-W", default="16-32-64", help="widths that models are counted for")
    made.add_argument("--depth", metavar="N", default="1", help="depth that models are counted for")
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def describe(argv: list[str]) -> int:
    """Prints the catalogue, or one part of it.

    Raises:
        UsageError: an unknown part, or sizes that are none.
    """
    flags = parser().parse(argv)
    from fishnet.lookup import unknown
    from fishnet.sweep.recipe import parse_value

    if flags.part is not None and flags.part not in PARTS:
        raise unknown("part", flags.part, PARTS)
    size, widths, depth = (parse_value(n, getattr(flags, n)) for n in ("image_size", "widths", "depth"))
    if not isinstance(size, int) or size < 1 or depth < 1 or min(widths) < 1:
        raise UsageError(
            f"image size {flags.image_size}, widths {flags.widths}, depth {flags.depth}: all must be 1 or more"
        )
    for part in [flags.part] if flags.part else PARTS:
        field = PARTS[part]
        print(f"\n{part}" + (f"  (--{field.replace('_', '-')})" if field else ""))
        print("=" * len(part))
        if part == "models":
            print_models(size, widths, depth)
        elif part == "pairings":
            for names, (init, dropout, why) in PAIRINGS.items():
                print(f"{names}\n    initialiser {init}; dropout {dropout}: {why}")
        else:
            for name, text in entries(part).items():
                print(f"{name}\n{text}")
    return 0


def entries(part: str) -> dict[str, str]:
    """What is said of each name of a part.

    Args:
        part: one of `PARTS`, but "models" and "pairings".

    Returns:
        name -> lines, indented.
    """
    if part == "initialisers":
        return {name: f"    {initialiser_text(object_)}" for name, object_ in table_of(part).items()}
    return {name: summary(object_) for name, object_ in table_of(part).items()}


def table_of(part: str) -> Mapping[str, Any]:
    """The dictionary behind a part."""
    from fishnet.augment import AUGMENTATIONS
    from fishnet.losses import CLASS_WEIGHTINGS, LOSSES
    from fishnet.nn import dropout
    from fishnet.nn.activations import ACTIVATIONS
    from fishnet.nn.initializers import INITIALIZERS
    from fishnet.nn.norms import NORMS
    from fishnet.optim import clipping
    from fishnet.optim.optimizers import OPTIMIZERS
    from fishnet.optim.schedules import SCHEDULES

    return {
        "activations": ACTIVATIONS,
        "norms": NORMS,
        "initialisers": INITIALIZERS,
        "dropout": dict(
            zip(dropout.DROPOUTS, (dropout.dropout, dropout.spatial_dropout, dropout.alpha_dropout), strict=True)
        ),
        "optimizers": OPTIMIZERS,
        "clipping": {
            "norm": clipping.clip_by_global_norm,
            "value": clipping.clip_by_value,
            "adaptive": clipping.adaptive_clip,
        },
        "schedules": SCHEDULES,
        "losses": LOSSES,
        "class weights": CLASS_WEIGHTINGS,
        "augmentation": AUGMENTATIONS,
    }[part]


def summary(component: Any) -> str:
    """First line, formula and source of a component's docstring, indented.

    Args:
        component: a function, a module, or what holds one (`Parametric`, `Optimizer`).
    """
    documented = getattr(component, "function", None) or getattr(component, "build", None) or component
    paragraphs = inspect.cleandoc(documented.__doc__ or "").split("\n\n")
    first, rest = paragraphs[0].replace("\n", " "), paragraphs[1:]
    # The formula is the first paragraph that is set in, or the only line before the arguments.
    formula = next((p for p in rest if p.startswith("    ") or " = " in p.split("\n")[0]), "")
    source = next((p for p in rest if p.startswith("Source:")), "")
    lines = [first, *(line.strip() for line in formula.split("\n")), " ".join(source.split())]
    for step in filter(None, (getattr(component, "probe", None), getattr(component, "evaluate", None))):
        lines += [line.strip() for line in summary(step).splitlines()]
    rate = getattr(component, "default_lr", None)
    if rate is not None:
        lines.append(f"Default learning rate: {rate:g}")
    return "\n".join(f"    {line}" for line in lines if line)


def initialiser_text(init: Any) -> str:
    """A line or two on a `VarianceScaling`."""
    from fishnet.nn.initializers import DISTRIBUTIONS, FANS

    distribution = DISTRIBUTIONS[init.distribution].replace("_", " ")
    if distribution == "constant":
        return f"every entry {init.gain:g} times init_gain: all units alike, to show that symmetry must be broken"
    if distribution == "orthogonal":
        source = "Source: Saxe et al., arXiv:1312.6120"
        return f"orthonormal columns, or rows where these are fewer, times init_gain\n    {source}"
    if FANS[init.fan] == "none":
        limits = f", between -{init.gain * 3**0.5:g} and {init.gain * 3**0.5:g}" if distribution == "uniform" else ""
        return f"{distribution}, standard deviation {init.gain:.3g} times init_gain{limits}"
    fan, source = {
        "in": (
            "fan in",
            "He et al., arXiv:1502.01852" if init.scale == 2 else "LeCun et al., Efficient BackProp, 1998",
        ),
        "avg": ("mean of fan in and fan out", "Glorot and Bengio, AISTATS 2010"),
        "out": ("fan out", "He et al., arXiv:1502.01852"),
    }[FANS[init.fan]]
    return f"{distribution}, variance {init.scale:g} / {fan}, times init_gain^2\n    Source: {source}"


def print_models(size: int, widths: tuple[int, ...], depth: int) -> None:
    """A line a model: parameters, multiply-adds and activations for one image, forward.

    Args:
        size: side of the images in pixels, three channels.
        widths, depth: of the models.
    """
    import jax
    import numpy as np

    from fishnet.models import MODELS
    from fishnet.sweep.cost import forward_cost

    print(f"at {size} px, widths {'-'.join(map(str, widths))}, depth {depth}, 15 classes; activations in float32")
    for name, model in MODELS.items():
        made = model(classes=15, widths=widths, depth=depth)
        image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
        shapes = jax.eval_shape(lambda i, made=made: made.init(jax.random.key(0), i, train=False), image)["params"]
        params = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        cost = forward_cost(made, 1, (size, size, 3))
        memory = 4 * cost.elements / 2**10
        print(f"{name}\n{summary(model)}")
        count = f"{params:,} parameters, {cost.multiplications / 1e6:.2f} M multiply-adds"
        print(f"    {count}, {memory:,.1f} KiB of activations")


if __name__ == "__main__":
    sys.exit(main())
