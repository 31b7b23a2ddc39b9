"""Prints the catalog: every component with its formula and paper, and which components go well together.

    python -m experiments.describe
    python -m experiments.describe --part optimizers
    python -m experiments.describe --part models --image-size 64 --widths 32-64-128

Names are values of the recipe field in a part's heading, `--axis activation=relu,mish` on any experiment; entries that
begin with -- are fields themselves; corruptions follow a task's name, `--task "reef?train=0.5&noise=0.1"`. Models are
listed with their parameters, multiply-adds and activations for one image.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from fishnet.cli.catalogue import PARTS
from fishnet.cli.parser import Parser, run_guarded
from fishnet.errors import UsageError
from fishnet.sweep.spec.recipe import FIELDS, Recipe

WIDTH = 116  # columns of text; formulas stand as they are written
COUNTED = {  # field -> (how it is written, default, what it is)
    "image_size": ("N", "32", "side of the images"),
    "widths": ("W-W-W", "16-32-64", "widths"),
    "depth": ("N", "1", "depth"),
}
LARGEST_SIDE = 4096  # pixels of an image that models are counted for
# activation -> (initializer, dropout, why)
PAIRINGS = {
    "relu leaky_relu prelu rrelu relu6": ("he_normal", "plain or spatial", "half of the variance is cut off: He"),
    "elu gelu silu mish hard_swish softplus squareplus": ("he_normal", "plain or spatial", "nearly so for these"),
    "selu": ("lecun_normal", "alpha", "mean 0 and variance 1 are a fixed point, which alpha dropout keeps"),
    "tanh sigmoid": ("glorot_normal", "plain", "near 0 tanh is linear: forward and backward variance alike"),
    "identity": ("lecun_normal or orthogonal", "plain", "linear: the variance stays as it is"),
    "exponential": ("lecun_normal with a small init_gain", "plain", "it grows without bound: normalize as well"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return run_guarded(describe, argv)


def parser() -> Parser:
    """The flags."""
    made = Parser(prog="python -m experiments.describe", description=__doc__)
    made.add_argument("--part", metavar="NAME", help=f"only one of: {', '.join([*PARTS, 'pairings'])}")
    for name, (metavar, default, what) in COUNTED.items():
        flag, text = f"--{name.replace('_', '-')}", f"{what} that models are counted for; default {default}"
        made.add_argument(flag, metavar=metavar, help=text)
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def describe(argv: list[str]) -> int:
    """Prints the catalogue, or one part of it.

    Raises:
        UsageError: an unknown part, or sizes that are none.
    """
    flags = parser().parse(argv)
    from fishnet.lookup import unknown_name
    from fishnet.sweep.spec.field_parsing import coerce, parse_value
    from fishnet.sweep.spec.validation import check_recipe

    names = [*PARTS, "pairings"]
    if flags.part is not None and flags.part not in names:
        raise unknown_name("part", flags.part, names)
    given = {name: text for name in COUNTED if (text := getattr(flags, name)) is not None}
    if given and flags.part not in (None, "models"):
        flag = next(iter(given)).replace("_", "-")
        raise UsageError(f"--{flag} {next(iter(given.values()))} would have no effect: it belongs to --part models")
    size, widths, depth = (
        coerce(name, parse_value(name, given.get(name, default))) for name, (_, default, _) in COUNTED.items()
    )
    check_recipe(Recipe(widths=widths, depth=depth, norm="none"))
    if not isinstance(size, int) or not 1 <= size <= LARGEST_SIDE:
        raise UsageError(f"image size {flags.image_size}: it must be 1 to {LARGEST_SIDE} pixels")
    for name in [flags.part] if flags.part else names:
        if name == "pairings":
            print("\npairings\n========")
            for activations, (init, dropout, why) in PAIRINGS.items():
                print(f"{activations}\n    initializer {init}; dropout {dropout}: {why}")
            continue
        part = PARTS[name]()
        heading = name + (f"  (--{part.choice.replace('_', '-')})" if part.choice else "")
        print(f"\n{heading}\n{'=' * len(heading)}")
        if name == "models":
            from fishnet.host.jax_settings import hold_settings

            with hold_settings():
                print_models(size, widths, depth)
        found = entries(name)
        for i, (entry, text) in enumerate(found.items()):
            # A line between the names and the first of the fields.
            print("\n" * (i == len(part.names) > 0 or (i == 0 and name == "models")) + f"{entry}\n{text}")
    return 0


def entries(name: str) -> dict[str, str]:
    """Descriptions of the names and fields of a part.

    Args:
        name: of the part, one of `PARTS`; of "models" these are the fields only.

    Returns:
        heading (a name, or the flag of a field) -> lines, indented.
    """
    part = PARTS[name]()
    found = {entry: "\n".join(map(summary, described)) for entry, described in part.names.items()}
    for field in FIELDS.values():
        if field.part == name and field.name != part.choice:
            said = [wrap(f"{field.help}."), *map(summary, part.more.get(field.name, ()))]
            found[f"{field.flag} {field.metavar}"] = "\n".join(said + [wrap(text) for text in field.rules()])
    return found


def summary(component: Any) -> str:
    """First line, formula and source of a component's docstring, indented.

    Args:
        component: a function, a module, what holds one (`Parametric`, `Optimizer`), an initializer, or a text.
    """
    from fishnet.nn.initializers import VarianceScaling

    if isinstance(component, VarianceScaling):
        return initializer_text(component)
    if isinstance(component, str):
        return "\n".join(map(wrap, component.split("\n")))
    documented = getattr(component, "function", None) or getattr(component, "build", None) or component
    paragraphs = inspect.cleandoc(documented.__doc__ or "").split("\n\n")
    first, rest = paragraphs[0].replace("\n", " "), [p for p in paragraphs[1:] if not p.startswith(SECTIONS)]
    lines = [wrap(first)]
    # The formula is the first paragraph that is set in, or a sentence with one; without any, the rule in words.
    set_in = next((p for p in rest if p.startswith("    ")), None)
    sentences = [p for p in rest if " = " in p.split("\n")[0]] or ([] if "`" in first else rest)
    if set_in is not None:
        lines += [indent(line) for line in set_in.split("\n")]
    elif sentences:
        lines.append(wrap(re.split(r"(?<=\.)\s+(?=[A-Z])", sentences[0])[0]))
    source = next((p for p in paragraphs if p.startswith("Source:")), None)
    if source is not None:
        lines.append(wrap(source.replace("\n", " ")))
    if getattr(component, "probe", None):
        lines = [summary(component.ascend), indent("The gradient found there goes into momentum:"), *lines]
    if getattr(component, "evaluate", None):
        lines.append(summary(component.evaluate))
    rate = getattr(component, "default_lr", None)
    if rate is not None:
        lines.append(indent(f"Default learning rate: {rate:g}"))
    return "\n".join(lines)


SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Example:", "Source:", "Other fields", "Fields as in")


def indent(line: str) -> str:
    """Indents a line of a formula."""
    return f"    {strip_backticks(line.strip())}"


def wrap(text: str) -> str:
    """Wraps a sentence or two to the width of the output."""
    text = strip_backticks(re.sub(r"\s+", " ", text))
    wrapper = textwrap.TextWrapper(WIDTH, "    ", "      ", break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)


def strip_backticks(text: str) -> str:
    """Removes backticks around formulas; around names they stay."""
    return re.sub(r"`([^`]*)`", lambda code: code[0] if re.fullmatch(r"[A-Za-z_]\w{3,}", code[1]) else code[1], text)


def initializer_text(init: Any) -> str:
    """Describes a `VarianceScaling` in a line or two."""
    from fishnet.nn.initializers import DISTRIBUTIONS, FANS

    distribution, source = DISTRIBUTIONS[init.distribution].replace("_", " "), None
    if distribution == "constant":
        text = f"every entry {init.gain:g} times init_gain: all units alike, to show that symmetry must be broken"
    elif distribution == "orthogonal":
        text = "orthonormal columns, or rows where these are fewer, times init_gain"
        source = "Saxe et al., arXiv:1312.6120"
    elif FANS[init.fan] == "none":
        limits = f", between -{init.gain * 3**0.5:g} and {init.gain * 3**0.5:g}" if distribution == "uniform" else ""
        text = f"{distribution}, standard deviation {init.gain:.3g} times init_gain{limits}"
    else:
        fan, source = {
            "in": (
                "fan in",
                "He et al., arXiv:1502.01852" if init.scale == 2 else "LeCun et al., Efficient BackProp, 1998",
            ),
            "avg": ("mean of fan in and fan out", "Glorot and Bengio, AISTATS 2010"),
            "out": ("fan out", "He et al., arXiv:1502.01852"),
        }[FANS[init.fan]]
        text = f"{distribution}, variance = {init.scale:g} / {fan}, times init_gain^2"
    lines = [indent(text)] + ([indent(f"Source: {source}")] if source else [])
    if init.unit_variance:
        from fishnet.nn.lsuv import lsuv

        lines.append(summary(lsuv))
    return "\n".join(lines)


# Fields by which a model is counted a second time. What must be given for a model to make sense stands in the first.
VARIANTS = {
    "cnn": ({}, {"se_reduction": 4}),
    "resnet": ({}, {"block": "preactivation"}, {"shortcut": "none"}, {"se_reduction": 4}),
    "separable": ({}, {"se_reduction": 4}),
    "efficientnet": ({}, {"se_reduction": 0}, {"compound": 1.0}),
    "hybrid": ({"experts": (13, 14)},),
}


def print_models(size: int, widths: tuple[int, ...], depth: int) -> None:
    """A line a model and variant: parameters, multiply-adds and activations for one image, forward.

    Args:
        size: side of the images in pixels, three channels.
        widths, depth: of the models.
    """
    import jax

    from fishnet.models import MODELS
    from fishnet.models.linear_layers import measure_linear_layers

    print(f"at {size} px, widths {'-'.join(map(str, widths))}, depth {depth}, 15 classes; activations in float32")
    for name, model in MODELS.items():
        print(f"{name}\n{summary(model)}")
        for fields in VARIANTS.get(name, ({},)):
            made = model(classes=15, widths=widths, depth=depth, **fields)
            outputs, products, shapes = measure_linear_layers(made, 1, (size, size, 3))
            params = sum(leaf.size for leaf in jax.tree.leaves(shapes))
            given = "".join(f"{field}={value}: " for field, value in fields.items())
            counted = f"{params:,} parameters, {products / 1e6:.2f} M multiply-adds"
            print(f"    {given}{counted}, {outputs / 2**10:,.1f} KiB of activations")


if __name__ == "__main__":
    sys.exit(main())
