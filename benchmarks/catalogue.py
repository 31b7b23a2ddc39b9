"""Every component in one mixed sweep, and each of its runs alone: are they equal, bit for bit?

    python -m benchmarks.catalogue
    python -m benchmarks.catalogue --programs 1

Each value of every table is a run of one sweep on the synthetic task; runs that share a program are its lanes. Prints a
line a program and the runs that differ from their run alone, of which there should be none. Nearly all of its time is
compilation: 24 minutes for 183 runs in 25 programs (2 CPU cores, jax 0.10.1, beside other work), all equal.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fishnet.data import Task, load_task
from fishnet.host.interrupt import Interrupt
from fishnet.losses import LOSSES
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import NORMS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.schedules import SCHEDULES
from fishnet.pretraining import OBJECTIVES
from fishnet.sweep import Recipe
from fishnet.sweep.plan.layout import make_layouts
from fishnet.sweep.program.program import PretrainProgram
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.spec.sweep import Run
from fishnet.sweep.spec.validation import check_recipe

BASE = Recipe(
    task="synthetic",
    image_size=8,
    model="cnn",
    widths=(8, 16),
    batch_size=32,
    epochs=1,
    lr=0.02,
    dropout_layers="blocks",
)
STEPS = 7
SHARED = [name for name, optimizer in OPTIMIZERS.items() if not optimizer.own_program]
OWN = [name for name, optimizer in OPTIMIZERS.items() if optimizer.own_program]

# One change, or one that needs another, a lane. Together they name every component that shares a program.
LANES = [
    {},
    *({"activation": name, "norm": "none", "init_gain": 4.0, "lr": 1e-4} for name in ACTIVATIONS),
    {"activation": "leaky_relu", "act_coefficient": 0.3},
    {"activation": "elu", "act_coefficient": 0.3},
    *({"norm": name} for name in NORMS if name != "layer_channel"),
    {"norm": "batch", "norm_layers": (1,)},
    *({"init": name, "norm": "none", "lr": 0.001} for name in INITIALIZERS),
    {"init_gain": 0.5},
    {"init_bias": 0.1},
    *({"optimizer": name, "lr": 0.001, "weight_decay": 0.1} for name in SHARED),
    {"momentum": 0.5},
    {"weight_decay": 0.1},
    *({"clip": 0.05, "clip_by": name} for name in ("norm", "value", "adaptive")),
    {"l1": 0.01},
    {"l2": 0.1},
    {"max_norm": 0.5},
    {"max_norm": 0.5, "max_norm_layers": (1, 3)},
    {"epochs": 2, "unfreeze": (1,)},
    {"layer_rate": 0.5},
    {"unfreeze_rates": (0.3,)},
    {"eval_statistics": "precise", "norm": "batch", "init_gain": 1.1},
    {"hard_classes": "rising", "hard_augment": "strong"},
    {"hard_classes": "rising+falling", "hard_sampling": 4.0},
    {"ema": 0.9},
    *({"schedule": name} for name in SCHEDULES),
    {"schedule": "cyclic_sine", "cycles": 2.0, "lr_min": 0.01},
    {"warmup": 0.5},
    *({"loss": name} for name in LOSSES),
    {"loss": "focal", "focal_gamma": 1.0},
    {"loss": "poly1", "poly_epsilon": 3.0},
    {"loss": "ldam", "ldam_margin": 1.0, "ldam_scale": 2.0},
    {"loss": "logit_adjusted", "logit_tau": 0.5},
    {"class_weighting": "effective"},
    {"class_weighting": "inverse", "reweight_from": 0.2},
    {"class_sampling": 1.0},
    {"label_smoothing": 0.1},
    *({"dropout": 0.3, "dropout_kind": name} for name in ("plain", "spatial", "alpha")),
    *({"augment": name} for name in ("flip", "shift", "flip_shift", "strong")),
    {"mixup": 0.4},
    {"cutmix": 1.0},
    {"cutout": 4},
    {"seed": 5},
]

SELF_NORMALIZING = {
    "activation": "selu",
    "norm": "none",
    "init": "lecun_normal",
    "dropout": 0.1,
    "dropout_kind": "alpha",
}
# Components with programs of their own: what all lanes of one have, and how they differ.
VARIED = [{}, {"activation": "elu", "seed": 1}, {"norm": "group", "dropout": 0.3}]
PROGRAMS: list[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]] = [
    ({}, LANES),
    *(({"optimizer": name, "lr": 0.01}, VARIED) for name in OWN),
    ({"norm": "layer_channel"}, VARIED[:2]),
    ({"norm_position": "post"}, VARIED),
    ({"ghost_batch": 8}, VARIED),
    ({"input_norm": "batch"}, [*VARIED, {"eval_statistics": "batch"}]),
    ({"pool": "mean"}, VARIED),
    ({"precision": "bfloat16"}, VARIED),
    ({"dropout_layers": "input+dense", "dropout": 0.2}, VARIED[:2]),
    ({"se_reduction": 2}, VARIED),
    ({"freeze": "conv_0"}, VARIED),
    ({"model": "mlp", "dropout_layers": "dense"}, [*VARIED[:2], SELF_NORMALIZING]),
    ({"model": "separable"}, VARIED),
    ({"model": "resnet"}, [*VARIED, {"stochastic_depth": 0.3}]),
    ({"model": "resnet", "block": "preactivation"}, VARIED),
    ({"model": "resnet", "shortcut": "none"}, VARIED),
    ({"model": "efficientnet", "compound": 0.5}, [*VARIED, {"stochastic_depth": 0.3}]),
    ({"model": "hybrid", "hard_classes": "rising"}, VARIED),
    *(({"pretrain": name, "pretrain_epochs": 1}, VARIED) for name in OBJECTIVES),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Trains every program and every run alone; returns 1 if any differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--programs", type=int, default=len(PROGRAMS), help="only so many, from the first")
    flags = parser.parse_args(argv)
    different = 0
    for shared, lanes in PROGRAMS[: flags.programs]:
        began = time.perf_counter()
        recipes = [dataclasses.replace(BASE, **{**shared, **lane}) for lane in lanes]
        together = train_lanes(recipes)
        wrong = [
            f"{lane}: {name}"
            for lane, recipe, state in zip(lanes, recipes, together, strict=True)
            for name in find_differences(state, train_lanes([recipe])[0])
        ]
        name = ", ".join(f"{field} {value}" for field, value in shared.items()) or "shared by most"
        found = f"{len(wrong)} arrays differ" if wrong else "all equal to their runs alone"
        print(f"{name}: {len(lanes)} runs, {found} ({time.perf_counter() - began:.0f} s)", flush=True)
        for line in wrong:
            print(f"    {line}")
        different += len(wrong)
    return 1 if different else 0


def make_uneven_task() -> Task:
    """The synthetic task with few images of class 0, so that what looks at class counts has something to see."""
    task = load_task("synthetic", 8)
    train = task.splits["train"]
    rare = train[task.labels[train] == 0]
    return dataclasses.replace(task, splits={**task.splits, "train": np.setdiff1d(train, rare[8:]).astype(np.int32)})


def train_lanes(recipes: Sequence[Recipe]) -> list[Any]:
    """Trains all recipes as lanes of one program for a few steps; returns the final state of each lane.

    Args:
        recipes: that share a program, and an objective if they are pretrained.

    Returns:
        For each: parameters, running statistics, evaluated parameters, totals of the epoch, as NumPy arrays.
    """
    task, device = make_uneven_task(), jax.devices()[0]
    for recipe in recipes:
        check_recipe(recipe)
    runs = [Run(i, str(i), {}, resolve(recipe)) for i, recipe in enumerate(recipes)]
    (layout,) = make_layouts(runs, {("synthetic", 8): task}, [device])
    program = layout.bind([device])
    program.compile(["init", "train"], Interrupt())
    states, work = program.init(), layout.work(range(len(runs)))
    for name in layout.cohort.objectives:
        pretraining = PretrainProgram(program, name)
        pretraining.compile(["init", "train"], Interrupt())
        pretrained = pretraining.train(pretraining.init(states), work, 0, STEPS)
        states = pretraining.apply(states, pretrained, layout.mask(range(len(runs))))
    (lanes,) = program.train(states, [np.ones(program.lanes, np.float32)], work, 0, STEPS)
    kept = jax.tree.map(np.asarray, (lanes.params, lanes.statistics, lanes.evaluated, lanes.epoch))
    return [jax.tree.map(lambda leaf, p=p: leaf[p], kept) for p in layout.position]


def find_differences(state: Any, alone: Any) -> list[str]:
    """The arrays of a run alone that are not, bit for bit, in a lane's state, which may hold more of them."""
    mine, single = (
        {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(t)} for t in (state, alone)
    )
    return [name for name, value in single.items() if name not in mine or not np.array_equal(mine[name], value)]


if __name__ == "__main__":
    sys.exit(main())
