"""Curves and layout against independent computations."""

import itertools
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure
from sklearn import metrics

from fishnet.report.figures.classes import confusion_panel, roc_curve, roc_panels
from fishnet.report.figures.curves import curve_panels, spread_apart
from fishnet.report.figures.overview import overview
from fishnet.report.figures.svg import (
    SERIES,
    STYLE,
    VARIABLES,
    Panel,
    corners_of,
    draw_svg,
    follow_scheme,
    save,
    shorten,
)
from fishnet.report.results import load_results


@pytest.mark.parametrize("levels", [4, 1000])
def test_roc_curve_equals_scikit_learns(levels):
    rng = np.random.default_rng(levels)
    positive, scores = rng.random(200) < 0.2, rng.integers(levels, size=200) / levels
    false, true = roc_curve(positive, scores)
    expected_false, expected_true, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(false, expected_false)
    np.testing.assert_allclose(true, expected_true)
    assert np.trapezoid(true, false) == pytest.approx(metrics.roc_auc_score(positive, scores))


def test_roc_curve_needs_both_kinds():
    assert roc_curve(np.zeros(4, bool), np.arange(4.0)) is None
    assert roc_curve(np.ones(4, bool), np.arange(4.0)) is None


@given(hnp.arrays(float, st.integers(0, 8), elements=st.floats(0, 1)))
def test_names_are_spread_apart_in_order(places):
    moved = np.array(spread_apart(places.tolist(), 0.1, (0.0, 1.0)))
    order = np.argsort(places, kind="stable")
    assert (np.diff(moved[order]) >= 0.1 - 1e-9).all()
    assert (moved <= 1.0 + 1e-9).all()
    if len(places) == 1:
        assert moved[0] == places[0]


def test_svg_is_whole_has_a_description_and_follows_the_scheme():
    panel = Panel(lambda axes: axes.plot([1, 2], color=SERIES[0]), 'a "line" & <more>', 200, 100)
    svg = draw_svg(panel)
    root = ET.fromstring(svg)
    assert root.attrib["aria-label"] == 'a "line" & <more>'
    assert "id=" not in svg.replace("clip", "").split("<defs>")[0]
    themed = follow_scheme(svg)
    assert "var(--c0)" in themed
    assert "var(--ink)" in themed
    assert not set(VARIABLES) & set(themed.split('"'))


def test_text_in_a_figure_is_never_formula_or_markup():
    svg = draw_svg(Panel(lambda axes: axes.set_title("$x_1$ <b>&amp; 鱼"), "", 200, 100))
    assert "$x_1$ &lt;b&gt;&amp;amp; 鱼" in svg


def test_pictures_are_saved_side_by_side(tmp_path):
    panels = [Panel(lambda axes: axes.plot([1, 2]), "", 100, 50)] * 3
    save(panels, [draw_svg(panel) for panel in panels], tmp_path / "figure", columns=2)
    root = ET.parse(tmp_path / "figure.svg").getroot()
    assert float(root.attrib["width"]) == 2 * panels[0].outer[0]
    assert (tmp_path / "figure.png").stat().st_size > 1000


@given(st.lists(st.tuples(st.integers(50, 500), st.integers(50, 500)), min_size=1, max_size=9), st.integers(1, 4))
def test_panels_side_by_side_do_not_overlap_and_leave_no_row_higher_than_its_panels(sizes, columns):
    corners, whole = corners_of(sizes, min(columns, len(sizes)))
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]
    for i, a in enumerate(boxes):
        assert a[2] <= whole[0] and a[3] <= whole[1]
        assert all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in boxes[i + 1 :])
    rows = {y: max(box[3] - box[1] for box in boxes if box[1] == y) for _, y in corners}
    assert sum(rows.values()) == whole[1]


def test_a_line_keeps_its_colour_where_another_is_missing(sweep_folder):
    axes = {"activation": ["relu", "elu"], "norm": ["none", "batch"]}
    whole, broken = curve_panels(
        load_results(sweep_folder(axes=axes, diverged=(3, 4, 5), epochs=3)), "val_loss", "loss"
    )
    relu, elu = "#0072b2", "#d55e00"
    assert relu in draw_svg(whole)
    assert elu in draw_svg(whole)
    svg = draw_svg(broken)
    assert relu not in svg  # relu with none is whole, relu with batch diverged
    assert elu in svg
    assert "diverged: relu" in svg


def test_a_panel_whose_runs_have_all_diverged_says_so(sweep_folder):
    """As at a rate that is too high for every activation, beside rates that are not."""
    axes = {"activation": ["relu", "elu"], "lr": [0.1, 0.5]}
    results = load_results(sweep_folder(axes=axes, seeds=2, epochs=3, diverged=(2, 3, 6, 7)))
    shown = curve_panels(results, "val_loss", "loss")
    assert [panel.alt.partition("Diverged: ")[2] for panel in shown] == ["", "relu, elu"]
    assert "diverged: relu, elu" in draw_svg(shown[1])


@pytest.mark.parametrize("axes", [{}, {"lr": [0.1, 0.01]}, {"norm": ["none", "batch"], "depth": [1, 2], "lr": [0.1]}])
def test_panels_have_descriptions_with_the_figures(sweep_folder, axes):
    results = load_results(sweep_folder(axes=axes, epochs=2))
    panels = overview(results) + roc_panels(results)
    assert all(panel.alt for panel in panels)
    for panel in overview(results):
        assert all(f"{arm.metrics['test_accuracy'].mean:.3f}"[1:] in panels[0].alt for arm in results.arms)
        ET.fromstring(draw_svg(panel))


def test_a_confusion_of_very_many_classes_still_draws():
    counts = np.eye(120, dtype=int)
    panel = confusion_panel(counts, [f"species {i}" for i in range(120)])
    assert "120 of 120" in panel.alt
    ET.fromstring(draw_svg(panel))


def test_long_names_lose_their_middle():
    assert shorten("short", 10) == "short"
    assert len(shorten("a rather long name", 9)) == 9


@settings(max_examples=60)
@given(
    st.floats(-20, 20, allow_subnormal=False),
    st.sampled_from([1e-3, 0.021, 0.13, 0.4, 1, 7, 60, 900, 25_000]),
    st.integers(140, 500),
)
def test_numbers_under_an_axis_stand_apart_and_within_the_picture(place, span, width):
    panel = Panel(lambda axes: axes.plot([place * span, (place + 1) * span], [0, 1]), "", width, 60)
    figure = Figure(figsize=[length / 96 for length in panel.outer], dpi=96)
    with matplotlib.rc_context(STYLE):
        panel.add_to(figure, 0, 0)
        figure.draw_without_rendering()
    axes = figure.axes[0]
    left, right = axes.get_xlim()
    shown = [tick.label1 for tick in axes.xaxis.get_major_ticks() if left <= tick.get_loc() <= right]
    boxes = [text.get_window_extent() for text in shown]
    assert len(boxes) >= 2
    assert all(one.x1 + 2 < other.x0 for one, other in itertools.pairwise(boxes))
    assert boxes[0].x0 >= 0 and boxes[-1].x1 <= panel.outer[0]
