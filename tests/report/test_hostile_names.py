"""Classes and files of any name, from the folder to tables, pages, pictures and the terminal."""

import csv
import html.parser
import io
import json
import os
import re
import shlex
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from experiments import predict, train
from fishnet.cli.main import main
from fishnet.host.names import escape_name
from fishnet.report.figures import classes as class_figures
from fishnet.report.figures import overview as figures
from fishnet.report.figures.svg import Panel, draw_svg, follow_scheme, save
from fishnet.report.results import load_results
from fishnet.report.tables import print_arms
from fishnet.sweep import Sweep
from fishnet.sweep.run.progress import display_for
from fishnet.sweep.spec.history import History
from fishnet.sweep.store.records import runs_table

pytestmark = pytest.mark.slow

FOLDERS = [
    b"#0072b2", b"\xff", b"\\xff", b"\\udcff", b"a\x1b[31mred", b"new\nline", b"tab\tbed", b"<script>alert(1)<br>",
    b'q"u\'o&te', "\u202eright".encode(), b" ", b"=1+1", b"a+b", b"run", b"label", b"$x_1$", b"__index__",
    "caf\u00e9".encode(), "cafe\u0301".encode(), b"n" * 200, b"style='fill: #1c1d20'",
]  # fmt: skip
NAMES = [escape_name(os.fsdecode(name)) for name in FOLDERS]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder with a class of every name in `FOLDERS`, and the folder of a sweep on it."""
    root = tmp_path_factory.mktemp("photos and more")
    rng = np.random.RandomState(0)
    for name in FOLDERS:
        (root / os.fsdecode(name)).mkdir()
        for i in range(3):
            pixels = rng.randint(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / os.fsdecode(name) / f"{i}.png")
    out = tmp_path_factory.mktemp("runs of it") / "a b"
    words = ["--task", f"folder:{root}", "--image-size", "8", "--model", "mlp", "--widths", "4", "--norm", "none"]
    words += ["--epochs", "1", "--batch-size", "7", "--hard-classes", "a%2Bb+#0072b2", "--hard-sampling", "2"]
    all_panels = class_figures.roc_panels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_figures, "roc_panels", lambda results: all_panels(results)[:2])  # all take half a minute
        assert main(train.EXPERIMENT, [*words, "--quiet", "--out", str(out)]) == 0
    return root, out, words


def test_what_is_printed_can_be_copied_into_a_shell(swept, capsys):
    _, out, words = swept
    assert main(train.EXPERIMENT, [*words, "--quiet", "--out", str(out)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("predict")]
    _, *command = shlex.split(line)
    assert command == ["python", "-m", "experiments.predict", "--run", str(out), "--images", "PHOTO_OR_FOLDER"]
    written = json.loads((out / "sweep.json").read_text())["command"]
    assert shlex.split(written) == ["python", "-m", "experiments.train", *words, "--quiet", "--out", str(out)]


def test_every_class_keeps_a_name_of_its_own(swept):
    assert len(set(NAMES)) == len(FOLDERS)
    _, out, _ = swept
    table = pd.read_parquet(out / "predictions.parquet")
    columns = [name for name in table if name.startswith("p_")]
    assert sorted(columns) == sorted(f"p_{name}" for name in NAMES)
    assert list(table)[:4] == ["run", "split", "example", "label"]
    for name in ("per_class", "class_curves"):
        assert set(pd.read_parquet(out / f"{name}.parquet")["class"]) == set(NAMES)


def test_pictures_are_xml_with_the_names_as_they_are(swept):
    _, out, _ = swept
    texts = [element.text for element in ElementTree.parse(out / "figures" / "confusion.svg").iter() if element.text]
    for name in NAMES:
        if len(name) <= 28:
            assert name in texts
    for path in (out / "figures").glob("*.svg"):
        ElementTree.parse(path)


class Page(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def test_the_page_has_every_name_and_no_other_tag(swept):
    _, out, _ = swept
    text = (out / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert set(NAMES) <= {cell.strip("\n") for cell in page.cells}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\udc80-\udcff]", text)


def test_predictions_reach_terminal_and_table_as_text(swept, tmp_path, capsys):
    _, out, _ = swept
    folder = tmp_path / "\x1b]0;title\x07"
    folder.mkdir()
    pixels = Image.fromarray(np.zeros((9, 9, 3), np.uint8))
    files = ["=cmd.png", os.fsdecode(b"\xe9.png"), "bell\x07.png"]
    for name in files:
        pixels.save(folder / name)
    (folder / "no\x1b[2Jimage").write_text("x")
    table = tmp_path / "names.csv"
    assert predict.main(["--run", str(out), "--images", str(folder), "--csv", str(table)]) == 0
    text = capsys.readouterr()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text.out + text.err)
    with table.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert sorted(header[3:]) == sorted(f"p_{name}" for name in NAMES)
    assert {row[0] for row in rows} == {escape_name(f"{folder}/{name}") for name in files}
    assert all(len(row) == len(header) and not re.match("[=@+-]", row[1]) for row in rows)


@pytest.mark.parametrize("text", ["#0072b2", 'style="fill: #0072b2"', "'DejaVu Sans', sans-serif", "a\x1b\x0b", "<&>"])
def test_what_is_written_in_a_picture_stays_when_its_colours_change(text, tmp_path):
    def draw(axes):
        axes.set_title(text)
        axes.plot([0, 1], color="#0072b2")

    panel = Panel(draw, f"alt {text}", 200, 100)
    svg = follow_scheme(draw_svg(panel))
    found = ElementTree.fromstring(svg)
    shown = text.replace("\x1b", r"\x1b").replace("\x0b", r"\x0b")
    assert shown in [element.text for element in found.iter()]
    assert found.attrib["aria-label"] == f"alt {shown}"
    assert "stroke: var(--c0)" in svg  # the line
    assert "fill: var(--ink)" in svg  # the title
    save([panel], [draw_svg(panel)], tmp_path / "picture", columns=1)
    ElementTree.parse(tmp_path / "picture.svg")


def test_a_path_may_be_an_axis_of_table_and_figures(sweep_folder):
    paths = ["/a\x1b[31m", os.fsdecode(b"/\xff"), "/#0072b2", "/b\nc"]
    axes = {"task": [f"folder:{path}" for path in paths]}
    results = load_results(sweep_folder(axes=axes, seeds=2, epochs=1, predictions=False))
    names = [escape_name(f"folder:{path}") for path in paths]
    assert [cell for arm in results.arms for cell in results.cells(arm)] == names
    file = io.StringIO()
    print_arms(Console(file=file, width=200, markup=False), results)
    assert not re.search("[\x00-\x09\x0b-\x1f\ud800-\udfff]", file.getvalue())
    assert all(name in file.getvalue() for name in names)
    panel, *_ = figures.overview(results)
    texts = [element.text for element in ElementTree.fromstring(draw_svg(panel)).iter()]
    assert set(names) <= set(texts)
    runs = Sweep(axes=axes, seeds=2).runs()
    history = History.empty(len(runs), epochs=1, classes=2)
    table = runs_table(runs, axes, history, np.ones(len(runs)), np.full((len(runs), 6), np.nan))
    assert table["task"].tolist() == [name for name in names for _ in range(2)]
    assert table["arm"].tolist() == [f"task={name}" for name in names for _ in range(2)]


def test_what_a_command_says_does_not_steer_the_terminal(capsys):
    display = display_for(quiet=True)
    display.note("a\x1b[2Jb\udcff")
    display.warn("c\x07d\ne")
    assert main(train.EXPERIMENT, ["--task", "folder:/no\x1b]0;title\x07"]) == 1
    assert predict.main(["--run", "/no\x1b[2J", "--images", "x.png"]) == 1
    text = capsys.readouterr().err
    assert not re.search("[\x00-\x09\x0b-\x1f]", text)
    assert text.splitlines()[:3] == [r"a\x1b[2Jb\udcff", r"warning: c\x07d", "e"]
