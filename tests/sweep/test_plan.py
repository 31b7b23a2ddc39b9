"""Which runs share a program, how wide its lanes are and where each lane lives."""

import dataclasses
import json
import sys
import zlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishnet.data import load_task
from fishnet.errors import UsageError, UserError
from fishnet.nn.conv_implementations import default_lowering
from fishnet.nn.norm_formulas import KINDS
from fishnet.sweep import Recipe, Run, Sweep
from fishnet.sweep.plan.cohorts import FALLBACK_WIDTH, LayoutChoice, default_width, static_part
from fishnet.sweep.plan.grouping import form_groups, group_runs, sharing_costs_nothing, vmap_key
from fishnet.sweep.plan.layout import check_overrides, make_layouts, resume_choices
from fishnet.sweep.plan.networks import abstract_variables
from fishnet.sweep.program import traced_config
from fishnet.sweep.program.build import plain_model
from fishnet.sweep.program.rng import STREAMS, stream_keys
from fishnet.sweep.spec.recipe import FIELDS, STATIC_FIELDS, resolve
from tests.sweep.conftest import TINY

CNN = Recipe(task="synthetic", image_size=8, model="cnn", widths=(8, 16), batch_size=30)
ONE_VALUE = {"model": "mlp", "widths": (8,)}  # a channel and an image


@pytest.fixture(scope="module")
def task():
    return load_task("synthetic", 8)


def layouts_of(sweep: Sweep, task, devices=2, started_with=None, **choice) -> list:
    runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
    asked = LayoutChoice(**choice)
    choices = resume_choices(started_with, asked, runs) if started_with else None
    return make_layouts(runs, {("synthetic", 8): task}, jax.devices()[:devices], asked, choices)


def cohorts_of(sweep: Sweep, task, **options) -> list:
    return [layout.cohort for layout in layouts_of(sweep, task, **options)]


def test_runs_share_a_program_unless_a_static_field_differs(task):
    axes = {"lr": [0.1, 0.2], "widths": [(8,), (16,)], "activation": ["relu", "elu"], "epochs": [1, 2]}
    first, second = cohorts_of(Sweep(TINY, axes=axes, seeds=2), task)
    assert {run.recipe.widths for run in first.runs} == {(8,)}
    assert {run.recipe.widths for run in second.runs} == {(16,)}
    assert len(first.runs) == len(second.runs) == 16
    assert sorted(run.index for cohort in (first, second) for run in cohort.runs) == list(range(32))
    assert first.reason == "shapes differ: widths 8"
    assert first.epochs == 2
    (only,) = cohorts_of(Sweep(TINY, axes={"lr": [0.1, 0.2]}, seeds=2), task)
    assert only.reason == "all runs share one program"


def test_a_program_sees_static_fields_only():
    changed = Recipe(widths=(4,), lr=7.0, activation="elu", epochs=3, seed=9)
    assert static_part(changed) == Recipe(widths=(4,))
    assert set(STATIC_FIELDS) < set(FIELDS)


def test_the_view_is_plain_json_and_counts_dropped_images(task):
    (layout,) = layouts_of(Sweep(CNN, seeds=2), task)
    view = json.loads(json.dumps(layout.view()))
    assert view == {
        "runs": 2,
        "lane_width": 1,
        "share_batches": False,
        "lowering": default_lowering("cpu"),
        "devices": 2,
        "asked_width": 1,
        "most_devices": None,
        "why": "",
        "steps_per_epoch": 8,
        "epochs": 8,
        "dropped_images": 16,
        "pretraining": [],
        "reason": "all runs share one program",
    }


def test_params_count_what_each_arm_uses(task):
    axes = {"norm": [kind for kind in KINDS if kind != "layer_channel"], "norm_layers": ["all", (2,)]}
    (cohort,) = cohorts_of(Sweep(CNN, axes=axes, seeds=1), task)
    for run, params in zip(cohort.runs, cohort.params, strict=True):
        model = plain_model(run.recipe, classes=tuple("abcd"), sites=2)
        assert params == sum(leaf.size for leaf in jax.tree.leaves(abstract_variables(model, task)[0]))
    assert cohort.params[0] == 9 * 3 * 8 + 8 + 9 * 8 * 16 + 16 + 16 * 4 + 4
    assert cohort.params[2] == cohort.params[0] + 8 + 16
    assert cohort.params[3] == cohort.params[0] + 16


@given(
    kinds=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    width=st.integers(1, 9),
)
def test_groups_hold_every_lane_once_and_agree_in_their_kinds(kinds, width):
    groups = form_groups(range(len(kinds)), [(kind,) for kind in kinds], width)
    assert sorted(lane for group in groups for lane in group) == list(range(len(kinds)))
    for group in groups:
        assert 1 <= len(group) <= width
        assert len({kinds[lane] for lane in group}) == 1
    fewest = sum(-(-kinds.count(kind) // width) for kind in set(kinds))
    assert len(groups) == fewest


@settings(max_examples=10, deadline=None)
@given(
    activations=st.lists(st.sampled_from(["relu", "elu", "tanh"]), min_size=1, max_size=12),
    width=st.sampled_from([1, 2, 5, "all", None]),
    devices=st.integers(1, 2),
)
def test_every_run_has_a_place_of_its_own(task, activations, width, devices):
    recipe = resolve(TINY)
    runs = [
        Run(i, str(i), {}, dataclasses.replace(recipe, activation=name, seed=i)) for i, name in enumerate(activations)
    ]
    (layout,) = make_layouts(runs, {("synthetic", 8): task}, jax.devices()[:devices], LayoutChoice(width))
    cohort, lanes = layout.cohort, layout.lanes_per_device
    chosen = cohort.config.lane_width
    assert len(set(layout.position)) == len(runs)
    assert layout.position.min() >= 0
    assert layout.position.max() < layout.devices * lanes
    assert lanes % chosen == 0
    if width == "all":
        assert chosen == max(activations.count(name) for name in activations)
    padded = layout.traced
    for run, position in enumerate(layout.position):
        assert vmap_key(padded, True)[position] == vmap_key(cohort.traced, True)[run]
        np.testing.assert_array_equal(padded.hparams.keys[position], cohort.traced.hparams.keys[run])
    # Lanes of one group, formed anew on each device, stay together: no device has more groups than were dealt to it.
    kinds, dealt = cohort.vmap_key, 0
    for device in range(layout.devices):
        mine = [run for run in range(len(runs)) if layout.position[run] // lanes == device]
        assert mine
        dealt += len(form_groups(mine, [kinds[run] for run in mine], chosen))
    assert dealt == len(form_groups(range(len(runs)), kinds, chosen))


def test_the_default_width_depends_on_backend_and_model_alone(task):
    assert default_width("cpu", "cnn") == FALLBACK_WIDTH["cpu"] == 1
    for seeds in (1, 20):
        (cohort,) = cohorts_of(Sweep(CNN, seeds=seeds), task)
        assert (cohort.config.lane_width, cohort.config.lowering) == (1, default_lowering("cpu"))


def test_lanes_that_share_batches_have_one_seed(task):
    sweep = Sweep(CNN, axes={"lr": [0.1, 0.2, 0.3], "activation": ["relu", "tanh"]}, seeds=3)
    with pytest.raises(UsageError, match="share_batches would have no effect"):
        cohorts_of(sweep, task, lane_width=1, share_batches=True)
    for width, groups in ((2, 12), (4, 6), ("all", 6)):
        (layout,) = layouts_of(sweep, task, lane_width=width, share_batches=True)
        cohort = layout.cohort
        assert cohort.config.share_batches
        assert cohort.config.lane_width == (3 if width == "all" else width)
        positions, counts = layout.groups(range(len(cohort.runs)))
        assert counts.sum() == groups
        for device, count in enumerate(counts):
            for group in positions[device, :count]:
                members = [run for run in layout.runs_in(device, group) if run >= 0]
                assert len({(cohort.runs[run].recipe.seed, cohort.runs[run].recipe.activation) for run in members}) == 1
    assert [sharing_costs_nothing(cohort.traced, width) for width in (2, 3, 9)] == [False, True, False]
    with pytest.raises(UserError, match="started with share_batches"):
        cohorts_of(sweep, task, started_with=[layout.view()], share_batches=False)
    (again,) = cohorts_of(sweep, task, started_with=[layout.view()])
    assert again.config == cohort.config


def test_a_resumed_sweep_keeps_the_layout_of_each_cohort(task):
    sweep = Sweep(CNN, axes={"model": ["mlp", "cnn"]}, seeds=2)
    mlp, cnn = started = layouts_of(sweep, task, devices=1)
    assert mlp.cohort.config.lane_width != cnn.cohort.config.lane_width
    views = [layout.view() for layout in started]
    for asked in (None, "all", "auto"):
        again = cohorts_of(sweep, task, lane_width=asked, devices=2, started_with=views)
        assert [cohort.config for cohort in again] == [layout.cohort.config for layout in started]
    with pytest.raises(UserError, match="started with lane_width 1, not 8: its numbers would change"):
        cohorts_of(sweep, task, lane_width=8, started_with=views)
    with pytest.raises(UserError, match=r"started with lowering .*, not native"):
        cohorts_of(sweep, task, lowering="native", started_with=views)
    with pytest.raises(UserError, match="another version"):
        cohorts_of(sweep, task, started_with=views[:1])


def test_whole_batches_are_those_of_as_many_images_as_there_are(task):
    """The same program, to the last field; but not shared, as cohorts are told apart before the data are read."""
    whole, given = cohorts_of(Sweep(TINY, axes={"batch_size": ["all", 256]}, seeds=2), task)
    assert whole.config == given.config
    assert whole.config.steps_per_epoch == 1
    assert whole.dropped_images == 0
    assert {run.recipe.batch_size for run in whole.runs} == {256}
    jax.tree.map(np.testing.assert_array_equal, whole.traced.hparams, given.traced.hparams)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 257}, "batch_size: 257 is more than the 256 training images of synthetic"),
        ({"batch_size": "all", "ghost_batch": 7, "norm": "batch"}, "ghost_batch: 7 does not divide batch_size 256"),
        ({"norm_layers": (1, 3)}, "norm_layers: '1-3', but this cnn has 2 layers with a norm"),
        (
            {"widths": (8, 8, 8, 8), "norm": "instance"},
            r"instance norm over a single value: with inputs \(1, 1, 1, 8\)",
        ),
        (ONE_VALUE | {"batch_size": 1}, "model mlp, batch_size 1: batch norm over a single value"),
        (ONE_VALUE | {"ghost_batch": 1}, "model mlp, batch_size 30, ghost_batch 1: batch norm over a single value"),
        (ONE_VALUE | {"norm": "group"}, r"group norm over a single value: with inputs \(1, 8\)"),
        (ONE_VALUE | {"norm": "layer", "widths": (1,)}, "layer norm over a single value"),
        (ONE_VALUE | {"norm": "rms", "widths": (1,)}, "rms norm over a single value"),
        (ONE_VALUE | {"norm": "layer_channel", "widths": (1,)}, "layer_channel norm over a single value"),
        ({"widths": (8, 8, 8, 8), "batch_size": 1}, r"cnn, batch_size 1: batch norm .* with inputs \(1, 1, 1, 8\)"),
        (
            {"model": "resnet", "widths": (8, 8, 8, 8, 8), "batch_size": 1},
            "resnet, batch_size 1: batch norm over a single",
        ),
        ({"model": "separable", "widths": (1, 8), "norm": "weight_standardized"}, "cannot be standardized"),
        ({"cutout": 16}, "cutout: 16 is twice the image size 8 or more: it paints over every image"),
        ({"layer_rate": 1e-30}, "layer_rate: 1e-30 leaves the first layer a rate below what float32 holds"),
        (
            {"batch_size": "all", "epochs": 1, "warmup": 0.5},
            "warmup 0.5: the learning rate is 0 in all of",
        ),
        (
            {"schedule": "cyclic_triangular", "epochs": 1, "cycles": 8.0},
            "schedule cyclic_triangular: the learning rate is 0 in all of the run's 8 steps",
        ),
        (
            {"pretrain": "contrastive", "batch_size": 1},
            "pretrain contrastive, model cnn, batch_size 1: contrastive learning needs batches of two",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_refused(task, changes, message):
    with pytest.raises(UsageError, match=message):
        cohorts_of(Sweep(dataclasses.replace(CNN, **changes), seeds=1), task)


@pytest.mark.parametrize(
    "changes",
    [
        ONE_VALUE | {"norm_layers": (1,), "norm": "none", "batch_size": 1},
        ONE_VALUE | {"batch_size": 2},
        ONE_VALUE | {"batch_size": 1, "input_norm": "batch", "norm": "layer"},
        {"widths": (8, 8, 8), "batch_size": 1},
        {"batch_size": "all", "epochs": 1},
        {"schedule": "cyclic_triangular", "epochs": 1, "cycles": 8.0, "lr_min": 0.01},
        {"schedule": "cyclic_sine", "epochs": 1, "cycles": 7.0},
        {"cutout": 15, "layer_rate": 1e-15},
    ],
)
def test_what_learns_next_to_nothing_is_trained(task, changes):
    cohorts_of(Sweep(dataclasses.replace(CNN, **changes), seeds=1), task)


def test_each_arm_is_checked_not_just_the_first(task):
    deep = dataclasses.replace(CNN, widths=(8, 8, 8, 8))
    with pytest.raises(UsageError, match="instance norm"):
        cohorts_of(Sweep(deep, axes={"norm": ["batch", "instance"]}, seeds=1), task)
    cohorts_of(Sweep(deep, axes={"norm": ["batch", "instance"], "norm_layers": [(1, 2)]}, seeds=1), task)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((0, None, None), "lane width 0"),
        (("most", None, None), "lane width 'most'"),
        ((True, None, None), "lane width True"),
        ((1.5, None, None), "lane width 1.5"),
        ((None, "gem", None), "unknown lowering 'gem': valid are .*did you mean 'gemm'"),
        ((None, None, 0), "devices: 0"),
        ((None, None, "2"), "devices: '2'"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        check_overrides(*overrides)


def test_overrides_that_make_sense_pass():
    for overrides in ((None, None, None), (4, "gemm", 1), ("all", "native", 2), ("auto", "winograd", None)):
        check_overrides(*overrides)


@pytest.mark.parametrize(("arms", "seeds"), [(1, 40), (3, 40), (3, 5)])
def test_planning_looks_at_each_arm_once_however_many_seeds_it_has(task, monkeypatch, arms, seeds):
    looked = []
    trace = traced_config.trace_arm
    monkeypatch.setattr(traced_config, "trace_arm", lambda recipe, *rest: looked.append(recipe) or trace(recipe, *rest))
    (cohort,) = cohorts_of(Sweep(TINY, axes={"lr": [0.1, 0.2, 0.3][:arms]}, seeds=seeds), task)
    assert len(looked) == arms
    assert cohort.traced.hparams.keys.shape == (arms * seeds, len(STREAMS), 2)
    assert sorted(set(cohort.traced.hparams.scalars["lr"].tolist())) == np.float32([0.1, 0.2, 0.3][:arms]).tolist()


def test_a_run_has_the_keys_of_its_seed_whoever_is_beside_it():
    seeds = [7, 0, 2**32 - 1, 7, 3]
    for seed, keys in zip(seeds, stream_keys(seeds), strict=True):
        key = jax.random.key(np.uint32(seed), impl="threefry2x32")
        for name, data in zip(STREAMS, keys, strict=True):
            expected = jax.random.key_data(jax.random.fold_in(key, zlib.crc32(name.encode())))
            np.testing.assert_array_equal(data, expected)


def test_cohorts_come_in_order_of_first_appearance():
    runs = Sweep(TINY, axes={"lr": [0.1, 0.2], "widths": [(16,), (8,)]}, seeds=1).runs()
    assert [[run.index for run in members] for members in group_runs(runs).values()] == [[0, 2], [1, 3]]


def test_a_further_seed_costs_few_calls(task):
    """So that 10,000 runs are planned in seconds: what an arm needs is worked out once for all its seeds."""

    def calls(seeds: int) -> int:
        runs = [
            dataclasses.replace(run, recipe=resolve(run.recipe))
            for run in Sweep(TINY, axes={"lr": [0.1, 0.2]}, seeds=seeds).runs()
        ]
        count = 0

        def profile(frame, event, argument):
            nonlocal count
            count += event == "call"

        sys.setprofile(profile)
        try:
            make_layouts(runs, {("synthetic", 8): task}, jax.devices()[:2], LayoutChoice(1))
        finally:
            sys.setprofile(None)
        return count

    calls(20), calls(220)  # what is worked out once a process for so many seeds, such as the program for their keys
    assert calls(220) - calls(20) < 100 * 2 * 200
