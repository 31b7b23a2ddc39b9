"""The printed catalogue has every name of every table, with a formula or a source."""

import pytest

from experiments.describe import PAIRINGS, PARTS, main, table_of
from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.sweep.recipe import FIELDS
from fishnet.sweep.validate import NAMES

TABLES = [part for part in PARTS if part not in ("models", "pairings")]


def test_every_choice_of_a_recipe_is_described():
    assert {field for field in PARTS.values() if field} <= set(FIELDS)
    for part in TABLES:
        assert set(table_of(part)) == set(NAMES[PARTS[part]]) - {"auto"}, part


@pytest.mark.parametrize("part", TABLES)
def test_each_entry_has_a_line_or_more(part, capsys):
    assert main(["--part", part]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in table_of(part):
        text = lines[lines.index(name) + 1]
        assert text.startswith("    ") and len(text) > 12, name


def test_models_are_counted(capsys):
    assert main(["--part", "models", "--widths", "8-16", "--image-size", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(MODELS) <= set(lines)
    cnn = 9 * 3 * 8 + 2 * 8 + 9 * 8 * 16 + 2 * 16 + 17 * 15  # kernels, batch norms, head
    products = 64 * 9 * 3 * 8 + 16 * 9 * 8 * 16 + 16 * 15
    assert f"    {cnn:,} parameters, {products / 1e6:.2f} M multiply-adds, 3.1 KiB of activations" in lines


def test_every_activation_has_a_pairing():
    assert sorted(" ".join(PAIRINGS).split()) == sorted(ACTIVATIONS)


@pytest.mark.parametrize("argv", [["--part", "optimisers"], ["--depth", "0"], ["--widths", "8,16"]])
def test_bad_input_is_one_line(argv, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
