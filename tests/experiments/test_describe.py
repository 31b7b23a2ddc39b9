"""The printed catalogue has every name of every table and every recipe field, with a formula or rule and a source."""

import dataclasses
import importlib
import pkgutil
import re

import pytest

import fishnet.augment
import fishnet.losses
import fishnet.models
import fishnet.nn
import fishnet.optim
import fishnet.pretraining
import fishnet.probes
from experiments.describe import PAIRINGS, entries, main, summary
from fishnet.cli.catalogue import PARTS
from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.sweep.spec.recipe import FIELDS, value_names

# What follows from nothing but its name, or is as old as the hills; and what no paper is known for.
WITHOUT_SOURCE = {
    "folder:PATH",
    "synthetic",
    "only=CLASS+CLASS",
    "few=CLASS:IMAGES",
    "@DRAW",
    "cnn",
    "identity",
    "exponential",
    "none",
    "truncated",
    "uniform",
    "normal",
    "constant",
    "flip_shift",
    "val_loss",
    "val_accuracy",
    "native",
    "fishnet.models.scratch.forward",
    "fishnet.models.scratch.cross_entropy",
    "fishnet.models.mc_dropout.summarize",
    "fishnet.models.norm_statistics.normalization_gap",
    "first_bad",
    "--input-norm NAME",
    "--hard-sampling X",
    "--hard-augment NAME",
    "--lr-min X",
}
# A rule in words, no equation.
WITHOUT_FORMULA = {
    "first_bad",
    "folder:PATH",
    "few=CLASS:IMAGES",
    "cnn",
    "separable",
    "none",
    "flip",
    "flip_shift",
    "orthogonal",
    "native",
    "fishnet.models.norm_statistics.normalization_gap",
    "--trunk NAME",
    "--ghost-batch N",
    "--reweight-from X",
    "--hard-sampling X",
    "--hard-augment NAME",
}
FORMULA = re.compile(
    r"=|<-|~|\^|\*| / |\bproportional to\b|\bfrom -?\d|\bdeviation\b|\bevery entry\b|: 1 |\w\(\w|w_y|theta|\w \+ | - "
)
SOURCE = re.compile(r"Source:(?:.|\n      )*")


def tables():
    """(where, names) of every dictionary of components in the packages that hold them."""
    packages = [
        fishnet.nn,
        fishnet.augment,
        fishnet.models,
        fishnet.optim,
        fishnet.losses,
        fishnet.pretraining,
        fishnet.probes,
    ]
    inside = [f"{p.__name__}.{m.name}" for p in packages for m in pkgutil.iter_modules(p.__path__)]
    beside = [f"fishnet.{m.name}" for m in pkgutil.iter_modules(fishnet.__path__) if not m.ispkg]
    for where in [*inside, *beside, *(p.__name__ for p in packages), "fishnet.data.tasks", "fishnet.data.corruptions"]:
        for name, table in vars(importlib.import_module(where)).items():
            if not (name.isupper() and isinstance(table, dict)) or name.startswith("_"):
                continue
            if table and all(callable(v) or dataclasses.is_dataclass(v) for v in table.values()):
                yield f"{where}.{name}", set(table)


@pytest.fixture(scope="module")
def catalogue():
    """part -> heading of an entry -> its text; the models as they are printed."""
    found = {part: entries(part) for part in PARTS}
    found["models"] = {name: summary(model) for name, model in MODELS.items()} | found["models"]
    return found


def test_every_entry_of_every_table_is_listed(catalogue):
    listed = {word for part in catalogue.values() for name in part for word in re.split("[:=]", name)}
    found = dict(tables())
    assert {name.rpartition(".")[2] for name in found} >= {
        "ACTIVATIONS", "AUGMENTATIONS", "CLASS_WEIGHTINGS", "CLIPPINGS", "INITIALIZERS", "LOSSES", "LOWERINGS",
        "MODELS", "NORMS", "OBJECTIVES", "OPTIMIZERS", "CORRUPTIONS", "POOLS", "PROBES", "SCHEDULES", "STATISTICS",
        "TASKS",
    }  # fmt: skip
    for where, names in found.items():
        if where.endswith(".STATISTICS"):
            text = catalogue["norms"]["--eval-statistics NAME"]
            assert all(name in text for name in (*names, "precise"))
        else:
            assert names <= listed, where


def test_every_recipe_field_is_listed_once():
    choices = [PARTS[part]().choice for part in PARTS]
    flags = [name.split()[0] for part in PARTS for name in entries(part) if name.startswith("--")]
    listed = [*(c for c in choices if c not in ("", "lowering")), *(flag[2:].replace("-", "_") for flag in flags)]
    assert sorted(listed) == sorted(FIELDS)


def test_a_part_says_more_of_its_own_fields_only():
    for part in PARTS:
        assert {FIELDS[name].part for name in PARTS[part]().more} <= {part}


def test_an_entry_of_a_field_has_its_range_and_what_it_goes_with(catalogue):
    lines = catalogue["losses"]["--focal-gamma X"].split("\n")
    assert lines[1:] == ["    Valid: at least 0 and at most 100.", "    Only with loss focal or class_balanced_focal."]


@pytest.mark.parametrize("part", PARTS)
def test_choices_are_those_of_the_recipe(part):
    made = PARTS[part]()
    if made.choice in value_names() and part != "models":
        assert set(made.names) == set(value_names()[made.choice]) - ({"auto", "none"} - set(made.names))


def test_every_entry_has_a_formula_or_a_rule_and_a_source(catalogue):
    bare, unfounded = set(), set()
    for part, found in catalogue.items():
        for name, text in found.items():
            lines = text.split("\n")
            assert all(line.startswith("    ") and len(line) <= 120 for line in lines), name
            field = name.startswith("--")
            if field and not PARTS[part]().more.get(name.split()[0][2:].replace("-", "_")):
                assert len(text) > 16, name  # the recipe says all there is to say
                continue
            assert len(lines) > field, name
            rest = "\n".join(lines[field:])
            bare |= {name} if not FORMULA.search(SOURCE.sub("", rest)) else set()
            unfounded |= {name} if not SOURCE.search(rest) else set()
    assert bare == WITHOUT_FORMULA
    assert unfounded == WITHOUT_SOURCE


def test_sources_name_something_that_can_be_found(catalogue):
    for found in catalogue.values():
        for name, text in found.items():
            for source in SOURCE.findall(text):
                assert re.search(r"arXiv:\d{4}\.\d{4,5}|https?://|\b(19|20)\d\d\b|University|optax|scikit", source), (
                    name
                )


def test_marks_of_code_stay_around_words_only():
    def documented():
        """Each of `depth` layers takes `w_y / k` and `rate` of `x`."""

    assert summary(documented) == "    Each of `depth` layers takes w_y / k and `rate` of x."


def test_a_summary_is_first_line_formula_and_source():
    def documented():
        """One line.

            y = x,
            x = y

        More of it.

        Args:
            x: not said.

        Source: a paper of such a length that the line is broken, because nobody reads lines of more than a hundred and
        twenty columns, https://arxiv.org/abs/0000.00000
        """

    lines = [line.strip() for line in summary(documented).split("\n")]
    assert lines[:3] == ["One line.", "y = x,", "x = y"]
    assert " ".join(lines[3:]).startswith("Source: a paper of such a length")
    assert lines[-1].endswith("columns, https://arxiv.org/abs/0000.00000")
    assert not any("said" in line or "More" in line for line in lines)


@pytest.mark.parametrize("part", ["optimizers", "regularization", "pretraining"])
def test_one_part_is_printed_as_it_is_in_the_whole(part, capsys, catalogue):
    assert main(["--part", part]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"\n{part}")
    position = -1
    for name, words in catalogue[part].items():
        assert f"{name}\n{words}\n" in text, name
        assert (position := text.index(f"\n{name}\n{words}", position + 1)) > 0
    assert main(["--part", "pairings"]) == 0
    assert capsys.readouterr().out.startswith("\npairings")


def test_models_are_counted(capsys):
    assert main(["--part", "models", "--widths", "8-16", "--image-size", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(MODELS) <= set(lines)
    cnn = 9 * 3 * 8 + 2 * 8 + 9 * 8 * 16 + 2 * 16 + 17 * 15  # kernels, batch norms, head
    products = 64 * 9 * 3 * 8 + 16 * 9 * 8 * 16 + 16 * 15
    assert f"    {cnn:,} parameters, {products / 1e6:.2f} M multiply-adds, 3.1 KiB of activations" in lines
    gates = 2 * 8 * 8 + 8 + 8 + 2 * 8 * 16 + 8 + 16
    assert any(line.startswith(f"    se_reduction=4: {cnn + gates:,} parameters") for line in lines)
    expert = 9 * 16 * 16 + 2 * 16 + 17 * 2
    assert any(line.startswith(f"    experts=(13, 14): {cnn + expert:,} parameters") for line in lines)


def test_efficientnet_is_counted(capsys):
    assert main(["--part", "models", "--widths", "8-16", "--image-size", "8"]) == 0
    # (pixels of the maps, inputs of a unit, units) of stem, two blocks without and with expansion, last convolution
    sites = [
        *((64, 27, 8), (64, 9, 8), (64, 8, 8)),
        *((64, 8, 32), (16, 9, 32), (16, 32, 16)),
        (16, 16, 32),
    ]
    gates = [(8, 8), (8, 8), (32, 8), (8, 32)]  # (inputs, units)
    params = sum((i + 2) * o for _, i, o in sites) + sum((i + 1) * o for i, o in gates) + 33 * 15
    products = sum(n * i * o for n, i, o in sites) + sum(i * o for i, o in gates) + 32 * 15
    elements = sum(n * o for n, _, o in sites) + sum(o for _, o in gates) + 15
    line = f"    {params:,} parameters, {products / 1e6:.2f} M multiply-adds, {elements / 256:.1f} KiB of activations"
    assert line in capsys.readouterr().out.splitlines()


def test_pairings_are_of_activations_that_exist_each_in_one():
    paired = " ".join(PAIRINGS).split()
    assert set(paired) <= set(ACTIVATIONS) and len(paired) == len(set(paired))


@pytest.mark.parametrize(
    "argv", [["--part", "optimisers"], ["--part", "plants"], ["--depth", "0"], ["--widths", "8,16"]]
)
def test_bad_input_is_one_line(argv, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
