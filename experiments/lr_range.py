"""Learning-rate range test: which rate suits this recipe? Many short runs at constant rates, in one program.

    python -m experiments.lr_range
    python -m experiments.lr_range --task mnist-mini --model mlp --widths 300-100 --optimizer adam
    python -m experiments.lr_range --model resnet --depth 2 --lowest 1e-3 --highest 1 --rates 13 --epochs 2

Every rate of a logarithmic grid trains for --epochs (one) with every seed. The suggestion is the rate with the lowest
mean validation loss among those at which no seed diverged, with the range of rates that are as good within one
standard error. The picture is figures/lr_range.svg (and .png) in the output folder. A rate found at a constant
schedule and few epochs is the peak rate for a schedule that falls.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fishnet.checks.value_types import parse_number
from fishnet.cli.main import train
from fishnet.cli.output import output_width
from fishnet.cli.parser import parse_whole, run_guarded
from fishnet.cli.sweep_flags import Experiment, Request, make_parser, parse_request
from fishnet.errors import UsageError
from fishnet.host.names import escape_text
from fishnet.stats.lr_range import Suggestion, rate_grid, suggest
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fishnet.report.figures.lr_range import RangeTest
    from fishnet.stats import Interval

EXPERIMENT = Experiment(
    name="lr_range",
    about=__doc__,
    recipe=Recipe(task="reef", model="cnn", widths=(16, 32, 64), batch_size=32, epochs=1, schedule="constant"),
    seeds=3,
    takes_axes=False,
)
FEWEST, MOST = 3, 1000  # rates
HIGHEST = 1e6  # rate that a recipe may have
FIGURE = "lr_range"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the range test from its command line; exit codes as for every experiment."""
    return run_guarded(lambda words: train(parse_range_test(words), show), argv)


def parse_range_test(argv: Sequence[str]) -> Request:
    """The command line as a `Request` whose one axis is the grid of rates.

    Raises:
        UsageError: anything mistyped; --lr and --axis, which have no place here; rates that make no grid.
    """
    parser = make_parser(EXPERIMENT)
    add_flags(parser.add_argument_group("the rates"))
    flags = parser.parse(argv)
    if flags.lr is not None:
        raise UsageError(f"--lr {flags.lr}: lr_range tries many rates itself, from --lowest to --highest")
    if flags.axis:
        raise UsageError(
            f"axis {flags.axis[0]!r}: the only axis of lr_range is the rate; run it again for each other setting, or "
            "cross them in experiments.ablation with --axis lr=V1,V2"
        )
    grid = choose_rates(flags)
    return parse_request(replace(EXPERIMENT, axes={"lr": grid}), argv, flags)


def add_flags(group: argparse._ActionsContainer) -> None:
    """The flags that only this experiment has."""
    group.add_argument("--lowest", metavar="X", default="1e-5", help="the lowest rate (default 1e-5)")
    group.add_argument("--highest", metavar="X", default="10", help="the highest rate (default 10)")
    group.add_argument(
        "--rates", metavar="N", default="24", help="how many, at equal distances on a logarithmic scale (default 24)"
    )


def choose_rates(flags: argparse.Namespace) -> list[float]:
    """The rates that the flags ask for.

    Raises:
        UsageError: they make no grid.
    """
    ends = []
    for name in ("lowest", "highest"):
        text = getattr(flags, name)
        try:
            ends.append(parse_number(text))
        except ValueError:
            raise UsageError(f"--{name}: {text!r} is not a number") from None
        if not 0 < ends[-1] <= HIGHEST:
            raise UsageError(f"--{name}: {text!r} is not above 0 and at most {HIGHEST:g}")
    number = parse_whole("rates", flags.rates, FEWEST, MOST)
    if not ends[0] < ends[1]:
        raise UsageError(f"--lowest: {flags.lowest!r} is not below the highest rate, {flags.highest!r}")
    low, high = ends
    return rate_grid(low, high, number)


def show(out: Path, display: Display, data_dir: str | None) -> None:
    """Prints a finished range test; report and picture are written unless they are there and whole."""
    from rich.console import Console

    from fishnet.host.files import name_unwritable
    from fishnet.report.figures.lr_range import range_panel, range_test_of
    from fishnet.report.figures.svg import draw_svg, save
    from fishnet.report.html import write_report
    from fishnet.report.results import load_results
    from fishnet.report.stamp import PAGE, is_current

    test = range_test_of(load_results(out))
    suggestion = suggest(test.rates, test.val_loss)
    console = Console(width=output_width(), markup=False, highlight=False, emoji=False)
    print_rates(console, test, suggestion)
    report, figure = out / PAGE, out / "figures" / f"{FIGURE}.svg"
    if not is_current(out):
        display.stage("writing the report")
        try:
            panel = range_panel(test, suggestion)
            with name_unwritable(figure):
                figure.parent.mkdir(exist_ok=True)
                save([panel], [draw_svg(panel)], figure.with_suffix(""), columns=1)
            write_report(out, data_dir=data_dir, more=[FIGURE])
        finally:
            display.finish()
    console.print(f"\nfigure   {escape_text(str(figure))}", soft_wrap=True)
    console.print(f"report   {escape_text(str(report))}", soft_wrap=True)
    sys.stdout.flush()


def print_rates(console: "Console", test: "RangeTest", suggestion: Suggestion | None) -> None:
    """Prints the table of rates and, in words, what it says."""
    console.print()
    console.print(rates_table(test, suggestion))
    seeds = test.val_loss.shape[1]
    mean = f"mean ± half-width of the 95 % Student t interval over {seeds} seeds" if seeds > 1 else "of a single seed"
    gone = "; diverged runs are left out of the means" if test.diverged.any() else ""
    console.print(f"\nafter the last epoch, {mean}{gone}")
    console.print(f"\n{describe_suggestion(test, suggestion)}", soft_wrap=True)


def rates_table(test: "RangeTest", suggestion: Suggestion | None) -> "Table":
    """A row a rate, from the lowest up: `*` is the best, `+` as good within its standard error."""
    from rich import box
    from rich.table import Column, Table

    from fishnet.stats import interval

    columns = {
        "training\nloss": test.train_loss,
        "validation\nloss": test.val_loss,
        "validation\naccuracy": test.val_accuracy,
    }
    table = Table(
        Column("", no_wrap=True),
        Column("rate", justify="right", no_wrap=True),
        *[Column(heading, justify="right", no_wrap=True) for heading in columns],
        *[Column("diverged", justify="right", no_wrap=True)] * bool(test.diverged.any()),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for i, rate in enumerate(test.rates):
        best = suggestion is not None and rate == suggestion.rate
        alike = suggestion is not None and suggestion.low <= rate <= suggestion.high
        gone = f"{test.diverged[i]} of {test.val_loss.shape[1]}" if test.diverged[i] else ""
        table.add_row(
            "*" if best else "+" if alike else "",
            f"{rate:g}",
            *[figure_text(interval(values[i])) for values in columns.values()],
            *[gone] * bool(test.diverged.any()),
            style="bold" if best else "",
        )
    return table


def figure_text(value: "Interval") -> str:
    """`1.803 ±.012`; `2e+05` where a loss is beyond all measure."""
    from fishnet.report.tables import interval_text

    return interval_text(value) if value.n == 0 or value.mean < 1000 else f"{value.mean:.0e}"


def describe_suggestion(test: "RangeTest", suggestion: Suggestion | None) -> str:
    """The suggestion in a line, and where to go on when the best rate is at an end of the grid."""
    lowest, highest = test.rates[0], test.rates[-1]
    if suggestion is None:
        return (
            f"no suggestion: at every rate from {lowest:g} to {highest:g} a run diverged; try lower ones, such as "
            f"--lowest {lowest / 1000:g} --highest {lowest:g}"
        )
    seeds = test.val_loss.shape[1]
    text = f"suggested learning rate {suggestion.rate:g}: lowest validation loss, {suggestion.loss:.3f}"
    if seeds > 1:
        text += f" ± {suggestion.error:.3f} (standard error)"
    if suggestion.low < suggestion.high:
        text += f"; as good within that: {suggestion.low:g} to {suggestion.high:g} (+)"
    if suggestion.end:
        further = lowest / 100 if suggestion.end == "lowest" else highest * 100
        text += (
            f"\nit is the {suggestion.end} rate tried, so a better one may lie beyond: "
            f"go on with --{suggestion.end} {further:g}"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
