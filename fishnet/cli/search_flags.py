"""The flags that draw recipe fields instead of listing them: --sample, --draws, --sampler, --draw-seed."""

import argparse
from collections.abc import Callable
from typing import Any

from fishnet.checks.value_types import parse_number
from fishnet.cli.parser import parse_whole
from fishnet.errors import UsageError
from fishnet.lookup import unknown_name
from fishnet.sweep.spec.field_parsing import is_number
from fishnet.sweep.spec.random_search import Samples
from fishnet.sweep.spec.recipe import FIELDS
from fishnet.sweep.spec.search_space import Range
from fishnet.sweep.spec.unit_cube import METHODS

LOG = ":log"


def add_sample_flags(group: argparse._ActionsContainer, shown: bool) -> None:
    """Adds the flags; `shown`: whether --help lists them."""

    def add(flag: str, text: str, **options: Any) -> None:
        group.add_argument(flag, help=text if shown else argparse.SUPPRESS, **options)

    add(
        "--sample",
        "draw a field from a range (lr=0.001..0.3:log, dropout=0..0.5) or from values (optimizer=momentum,adam); "
        "repeat it to draw several together; each draw is an arm, of every combination of the axes if there are any",
        action="append",
        default=[],
        metavar="FIELD=A..B[:log]|V1,V2",
    )
    add("--draws", f"how many draws, best a power of two; default {Samples.draws}", metavar="N")
    add("--sampler", f"{' or '.join(METHODS)}; default {Samples.method}", metavar="NAME")
    add("--draw-seed", f"seed of the draws; default {Samples.seed}", metavar="N")


def read_samples(flags: argparse.Namespace, parsed: Callable[[str, str], Any], typed: dict[str, str]) -> Samples:
    """Makes the search that the flags ask for.

    Args:
        flags: of a parser with `add_sample_flags`.
        parsed: `f(field, text)`: the value of a field.
        typed: takes in how a range was typed, where fishnet writes it otherwise.

    Raises:
        UsageError: anything mistyped, draws of nothing, and see `Samples`.
    """
    space: dict[str, Any] = {}
    for text in flags.sample:
        name, words = split_sample(text)
        if name in space:
            raise UsageError(f"sample {name!r} is given twice")
        if ".." in words and is_number(name):
            space[name] = parse_range(name, words, parsed)
            if str(space[name]) != words:
                typed[str(space[name])] = words
        elif ".." in words and all(map(_is_number_text, words.split(".."))):
            raise UsageError(f"sample {text!r} is a range, but {name} is no number: list the values to draw from")
        else:
            values = [value.strip() for value in words.split(",")]
            if "" in values:
                raise UsageError(f"sample {text!r} has an empty value")
            space[name] = [parsed(name, value) for value in values]
    for flag in ("draws", "sampler", "draw_seed"):
        if not space and (given := getattr(flags, flag)) is not None:
            raise UsageError(f"--{flag.replace('_', '-')} {given} would have no effect: it belongs to --sample")
    return Samples(
        space,
        Samples.draws if flags.draws is None else parse_whole("draws", flags.draws),
        flags.sampler or Samples.method,
        Samples.seed if flags.draw_seed is None else parse_whole("draw-seed", flags.draw_seed, least=0),
    )


def split_sample(text: str) -> tuple[str, str]:
    """Splits `lr=0.001..0.3` into the field's name, which may have hyphens, and the rest.

    Raises:
        UsageError: nothing behind the name, an unknown field, or `seed`.
    """
    name, _, words = text.partition("=")
    name = name.strip().replace("-", "_")
    if name == "seed":
        raise UsageError(f"sample {text!r} is refused: give seeds with --seeds")
    if name not in FIELDS:
        raise unknown_name("sampled field", name, [f for f in FIELDS if f != "seed"])
    if not words.strip():
        raise UsageError(f"sample {text!r} has no values: write --sample {name}=A..B or --sample {name}=V1,V2")
    return name, words.strip()


def parse_range(name: str, words: str, parsed: Callable[[str, str], Any]) -> Range:
    """Parses `0.001..0.3:log` as a range of field `name`.

    Raises:
        UsageError: an end is missing or is not of the field's type, or something else than `:log` follows.
    """
    ends, colon, scale = words.partition(":")
    if colon + scale not in ("", LOG):
        raise UsageError(f"{name}: {words!r} is not of the form A..B or A..B{LOG}")
    low, _, high = ends.partition("..")
    if not low.strip() or not high.strip():
        raise UsageError(f"{name}: {words!r} lacks an end: write A..B or A..B{LOG}")
    return Range(parsed(name, low), parsed(name, high), bool(scale))


def _is_number_text(text: str) -> bool:
    try:
        parse_number(text.partition(":")[0])
    except ValueError:
        return False
    return True
