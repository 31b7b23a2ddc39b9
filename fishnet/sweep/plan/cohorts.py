"""From runs to cohorts: which runs share a program, how wide its lanes are and where each lane lives."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fishnet.checks.arguments import check_type, quote_value
from fishnet.data import Task
from fishnet.errors import UsageError, UserError
from fishnet.host.machine import Device
from fishnet.lookup import unknown
from fishnet.nn.conv_implementations import DEFAULT_LOWERING, LOWERINGS
from fishnet.nn.norm_formulas import KINDS
from fishnet.pretraining import OBJECTIVES
from fishnet.source_hash.digest import hash_each
from fishnet.sweep.plan.backbones import Trunk, transfer_trunk
from fishnet.sweep.plan.grouping import form_groups, group_runs, vmap_key
from fishnet.sweep.plan.learnable import check_learns
from fishnet.sweep.plan.user_components import functions_of
from fishnet.sweep.program.build import build_model, experts_of, frozen_leaves, plain_model
from fishnet.sweep.program.config import ProgramConfig, ProgramFeatures, static_key
from fishnet.sweep.program.pretrain_step import RNGS
from fishnet.sweep.program.program import ProgramFunctions, get_functions
from fishnet.sweep.program.traced_config import TracedConfig, trace_recipes
from fishnet.sweep.program.traced_probes import Axes, find_axes
from fishnet.sweep.spec.combinations import check_ghosts
from fishnet.sweep.spec.fields import format_value
from fishnet.sweep.spec.random_search import MOST_RUNS
from fishnet.sweep.spec.recipe import STATIC_FIELDS, Recipe
from fishnet.sweep.spec.sweep import Run

# Lanes vectorised together, by backend; as measured in benchmarks/README.md.
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
    """How a cohort's lanes are laid out and computed; None: as usual."""

    lane_width: int | str | None = None
    lowering: str | None = None
    share_batches: bool | None = None
    asked_width: int | None = None  # before memory lowered it
    most_devices: int | None = None  # side by side
    why: str = ""  # in words, where it was timed


@dataclass(frozen=True)
class Cohort:
    """Runs that share one compiled program, and its layout."""

    runs: tuple[Run, ...]  # resolved recipes, in the sweep's order
    task: Task
    config: ProgramConfig
    traced: TracedConfig  # [run, ...]
    params: np.ndarray  # [run] int64, parameters that each arm uses: the scale of a norm of kind none is not one
    devices: int
    position: np.ndarray  # [run] int64: device * lanes_per_device + lane
    lanes_per_device: int
    reason: str  # why these runs are a cohort of their own
    trunks: Mapping[str, Trunk]  # those that its runs begin with, by their `trunk`
    asked_width: int  # the lane width before memory lowered it
    most_devices: int | None  # that work side by side, as chosen by timing or by memory; None: all there are
    why: str = ""  # it is laid out like this, in words, where that was timed
    made_of: Mapping[str, str] = field(default_factory=dict)  # digests of the user's components that its runs name

    @property
    def epochs(self) -> int:
        """Of its longest run."""
        return max(run.recipe.epochs for run in self.runs)

    @property
    def pretrain_epochs(self) -> int:
        """Of the longest pretraining; 0 where no run pretrains."""
        return max((run.recipe.pretrain_epochs for run in self.runs if run.recipe.pretrain != "none"), default=0)

    @property
    def objectives(self) -> list[str]:
        """Of pretraining, each a program of its own, in the order of their table."""
        used = {run.recipe.pretrain for run in self.runs}
        return [name for name in OBJECTIVES if name in used]

    @property
    def sites(self) -> int:
        """Hidden layers of its networks."""
        return self.traced.hparams.norm.shape[-1]

    @property
    def dropped_images(self) -> int:
        """Training images that each epoch leaves out: its incomplete last batch."""
        return self.config.train_images % self.config.batch_size

    @property
    def run_at(self) -> np.ndarray:
        """The run at each position [device * lane] int64; padding repeats the first run and is never trained."""
        runs = np.zeros(self.devices * self.lanes_per_device, np.int64)
        runs[self.position] = np.arange(len(self.runs))
        return runs

    @cached_property
    def vmap_key(self) -> list[tuple]:
        """In what the lanes of a group agree, run by run."""
        return vmap_key(self.traced, self.config.share_batches)

    @cached_property
    def functions(self) -> ProgramFunctions:
        """Of its program, traced once, whoever asks first, in this sweep or an earlier one of the process."""
        return get_functions(self.config, self.made_of)

    @cached_property
    def probe_axes(self) -> Axes:
        """What the figures of its probes are over."""
        first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), self.traced)
        return find_axes(self.config, build_model(self.config, first.ids, first.hparams))

    def padded_config(self) -> TracedConfig:
        """The traced values by position."""
        return jax.tree.map(lambda leaf: leaf[self.run_at], self.traced)

    def view(self) -> dict[str, Any]:
        """What the plan says of the cohort, in JSON values."""
        return {
            "runs": len(self.runs),
            "lane_width": self.config.lane_width,
            "share_batches": self.config.share_batches,
            "lowering": self.config.lowering,
            "devices": self.devices,
            "asked_width": self.asked_width,
            "most_devices": self.most_devices,
            "why": self.why,
            "steps_per_epoch": self.config.steps_per_epoch,
            "epochs": self.epochs,
            "dropped_images": self.dropped_images,
            "pretraining": self.objectives,
            "reason": self.reason,
        }


def make_cohorts(
    runs: Sequence[Run],
    tasks: Mapping[tuple[str, Any], Task],
    lane_width: int | str | None,
    lowering: str | None,
    devices: Sequence[Device],
    started_with: Sequence[Mapping[str, Any]] | None = None,
    trunks: Mapping[str, Trunk] | None = None,
    share_batches: bool | None = None,
) -> list[Cohort]:
    """Groups resolved runs into cohorts and lays out their lanes.

    Args:
        runs: with resolved recipes.
        tasks: by (task, image size).
        lane_width: lanes vectorised together; "all": as many as agree in their kinds; None: the default.
        lowering: of convolutions; None: the default of the backend.
        devices: to spread the lanes over.
        started_with: the cohorts' `view`s when the sweep was started: a resumed one keeps their widths and lowerings,
            and uses no more devices side by side than they say.
        trunks: of `fishnet.sweep.store.backbones.load_trunks`.
        share_batches: whether lanes are only vectorised with others of their seed, whose batches are theirs too; None:
            the default, which is not.

    Raises:
        UsageError: a batch larger than the training split, a layer beyond the last one, a norm that does not fit its
            maps, a pattern of freeze that matches nothing, more stages of unfreezing than layers, a hard class that
            does not exist, a trunk that does not fit.
        UserError: another width or lowering is asked for than the sweep was started with.
    """
    by_key = group_runs(runs)
    choices = [LayoutChoice(lane_width, lowering, share_batches)] * len(by_key)
    if started_with:
        choices = [kept_layout(view, lane_width, lowering, share_batches) for view in started_with]
        if [view["runs"] for view in started_with] != [len(members) for members in by_key.values()]:
            raise UserError("this sweep was planned by another version of fishnet: choose another --out")
    cohorts = []
    for members, choice in zip(by_key.values(), choices, strict=True):
        task = tasks[members[0].recipe.task, members[0].recipe.image_size]
        cohorts.append(_cohort(with_batches(members, task), task, choice, devices, by_key, trunks or {}))
    if share_batches and all(cohort.asked_width == 1 for cohort in cohorts):
        raise UsageError("share_batches would have no effect: all lanes have width 1 here; give a lane_width")
    return cohorts


def with_batches(runs: Sequence[Run], task: Task) -> list[Run]:
    """Runs with a `batch_size` of all written out: the number of training images.

    Args:
        runs: of one cohort; one that is given that number itself is of another, so that cohorts can be told without
            the data.
        task: theirs.

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


def kept_layout(
    view: Mapping[str, Any], lane_width: int | str | None, lowering: str | None, share_batches: bool | None = None
) -> LayoutChoice:
    """The layout that a cohort was started with.

    Raises:
        UserError: others are asked for.
    """
    shared = view.get("share_batches", False)
    if share_batches not in (None, shared) and view["lane_width"] > 1:
        raise UserError(
            f"this sweep was started {'with' if shared else 'without'} share_batches: its numbers would change; "
            "choose another --out"
        )
    for name, wanted in (("lane_width", lane_width), ("lowering", lowering)):
        as_before = (view[name], view.get("asked_width")) if name == "lane_width" else (view[name],)
        if wanted not in (None, "auto", "all", *as_before):
            raise UserError(
                f"this sweep was started with {name} {view[name]}, not {wanted}: its numbers would change; "
                "choose another --out"
            )
    more = {name: view[name] for name in ("asked_width", "most_devices", "why") if view.get(name)}
    return LayoutChoice(view["lane_width"], view["lowering"], shared, **more)


def default_width(backend: str, model: str) -> int:
    """Lane width by backend and model: it depends on nothing else, so that a run's numbers do not either."""
    return DEFAULT_WIDTH[backend].get(model, FALLBACK_WIDTH[backend])


def _cohort(
    runs: list[Run],
    task: Task,
    choice: LayoutChoice,
    devices: Sequence[Device],
    by_key: Mapping[tuple, list[Run]],
    trunks: Mapping[str, Trunk],
) -> Cohort:
    recipe = runs[0].recipe
    train = len(task.splits["train"])
    _, channels = norm_sites(recipe, task)
    sites = len(channels)
    check_layers(runs, sites)
    for norm, layers, pretrain in dict.fromkeys((r.recipe.norm, r.recipe.norm_layers, r.recipe.pretrain) for r in runs):
        model = plain_model(dataclasses.replace(recipe, norm=norm, norm_layers=layers), task.classes, sites)
        frozen_leaves(recipe, abstract_params(model, task))
        check_step(model, task, recipe)
        if pretrain != "none":
            trunk = model.clone(frozen_norms={})
            check_step(OBJECTIVES[pretrain](trunk=trunk), task, recipe, f"pretrain {pretrain}, ")
    for run in runs:
        if run.recipe.trunk != "none":
            transfer_trunk(
                run.recipe,
                *abstract_variables(plain_model(run.recipe, task.classes, sites), task),
                trunks[run.recipe.trunk],
            )
    steps = train // recipe.batch_size
    features = ProgramFeatures.of([run.recipe for run in runs])
    traced = trace_recipes([run.recipe for run in runs], features, task, sites, steps)
    arms = {dataclasses.replace(run.recipe, seed=0): row for row, run in enumerate(runs)}
    for arm, row in arms.items():
        check_learns(arm, jax.tree.map(lambda leaf, row=row: leaf[row], traced.hparams))
    backend = devices[0].platform if devices[0].platform in DEFAULT_LOWERING else "gpu"
    if choice.lane_width == "all":
        width = max(Counter(vmap_key(traced, same_seed=bool(choice.share_batches))).values())
    else:
        width = choice.lane_width or default_width(backend, recipe.model)
    most = min(choice.most_devices or len(devices), len(devices))
    shared = bool(choice.share_batches) and width > 1
    groups = form_groups(range(len(runs)), vmap_key(traced, shared), width)
    used = min(most, len(groups))
    position, lanes_per_device = lay_out(groups, used, len(runs), width)
    config = ProgramConfig(
        recipe=static_part(recipe),
        features=features,
        classes=len(task.classes),
        experts=experts_of(recipe, task.classes),
        image_shape=task.images.shape[1:],
        train_images=train,
        lowering=choice.lowering or DEFAULT_LOWERING[backend],
        lane_width=width,
        share_batches=shared,
    )
    # A learned slope is a parameter of the runs that learn it.
    sizes = {name: norm_sites(dataclasses.replace(recipe, activation=name), task)[0] for name in features.activation}
    counted = np.array([sizes[run.recipe.activation] for run in runs], np.int64)
    return Cohort(
        runs=tuple(runs),
        task=task,
        config=config,
        traced=traced,
        params=counted + (traced.hparams.norm != KINDS.index("none")) @ channels,
        devices=used,
        position=position,
        lanes_per_device=lanes_per_device,
        reason=_reason(recipe, by_key),
        trunks=trunks,
        asked_width=choice.asked_width or width,
        most_devices=choice.most_devices,
        why=choice.why,
        made_of=hash_each(functions_of([run.recipe for run in runs], [config.lowering])),
    )


def narrowed(cohort: Cohort, width: int, devices: int, most_devices: int | None = None) -> Cohort:
    """The same runs at a lower lane width or on fewer devices.

    Args:
        cohort: as laid out.
        width: lanes vectorised together.
        devices: to spread the lanes over.
        most_devices: kept for a sweep that goes on later; None: as it was.
    """
    runs = range(len(cohort.runs))
    shared = cohort.config.share_batches and width > 1
    groups = form_groups(runs, vmap_key(cohort.traced, shared), width)
    used = min(devices, len(groups))
    position, lanes = lay_out(groups, used, len(runs), width)
    return dataclasses.replace(
        cohort,
        config=dataclasses.replace(cohort.config, lane_width=width, share_batches=shared),
        devices=used,
        position=position,
        lanes_per_device=lanes,
        most_devices=most_devices or cohort.most_devices,
    )


def check_layers(runs: Sequence[Run], sites: int) -> None:
    """Refuses lists of layers with one that the network does not have.

    Args:
        runs: of one cohort.
        sites: hidden layers.

    Raises:
        UsageError: with how many there are.
    """
    for name, count, what in (("norm_layers", sites, "a norm"), ("max_norm_layers", sites + 1, "weights")):
        for run in runs:
            layers = getattr(run.recipe, name)
            if layers != "all" and max(layers) > count:
                raise UsageError(
                    f"{name}: {format_value(layers)!r}, but this {run.recipe.model} has {count} layers with {what}"
                )


def norm_sites(recipe: Recipe, task: Task) -> tuple[int, np.ndarray]:
    """The parameters of the model of `recipe` without norms, and the channels [site] int64 of its places for norms."""
    params = abstract_params(bare_model(recipe, task), task)
    sites = sum(name.startswith("norm_") for name in params)
    channels = np.array([params[f"norm_{site}"]["bias"].size for site in range(sites)], np.int64)
    return sum(leaf.size for leaf in jax.tree.leaves(params)), channels


def bare_model(recipe: Recipe, task: Task) -> nn.Module:
    """The model of `recipe` without norms."""
    bare = dataclasses.replace(recipe, norm="none", norm_layers="all", act_coefficient="auto")
    return plain_model(bare, task.classes, sites=0)


def abstract_params(model: nn.Module, task: Task) -> Any:
    """Shapes of the parameters of `model` on the images of `task`.

    Raises:
        UsageError: its norms do not fit its maps.
    """
    return abstract_variables(model, task)[0]


def abstract_variables(model: nn.Module, task: Task) -> tuple[Any, Any]:
    """Shapes of the parameters and of the running statistics of `model` on the images of `task`.

    Raises:
        UsageError: its norms do not fit its maps.
    """
    images = jax.ShapeDtypeStruct((1, *task.images.shape[1:]), np.uint8)
    shapes = jax.eval_shape(lambda i: model.init(jax.random.key(0), i, train=False), images)
    return shapes["params"], shapes.get("batch_stats", {})


def check_step(model: nn.Module, task: Task, recipe: Recipe, what: str = "") -> None:
    """Refuses a model that cannot make a step of training: nothing is computed.

    Args:
        model: a classifier or an objective of pretraining, with the norms of the run.
        task: whose images it sees.
        recipe: its `batch_size`, a number.
        what: precedes it in the message.

    Raises:
        UsageError: a norm over a single value, or another that does not fit a batch.
    """
    images = jax.ShapeDtypeStruct((recipe.batch_size, *task.images.shape[1:]), np.uint8)

    def step(images: jax.Array) -> Any:
        rngs = {name: jax.random.key(0) for name in ("params", *RNGS)}
        variables = model.init(rngs, images, train=False)
        return model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])

    try:
        jax.eval_shape(step, images)
    except UsageError as error:
        ghosts = f", ghost_batch {recipe.ghost_batch}" if recipe.ghost_batch else ""
        raise UsageError(f"{what}model {recipe.model}, batch_size {recipe.batch_size}{ghosts}: {error}") from error


def static_part(recipe: Recipe) -> Recipe:
    """The recipe with all traced fields at their defaults: what a program may look at."""
    return dataclasses.replace(Recipe(), **{name: getattr(recipe, name) for name in STATIC_FIELDS})


def check_overrides(
    lane_width: int | str | None, lowering: str | None, devices: int | None, share_batches: bool | None = None
) -> None:
    """Refuses a lane width, lowering, number of devices or sharing of batches that makes no sense.

    Raises:
        UsageError: with the valid values.
    """
    whole = isinstance(lane_width, int) and not isinstance(lane_width, bool) and 1 <= lane_width <= MOST_RUNS
    if not (whole or lane_width is None or (isinstance(lane_width, str) and lane_width in ("all", "auto"))):
        raise UsageError(
            f"lane width {quote_value(lane_width)} is not a whole number from 1 to {MOST_RUNS}, all or auto"
        )
    check_type("lowering", lowering, (str, type(None)), f"{', '.join(LOWERINGS)} or None")
    if lowering is not None and lowering not in LOWERINGS:
        raise unknown("lowering", lowering, LOWERINGS)
    if devices is not None and (isinstance(devices, bool) or not isinstance(devices, int) or devices < 1):
        raise UsageError(f"devices: {quote_value(devices)} is not a whole number from 1")
    if share_batches and lane_width in (1, "auto"):
        why = "such lanes have batches of their own" if lane_width == 1 else "it tries both and takes the faster"
        raise UsageError(f"share_batches would have no effect with lane width {lane_width}: {why}")


def lay_out(groups: list[list[int]], devices: int, runs: int, width: int) -> tuple[np.ndarray, int]:
    """Deals groups out to devices in turn; returns the position of each run and the lanes a device holds.

    A device holds a multiple of the lane width: from fewer lanes XLA would make a group by broadcasting, simplify what
    follows, and round a lane otherwise than in a larger sweep.
    """
    held: list[list[int]] = [[] for _ in range(devices)]
    for i, group in enumerate(groups):
        held[i % devices].extend(group)
    lanes = -(-max(map(len, held)) // width) * width
    position = np.zeros(runs, np.int64)
    for device, members in enumerate(held):
        position[members] = device * lanes + np.arange(len(members))
    return position, lanes


def _reason(recipe: Recipe, by_key: Mapping[tuple, list[Run]]) -> str:
    """Why this cohort is not part of another: the static fields that differ between cohorts."""
    differing = [name for i, name in enumerate(STATIC_FIELDS) if len({key[i] for key in by_key}) > 1]
    reasons = []
    if differing:
        what = ", ".join(f"{name} {format_value(getattr(recipe, name))}" for name in differing)
        reasons.append(f"shapes differ: {what}")
    for i, (why, otherwise) in enumerate(OWN_PROGRAMS, start=len(STATIC_FIELDS)):
        if len({key[i] for key in by_key}) > 1:
            own = static_key(recipe)[i]
            reasons.append(f"{own} {why}" if own else otherwise)
    return "; ".join(reasons) or "all runs share one program"
