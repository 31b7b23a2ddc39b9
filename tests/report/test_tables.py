"""The table at the end of a sweep, as text."""

import io

import pytest
from rich.console import Console

from fishnet.report.results import load_results
from fishnet.report.tables import interval_text, number_text, print_arms, print_recipe
from fishnet.stats import Interval


def printed(show, results, width=1000):
    file = io.StringIO()
    show(Console(file=file, width=width, markup=False, highlight=False), results)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 1000])
def test_the_main_jobs_table_fits(sweep_folder, width):
    results = load_results(sweep_folder(diverged=(4,)))
    lines = printed(print_arms, results, width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if "±" in line and "interval" not in line]
    assert len(rows) == 16
    assert rows[0].startswith("* ")
    assert sum(line.startswith("*") for line in rows) == 1
    assert all(part in rows[0] for part in results.best.values.values())
    assert any(row.rstrip().endswith("1 of 3") for row in rows)


@pytest.mark.parametrize("width", [80, 120])
def test_arms_too_wide_for_a_table_take_two_lines(sweep_folder, width):
    axes = {"task": ["folder:/home/somebody/pictures/a/rather/long/path", "synthetic"], "widths": [(8, 16), (16, 32)],
            "activation": ["leaky_relu", "identity"], "optimizer": ["momentum", "nesterov"]}  # fmt: skip
    text = printed(print_arms, load_results(sweep_folder(axes=axes, seeds=2, epochs=1, predictions=False)), width)
    assert text.count("\n  task=") + text.count("* task=") == 16
    assert text.splitlines()[1].strip().startswith("validation .")


def test_one_seed_has_no_interval(sweep_folder):
    text = printed(print_arms, load_results(sweep_folder(seeds=1)))
    assert "n=1" in text
    assert "±" not in text


def test_everything_diverged(sweep_folder):
    folder = sweep_folder(axes={"norm": ["none", "batch"]}, seeds=2, diverged=range(4))
    text = printed(print_arms, load_results(folder))
    assert text.count("2 of 2") == 2
    assert "* " not in text


def test_names_with_markup_are_printed_as_they_are(sweep_folder):
    text = printed(print_arms, load_results(sweep_folder(axes={"task": ["folder:[red]x[/red]", "synthetic"]}, seeds=1)))
    assert "/[red]x[/red]" in text


def test_many_arms_are_cut_and_counted(sweep_folder):
    results = load_results(sweep_folder(axes={"lr": [i / 1000 for i in range(1, 51)]}, seeds=1, epochs=1))
    assert "10 more arms are in runs.parquet" in printed(print_arms, results)


def test_a_single_recipe_shows_both_splits(sweep_folder):
    results = load_results(sweep_folder(axes={}, seeds=1, epochs=4))
    text = printed(print_recipe, results, 80)
    assert "balanced accuracy" in text
    assert number_text(results.row(0)["test_macro_auc"]) in text
    assert "epoch 4 of 4 by validation, 24,000 parameters" in text


def test_a_single_recipe_that_diverged(sweep_folder):
    text = printed(print_recipe, load_results(sweep_folder(axes={}, seeds=2, diverged=(0, 1))))
    assert "seed 0: diverged at step 57" in text
    assert "accuracy" not in text


def test_numbers_as_text():
    assert [number_text(x) for x in (0.8034, 1.0, float("nan"), -0.25, 12.0)] == [
        ".803",
        "1.000",
        "-",
        "-.250",
        "12.000",
    ]
    assert interval_text(Interval(0.5, 0.01, 3)) == ".500 ±.010"
    assert interval_text(Interval(0.5, float("nan"), 1)) == ".500"
    assert interval_text(Interval(float("nan"), float("nan"), 0)) == "-"
