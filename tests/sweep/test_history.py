"""What is known of each run: which epoch is selected, and that nothing is lost between sessions."""

import numpy as np
import pytest

from fishnet.sweep.spec.history import CURVES, LOWER_IS_BETTER, SUMMARY, History
from fishnet.sweep.spec.recipe import SELECTABLE


def selected(values: list[float], select_by: str) -> int:
    """The best epoch (from 1, 0 for none) after all of `values` were seen one by one."""
    history = History.empty(2, len(values), 3)
    for epoch, value in enumerate(values):
        history.curves[1, epoch, CURVES.index(select_by)] = value
        if history.is_better(1, epoch, select_by):
            history.best_epoch[1] = epoch + 1
    assert not history.best_epoch[0]
    return int(history.best_epoch[1])


def test_every_selectable_figure_is_a_curve():
    assert set(SELECTABLE) == {f"val_{name}" for name in SUMMARY}
    assert set(SELECTABLE) <= set(CURVES)
    assert set(LOWER_IS_BETTER) <= set(SELECTABLE)


@pytest.mark.parametrize("select_by", SELECTABLE)
@pytest.mark.parametrize(
    ("values", "lowest", "highest"),
    [
        ([3.0, 1.0, 2.0], 2, 1),
        ([1.0, 1.0, 1.0], 1, 1),  # ties go to the earlier epoch
        ([np.nan, 2.0, 2.5], 2, 3),
        ([2.0, np.nan, 2.0], 1, 1),
        ([np.inf, 1.0, -np.inf], 2, 2),  # what is not finite was not measured
        ([np.nan, np.nan], 0, 0),
        ([0.0], 1, 1),
    ],
)
def test_the_best_epoch(select_by, values, lowest, highest):
    assert selected(values, select_by) == (lowest if select_by in LOWER_IS_BETTER else highest)


def test_a_history_survives_being_saved():
    rng = np.random.default_rng(0)
    history = History.empty(3, 4, 2)
    for value in history.arrays().values():
        value[...] = rng.integers(0, 3, value.shape)
    history.curves[1] = np.nan
    again = History.of(history.arrays())
    for name, value in history.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], value)
        assert again.arrays()[name].dtype == value.dtype
        assert again.arrays()[name] is not value
    again.steps[:] = -9  # a copy: what was read from a checkpoint may be read-only
    assert (history.steps != -9).all()
