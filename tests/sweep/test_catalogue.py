"""Every component as a lane of one mixed program, each lane against its run alone."""

import dataclasses

import jax
import numpy as np
import pytest

import fishnet.data
from fishnet.losses import LOSSES
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import NORMS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.schedules import SCHEDULES
from fishnet.sweep import Recipe
from fishnet.sweep.compiling import compiler_options
from fishnet.sweep.plan import make_cohorts
from fishnet.sweep.program import Program
from fishnet.sweep.recipe import Run
from fishnet.sweep.validate import check_recipe, resolve

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


def uneven():
    """The synthetic task with few images of class 0, so that what looks at class counts has something to see."""
    task = fishnet.data.load_task("synthetic", 8)
    train = task.splits["train"]
    rare = train[task.labels[train] == 0]
    return dataclasses.replace(task, splits={**task.splits, "train": np.setdiff1d(train, rare[8:]).astype(np.int32)})


def trained(recipes: list[Recipe]) -> list[dict]:
    """What each recipe's lane has after a few steps of the one program of all of them."""
    task = uneven()
    runs = [Run(i, str(i), {}, resolve(recipe)) for i, recipe in enumerate(recipes)]
    device = jax.devices()[0]
    (cohort,) = make_cohorts(runs, {("synthetic", 8): task}, None, None, [device])
    options = compiler_options(device.platform)
    program = Program(cohort.shape, cohort.padded_knobs(), task, [device], chunk=64)
    lanes = program.lower("init", 0).compile(compiler_options=options)(program.knobs[0], program.pixels[0])
    groups = np.full((program.lanes, 1), program.lanes, np.int32)
    groups[: len(runs), 0] = cohort.position
    window, steps = np.array([0, len(runs)], np.int32), np.array([0, STEPS], np.int32)
    rates = np.ones(program.lanes, np.float32)
    train = program.lower("train", 0).compile(compiler_options=options)
    lanes = train(program.knobs[0], lanes, rates, program.pixels[0], groups, window, steps)
    kept = jax.tree.map(np.asarray, (lanes.params, lanes.statistics, lanes.evaluated, lanes.epoch))
    return [jax.tree.map(lambda leaf, p=p: leaf[p], kept) for p in cohort.position]


@pytest.fixture(scope="module")
def together() -> list:
    return trained([dataclasses.replace(BASE, **lane) for lane in LANES])


def flat(tree) -> dict:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_every_lane_learns_something_else(together):
    """No component is ignored: each lane ends elsewhere than every lane with another recipe."""
    ends = {}
    for lane, state in zip(LANES, together, strict=True):
        recipe = resolve(dataclasses.replace(BASE, **lane))
        check_recipe(recipe)
        ends.setdefault(state[2]["head"]["kernel"].tobytes(), {})[recipe] = lane
    alike = [list(lanes.values()) for lanes in ends.values() if len(lanes) > 1]
    # Only between epochs is plateau anything but constant.
    assert alike == [[{"schedule": "constant"}, {"schedule": "plateau"}]]


# Lanes that share smaller programs, each with one of a mechanism: a table, a conditional part, a number; the last two
# programs hold a single run. That a run does not depend on its neighbours shows in any two programs that hold it.
APART = {
    "shapes of weights": [
        {"norm": "weight"},
        {"max_norm": 0.5},
        {"l1": 0.01},
        {"clip": 0.05, "clip_by": "adaptive"},
        {"init": "lsuv", "norm": "none", "lr": 0.001},
        {"epochs": 2, "unfreeze": (1,)},
    ],
    "chance": [
        *({"activation": name, "norm": "none", "init_gain": 4.0, "lr": 1e-4} for name in ("prelu", "rrelu")),
        {"dropout": 0.3, "dropout_kind": "spatial"},
        {"mixup": 0.4},
        {"class_sampling": 1.0},
        {"hard_classes": "rising", "hard_augment": "strong"},
    ],
    "averages": [{"ema": 0.9}, {"eval_statistics": "precise", "norm": "batch", "init_gain": 1.1}, {"loss": "hinge"}],
    "the base recipe": [{}],
    "alone": [{"init": "orthogonal", "norm": "none", "lr": 0.001}],
}


@pytest.mark.parametrize("name", APART)
def test_lanes_of_the_catalogue_equal_their_runs_apart(together, name):
    apart = trained([dataclasses.replace(BASE, **lane) for lane in APART[name]])
    for lane, state in zip(APART[name], apart, strict=True):
        mine, single = flat(together[LANES.index(lane)]), flat(state)
        assert single.keys() <= mine.keys()
        for leaf, value in single.items():
            np.testing.assert_array_equal(mine[leaf], value, err_msg=f"{lane} {leaf}")


@pytest.mark.parametrize("name", [name for name, optimizer in OPTIMIZERS.items() if optimizer.own_program])
def test_an_optimizer_that_steps_in_its_own_way_trains(together, name):
    ((params, _, evaluated, totals),) = trained([dataclasses.replace(BASE, optimizer=name, lr=0.01)])
    assert np.isfinite(totals.loss) and totals.steps == STEPS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, evaluated)))
    starts, others = together[0][3].loss, [state[0]["head"]["kernel"] for state in together]
    assert totals.loss < 1.5 * starts
    assert all((params["head"]["kernel"] != other).any() for other in others)
    assert (evaluated["head"]["kernel"] != params["head"]["kernel"]).any() == (name == "schedule_free")
