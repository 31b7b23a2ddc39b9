"""Figures over a number or another measure: what is drawn, and what is left out."""

import numpy as np
import pytest

from fishnet.report.figures.svg import draw_svg
from fishnet.study.figures.numbers import cells_panel, number_line, numbers_panel, trade_panel
from fishnet.study.metrics import column_metric
from tests.experiments.test_question import trial_of

LOSS = column_metric("val_loss", "validation loss", larger_is_better=False)


def test_a_line_has_the_points_at_which_every_run_has_a_value():
    values = {"a": [1.0, 3.0], "b": [4.0, np.nan], "c": [2.0, 2.0]}
    line = number_line("of x", {10.0: "c", 1.0: "a", 3.0: "b", 5.0: "none"}, values)
    np.testing.assert_array_equal(line.epochs, [1, 10])
    np.testing.assert_array_equal(line.mean, [2, 2])
    assert line.half[0] == pytest.approx(12.7062, rel=1e-5)  # t of one degree of freedom times sd / sqrt(2)
    assert line.half[1] == 0


def test_the_panel_tells_the_best_of_each_line():
    values = {"a": [1.0, 3.0], "b": [0.5, 0.7], "c": [9.0, 9.5]}
    panel = numbers_panel(
        values, LOSS, {"x": {1.0: "a", 2.0: "b", 4.0: "c"}, "none": {1.0: "d"}}, "title", "rate", most=3.0
    )
    assert "x 0.6 at 2" in panel.alt
    assert "none" not in panel.alt
    assert "<svg" in draw_svg(panel)
    tiny = {"a": [1e-6, 3e-6], "b": [0.5, 0.7]}  # the interval of the first reaches below 0
    lines = {"x": {1.0: "a", 2.0: "b"}}
    svg = draw_svg(numbers_panel(tiny, LOSS, lines, "title", "rate", logarithmic_values=True))
    assert "<svg" in svg and "nan" not in svg.casefold() and "mathdefault" not in svg and ">1e-06<" in svg
    assert numbers_panel({}, LOSS, {"x": {1.0: "a"}}, "title", "rate") is None


def test_two_measures_against_each_other():
    columns = {"val_loss": {"a": [1, 2, 3], "b": [np.nan, 1, 1]}, "train_seconds": {"a": [5, 5, 5], "b": [1, 1, 1]}}
    trial = trial_of(columns)
    seconds = column_metric("train_seconds", "seconds")
    panel = trade_panel(trial, seconds, LOSS, "title", (1.5,))
    assert panel.alt.endswith("a 5, 2")
    assert "<svg" in draw_svg(panel)
    assert (
        trade_panel(trial, column_metric("train_seconds", ""), column_metric("val_loss", ""), "x").alt.count(";") == 0
    )


def test_two_choices_are_cells_of_which_the_best_is_framed():
    values = {"a": [1.0, 3.0, 2.0], "b": [1.0, 1.0, 1.0], "c": [4.0, np.nan, 4.0], "d": [5.0, 5.0, 5.0]}
    cells = {("up", "left"): "a", ("up", "right"): "b", ("down", "left"): "c", ("down", "right"): "none"}
    panel = cells_panel(trial_of({"val_loss": values}), LOSS, cells, "title")
    assert panel.alt == "title: validation loss. up, left: 2.000; up, right: 1.000"
    svg = draw_svg(panel)
    assert svg.count("±") == 2 and ">down<" not in svg  # a row of nothing but a diverged and a missing arm
    frames = svg.count("stroke-width: 1.6")
    assert frames == 1
    assert cells_panel(trial_of({"val_loss": values}), LOSS, {("up", "left"): "a"}, "title") is None
