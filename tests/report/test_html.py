"""The page: whole, self-contained, escaped, and made from whatever tables there are."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from fishnet.data import load_task
from fishnet.errors import UserError
from fishnet.report.figures.random_search import range_of, value_panel
from fishnet.report.figures.svg import draw_svg
from fishnet.report.html import find_confusions, write_report
from fishnet.report.results import load_results
from fishnet.report.tables import interval_text
from fishnet.sweep.spec.random_search import Samples
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.search_space import Choices, Range
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file
from tests.report.conftest import drop, put

SMALL = {"activation": ["relu", "elu"], "norm": ["none", "batch"]}
SPACE = {"lr": Range(0.001, 0.3, log=True), "depth": Range(1, 9), "optimizer": ["momentum", "adam"]}
PLANTED = [
    "synthetic",
    "synthetic?train=0.5&noise=rising:0.25",
    "synthetic?train=0.5&noise=rising:0.25&noise=falling:0.5",
]
LISTED = Samples(
    {"task": PLANTED, "norm": ["none", "batch"]},
    [{"task": "synthetic", "norm": norm} for norm in ("none", "batch")]
    + [{"task": t, "norm": "none"} for t in PLANTED[1:]],
)
PLAIN = Recipe(task="synthetic", norm="none")
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects text and addresses, and checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.words, self.tags = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(out):
    return Page(write_report(out).read_text(encoding="utf-8"))


CASES = {
    "two axes": {"axes": SMALL, "diverged": (4, 9, 10, 11)},
    "one axis": {"axes": {"lr": [0.1, 0.01]}},
    "no axis": {"axes": {}},
    "three axes": {"axes": SMALL | {"widths": [(8,), (8, 16)]}, "seeds": 1},
    "one epoch": {"axes": SMALL, "epochs": 1},
    "one seed": {"axes": SMALL, "seeds": 1},
    "no predictions": {"axes": SMALL, "predictions": False},
    "all diverged": {"axes": {"norm": ["none", "batch"]}, "seeds": 1, "diverged": (0, 1)},
    "draws": {"axes": {}, "samples": Samples(SPACE, 8), "stopped": range(0, 9)},
    "draws of one seed": {"axes": {}, "samples": Samples(SPACE, 4), "seeds": 1, "diverged": (2,)},
    "draws beside an axis": {"axes": {"norm": ["none", "batch"]}, "samples": Samples(SPACE, 4), "diverged": (3, 4, 5)},
    "no draw that did not diverge": {"axes": {}, "samples": Samples(SPACE, 2), "seeds": 1, "diverged": (0, 1)},
    "arms one by one": {"axes": {}, "samples": LISTED, "diverged": (6, 7, 8), "recipe": PLAIN},
    "absent class": {"axes": SMALL, "absent": ("Amphiprion clarkii",)},
}


EARLY = ("one axis", "two axes", "absent class")


@pytest.mark.parametrize(
    "case", [case if case in EARLY else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_every_kind_of_sweep_has_a_page(sweep_folder, case):
    out = sweep_folder(**CASES[case])
    page = page_of(out)
    inside = [address for address in page.addresses if not address.startswith(("data:", "#"))]
    assert all((out / address).is_file() for address in inside)  # links to its own figures, and nothing else
    assert "How it was made" in page.text
    assert "nan" not in page.text.lower().split()
    assert "script" not in page.tags
    best = load_results(out).best
    assert (best is None) == (case in ("all diverged", "no draw that did not diverge"))
    if best is not None and load_results(out).axes:
        assert f"Best by validation: {load_results(out).label(best.name)}" in page.text


def test_a_page_of_draws_has_a_panel_a_field_and_no_heat_map(sweep_folder):
    out = sweep_folder(**CASES["draws beside an axis"])
    results, text = load_results(out), write_report(out).read_text(encoding="utf-8")
    for name in ("norm", "lr", "depth", "optimizer"):
        best = f"Best: {name} {results.best.values[name]}, {interval_text(results.best.metrics['val_accuracy'])}"
        assert re.search(rf"Validation accuracy of 8 arms by {name}[^\"]*{re.escape(best)}", text)
    page = Page(text)
    assert "norm × 4 draws of lr, depth, optimizer on synthetic" in page.text
    assert "4 draws, sobol, seed 0" in page.text
    assert "cross: every seed diverged" in page.text
    assert "yellow is higher" not in page.text


def test_many_numbers_of_a_list_stand_on_a_scale(sweep_folder):
    """Names of 25 numbers side by side would lie on one another."""
    many, few = [round(0.001 * 1.5**i, 6) for i in range(12)], [16, 32]
    assert range_of(Choices(tuple(many[::-1]))) == Range(many[0], many[-1], log=True)
    assert range_of(Choices(tuple(range(20)))) == Range(0, 19)
    assert range_of(Choices(tuple(few))) is None and range_of(None) is None
    assert range_of(Choices((*many, "auto"))) is None and range_of(Choices((True, False) * 5)) is None
    results = load_results(sweep_folder(axes={}, samples=Samples({"lr": many, "batch_size": few}, 24), seeds=1))
    rates, sizes = (draw_svg(value_panel(results, name)) for name in ("lr", "batch_size"))
    assert ">0.01<" in rates and not any(f">{rate:g}<" in rates for rate in many[1:-1])
    assert ">16<" in sizes and ">32<" in sizes


def test_a_page_of_arms_given_one_by_one_calls_them_after_what_differs(sweep_folder):
    page = page_of(sweep_folder(**CASES["arms one by one"]))
    assert "norm on synthetic, changed 12 runs: 4 arms" in page.text
    assert "An arm is called after what differs from the recipe" in page.text
    for words in ("the recipe", "norm=batch", "task with train=0.5&noise=rising:0.25"):
        assert words in page.text
    assert "Diverged: run 6 (task with train=0.5&noise=rising:0.25, seed 0)" in page.text
    assert "draw" not in page.text and "norm=none" not in page.text


@pytest.mark.parametrize("table", ["curves", "per_class", "predictions"])
def test_a_missing_table_costs_only_its_figures(sweep_folder, table):
    out = sweep_folder(axes=SMALL, seeds=2, epochs=2)
    drop(out, table)
    page = page_of(out)
    assert ("Learning curves" in page.text) == (table != "curves")
    assert ("Confusion" in page.text) == (table != "predictions")


def test_class_names_cannot_inject_anything(sweep_folder):
    names = ("<script>alert(1)</script>", '"><img src=x onerror=y>', "a & b", "$\\frac{1}{$", "ナンヨウハギ")
    out = sweep_folder(axes={}, seeds=1, classes=names)
    text = write_report(out).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert all(name in page.text for name in names)


def test_nothing_that_a_user_typed_can_inject_anything(sweep_folder):
    """Paths, the command, names of functions and versions, as they stand in `sweep.json`."""
    markup = '"><script>alert(1)</script><img src=x onerror=y>'
    out = sweep_folder(axes={}, seeds=1)
    content = read_sweep_file(out)
    for name in ("command", "device", "started", "finished", "spec_hash"):
        content[name] = markup
    content |= {"versions": {markup: markup}, "data": {f"folder:/{markup}": markup}}
    content["recipe"] |= {"task": f"folder:/photos/{markup}", "trunk": markup, "activation": markup}
    write_sweep_file(out, content)
    for name in content["tables"]:
        put(out, name, pd.read_parquet(out / f"{name}.parquet"))
    page = Page(write_report(out.rename(out.parent / "a<b>&'")).read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 6


def test_photographs_of_the_mistakes_are_in_the_page(sweep_folder):
    task = load_task("synthetic")
    out = sweep_folder(axes={"norm": ["none", "batch"]}, seeds=1, task=task, recipe=Recipe(task="synthetic"))
    page = page_of(out)
    photographs = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    assert photographs
    results = load_results(out)
    wrong = results.confusion(results.best_run)
    assert len(photographs) <= wrong.sum() - np.trace(wrong)
    assert "classified as" in page.text


def test_photographs_of_other_data_are_not_shown(sweep_folder):
    page = page_of(sweep_folder(axes={}, seeds=1))
    assert "The photographs cannot be shown: the data of synthetic have changed" in page.text
    assert not any(address.startswith("data:image/png") for address in page.addresses)


def test_the_same_tables_make_the_same_page(sweep_folder):
    out = sweep_folder(axes={"norm": ["none", "batch"]}, seeds=2, epochs=2)
    first = write_report(out).read_bytes()
    assert write_report(out).read_bytes() == first


def test_both_schemes_and_paper_define_every_colour(sweep_folder):
    text = write_report(sweep_folder(axes={"norm": ["none", "batch"]}, seeds=2, epochs=2)).read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    assert len(blocks) == 3
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert all(f"{name}:" in block for name in used for block in blocks)


def test_most_frequent_mistakes_come_first():
    counts = np.array([[5, 3, 0], [1, 6, 0], [0, 0, 0]])
    assert find_confusions(counts, ["a", "b", "c"]) == [("a", "b", 3, 0.375), ("b", "a", 1, pytest.approx(1 / 7))]


@pytest.mark.parametrize("file", ["figures", "figures/overview.svg", "figures/roc.png"])
def test_what_is_in_the_way_of_a_figure_is_named(sweep_folder, file):
    out = sweep_folder(axes=SMALL, seeds=1)
    if file == "figures":
        (out / file).write_text("a file of the user's own")
        reason = "it is not a folder"
    else:
        (out / file).mkdir(parents=True)
        reason = "Is a directory"
    with pytest.raises(UserError, match=re.escape(f"cannot write {out / file}: {reason}")):
        write_report(out)
    assert not (out / "report.html").exists()
