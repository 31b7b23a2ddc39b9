"""The ledger of claims: what the experiments left is gathered, kept and counted."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import claims
from experiments.claims import main
from fishnet.study.question import QUESTIONS
from fishnet.study.record import read_answer

MADE = [
    ["command", "python -m experiments.NAME"],
    ["runs", "20, in 2 sweeps"],
    ["time", "3 min 1 s"],
    ["device", "cpu x 2"],
    ["versions", "jax 0"],
    ["finished", "2026-01-01T00:00:00+00:00"],
]


def leave(folder, name, verdicts, size="full"):
    """What an experiment leaves behind."""
    claims = [
        {
            "text": f"{name} claims {i}",
            "source": "a | b",
            "verdict": verdict,
            "measure": "accuracy",
            "control": "relu",
            "effects": {"arm": "+0.1"},
        }
        for i, verdict in enumerate(verdicts)
    ]
    record = {"experiment": name, "size": size, "question": f"{name}?", "answer": "Yes.", "claims": claims}
    (folder / "figures").mkdir(parents=True)
    (folder / "answer.json").write_text(json.dumps(record | {"made": dict(MADE)}))
    for figure in ("evidence", "mechanism"):
        (folder / "figures" / f"{figure}.svg").write_text(f"<svg>{name}</svg>")


@pytest.fixture
def gather(tmp_path):
    def called(*words, runs="runs"):
        return main(["--runs", str(tmp_path / runs), "--out", str(tmp_path / "docs" / "claims.md"), *words])

    return called


def test_claims_are_counted_and_shown_with_their_figures(tmp_path, gather, capsys):
    leave(tmp_path / "runs" / "capacity-full", "capacity", ["refuted", "undecided"])
    leave(tmp_path / "runs" / "batch_norm-full", "batch_norm", ["supported"])
    assert gather() == 0
    said = capsys.readouterr().out
    assert "3 claims of 2 experiments: 1 supported, 1 refuted, 1 undecided" in said
    assert "not run yet: ablation, vanishing_gradient, dying_relu" in said
    text = (tmp_path / "docs" / "claims.md").read_text()
    assert text.index("batch_norm?") < text.index("capacity?")  # the order of the ledger
    assert "| `capacity` | 20, in 2 sweeps | 3 min 1 s | 0 | 1 | 1 | cpu x 2 |" in text
    assert "| capacity claims 0 | a \\| b | refuted | accuracy, against relu | arm: +0.1 |" in text
    for name in ("capacity", "batch_norm"):
        for figure in ("evidence", "mechanism"):
            assert f"(figures/{name}_{figure}.svg)" in text
            assert (tmp_path / "docs" / "figures" / f"{name}_{figure}.svg").read_text() == f"<svg>{name}</svg>"


def test_an_answer_is_kept_where_its_runs_are_gone(tmp_path, gather):
    leave(tmp_path / "runs" / "capacity-full", "capacity", ["refuted"])
    leave(tmp_path / "runs" / "batch_norm-full", "batch_norm", ["supported"])
    assert gather() == 0
    before = (tmp_path / "docs" / "claims.md").read_text()
    assert gather(runs="gone") == 0
    assert (tmp_path / "docs" / "claims.md").read_text() == before
    leave(tmp_path / "later" / "capacity-full", "capacity", ["supported"])
    assert gather(runs="later") == 0
    assert "2 supported, 0 refuted, 0 undecided" in (tmp_path / "docs" / "claims.md").read_text()


def test_sizes_are_not_mixed(tmp_path, gather, capsys):
    leave(tmp_path / "runs" / "capacity-full", "capacity", ["refuted"])
    assert gather() == 0
    assert gather("--size", "quick") == 1
    assert "no answers of size quick" in capsys.readouterr().err


def changed(**changes) -> str:
    claim = {"text": "a", "source": "b", "verdict": "refuted", "measure": "c", "control": "d", "effects": {"e": "f"}}
    record = {"experiment": "capacity", "size": "full", "question": "q?", "answer": "Yes.", "claims": [claim]}
    return json.dumps(record | {"made": dict(MADE)} | changes)


CLAIM = json.loads(changed())["claims"][0]
MALFORMED = {
    "cut short": changed()[:90],
    "empty": "",
    "nothing": "null",
    "a list": "[]",
    "too deep": "[" * 100_000,
    "not UTF-8": b"\xff\xfe",
    "another experiment": changed(experiment="transfer"),
    "another size": changed(size="quick"),
    "no size": changed(size="huge"),
    "a number for a text": changed(question=3),
    "no text": changed(answer=""),
    "no claims": changed(claims=None),
    "a claim that is none": changed(claims=["a"]),
    "an unknown verdict": changed(claims=[CLAIM | {"verdict": "likely"}]),
    "effects that are none": changed(claims=[CLAIM | {"effects": ["+0.1"]}]),
    "an effect that is no text": changed(claims=[CLAIM | {"effects": {"arm": float("nan")}}]),
    "a row of a table in two": changed(claims=[CLAIM | {"text": "a\nb"}]),
    "not made": changed(made={}),
    "made of what": changed(made=dict(MADE) | {"runs": 3}),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_is_named_and_replaces_nothing(tmp_path, gather, capsys, content):
    leave(tmp_path / "runs" / "capacity-full", "capacity", ["refuted"])
    leave(tmp_path / "runs" / "transfer-full", "transfer", ["supported"])
    assert gather() == 0
    before = {path: path.read_bytes() for path in (tmp_path / "docs").rglob("*.*")}
    capsys.readouterr()
    path = tmp_path / "runs" / "capacity-full" / "answer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "runs" / "capacity-full" / "figures" / "evidence.svg").write_text("<svg>another</svg>")
    assert gather() == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} cannot be ") and error.count("\n") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "docs").rglob("*.*")} == before
    path.unlink()
    assert gather() == 0  # later runs do not fail


def test_a_malformed_answer_that_was_kept_is_left_out_and_the_others_are_counted(tmp_path, gather, capsys):
    leave(tmp_path / "runs" / "capacity-full", "capacity", ["refuted"])
    leave(tmp_path / "runs" / "transfer-full", "transfer", ["supported", "undecided"])
    assert gather() == 0
    path = tmp_path / "docs" / "answers" / "capacity.json"
    path.write_text("{")
    assert gather(runs="gone") == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {path} cannot be read") and said.err.count("\n") == 1
    assert "2 claims of 1 experiment: 1 supported, 0 refuted, 1 undecided" in said.out
    assert path.read_text() == "{"
    assert gather() == 0  # the runs have it still


def test_an_answer_without_its_figures_replaces_nothing(tmp_path, gather, capsys):
    leave(tmp_path / "runs" / "capacity-full", "capacity", ["refuted"])
    assert gather() == 0
    leave(tmp_path / "later" / "capacity-full", "capacity", ["supported"])
    (tmp_path / "later" / "capacity-full" / "figures" / "mechanism.svg").write_bytes(b"")
    assert gather(runs="later") == 1
    assert "mechanism.svg is empty" in capsys.readouterr().err
    assert "0 supported, 1 refuted" in (tmp_path / "docs" / "claims.md").read_text()


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answers_in_the_repository_are_whole(name):
    folder = Path(__file__).parents[2] / "docs"
    record = read_answer(folder / "answers" / f"{name}.json", name)
    assert record is None or record["claims"]


def test_the_folder_of_mnist_is_passed_on_where_it_is_read(gather, monkeypatch, tmp_path):
    calls = []
    # Of this module alone: matplotlib also runs a process where it has no cache of fonts yet.
    process = SimpleNamespace(run=lambda words: calls.append(words) or SimpleNamespace(returncode=0))
    monkeypatch.setattr(claims, "subprocess", process)
    assert gather("--run", "--size", "quick", "--data-dir", "/data") == 1  # nothing was left behind
    assert len(calls) == len(QUESTIONS)
    given = [words for words in calls if words[-2:] == ["--data-dir", "/data"]]
    assert [words[2] for words in given] == ["experiments.mnist_speed"]
    assert gather("--run", "--size", "smoke") == 1
    assert "--data-dir" not in calls[-1] and calls[-1][-1].endswith(f"{QUESTIONS[-1]}-smoke")
