"""The table of arms at the end of a sweep, for a terminal or a pipe."""

from collections.abc import Iterator

import pandas as pd
from rich import box
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from fishnet.host.numbers import seconds_text
from fishnet.report.results import Results
from fishnet.stats import Interval

# column of runs.parquet -> its heading; validation ranks the arms, the other columns are of the test split
COLUMNS = {
    "val_accuracy": "validation\naccuracy",
    "test_accuracy": "test\naccuracy",
    "test_balanced_accuracy": "test bal.\naccuracy",
    "test_macro_auc": "test\nmacro AUC",
}
# column -> what it is called in a sentence
NAMES = {
    "val_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "test_balanced_accuracy": "balanced accuracy",
    "test_macro_auc": "macro AUC",
}
METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "macro AUC",
    "macro_f1": "macro F1",
    "ece": "calibration error (ECE)",
    "loss": "loss (nats)",
}
SHORT = {
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "test_balanced_accuracy": "balanced",
    "test_macro_auc": "AUC",
}


def print_arms(console: Console, results: Results, most: int = 40) -> None:
    """Prints the arms from best to worst by validation: a table, or where that is too wide two lines an arm.

    Args:
        console: where to; its width decides the form.
        results: of a finished or interrupted sweep.
        most: arms printed; the last line counts the others.
    """
    table = arms_table(results, most)
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
        console.print(table)
    else:
        console.print(*arms_lines(results, most), sep="\n")
    console.print(Text("\n" + caption(results, most)))


def arms_table(results: Results, most: int = 40) -> Table:
    """The arms from best to worst by validation, one row each and a column an axis."""
    arms = results.ranked
    diverged = any(arm.diverged for arm in arms)
    table = Table(
        Column("", no_wrap=True),
        *[Column(Text(heading), no_wrap=True) for heading in results.headings],
        *[Column(heading, justify="right", no_wrap=True) for heading in COLUMNS.values()],
        *[Column("diverged", justify="right", no_wrap=True)] * diverged,
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for arm in arms[:most]:
        best = arm is results.best
        table.add_row(
            "*" if best else "",
            *[Text(value) for value in results.cells(arm)],
            *[interval_text(arm.metrics[column]) for column in COLUMNS],
            *[f"{arm.diverged} of {arm.seeds}" if arm.diverged else ""] * diverged,
            style="bold" if best else "",
        )
    return table


def arms_lines(results: Results, most: int = 40) -> Iterator[RenderableType]:
    """The same for a narrow terminal: the arm on one line, its figures on the next."""
    for arm in results.ranked[:most]:
        best = arm is results.best
        style = "bold" if best else ""
        yield Text(("* " if best else "  ") + results.label(arm.name), style=style)
        if arm.runs:
            yield Text("    " + "  ".join(f"{SHORT[c]} {interval_text(arm.metrics[c])}" for c in COLUMNS), style)
        if arm.diverged:
            yield Text(f"    {arm.diverged} of {arm.seeds} diverged", style)


def print_recipe(console: Console, results: Results) -> None:
    """Prints the figures of a sweep without axes: a row a metric, a column a split; and where it stopped."""
    (arm,) = results.arms
    if arm.runs:
        table = Table(
            "",
            Column("validation", justify="right"),
            Column("test", justify="right"),
            box=box.SIMPLE_HEAD,
            show_edge=False,
            header_style="bold",
        )
        for metric in METRIC_NAMES:
            cells = (interval_text(arm.metrics[f"{split}_{metric}"]) for split in ("val", "test"))
            table.add_row(METRIC_NAMES[metric], *cells)
        console.print(table)
    for _, run in results.runs.iterrows():
        if run["status"] == "diverged":
            console.print(f"seed {run['seed']}: diverged at step {run['first_bad_step']}")
        elif len(results.runs) == 1:
            unselected = f"no epoch selected, as {results.sweep['recipe']['select_by']} was undefined in all of them"
            chosen = f"epoch {run['best_epoch']} of {results.sweep['recipe']['epochs']} by validation"
            console.print(
                f"\n{unselected if pd.isna(run['best_epoch']) else chosen}, "
                f"{run['params']:,} parameters, {seconds_text(run['train_seconds'])} of training"
            )
    if arm.seeds > 1:
        console.print(Text("\n" + caption(results).replace("; * best by validation", "")))


def caption(results: Results, most: int | None = None) -> str:
    """How the figures are to be read, in a sentence or two."""
    seeds = max((arm.seeds for arm in results.arms), default=0)
    if seeds > 1:
        text = f"mean ± half-width of the 95 % Student t interval over {seeds} seeds"
    else:
        text = "of a single seed (n=1), hence without intervals"
    if results.best is not None:
        text += "; * best by validation"
    if ended := int((results.runs["status"] == "stopped").sum()):
        text += (
            f"; {ended} of {len(results.runs)} runs were ended early, their figures are of the best epoch until then"
        )
    if any(arm.diverged for arm in results.arms):
        text += "; diverged runs are left out of the means"
    if most is not None and len(results.arms) > most:
        text += f"; {len(results.arms) - most} more arms are in runs.parquet"
    return text


def interval_text(value: Interval) -> str:
    """`.803 ±.012`; without a half-width below two values, a dash without any."""
    if value.n == 0:
        return "-"
    return number_text(value.mean) + (f" ±{number_text(value.half)}" if value.n > 1 else "")


def number_text(value: float) -> str:
    """Three decimals, without the zero before the point: `.803`, `1.000`; a dash for NaN."""
    if value != value:
        return "-"
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text.replace("-0.", "-.") if text.startswith("-0.") else text
