"""Figures of answers: what they say and whether it fits."""

from fishnet.report.answer_figures import LINE, forest
from fishnet.report.evidence import Contrast, Trial, column, weigh
from tests.report.test_evidence import look_of


def test_a_long_measure_is_written_on_two_lines():
    trial = Trial("planted", (look_of(),))
    measures = [column("test_accuracy", words, diverged=0.1) for words in ("accuracy", "accuracy " * 6)]
    short, long = (forest(weigh(Contrast("accuracy", "", "planted", measure), trial)) for measure in measures)
    assert long.bottom == short.bottom + LINE
    assert "better by .05 +0.0" in short.alt
