"""The command line of a training experiment: a flag for every recipe field, axes, seeds and the plan's overrides."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fishnet.checks.value_types import format_value
from fishnet.cli.parser import MOST_DEVICES, Parser, parse_whole
from fishnet.cli.search_flags import add_sample_flags, read_samples
from fishnet.errors import UsageError
from fishnet.host.names import quote_command
from fishnet.lookup import unknown_name
from fishnet.sweep.distributed.shard import Shard, parse_shard, shard_in
from fishnet.sweep.spec.field_parsing import parse_value
from fishnet.sweep.spec.random_search import MOST_RUNS
from fishnet.sweep.spec.recipe import FIELDS, Recipe
from fishnet.sweep.spec.stopping import Stopping
from fishnet.sweep.spec.sweep import Sweep

# flag of an earlier version -> what is given in its place
GONE_FLAGS = {
    "distributed": "--shard I/N; in a job of Slurm, Open MPI, Kubernetes or a TPU pod none is needed",
    "no-distributed": "--shard 1/1",
    "coordinator": "--shard I/N: processes need no address of each other",
    "processes": "--shard I/N",
    "process": "--shard I/N, with I from 1",
}
SEED_HELP = "train with this one seed, in place of --seeds"


@dataclass(frozen=True)
class Experiment:
    """Defaults of an experiment: what `python -m experiments.<name>` runs without flags.

    Args:
        name: of the module.
        about: its docstring, shown by --help.
        recipe: the values that the flags start from.
        axes: the axes when the user gives none.
        seeds: how many seeds when the user does not say.
        takes_axes: whether --axis is accepted at all.
        package: where the module is.
    """

    name: str
    about: str | None
    recipe: Recipe = field(default_factory=Recipe)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: int = 1
    takes_axes: bool = True
    package: str = "experiments"


@dataclass(frozen=True)
class Request:
    """Parsed command line of a training experiment."""

    experiment: Experiment
    sweep: Sweep
    out: str | None
    lane_width: int | str | None
    lowering: str | None
    share_batches: bool | None
    devices: int | None
    shard: Shard  # of the runs, that this process trains
    ray: str | None  # the address of the Ray cluster that trains the shards; "auto": one on this machine; None: no Ray
    ray_shards: int | None  # how many shards it trains; None: one a GPU, or one a node
    data_dir: str | None
    group_regex: str | None
    strict: bool
    quiet: bool
    command: str
    typed: Mapping[str, str]  # value as fishnet writes it -> as the user typed it, where they differ

    def as_typed(self, error: UsageError) -> UsageError:
        """`error`, with the user's own spelling of a value added where it quotes fishnet's."""
        return as_typed(error, self.typed)


def make_parser(experiment: Experiment) -> Parser:
    """All flags of a training experiment; recipe fields get theirs, with their docstrings as help."""
    module = f"python -m {experiment.package}.{experiment.name}"
    parser = Parser(prog=module, usage=f"{module} [--FLAG VALUE ...]", description=experiment.about)
    job = parser.add_argument_group("what to run")
    usual = " ".join(f"--axis {name}={','.join(map(format_value, values))}" for name, values in experiment.axes.items())
    job.add_argument(
        "--axis",
        action="append",
        default=[],
        metavar="FIELD=V1,V2",
        help=(
            "a recipe field and the values to try; repeat it for a grid; lists join with hyphens (widths=16-32,32-64)"
            + (f"; replaces the usual {usual}" if usual else "")
        )
        if experiment.takes_axes
        else argparse.SUPPRESS,
    )
    add_sample_flags(job, shown=experiment.takes_axes)
    job.add_argument("--seeds", metavar="N|A,B,C", help=f"how many seeds, or which; default {experiment.seeds}")
    job.add_argument("--halving", metavar="ETA", help="at each rung only one arm in ETA goes on (3, say); default: all")
    job.add_argument("--median-stop", action="store_true", help="end arms that are worse than the median of the others")
    job.add_argument("--rung", metavar="N", help="epochs before the first rung, or before the median counts; default 1")
    job.add_argument("--target", metavar="METRIC>=X", help="end an arm that has reached this (val_accuracy>=0.8)")
    job.add_argument(
        "--out", metavar="DIR", help=f"output folder; default runs/{experiment.name}-<hash of what is run>"
    )
    job.add_argument("--data-dir", metavar="DIR", help="where the files of the task mnist are")
    job.add_argument(
        "--group-regex",
        metavar="REGEX",
        help=(
            "folder tasks: images whose file names agree in what it matches (or in its first group) stay in one split"
        ),
    )
    job.add_argument(
        "--strict", action="store_true", help="folder tasks: refuse unreadable images instead of skipping them"
    )
    how = parser.add_argument_group("how to run it (results do not depend on it beyond rounding)")
    how.add_argument("--lane-width", metavar="N|all|auto", help="runs vectorized together; auto times the candidates")
    how.add_argument(
        "--share-batches",
        action="store_true",
        help="vectorize lanes of one seed only: they share their batches (for lane widths above 1; auto tries it)",
    )
    how.add_argument("--lowering", metavar="NAME", help="how convolutions are computed; default by device")
    how.add_argument(
        "--devices", metavar="N", help="devices to spread the runs over; default all, a CPU core being one"
    )
    how.add_argument("--quiet", action="store_true", help="log lines instead of a live progress bar")
    how.add_argument("--debug", action="store_true", help="show the traceback of an error")
    many = parser.add_argument_group("several processes or machines, with one output folder")
    many.add_argument(
        "--shard",
        metavar="I/N",
        help="train the I-th of N shares of the runs, I from 1; the last process to finish merges them; default: as "
        "Slurm, Open MPI, Kubernetes or a TPU pod says, otherwise all runs (1/1)",
    )
    many.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS", help="train the shards on a Ray cluster, or a local one"
    )
    many.add_argument("--ray-shards", metavar="N", help="how many shards; default: one a GPU, or one a node")
    for name in GONE_FLAGS:
        many.add_argument(f"--{name}", nargs="?", const=True, help=argparse.SUPPRESS)
    recipe = parser.add_argument_group("recipe, shared by all runs")
    for name, own in FIELDS.items():
        usual = format_value(getattr(experiment.recipe, name))
        text = SEED_HELP if name == "seed" else f"{own.help} (default {usual})"
        recipe.add_argument(own.flag, metavar=own.metavar, help=text.replace("%", "%%"))
    return parser


def parse_request(experiment: Experiment, argv: Sequence[str], flags: argparse.Namespace | None = None) -> Request:
    """Parses a command line into a `Request`.

    Args:
        experiment: whose command line it is.
        argv: as it was typed.
        flags: parsed by a parser that has further flags than the experiment's own; None: by that.

    Raises:
        UsageError: anything that is mistyped, as far as that can be told without jax.
    """
    flags = make_parser(experiment).parse(argv) if flags is None else flags
    for what in ("axis", "sample"):
        if (given := getattr(flags, what)) and not experiment.takes_axes:
            raise UsageError(
                f"{what} {given[0]!r}: {experiment.name} trains one recipe; several go to experiments.ablation"
            )
    typed: dict[str, str] = {}

    def parsed(name: str, text: str) -> Any:
        value = parse_value(name, text)
        if format_value(value) != text:
            typed[format_value(value)] = text
        return value

    values = {name: parsed(name, text) for name in FIELDS if (text := getattr(flags, name)) is not None}
    axes: dict[str, list[Any]] = {}
    for text in flags.axis:
        name, texts = split_axis(text)
        if name in axes:
            raise UsageError(f"axis {name!r} is given twice: join its values with commas")
        if name in values:
            raise UsageError(f"{name} is given both as an axis and as {FIELDS[name].flag} {getattr(flags, name)}")
        axes[name] = [parsed(name, value) for value in texts]
    if flags.seeds is not None and flags.seed is not None:
        raise UsageError(f"--seed {flags.seed} and --seeds {flags.seeds} are both given")
    seeds = [values.pop("seed")] if flags.seed is not None else parse_seeds(flags.seeds or str(experiment.seeds))
    try:
        samples = read_samples(flags, parsed, typed)
        for name in samples.space.keys() & values.keys():
            given = f"{FIELDS[name].flag} {getattr(flags, name)}"
            raise UsageError(f"{name} is given both to be sampled and as {given}")
        if not axes and not samples:  # a flag for a field of the usual axes fixes it
            axes = {name: list(usual) for name, usual in experiment.axes.items() if name not in values}
        sweep = Sweep(replace(experiment.recipe, **values), axes, seeds, read_stopping(flags), samples)
    except UsageError as error:
        raise as_typed(error, typed) from error
    return Request(
        experiment=experiment,
        sweep=sweep,
        out=flags.out,
        lane_width=flags.lane_width
        if flags.lane_width in (None, "all", "auto")
        else parse_whole("lane-width", flags.lane_width, most=MOST_RUNS),
        lowering=flags.lowering,
        share_batches=flags.share_batches or None,
        devices=None if flags.devices is None else parse_whole("devices", flags.devices, most=MOST_DEVICES),
        **read_shards(flags),
        data_dir=flags.data_dir,
        group_regex=flags.group_regex,
        strict=flags.strict,
        quiet=flags.quiet,
        command=f"python -m experiments.{experiment.name} {quote_command(argv)}".rstrip(),
        typed=typed,
    )


def read_shards(flags: argparse.Namespace) -> dict[str, Any]:
    """Reads the flags of shards and Ray into the fields of `Request`.

    Raises:
        UsageError: flags that contradict each other or are no more, or a shard that is none, there or in what a cluster
            says in the environment.
    """
    for name, instead in GONE_FLAGS.items():
        if getattr(flags, name.replace("-", "_")) is not None:
            raise UsageError(f"--{name} is no more: give {instead}")
    if flags.ray_shards is not None and flags.ray is None:
        raise UsageError(f"--ray-shards {flags.ray_shards} would have no effect: it belongs to --ray")
    if flags.ray is not None and flags.shard is not None:
        raise UsageError(f"--ray and --shard {flags.shard} contradict each other: Ray trains all shards")
    if flags.ray is not None:
        shard = Shard()
    else:
        shard = shard_in(os.environ) if flags.shard is None else parse_shard(flags.shard)
    count = None if flags.ray_shards is None else parse_whole("ray-shards", flags.ray_shards, most=MOST_RUNS)
    return {"shard": shard, "ray": flags.ray, "ray_shards": count}


def read_stopping(flags: argparse.Namespace) -> Stopping:
    """Makes the early-stopping rule that the flags ask for; None without one.

    Raises:
        UsageError: numbers out of range, a rung without rungs, or a target that says nothing.
    """
    if flags.rung is not None and flags.halving is None and not flags.median_stop:
        raise UsageError(f"--rung {flags.rung} would have no effect: it belongs to --halving and --median-stop")
    return Stopping(
        halving=0 if flags.halving is None else parse_whole("halving", flags.halving),
        median=flags.median_stop,
        first=1 if flags.rung is None else parse_whole("rung", flags.rung),
        target=flags.target or "",
    )


def split_axis(text: str) -> tuple[str, list[str]]:
    """Splits `norm=none,batch` into the field's name, which may have hyphens, and its values.

    Raises:
        UsageError: no field, no values, an unknown field, or `seed`.
    """
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if name == "seed":
        raise UsageError(f"axis {text!r} is refused: give seeds with --seeds")
    if name not in FIELDS:
        raise unknown_name("axis", name, [f for f in FIELDS if f != "seed"])
    if not equals or not values.strip():
        raise UsageError(f"axis {text!r} has no values: write --axis {name}=V1,V2")
    texts = [value.strip() for value in values.split(",")]
    if "" in texts:
        raise UsageError(f"axis {text!r} has an empty value")
    return name, texts


def parse_seeds(text: str) -> int | list[int]:
    """Parses `3` as three seeds, `3,5,8` as those seeds, `7,` as the single seed 7."""
    parts = [part.strip() for part in (text.rstrip(",") if "," in text else text).split(",")]
    try:
        if not all(re.fullmatch(r"[+-]?[0-9]+", part) for part in parts):
            raise ValueError
        return list(map(int, parts)) if "," in text else int(text)
    except ValueError:
        raise UsageError(f"seeds: {text!r} is neither a number of seeds nor a list such as 3,5,8") from None


def as_typed(error: UsageError, typed: Mapping[str, str]) -> UsageError:
    """`error`, with the user's own spelling added for each value that it quotes as fishnet writes it."""
    message = str(error)
    for written, text in typed.items():
        if repr(written) in message and text not in message:
            message += f" (typed as {text!r})"
    return type(error)(message)
