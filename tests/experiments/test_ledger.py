"""The ledger of claims: what the experiments left is gathered, kept and counted."""

import json
from types import SimpleNamespace

import pytest

from experiments import claims
from experiments._question import QUESTIONS
from experiments.claims import main

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


@pytest.mark.parametrize("content", ["{", ""])
def test_an_answer_that_cannot_be_read_is_named_and_does_not_replace_one_that_can(tmp_path, gather, capsys, content):
    leave(tmp_path / "runs" / "capacity-full", "capacity", ["refuted"])
    assert gather() == 0
    before = (tmp_path / "docs" / "answers" / "capacity.json").read_text()
    (tmp_path / "runs" / "capacity-full" / "answer.json").write_text(content)
    assert gather() != 0
    error = capsys.readouterr().err
    assert "answer.json cannot be read" in error and error.count("\n") == 1
    assert (tmp_path / "docs" / "answers" / "capacity.json").read_text() == before


def test_the_folder_of_mnist_is_passed_on(gather, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(claims.subprocess, "run", lambda words: calls.append(words) or SimpleNamespace(returncode=0))
    assert gather("--run", "--size", "smoke", "--data-dir", "/data") == 1  # nothing was left behind
    assert len(calls) == len(QUESTIONS) and all(words[-2:] == ["--data-dir", "/data"] for words in calls)
    assert gather("--run", "--size", "smoke") == 1
    assert "--data-dir" not in calls[-1] and calls[-1][-1].endswith(f"{QUESTIONS[-1]}-smoke")
