"""The range test: its suggestion on curves of known shape, its grid, its command line, its folder and its picture."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments import lr_range
from fishnet.checks.value_types import format_value
from fishnet.errors import UsageError
from fishnet.report.figures.lr_range import RangeTest, limits, range_panel, range_test_of
from fishnet.report.figures.svg import draw_svg
from fishnet.report.results import Results
from fishnet.stats.lr_range import rate_grid, suggest

RATES = 10.0 ** np.arange(-5, 2)  # 1e-5 ... 10


def bowl(centre, spread=0.0, rates=RATES):
    """Losses [r, 3] of a parabola in log10 rate, the seeds `spread` apart."""
    return (np.log10(rates) - centre)[:, None] ** 2 + 1 + spread * np.array([-1.0, 0.0, 1.0])


def test_the_bottom_of_a_parabola_is_found():
    found = suggest(RATES, bowl(-2.2))
    assert (found.rate, found.low, found.high, found.end) == (1e-2, 1e-2, 1e-2, "")
    assert found.loss == pytest.approx(0.2**2 + 1)
    assert found.error == 0


@pytest.mark.parametrize(("spread", "low", "high"), [(0.9, -2, -2), (1.1, -2, -1), (2.5, -3, -1), (5.7, -3, 0)])
def test_rates_within_one_standard_error_are_as_good(spread, low, high):
    # Above the best mean, at log10 rate -2, are .6 at -1, 1.4 at -3, 3.2 at 0 and 4.8 at -4. Seeds at -a, 0 and a have
    # standard deviation a and standard error a / sqrt(3), which is as much from a = 1.04, 2.42, 5.54 and 8.31 on.
    found = suggest(RATES, bowl(-1.8, spread))
    assert found.error == pytest.approx(spread / np.sqrt(3))
    assert (found.rate, found.low, found.high) == (1e-2, 10.0**low, 10.0**high)


def test_the_range_has_no_gap():
    losses = np.array([1.0, 1.01, 3.0, 1.02, 1.0, 5.0, 6.0])[:, None] + [-0.1, 0.1]
    found = suggest(RATES, losses)  # two equal minima: the lower rate
    assert found.error == pytest.approx(0.1)
    assert (found.rate, found.low, found.high) == (RATES[0], RATES[0], RATES[1])


def test_rates_at_which_a_seed_diverged_do_not_count():
    losses = bowl(-1.0, spread=2.0)
    losses[4, 1] = np.nan
    losses[5:] = np.inf
    found = suggest(RATES, losses)
    assert (found.rate, found.high) == (RATES[3], RATES[3])
    assert found.end == ""  # higher rates have been tried


@pytest.mark.parametrize(("centre", "rate", "end"), [(-7, 1e-5, "lowest"), (3, 10, "highest"), (0.4, 1, "")])
def test_a_best_rate_at_an_end_is_told(centre, rate, end):
    found = suggest(RATES, bowl(centre))
    assert (found.rate, found.end) == (pytest.approx(rate), end)


def test_one_seed_has_no_range_and_nothing_finite_no_suggestion():
    found = suggest(RATES, bowl(-2.0)[:, :1])
    assert np.isnan(found.error)
    assert found.rate == found.low == found.high == 1e-2
    assert suggest(RATES, np.full((7, 3), np.nan)) is None


@pytest.mark.parametrize(
    ("rates", "losses"),
    [([1, 2], np.ones(2)), ([1, 2], np.ones((3, 2))), ([2, 1], np.ones((2, 1))), ([0, 1], np.ones((2, 1)))],
)
def test_suggest_refuses_what_is_no_table(rates, losses):
    with pytest.raises(UsageError):
        suggest(rates, losses)


@pytest.mark.parametrize(
    ("lowest", "highest", "number"), [(1e-5, 10, 24), (1e-3, 1, 4), (0.1, 0.2, 9), (1, 1.001, 40), (0.00123456, 1, 3)]
)
def test_the_grid_is_even_on_a_logarithmic_scale(lowest, highest, number):
    grid = rate_grid(lowest, highest, number)
    assert len(set(map(format_value, grid))) == number
    assert (grid[0], grid[-1]) == (lowest, highest)
    np.testing.assert_allclose(np.diff(np.log(grid)), np.log(highest / lowest) / (number - 1), rtol=0.11)
    if highest / lowest > 10:
        np.testing.assert_allclose(grid, np.geomspace(lowest, highest, number), rtol=6e-3)  # three digits


def test_the_usual_grid():
    request = lr_range.parse_range_test([])
    assert dict(request.sweep.axes) == {"lr": tuple(rate_grid(1e-5, 10, 24))}
    recipe = request.sweep.recipe
    assert (recipe.epochs, recipe.schedule, request.sweep.seeds) == (1, "constant", (0, 1, 2))
    assert request.command == "python -m experiments.lr_range"


def test_flags_of_its_own_go_with_all_others():
    own = ["--rates=4", "--lowest", "1e-3", "--highest", "1"]
    words = [*own[:1], "--task", "mnist-mini", *own[1:], "--norm_position", "post", "--seeds", "2,5", "--quiet"]
    request = lr_range.parse_range_test(words)
    assert request.sweep.axes["lr"] == (0.001, 0.01, 0.1, 1.0)
    assert request.sweep.seeds == (2, 5)
    assert (request.sweep.recipe.task, request.sweep.recipe.norm_position) == ("mnist-mini", "post")
    assert request.quiet
    assert request.command == " ".join(["python -m experiments.lr_range", *words])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--lr", "0.1"], ["--lr 0.1", "--lowest"]),
        (["--axis", "norm=none,batch"], ["'norm=none,batch'", "experiments.ablation"]),
        (["--axis", "lr=1,2"], ["'lr=1,2'"]),
        (["--lowest", "low"], ["--lowest", "'low'"]),
        (["--lowest", "0"], ["--lowest", "'0'"]),
        (["--lowest", "-1"], ["--lowest", "'-1'"]),
        (["--highest", "nan"], ["--highest", "'nan'"]),
        (["--highest", "1e7"], ["--highest", "'1e7'", "1e+06"]),
        (["--lowest", "0.1", "--highest", "1e-1"], ["--lowest", "'0.1'", "'1e-1'"]),
        (["--rates", "2"], ["--rates", "'2'", "3"]),
        (["--rates", "1001"], ["--rates", "'1001'", "1000"]),
        (["--rates", "2.5"], ["--rates", "'2.5'"]),
        (["--lowest", "1", "--highest", "1.00000000000001", "--rates", "1000"], ["1000 rates do not fit"]),
        (["--ratse", "4"], ["'--ratse'", "'--rates'"]),
        (["--rates"], ["--rates", "expected one argument"]),
    ],
)
def test_nonsense_is_refused_in_one_line(capsys, words, parts):
    assert lr_range.main(words) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.count("\n") == 1
    assert all(part in text.err for part in parts), text.err


def made_up(losses, epochs=2):
    """Results of `losses` [r, s] after the last of `epochs`; NaN where a run diverged in the last one."""
    rates, seeds = RATES[: len(losses)].tolist(), [3, 5, 8][: losses.shape[1]]
    rows, curves = [], []
    for run, (i, j) in enumerate(np.ndindex(losses.shape)):
        bad = np.isnan(losses[i, j])
        rows.append({"run": run, "lr": rates[i], "seed": seeds[j], "status": "diverged" if bad else "ok"})
        for epoch in range(1, epochs + 1 - bad):
            gone = epochs - epoch
            row = {"run": run, "epoch": epoch, "train_loss": losses[i, j] + 1 + gone, "val_loss": losses[i, j] + gone}
            curves.append({name: 9.0 if bad and name != "run" else value for name, value in row.items()})
            curves[-1]["val_accuracy"] = 0.5
    nothing = pd.DataFrame()
    columns = ["run", "epoch", "train_loss", "val_loss", "val_accuracy"]
    # Rows in any order, rates as they come.
    curves, rows = pd.DataFrame(curves, columns=columns)[::-1], pd.DataFrame(rows)[::-1]
    return Results(Path(), {"axes": {"lr": rates}, "seeds": seeds}, rows, curves, nothing, nothing)


def test_losses_are_those_after_the_last_epoch_and_missing_where_a_run_diverged():
    losses = bowl(-3.0, 0.2)
    losses[5, 1] = losses[6] = np.nan
    test = range_test_of(made_up(losses))
    np.testing.assert_array_equal(test.val_loss, losses)
    np.testing.assert_array_equal(test.train_loss, losses + 1)
    assert test.diverged.tolist() == [0, 0, 0, 0, 0, 1, 3]


def printed(test):
    console = Console(file=io.StringIO(), width=1000)
    lr_range.print_rates(console, test, suggest(test.rates, test.val_loss))
    return console.file.getvalue()


def test_the_table_and_the_picture_tell_the_same():
    losses = bowl(-2.2, 1.5)
    losses[5, 1] = losses[6] = np.nan
    test = range_test_of(made_up(losses))
    text = printed(test)
    marks = {line.split()[1]: line[0] for line in text.splitlines() if line[:2] in ("* ", "+ ")}
    assert marks == {"0.01": "*", "0.001": "+"}
    assert "1 of 3" in text
    assert "3 of 3" in text
    assert "suggested learning rate 0.01: lowest validation loss, 1.040 ± 0.866" in text
    assert "as good within that: 0.001 to 0.01" in text
    assert "go on with" not in text
    svg = draw_svg(range_panel(test, suggest(test.rates, test.val_loss)))
    words = ("suggested: 0.01; as good within one standard error: 0.001 to 0.01", "training loss", "validation loss")
    for word in (*words, "some seeds diverged", "every seed diverged", "learning rate", "1: 1 of 3 diverged"):
        assert word in svg, word
    assert "above the picture" not in svg


@pytest.mark.parametrize(("centre", "words"), [(-8, "--lowest 1e-07"), (5, "--highest 1000")])
def test_a_best_rate_at_an_end_says_where_to_go_on(centre, words):
    assert words in printed(range_test_of(made_up(bowl(centre))))


def test_all_diverged_is_said_in_words_and_drawn():
    test = range_test_of(made_up(np.full((3, 2), np.nan), epochs=1))
    text = printed(test)
    assert "no suggestion: at every rate from 1e-05 to 0.001 a run diverged" in text
    assert "--highest 1e-05" in text
    svg = draw_svg(range_panel(test, None))
    assert "Every rate diverged" in svg
    assert "every seed diverged" in svg


def test_losses_beyond_all_measure_do_not_press_the_picture_flat():
    losses = bowl(-3.0)
    losses[5], losses[6] = 1e4, 1e9
    test = RangeTest(RATES, losses + 0.5, losses, losses)
    bottom, top = limits(test, suggest(RATES, losses))
    assert bottom < 1 < losses[0].max() + 0.5 < top < 7
    assert "above the picture" in draw_svg(range_panel(test, suggest(RATES, losses)))
    assert "1e+09" in printed(test)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    recipe = ["--task", "synthetic", "--model", "mlp", "--widths", "8", "--seeds", "2"]
    return [*recipe, "--lowest", "1e-3", "--highest", "1e5", "--rates", "3", "--quiet", "--out", str(out)], out


@pytest.mark.slow
def test_a_range_test_from_its_command(finished, capsys):
    words, out = finished
    assert lr_range.main(words) == 0
    text = capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert {"sweep.json", "runs.parquet", "curves.parquet", "report.html", "figures", "checkpoints"} <= names
    runs = pd.read_parquet(out / "runs.parquet")
    assert sorted(runs["lr"].unique()) == [1e-3, 10, 1e5]
    assert set(runs[runs["lr"] == 1e5]["status"]) == {"diverged"}
    means = runs[runs["status"] == "ok"].groupby("lr")["val_loss"].mean()
    assert f"suggested learning rate {means.idxmin():g}: lowest validation loss, {means.min():.3f}" in text
    assert str(out / "figures" / "lr_range.svg") in text
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert {path.name for path in before} >= {"lr_range.svg", "lr_range.png"}
    assert lr_range.main(words) == 0
    again = capsys.readouterr()
    assert again.out == text
    assert "finished before" in again.err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
