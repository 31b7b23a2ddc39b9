"""Cohorts: runs that are trained together by one compiled program."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.checks.value_types import format_value
from fishnet.data import Task
from fishnet.errors import UsageError
from fishnet.nn.conv_implementations import DEFAULT_LOWERING, default_lowering
from fishnet.nn.norm_formulas import KINDS
from fishnet.pretraining import OBJECTIVES
from fishnet.source_hash.digest import hash_each
from fishnet.sweep.plan.grouping import vmap_key
from fishnet.sweep.plan.networks import Trunk, check_learns, check_networks, norm_sites
from fishnet.sweep.plan.user_components import functions_of
from fishnet.sweep.program.build import build_model, experts_of
from fishnet.sweep.program.config import ProgramConfig, ProgramFeatures, static_key
from fishnet.sweep.program.program import ProgramFunctions, abstract_arguments, count_chunks, get_functions
from fishnet.sweep.program.state import DeviceData
from fishnet.sweep.program.traced_config import TracedConfig, trace_recipes
from fishnet.sweep.program.traced_probes import Axes, find_axes
from fishnet.sweep.spec.recipe import STATIC_FIELDS, Recipe
from fishnet.sweep.spec.sweep import Run
from fishnet.sweep.spec.validation import check_ghosts, convolves

# Lanes vectorized together, by backend; as measured in benchmarks/README.md.
DEFAULT_WIDTH: dict[str, dict[str, int]] = {"cpu": {}, "gpu": {}, "tpu": {}}
FALLBACK_WIDTH = {"cpu": 1, "gpu": 16, "tpu": 16}
MOST_STEPS = 2**31 - 1  # of a run, counted in int32
# Why runs have a program of their own, and what is said of the others: the last entries of `static_key`.
OWN_PROGRAMS = (
    ("steps in its own way", "these optimizers share a step"),
    ("has statistics of its own shape", "these norms share a formula"),
    ("have an expert head", "these have no experts"),
)


@dataclass(frozen=True)
class LayoutChoice:
    """How the lanes of a cohort are to be laid out and computed; None: as usual."""

    lane_width: int | str | None = None  # lanes vectorized together; "all": as many as agree in their branch ids
    lowering: str | None = None  # of convolutions
    share_batches: bool | None = None  # whether only lanes of one seed are vectorized together, which share batches
    asked_width: int | None = None  # the lane width before memory lowered it
    most_devices: int | None = None  # side by side, as chosen by timing or by memory
    why: str = ""  # in words, where it was timed


@dataclass(frozen=True)
class Cohort:
    """Runs that are trained together by one compiled program."""

    runs: tuple[Run, ...]  # resolved recipes, in the sweep's order
    task: Task
    config: ProgramConfig
    traced: TracedConfig  # [run, ...]
    params: np.ndarray  # [run] int64, parameters that each arm uses: the scale of a norm of kind none is not one
    epochs: int  # of the longest run, also in a part of the cohort
    pretrain_epochs: int  # of the longest pretraining, 0 where no run pretrains; also in a part of the cohort
    reason: str  # why these runs are a cohort of their own
    trunks: Mapping[str, Trunk]  # of earlier runs that its runs begin with, by their `trunk`
    made_of: Mapping[str, str] = field(default_factory=dict)  # digests of the user's components that its runs name

    @property
    def objectives(self) -> list[str]:
        """Objectives of pretraining, each a program of its own, in the order of their table."""
        used = {run.recipe.pretrain for run in self.runs}
        return [name for name in OBJECTIVES if name in used]

    @property
    def sites(self) -> int:
        """Number of hidden layers of its networks."""
        return self.traced.hparams.norm.shape[-1]

    @property
    def dropped_images(self) -> int:
        """Number of training images that each epoch leaves out: its incomplete last batch."""
        return self.config.train_images % self.config.batch_size

    @cached_property
    def vmap_key(self) -> list[tuple]:
        """Key of each run: lanes with equal keys can be vectorized together."""
        return vmap_key(self.traced, self.config.share_batches)

    @cached_property
    def functions(self) -> ProgramFunctions:
        """Jitted functions of the program, shared with earlier sweeps of the process."""
        return get_functions(self.config, self.made_of)

    @cached_property
    def probe_axes(self) -> Axes:
        """Axes of the probe measurements."""
        first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), self.traced)
        return find_axes(self.config, build_model(self.config, first.ids, first.hparams))

    def part(self, rows: Sequence[int] | np.ndarray) -> "Cohort":
        """Cohort of some of the runs, by their positions; its program and its epochs are those of the whole."""
        rows = np.asarray(rows, np.int64)
        runs, traced = tuple(self.runs[row] for row in rows), jax.tree.map(lambda leaf: leaf[rows], self.traced)
        return dataclasses.replace(self, runs=runs, traced=traced, params=self.params[rows])


def set_batch_sizes(runs: Sequence[Run], task: Task) -> list[Run]:
    """Runs of a cohort with a `batch_size` of all written out: the number of training images.

    A run that is given that number itself is of another cohort, so that cohorts can be told without the data.

    Raises:
        UsageError: batches that do not fit the training split or their ghost batches.
    """
    recipe, train = runs[0].recipe, len(task.splits["train"])
    if recipe.batch_size == "all":
        check_ghosts(recipe, train)
        return [dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, batch_size=train)) for run in runs]
    if recipe.batch_size > train:
        raise UsageError(f"batch_size: {recipe.batch_size} is more than the {train} training images of {recipe.task}")
    steps = train // recipe.batch_size
    for run in runs:
        if steps * run.recipe.epochs > MOST_STEPS:
            raise UsageError(f"epochs: {run.recipe.epochs} of {steps} steps each are more steps than can be counted")
    return list(runs)


def default_width(backend: str, model: str) -> int:
    """Lane width by backend and model: it depends on nothing else, so that a run's numbers do not either."""
    return DEFAULT_WIDTH[backend].get(model, FALLBACK_WIDTH[backend])


def make_cohort(
    runs: Sequence[Run], task: Task, choice: LayoutChoice, platform: str, reason: str, trunks: Mapping[str, Trunk]
) -> Cohort:
    """Makes a cohort of runs with the same static fields; arguments and errors as of `Cohort` and `make_layouts`."""
    runs = set_batch_sizes(runs, task)
    recipes = [run.recipe for run in runs]
    recipe, train = recipes[0], len(task.splits["train"])
    arms = {dataclasses.replace(recipe, seed=0): row for row, recipe in enumerate(recipes)}
    _, channels = norm_sites(recipe, task)
    check_networks(runs, task, len(channels), trunks)
    features = ProgramFeatures.of(list(arms))
    traced = trace_recipes(recipes, features, task, len(channels), train // cast(int, recipe.batch_size))
    for arm, row in arms.items():
        check_learns(arm, jax.tree.map(lambda leaf, row=row: leaf[row], traced.hparams))
    backend = platform if platform in DEFAULT_LOWERING else "gpu"
    if choice.lane_width == "all":
        width = max(Counter(vmap_key(traced, same_seed=bool(choice.share_batches))).values())
    else:
        width = cast(int, choice.lane_width) or default_width(backend, recipe.model)
    config = ProgramConfig(
        recipe=static_part(recipe),
        features=features,
        classes=len(task.classes),
        experts=experts_of(recipe, task.classes),
        image_shape=task.images.shape[1:],
        train_images=train,
        lowering=choice.lowering or default_lowering(backend, any(map(convolves, recipes))),
        lane_width=width,
        share_batches=bool(choice.share_batches) and width > 1,
    )
    # A learned slope is a parameter of the runs that learn it.
    sizes = {name: norm_sites(dataclasses.replace(recipe, activation=name), task)[0] for name in features.activation}
    counted = np.array([sizes[recipe.activation] for recipe in recipes], np.int64)
    return Cohort(
        runs=tuple(runs),
        task=task,
        config=config,
        traced=traced,
        params=counted + (traced.hparams.norm != KINDS.index("none")) @ channels,
        epochs=max(arm.epochs for arm in arms),
        pretrain_epochs=max((arm.pretrain_epochs for arm in arms if arm.pretrain != "none"), default=0),
        reason=reason,
        trunks=trunks,
        made_of=hash_each(functions_of(list(arms), [config.lowering])),
    )


def static_part(recipe: Recipe) -> Recipe:
    """Recipe with all traced fields at their defaults: what a program may look at."""
    return dataclasses.replace(Recipe(), **{name: getattr(recipe, name) for name in STATIC_FIELDS})


def explain_cohort(recipe: Recipe, by_key: Mapping[tuple, list[Run]]) -> str:
    """Why this cohort is not part of another: the static fields that differ between cohorts."""
    differ = [len(set(values)) > 1 for values in zip(*by_key, strict=True)]
    shapes = [f"{name} {format_value(getattr(recipe, name))}" for name in compress(STATIC_FIELDS, differ)]
    reasons = [f"shapes differ: {', '.join(shapes)}"] if shapes else []
    count = len(OWN_PROGRAMS)
    apart = zip(static_key(recipe)[-count:], OWN_PROGRAMS, strict=True)
    for own, (why, otherwise) in compress(apart, differ[-count:]):
        reasons.append(f"{own} {why}" if own else otherwise)
    return "; ".join(reasons) or "all runs share one program"


def check_traces(cohort: Cohort, lanes: int) -> None:
    """Traces training, evaluation and probes of epochs of so many lanes; JAX keeps what it has traced for the compiler.

    Raises:
        Exception: a program cannot be traced, and so not be trained: whatever its functions raise.
    """
    config, task, functions = cohort.config, cohort.task, cohort.functions

    traced = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape[1:]), leaf.dtype), cohort.traced)
    train = np.asarray(task.splits["train"], np.int32)
    arrays: Any = (task.images, np.asarray(task.labels), train, task.mean, task.std)
    data = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), DeviceData(*arrays))
    state = functions.init.eval_shape(traced, data)
    arguments = abstract_arguments(config, traced, data, state, count_chunks(task, config.evaluation_chunk))
    for name in ("train", "evaluate", *["probe"] * bool(config.probes("epoch"))):
        getattr(functions, name).trace(*arguments[name])
