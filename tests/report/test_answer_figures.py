"""Figures of answers: what they say and whether it fits."""

import dataclasses

from matplotlib.figure import Figure

from fishnet.study.contrasts import Contrast, evaluate_contrast
from fishnet.study.figures.answers import LINE, LONGEST, arms_panel, curves_panel, forest_panel, wrap_label
from fishnet.study.metrics import column_metric
from fishnet.study.trials import Trial
from tests.report.test_evidence import look_of


def test_a_long_measure_is_written_on_two_lines():
    trial = Trial("planted", (look_of(),))
    metrics = [column_metric("test_accuracy", words, diverged=0.1) for words in ("accuracy", "accuracy " * 6)]
    short, long = (
        forest_panel(evaluate_contrast(Contrast("accuracy", "", "planted", metric), trial)) for metric in metrics
    )
    assert long.bottom == short.bottom + 2 * LINE  # two of the metric, one of what it is compared with
    assert "better by .05 +0.0" in short.alt


def test_one_curve_far_above_does_not_press_the_others_flat():
    look = look_of()
    curves = look.results.curves.copy()
    curves.loc[(curves["run"] < 10) & (curves["epoch"] == 1), "train_loss"] = 1e22
    trial = Trial("planted", (dataclasses.replace(look, results=dataclasses.replace(look.results, curves=curves)),))

    def top(panel) -> float:
        figure = Figure()
        panel.add_to(figure, 0, 0)
        return figure.axes[0].get_ylim()[1]

    assert top(curves_panel(trial, "train_loss", "title", "loss")) > 1e21
    assert 4 < top(curves_panel(trial, "train_loss", "title", "loss", most=4.0)) < 4.5
    assert top(curves_panel(Trial("planted", (look,)), "train_loss", "title", "loss", most=4.0)) < 4  # none so high


def test_no_line_below_the_axes_is_longer_than_the_panel():
    words = "training accuracy, as trained with, less validation accuracy, at the end"
    for text in (wrap_label(words), wrap_label(words, "difference to as it is"), wrap_label("a" * 20, "b" * 20)):
        assert max(map(len, text.split("\n"))) <= LONGEST + 1  # and a comma
        assert " ".join(text.replace("\n", " ").split()) == text.replace("\n", " ")
    assert wrap_label("accuracy", "difference to b") == "accuracy, difference to b"
    trial = Trial("planted", (look_of(),))
    short, long = (arms_panel(trial, column_metric("test_accuracy", name), "title") for name in ("accuracy", words))
    assert long.bottom == short.bottom + LINE
