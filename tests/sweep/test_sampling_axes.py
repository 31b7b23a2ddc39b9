"""Fields that are drawn: their distributions, what identifies them, and a sweep of draws from end to end."""

import dataclasses
import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fishnet.checks.value_types import format_value
from fishnet.errors import UsageError, UserError
from fishnet.report.html import write_report
from fishnet.report.results import load_results
from fishnet.sweep import Range, Recipe, Samples, Stopping, Sweep, load_run, run_sweep
from fishnet.sweep.spec.field_parsing import parse_value
from fishnet.sweep.spec.random_search import differences
from fishnet.sweep.spec.search_space import domain_from
from fishnet.sweep.spec.unit_cube import METHODS
from fishnet.sweep.spec.validation import check_sweep
from fishnet.sweep.store.folder import check_same_order, check_same_sweep
from tests.sweep.conftest import TINY, assert_same_run

SPACE = {
    "lr": Range(0.001, 0.3, log=True),
    "dropout": Range(0, 0.5),
    "depth": Range(1, 3),
    "batch_size": Range(16, 127, log=True),
    "optimizer": ["momentum", "adam"],
    "widths": [(8,), (8, 16)],
}


def test_saved_draws_of_an_earlier_spelling_are_read():
    now = Samples({"norm": ["none", "weight_standardized"]}, 2)
    old = json.loads(json.dumps(now.spec()).replace("standardized", "standardised"))
    assert Samples.of(old).points == now.points
    # A report shows the arms as the tables spell them.
    assert domain_from("norm", old["space"]["norm"]).values == ("none", "weight_standardised")


def values_of(name, domain, method, draws=512):
    # Beside a number, so that all draws of a few names can be different.
    return [point[name] for point in Samples({name: domain, "weight_decay": Range(0, 1)}, draws, method).points]


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_uniform_and_logarithms_of_numbers_too(method):
    dropout = values_of("dropout", Range(0.1, 0.5), method)
    assert stats.kstest(dropout, stats.uniform(0.1, 0.4).cdf).pvalue > 0.001
    lr = values_of("lr", Range(1e-4, 1.0, log=True), method)
    assert stats.kstest(lr, stats.loguniform(1e-4, 1.0).cdf).pvalue > 0.001


@pytest.mark.parametrize("method", METHODS)
def test_whole_numbers_and_names_are_equally_likely(method):
    for name, domain, levels in [("depth", Range(2, 5), [2, 3, 4, 5]), ("optimizer", ["sgd", "adam"], ["sgd", "adam"])]:
        values = values_of(name, domain, method)
        assert stats.chisquare([values.count(level) for level in levels]).pvalue > 0.001
        assert all(type(value) is type(levels[0]) for value in values)


def test_whole_numbers_on_a_logarithmic_scale_share_it_from_each_to_the_next():
    values = values_of("batch_size", Range(1, 7, log=True), "sobol", 2048)
    expected = [2048 * math.log((n + 1) / n) / math.log(8) for n in range(1, 8)]
    assert stats.chisquare([values.count(n) for n in range(1, 8)], expected).pvalue > 0.001


def test_sobol_draws_are_spread_more_evenly_than_by_chance():
    """Of 2^k points every one of 2^k equal slices holds one, in each field, up to the rounding of the numbers."""
    points = Samples({"dropout": Range(0, 1), "momentum": Range(0, 1)}, 64, "sobol").points
    for name in ("dropout", "momentum"):
        slices = {min(int(point[name] * 16), 15) for point in points}
        assert len(slices) == 16
        counts = np.bincount([min(int(point[name] * 16), 15) for point in points])
        assert counts.tolist() == pytest.approx([4] * 16, abs=1)


@pytest.mark.parametrize("method", METHODS)
def test_more_draws_begin_with_the_same(method):
    few, many = (Samples(SPACE, draws, method, seed=3).points for draws in (5, 40))
    assert many[:5] == few
    assert Samples(SPACE, 5, method, seed=4).points != few


@pytest.mark.parametrize("method", METHODS)
def test_all_draws_are_different_and_a_small_space_is_drawn_whole(method):
    points = Samples({"depth": Range(1, 4), "optimizer": ["sgd", "adam"]}, 8, method).points
    assert len({tuple(point.items()) for point in points}) == 8


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e4), st.booleans(), st.integers(0, 100))
def test_a_sampled_number_is_in_its_range_and_is_what_its_name_says(low, factor, log, seed):
    high = low * factor
    domain = Samples({"weight_decay": Range(low, high, log)}, 4, "random", seed)
    for point in domain.points:
        value = point["weight_decay"]
        assert low <= value <= high
        assert parse_value("weight_decay", format_value(value)) == value
        assert value in (low, high) or len(np.format_float_scientific(value, trim="-").split("e")[0]) <= 10


def test_names_of_arms_are_short():
    arms = Sweep(Recipe(), samples=Samples({"lr": Range(0.001, 0.3, log=True), "dropout": Range(0, 0.5)}, 64)).runs()
    assert max(len(run.arm) for run in arms) <= len("lr=0.001234 dropout=0.1234")


def test_every_combination_of_the_axes_has_the_same_draws_and_every_draw_all_seeds():
    samples = Samples({"lr": Range(0.001, 0.3, log=True)}, 4)
    sweep = Sweep(TINY, {"norm": ["none", "batch"]}, 2, samples=samples)
    assert [(run.recipe.norm, run.recipe.lr, run.recipe.seed) for run in sweep.runs()] == [
        (norm, point["lr"], seed) for norm in ("none", "batch") for point in samples.points for seed in (0, 1)
    ]
    assert sweep.varied == {"norm": ("none", "batch"), "lr": tuple(point["lr"] for point in samples.points)}


def test_what_is_sampled_is_part_of_what_a_sweep_is_and_nothing_else_is_changed():
    plain = Sweep(TINY, {"norm": ["none", "batch"]})
    assert "samples" not in plain.spec()
    assert plain.hash() == Sweep(TINY, {"norm": ["none", "batch"]}, samples=Samples()).hash()
    sweeps = [Sweep(TINY, samples=Samples(SPACE, draws, method, seed)) for draws, method, seed in
              [(4, "sobol", 0), (8, "sobol", 0), (4, "random", 0), (4, "sobol", 1)]]  # fmt: skip
    assert len({sweep.hash() for sweep in sweeps}) == 4
    other_order = Samples(dict(reversed(SPACE.items())), 4)
    assert Sweep(TINY, samples=other_order).hash() != sweeps[0].hash()  # for its draws are others


def test_draws_are_kept_in_plain_values():
    samples = Samples(SPACE, 5, "random", 2)
    spec = json.loads(json.dumps(samples.spec()))
    assert spec == samples.spec()
    assert Samples.of(spec).points == samples.points
    assert pickle.loads(pickle.dumps(samples)) == samples
    assert pickle.loads(pickle.dumps(Sweep(TINY, samples=samples))).hash() == Sweep(TINY, samples=samples).hash()


def test_draws_can_be_given():
    points = [{"optimizer": "adam", "lr": 0.1}, {"lr": 0.2, "optimizer": "sgd"}]
    samples = Samples({"lr": Range(0.1, 0.3), "optimizer": ["adam", "sgd"]}, points)
    assert [list(point.items()) for point in samples.points] == [
        [("lr", 0.1), ("optimizer", "adam")],
        [("lr", 0.2), ("optimizer", "sgd")],
    ]
    assert "method" not in samples.spec()
    assert not samples.notes


@pytest.mark.parametrize(
    ("draws", "method", "told"), [(32, "sobol", 0), (33, "sobol", 1), (33, "random", 0), (1, "sobol", 0)]
)
def test_powers_of_two_are_recommended(draws, method, told):
    notes = Samples({"lr": Range(0.1, 0.3)}, draws, method).notes
    assert len(notes) == told
    assert all("32 or 64" in note for note in notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": {"seed": Range(0, 9)}}, "seed cannot be sampled"),
        ({"space": {"lrr": Range(0, 9)}}, "unknown sampled field 'lrr'.*did you mean 'lr'"),
        ({"space": {"norm": Range(0, 9)}}, "norm: '0..9' is a range, but the field is no number"),
        ({"space": {"widths": Range(8, 16)}}, "widths: '8..16' is a range, but the field is no number"),
        ({"space": {"lr": Range(0.3, 0.1)}}, "lr: '0.3..0.1' is no range"),
        ({"space": {"lr": Range(0.3, 0.3)}}, "lr: '0.3..0.3' is no range"),
        ({"space": {"dropout": Range(0, 0.5, log=True)}}, "dropout: '0..0.5:log' is logarithmic"),
        ({"space": {"depth": Range(1, 2.5)}}, "depth: 2.5 is not a whole number"),
        ({"space": {"lr": Range(0.1, math.inf)}}, "inf is not a finite number"),
        ({"space": {"lr": Range("auto", 1.0)}}, "not a range from a number to a number"),
        ({"space": {"norm": []}}, "sample norm has no values"),
        ({"space": {"norm": ["none", "none"]}}, "'none' twice"),
        ({"space": {"norm": "none"}}, "'none' is not a list of values"),
        ({"space": {"lr": [0.1]}, "draws": 0}, "draws: 0 is not at least 1"),
        ({"space": {"lr": [0.1]}, "draws": True}, "draws: True is neither"),
        ({"space": {"depth": Range(1, 3)}, "draws": 4}, "draws: 4 is more than there are different ones, 3"),
        ({"space": {"dropout": Range(0, 0.5)}, "draws": 6000}, "draws: 6000 different ones were not found"),
        ({"space": {"lr": [0.1]}, "method": "halton"}, "unknown sampler 'halton': valid are sobol, random"),
        ({"space": {"lr": [0.1]}, "seed": -1}, "draw seed: -1"),
        ({"space": {"lr": [0.1]}, "draws": []}, "the list is empty"),
        ({"space": {"lr": [0.1]}, "draws": [{"lr": 0.2}]}, "draw 1: lr '0.2' is not in 0.1"),
        ({"space": {"lr": [0.1]}, "draws": [{"lr": 0.1}, {"lr": 0.1}]}, "draw 2 is given twice"),
        ({"space": {"lr": [0.1]}, "draws": [{"norm": "none"}]}, "draw 1 has the fields norm, not lr"),
    ],
)
def test_samples_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        Samples(**arguments)


def test_a_field_is_not_both_an_axis_and_sampled():
    with pytest.raises(UsageError, match="lr is given both as an axis and to be sampled"):
        Sweep(TINY, {"lr": [0.1]}, samples=Samples({"lr": Range(0.1, 0.2)}))
    with pytest.raises(UsageError, match="one metric"):
        Sweep(TINY, stopping=Stopping(median=True), samples=Samples({"select_by": ["val_loss", "val_ece"]}, 2))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"dropout": Range(0, 1)}, "dropout: '1' is not at least 0 and below 1"),
        ({"lr": Range(0, 0.1)}, "lr: '0' is not above 0"),
        ({"optimizer": ["adam", "adm"]}, "unknown optimizer 'adm'"),
        ({"focal_gamma": Range(1, 2)}, "focal_gamma: .* would have no effect in any run"),
    ],
)
def test_what_a_field_cannot_be_is_refused_even_if_it_is_not_drawn(space, message):
    with pytest.raises(UsageError, match=message):
        check_sweep(Sweep(TINY, samples=Samples(space, 1)))


def test_another_sweep_is_refused_with_what_differs(tmp_path):
    def content(*arguments, **options):
        sweep = Sweep(TINY, samples=Samples(*arguments, **options))
        return sweep.spec() | {"spec_hash": sweep.hash()}

    space = {"lr": Range(0.1, 0.3), "optimizer": ["sgd", "adam"]}
    one = content(space, 4)
    for other, words in [
        (content(space | {"lr": Range(0.1, 0.2)}, 4), "sample lr 0.1..0.3 there, 0.1..0.2 here"),
        (content(space, 8), "draws 4 there, 8 here"),
        (content(space, 4, "random"), "sampler sobol there, random here"),
        (content(space, 4, seed=1), "draw seed 0 there, 1 here"),
        (content({"lr": space["lr"]}, 4), "sample optimizer sgd,adam there, absent here"),
    ]:
        with pytest.raises(UserError, match=f"another sweep \\({words}\\)"):
            check_same_sweep(tmp_path, one, other)
    check_same_sweep(tmp_path, one, content(space, 4))
    # Another version of SciPy could draw otherwise from the same seed.
    drawn = [point | {"lr": 0.25} if number == 2 else point for number, point in enumerate(one["samples"]["draws"])]
    (difference,) = differences(one["samples"], one["samples"] | {"draws": drawn})
    assert difference.startswith("draw 3 lr=")
    assert difference.endswith(f"lr=0.25 optimizer={drawn[2]['optimizer']} here")


def test_axes_in_another_order_are_refused_while_it_matters(tmp_path):
    axes = {"norm": ["none", "batch"], "lr": [0.1, 0.2]}
    one, other = (Sweep(TINY, part) for part in (axes, dict(reversed(axes.items()))))
    begun, wanted = (sweep.spec() | {"spec_hash": sweep.hash()} for sweep in (one, other))
    assert begun["spec_hash"] == wanted["spec_hash"]
    with pytest.raises(UserError, match="the axes in the order norm, lr: give them so again"):
        check_same_order(tmp_path, begun, wanted)
    check_same_sweep(tmp_path, begun, wanted)


LR = {"lr": Range(0.001, 0.5, log=True)}
BASE = dataclasses.replace(TINY, optimizer="sgd", epochs=4)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A halving sweep of 72 draws, in groups of eight lanes."""
    sweep = Sweep(BASE, seeds=1, samples=Samples(LR, 72), stopping=Stopping(3))
    return sweep, run_sweep(sweep, tmp_path_factory.mktemp("drawn") / "out", devices=1)


def test_a_draw_trains_as_it_does_alone(drawn, tmp_path):
    sweep, result = drawn
    run = int(result.runs.run[result.runs.status == "ok"].iloc[-1])
    rate = sweep.runs()[run].recipe.lr
    alone = run_sweep(Sweep(sweep.recipe, {"lr": [rate]}, 1), tmp_path / "out", devices=1)
    assert_same_run(result.out, run, alone.out, 0)


def test_the_tables_have_what_was_drawn(drawn):
    sweep, result = drawn
    assert result.runs.lr.tolist() == [point["lr"] for point in sweep.samples.points]
    assert result.runs.arm.tolist() == [f"lr={format_value(lr)}" for lr in result.runs.lr]
    run = int(result.runs.run[result.runs.status == "ok"].iloc[0])
    assert load_run(result.out, run).recipe.lr == result.runs.lr[run]


def test_the_same_draws_find_their_folder_finished(drawn):
    sweep, result = drawn
    again = Sweep(sweep.recipe, seeds=1, samples=Samples(LR, 72), stopping=Stopping(3))
    assert run_sweep(again, result.out, devices=1).finished


def test_the_page_shows_each_sampled_field_and_the_best_arms(drawn):
    _, result = drawn
    results = load_results(result.out)
    assert list(results.axes) == ["lr"]
    assert [arm.name for arm in results.arms] == result.runs.arm.tolist()
    text = " ".join(write_report(result.out).read_text(encoding="utf-8").split())
    assert "72 draws of lr on synthetic" in text
    assert "Validation accuracy of 72 arms by lr, drawn from 0.001..0.5:log" in text
    assert all(f"{rank}: {arm.name}" in text for rank, arm in enumerate(results.ranked[:6], start=1))
    assert f"7: {results.ranked[6].name}" not in text
    assert "drawn from 0.001..0.5:log" in text
    assert {path.stem for path in (result.out / "figures").iterdir()} >= {"overview", "learning_curves"}


@pytest.mark.parametrize(
    ("width", "draws", "active"), [(8, 72, [72, 24, 24, 8]), pytest.param(1, 7, [7, 3, 3, 1], marks=pytest.mark.slow)]
)
def test_lanes_that_have_ended_cost_nothing(drawn, tmp_path, width, draws, active):
    """Groups are formed anew from the arms that go on, so that at least 0.95 of the lane-steps executed are useful."""
    out = drawn[1].out
    if width == 1:
        sweep = dataclasses.replace(drawn[0], samples=Samples(LR, draws))
        out = run_sweep(sweep, tmp_path / "out", devices=1, lane_width=1).out
    assert pd.read_parquet(out / "curves.parquet").groupby("epoch").run.count().tolist() == active
    steps = 8 * sum(active)
    assert json.loads((out / "sweep.json").read_text())["steps"] == {"executed": steps, "useful": steps}


def test_padding_and_steps_after_divergence_are_not_useful(tmp_path):
    """Three lanes in a group of eight, one of them not finite from its first steps on."""
    result = run_sweep(Sweep(BASE, {"lr": [0.1, 0.2, 1e6]}, 1), tmp_path / "out", devices=1)
    assert result.runs.status.tolist() == ["ok", "ok", "diverged"]
    steps = json.loads((result.out / "sweep.json").read_text())["steps"]
    assert steps == {"executed": 4 * 8 * 8, "useful": 2 * 4 * 8 + result.runs.first_bad_step[2]}
