"""From runs to cohorts: which runs share a program, how wide its lanes are and where each lane lives."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fishnet.data import Task
from fishnet.errors import UsageError
from fishnet.nn.lowerings import LOWERINGS
from fishnet.sweep.components import STATIC_FIELDS, Knobs, knobs_of, plain_model
from fishnet.sweep.cost import forward_cost, step_seconds
from fishnet.sweep.program import Shape
from fishnet.sweep.recipe import Recipe, Run, format_value

# Lanes vectorised together, by backend; as measured in benchmarks/README.md.
DEFAULT_WIDTH = {"cpu": {"mlp": 8}, "gpu": {}, "tpu": {}}
FALLBACK_WIDTH = {"cpu": 1, "gpu": 16, "tpu": 16}
DEFAULT_LOWERING = {"cpu": "gemm", "gpu": "native", "tpu": "native"}


@dataclass(frozen=True)
class Cohort:
    """Runs that share one compiled program, and its layout."""

    runs: tuple[Run, ...]  # resolved recipes, in the sweep's order
    task: Task
    shape: Shape
    knobs: Knobs  # [run, ...]
    sites: int
    devices: int
    position: np.ndarray  # [run] int64: device * lanes_per_device + lane
    lanes_per_device: int
    reason: str  # why these runs are a cohort of their own
    estimated_seconds: float

    @property
    def epochs(self) -> int:
        return max(run.recipe.epochs for run in self.runs)

    @property
    def dropped_images(self) -> int:
        return self.shape.train_images % self.shape.recipe.batch_size

    def padded_knobs(self) -> Knobs:
        """The knobs by position; padding lanes repeat the first run and are never trained."""
        source = np.zeros(self.devices * self.lanes_per_device, np.int64)
        source[self.position] = np.arange(len(self.runs))
        return jax.tree.map(lambda leaf: leaf[source], self.knobs)

    def view(self) -> dict[str, Any]:
        """What the plan says of the cohort, in JSON values."""
        return {
            "runs": len(self.runs),
            "lane_width": self.shape.lane_width,
            "lowering": self.shape.lowering,
            "devices": self.devices,
            "estimated_seconds": round(self.estimated_seconds, 1),
            "steps_per_epoch": self.shape.steps_per_epoch,
            "epochs": self.epochs,
            "dropped_images": self.dropped_images,
            "reason": self.reason,
        }


def make_cohorts(
    runs: Sequence[Run],
    tasks: Mapping[tuple[str, int], Task],
    lane_width: int | str | None,
    lowering: str | None,
    devices: Sequence[jax.Device],
) -> list[Cohort]:
    """Groups resolved runs into cohorts and lays out their lanes.

    Args:
        runs: with resolved recipes.
        tasks: by (task, image size).
        lane_width: lanes vectorised together; "all": as many as agree in their kinds; None: the default.
        lowering: of convolutions; None: the default of the backend.
        devices: to spread the lanes over.

    Raises:
        UsageError: a batch larger than the training split, or a norm_layers beyond the last layer.
    """
    by_key = group_runs(runs)
    return [
        _cohort(members, tasks[members[0].recipe.task, members[0].recipe.image_size], lane_width, lowering, devices, by_key)
        for members in by_key.values()
    ]


def group_runs(runs: Sequence[Run]) -> dict[tuple, list[Run]]:
    """Runs by the values of their static fields, in order of first appearance."""
    by_key: dict[tuple, list[Run]] = {}
    for run in runs:
        by_key.setdefault(tuple(getattr(run.recipe, name) for name in STATIC_FIELDS), []).append(run)
    return by_key


def default_width(backend: str, model: str) -> int:
    """Lane width by backend and model: it depends on nothing else, so that a run's numbers do not either."""
    return DEFAULT_WIDTH[backend].get(model, FALLBACK_WIDTH[backend])


def form_groups(positions: Sequence[int], kinds: Sequence[tuple], width: int) -> list[list[int]]:
    """Splits lanes into groups of at most `width` that agree in their kinds, in order of first appearance."""
    by_kind: dict[tuple, list[int]] = {}
    for position, kind in zip(positions, kinds, strict=True):
        by_kind.setdefault(kind, []).append(position)
    return [lanes[i : i + width] for lanes in by_kind.values() for i in range(0, len(lanes), width)]


def kinds_of(knobs: Knobs, run: int) -> tuple:
    """The choices in which lanes of one group must agree."""
    return tuple(leaf[run].item() for leaf in jax.tree.leaves(knobs.kinds))


def _cohort(
    runs: list[Run],
    task: Task,
    lane_width: int | str | None,
    lowering: str | None,
    devices: Sequence[jax.Device],
    by_key: Mapping[tuple, list[Run]],
) -> Cohort:
    recipe = runs[0].recipe
    train = len(task.splits["train"])
    if recipe.batch_size > train:
        raise UsageError(f"batch_size: {recipe.batch_size} is more than the {train} training images of {recipe.task}")
    sites = norm_sites(recipe, task)
    for run in runs:
        layers = run.recipe.norm_layers
        if layers != "all" and max(layers) > sites:
            raise UsageError(f"norm_layers: {format_value(layers)!r}, but this {recipe.model} has {sites} layers with a norm")
    steps = train // recipe.batch_size
    knobs = jax.tree.map(lambda *leaves: np.stack(leaves), *[knobs_of(r.recipe, task, sites, steps) for r in runs])
    kinds = [kinds_of(knobs, i) for i in range(len(runs))]
    backend = devices[0].platform if devices[0].platform in DEFAULT_LOWERING else "gpu"
    if lane_width == "all":
        width = max(kinds.count(kind) for kind in kinds)
    else:
        width = lane_width or default_width(backend, recipe.model)
    groups = form_groups(range(len(runs)), kinds, width)
    used = min(len(devices), len(groups))
    position, lanes_per_device = _lay_out(groups, used, len(runs), width)
    shape = Shape(
        recipe=static_part(recipe),
        classes=len(task.classes),
        image_shape=task.images.shape[1:],
        train_images=train,
        lowering=lowering or DEFAULT_LOWERING[backend],
        lane_width=width,
    )
    epochs = sum(run.recipe.epochs for run in runs)
    cost = forward_cost(plain_model(recipe, len(task.classes), sites), recipe.batch_size, task.images.shape[1:])
    return Cohort(
        runs=tuple(runs),
        task=task,
        shape=shape,
        knobs=knobs,
        sites=sites,
        devices=used,
        position=position,
        lanes_per_device=lanes_per_device,
        reason=_reason(recipe, by_key),
        estimated_seconds=epochs * steps * step_seconds(cost, used),
    )


def norm_sites(recipe: Recipe, task: Task) -> int:
    """How many norms the model of `recipe` has."""
    model = plain_model(dataclasses.replace(recipe, norm="none", norm_layers="all"), len(task.classes), sites=10_000)
    images = jax.ShapeDtypeStruct((1, *task.images.shape[1:]), np.uint8)
    variables = jax.eval_shape(lambda i: model.init(jax.random.key(0), i, train=False), images)
    return sum(name.startswith("norm_") for name in variables["params"])


def static_part(recipe: Recipe) -> Recipe:
    """The recipe with all traced fields at their defaults: what a program may look at."""
    return dataclasses.replace(Recipe(), **{name: getattr(recipe, name) for name in STATIC_FIELDS})


def check_overrides(lane_width: int | str | None, lowering: str | None) -> None:
    """Refuses a lane width or lowering that does not exist.

    Raises:
        UsageError: with the valid values.
    """
    if lane_width is not None and lane_width not in ("all", "auto"):
        if isinstance(lane_width, bool) or not isinstance(lane_width, int) or lane_width < 1:
            raise UsageError(f"lane width {lane_width!r} is not a whole number from 1, all or auto")
    if lowering is not None and lowering not in LOWERINGS:
        raise UsageError(f"unknown lowering {lowering!r}: valid are {', '.join(LOWERINGS)}")


def _lay_out(groups: list[list[int]], devices: int, runs: int, width: int) -> tuple[np.ndarray, int]:
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
    differing = [
        name for i, name in enumerate(STATIC_FIELDS) if len({key[i] for key in by_key}) > 1
    ]
    if not differing:
        return "all runs share one program"
    return "shapes differ: " + ", ".join(f"{name} {format_value(getattr(recipe, name))}" for name in differing)
