"""Curves of single classes over training: one class across arms, or all classes of one arm."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fishnet.report.figures.curves import Line, limits_of, line_panel
from fishnet.report.figures.svg import Panel
from fishnet.study.figures.answers import LETTERS, curve
from fishnet.study.trials import Trial


def class_curves_panel(
    trial: Trial, column: str, class_name: str, title: str, unit: str, labels: Sequence[str] | None = None
) -> Panel | None:
    """A column of `class_curves.parquet` of one class by epoch, a line an arm with its 95 % interval.

    Args:
        trial: whose first look is drawn.
        column: val_auc, val_loss or train_loss.
        class_name: of the class.
        title: of the panel.
        unit: of the vertical axis, in words.
        labels: of the arms shown; None: all.

    Returns:
        None without values.
    """
    look = trial.looks[0]
    table = class_line(look.results.class_curves, class_name)
    lines = [curve(table, look.runs(label), column, label) for label in labels or trial.labels]
    return draw_curves(lines, title, unit)


def all_classes_panel(trial: Trial, column: str, label: str, title: str, unit: str) -> Panel | None:
    """A column of `class_curves.parquet` of one arm by epoch, a line a class with its 95 % interval over seeds.

    Args:
        trial: whose first look is drawn.
        column: val_auc, val_loss or train_loss.
        label: of the arm.
        title: of the panel.
        unit: of the vertical axis, in words.

    Returns:
        None without values.
    """
    look = trial.looks[0]
    runs, table = look.runs(label), look.results.class_curves
    classes = look.results.classes_of(runs[0]) if runs else []
    return draw_curves([curve(class_line(table, name), runs, column, name) for name in classes], title, unit)


def draw_curves(lines: Sequence[Line], title: str, unit: str) -> Panel | None:
    """Draws the lines that have values in a panel; None without any."""
    shown = [line for line in lines if np.isfinite(line.mean).any()]
    limits = limits_of(shown)
    return None if limits is None else line_panel(shown, title, unit, limits, letters=LETTERS)


def class_line(table: pd.DataFrame, class_name: str) -> pd.DataFrame:
    """Rows of one class of a table that may be empty."""
    return table[table["class"] == class_name] if len(table) else table
