"""Pages as a browser sees them: no error, no request to a network, nothing wider than a phone."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from fishnet.data.synthetic import CLASSES
from fishnet.report.html import write_report
from fishnet.study.answer import Answer, DrawnFigure, write_answer
from fishnet.study.claims import Claim, judge
from fishnet.study.contrasts import Contrast, evaluate_contrast
from fishnet.study.figures.answers import arms_panel, curves_panel, forest_panel, layers_panel, steps_panel
from fishnet.study.trials import Trial
from fishnet.sweep.spec.random_search import Samples
from tests.report.conftest import fabricate
from tests.report.test_evidence import ACCURACY, LABELS, SEEDS, look_of

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
# Further pages to open: a folder that holds reports or answers.
PAGES = sorted(Path(folder).rglob("*.html")) if (folder := os.environ.get("FISHNET_PAGES")) else []
# Tells the frame around it its width and everything that was loaded, once the page is there.
PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, svg, pre")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
  const empty = [...document.querySelectorAll("svg")].filter(e => e.getBoundingClientRect().height < 20).length;
  const loaded = performance.getEntriesByType("resource").map(e => e.name);
  parent.postMessage(JSON.stringify(
    {width: document.documentElement.scrollWidth, inner: innerWidth, wide, empty, loaded}), "*");
});</script>"""
# A window is 500 pixels wide or wider, a frame in it as narrow as it should be.
FRAME = """<body><script>addEventListener("message", e => {{ document.body.dataset.seen = e.data }})</script>
<iframe src="{page}" style="border:0;width:{width}px;height:2000px"></iframe></body>"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def answer_page(tmp_path_factory):
    out = tmp_path_factory.mktemp("answer")
    look = look_of()
    rows = [
        {"run": run, "epoch": 1, "step": step, "probe": "gradient_norm", "layer": f"dense_{i}", "index": i,
         "class": None, "value": np.exp(-i - run / 20)}
        for run in range(len(LABELS) * SEEDS) for step in (0, 5, 10) for i in range(4)
    ]  # fmt: skip
    sweep = look.results.sweep | {"device": "cpu x 2", "versions": {"jax": "0"}, "finished": "2026-01-01"}
    runs = look.results.runs.assign(train_seconds=1.0)
    results = dataclasses.replace(look.results, out=out / "planted", sweep=sweep, runs=runs, probes=pd.DataFrame(rows))
    trial = Trial("planted", (dataclasses.replace(look, results=results),))
    evidence = evaluate_contrast(Contrast("accuracy", "Accuracy <of> all & sundry", "planted", ACCURACY), trial)
    panels = [
        layers_panel(trial, "gradient_norm", "by layer", "length", expected={"control": np.ones(4)}, only="dense"),
        steps_panel(trial, "gradient_norm", "by step", "length"),
        curves_panel(trial, "train_loss", "by epoch", "loss"),
        arms_panel(trial, ACCURACY, "by arm"),
    ]
    claim = Claim("More <b>is</b> more", "a textbook", "accuracy", {"better by .05": "better"})
    answer = Answer(
        title="A planted answer",
        question="Is what was planted found?",
        answer="It is <i>found</i>.\nAnd more.",
        evidence=[evidence],
        evidence_figure=DrawnFigure("evidence", "What shows it", "A caption.", [forest_panel(evidence)]),
        mechanism_figure=DrawnFigure("mechanism", "Why", "Another.", panels),
        judgments=[judge(claim, {"accuracy": evidence})],
        limits=["It was planted."],
        problems=[],
        trials={"planted": trial},
        command="python -m experiments.planted",
    )
    return write_answer(answer, out)


def check(page: Path, width: int, tmp_path: Path) -> None:
    """Opens a page: nothing is amiss, loaded, empty or wider than the window."""
    seen, complaints = opened(page, width, tmp_path)
    assert complaints == ""
    assert seen["loaded"] == [] and seen["empty"] == 0
    assert seen["width"] <= seen["inner"] and seen["wide"] == []


def opened(page: Path, width: int, tmp_path: Path) -> tuple[dict, str]:
    """What the page says of itself at a width, and what the browser complained of."""
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text().replace("</head>", PROBE + "</head>"))
    framed = tmp_path / "framed.html"
    framed.write_text(FRAME.format(page=probed.name, width=width))
    log = tmp_path / "net.json"
    quiet = ["--disable-background-networking", "--no-first-run", "--disable-component-update", "--disable-sync"]
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom",
         "--virtual-time-budget=3000", "--window-size=1400,1000", framed.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stdout[:500]
    requested = {urlsplit(url).netloc for url in re.findall(r'"url":"(https?://[^"]*)"', log.read_text())}
    # The browser has errands of its own; a page without scripts can only ask hosts that it names.
    assert [host for host in requested if host in page.read_text()] == []
    assert "mathdefault" not in page.read_text()  # a formula of matplotlib, shown as it is written
    complaints = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(seen.group(1).replace("&quot;", '"')), complaints


@pytest.mark.parametrize("width", [1280, 360])
def test_an_answer_opens_without_error_and_fits(answer_page, tmp_path, width):
    check(answer_page, width, tmp_path)


def test_what_the_user_wrote_is_text(answer_page):
    text = answer_page.read_text()
    assert "More &lt;b&gt;is&lt;/b&gt; more" in text and "It is &lt;i&gt;found&lt;/i&gt;." in text
    assert "Accuracy &lt;of&gt; all &amp; sundry" in text


@pytest.mark.parametrize("width", [1280, 360])
def test_a_report_opens_without_error_and_fits(tmp_path, width):
    out = tmp_path / "sweep"
    fabricate(out)
    check(write_report(out), width, tmp_path)


@pytest.mark.parametrize("width", [1280, 360])
def test_names_of_tasks_that_are_wider_than_the_window_are_broken(tmp_path, width):
    tasks = ["synthetic?" + "&".join(f"noise={name}:{share}" for name in CLASSES) for share in (0.25, 0.125)]
    samples = Samples({"task": tasks, "lr": [0.1, 0.2]}, [{"task": t, "lr": lr} for t in tasks for lr in (0.1, 0.2)])
    fabricate(tmp_path / "sweep", axes={}, samples=samples)
    check(write_report(tmp_path / "sweep"), width, tmp_path)
    drawn = dataclasses.replace(samples, draws=4)
    fabricate(tmp_path / "drawn", axes={}, samples=drawn)
    check(write_report(tmp_path / "drawn"), width, tmp_path)


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(folder)))
def test_a_page_that_was_made_opens_without_error_and_fits(page, tmp_path, width):
    check(page, width, tmp_path)
