"""Every component as a lane of one mixed program, each lane against its run in a smaller one."""

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks.catalogue import BASE, LANES, OWN, PROGRAMS, STEPS, find_differences, train_lanes
from fishnet.sweep.spec.recipe import FIELDS, resolve, value_names
from fishnet.sweep.spec.validation import check_recipe


@pytest.fixture(scope="module")
def together() -> list:
    return train_lanes([dataclasses.replace(BASE, **lane) for lane in LANES])


@pytest.mark.slow
def test_every_lane_learns_something_else(together):
    """No component is ignored: each lane ends elsewhere than every lane with another recipe."""
    ends = {}
    for lane, state in zip(LANES, together, strict=True):
        recipe = resolve(dataclasses.replace(BASE, **lane))
        check_recipe(recipe)
        ends.setdefault(state[2]["head"]["kernel"].tobytes(), {})[recipe] = lane
    alike = [list(lanes.values()) for lanes in ends.values() if len(lanes) > 1]
    # Momentum adds its weight decay to the gradient as a penalty does: they may or may not round alike.
    alike = [lanes for lanes in alike if lanes != [{"weight_decay": 0.1}, {"l2": 0.1}]]
    # Only between epochs is plateau anything but constant.
    assert alike == [[{"schedule": "constant"}, {"schedule": "plateau"}]]


# Lanes that share a smaller program, each with one of a mechanism: a table, a conditional part, a number; and runs
# alone. That a run does not depend on its neighbours shows in any two programs that hold it; `python -m
# benchmarks.catalogue` compares every run with itself alone.
APART = {
    "beside a few": [
        {"norm": "weight"},
        {"max_norm": 0.5},
        {"l1": 0.01},
        {"clip": 0.05, "clip_by": "adaptive"},
        {"init": "lsuv", "norm": "none", "lr": 0.001},
        {"epochs": 2, "unfreeze": (1,)},
        *({"activation": name, "norm": "none", "init_gain": 4.0, "lr": 1e-4} for name in ("prelu", "rrelu")),
        {"dropout": 0.3, "dropout_kind": "spatial"},
        {"mixup": 0.4},
        {"class_sampling": 1.0},
        {"hard_classes": "rising", "hard_augment": "strong"},
        {"ema": 0.9},
        {"eval_statistics": "precise", "norm": "batch", "init_gain": 1.1},
        {"loss": "hinge"},
    ],
    "alone": [{}],
    "alone, of the same shape": [{"init": "orthogonal", "norm": "none", "lr": 0.001}],
}


@pytest.mark.parametrize("name", APART)
@pytest.mark.slow
def test_lanes_of_the_catalogue_equal_their_runs_apart(together, name):
    apart = train_lanes([dataclasses.replace(BASE, **lane) for lane in APART[name]])
    for lane, state in zip(APART[name], apart, strict=True):
        assert not find_differences(together[LANES.index(lane)], state), lane


@pytest.mark.parametrize("name", OWN)
@pytest.mark.slow
def test_an_optimizer_that_steps_in_its_own_way_trains(name):
    recipe = dataclasses.replace(BASE, model="mlp", widths=(8,), dropout_layers="dense", optimizer=name, lr=0.01)
    (alone,) = train_lanes([recipe])
    params, _, evaluated, totals = alone
    assert np.isfinite(totals.loss) and totals.steps == STEPS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, evaluated)))
    assert totals.loss / STEPS < 2.5  # an even guess among four classes costs 1.39
    assert (evaluated["head"]["kernel"] != params["head"]["kernel"]).any() == (name == "schedule_free")


def test_the_catalogue_is_whole():
    """Every name of every table, and every field, is in the sweep of benchmarks/catalogue.py."""
    recipes = [resolve(dataclasses.replace(BASE, **{**shared, **lane})) for shared, lanes in PROGRAMS for lane in lanes]
    for field, table in value_names().items():
        if field not in ("select_by", "hard_augment"):  # chooses an epoch; chooses among the same as augment
            missing = set(table) - {getattr(recipe, field) for recipe in recipes} - {"auto", "same"}
            assert not missing, field
    unchanged = {field for field in FIELDS if len({getattr(recipe, field) for recipe in recipes}) == 1}
    # Sizes, the data, and what acts between epochs: test_fields.py; runs that begin with another: test_transfer.py;
    # probes, which change nothing: test_probing.py.
    assert unchanged == {
        *("task", "image_size", "widths", "depth", "batch_size", "stem_stride"),
        *("patience", "select_by", "plateau_factor", "plateau_patience", "rho", "pretrain_lr", "trunk"),
        *("probes", "probe_every", "probe_epochs", "probe_images"),
    }
