"""Where a table of a folder is damaged, the command that is named writes it again in that folder."""

import shlex
import shutil
import subprocess

import pytest

from fishnet.errors import UserError
from fishnet.host.names import quote_command
from fishnet.report.results import load_results
from fishnet.report.write_again import current_command
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file

COMMAND = ["python", "-m", "experiments.ablation"]


def damaged(sweep_folder, out, words):
    """A moved folder of which a table is damaged, made by a command with these words."""
    made = sweep_folder(axes={}, seeds=1)
    write_sweep_file(made, read_sweep_file(made) | {"command": quote_command([*COMMAND, *words])})
    shutil.move(made, out)
    (out / "runs.parquet").write_bytes(b"PAR1")
    (out / "checkpoints" / "cohort_0" / "1").mkdir(parents=True)
    return out


@pytest.mark.parametrize(
    "words",
    [
        ["--lr", "0.1"],
        ["--out", "runs/old", "--lr", "0.1"],
        ["--lr", "0.1", "--out=runs/old"],
        ["--lr", "0.1", "--out", "it's an old folder"],
        ["--out=an old folder", "--lr", "0.1"],
    ],
)
def test_the_command_leads_to_the_folder_that_was_asked_about(sweep_folder, tmp_path, words):
    out = damaged(sweep_folder, tmp_path / "my new 'folder'", words)
    with pytest.raises(UserError, match=r"runs\.parquet is damaged.*: this writes it again: python -m ") as refusal:
        load_results(out)
    written = str(refusal.value).partition("this writes it again: ")[2]
    assert shlex.split(written) == [*COMMAND, "--lr", "0.1", "--out", str(out)]


def test_words_that_only_a_shell_reads_stay_as_they_are(tmp_path):
    words = ["--task", "folder:/photos/a\x1b'b  c", "--out", "old\n --out", "--lr", "0.1"]
    command = current_command(tmp_path / "new\tname", quote_command(["python", "-m", "experiments.train", *words]))
    seen = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    expected = ["python", "-m", "experiments.train", *words[:2], "--lr", "0.1", "--out", str(tmp_path / "new\tname")]
    assert seen.decode().split("\0")[:-1] == expected


def test_a_sweep_of_an_experiment_with_several_is_made_again_by_the_whole(tmp_path):
    (tmp_path / "answer.json").write_text("{}")
    command = current_command(tmp_path / "widths", "python -m experiments.capacity --quick --out runs/capacity")
    assert shlex.split(command)[-3:] == ["--quick", "--out", str(tmp_path)]


def test_without_checkpoints_no_command_is_named_that_could_not_do_it(sweep_folder, tmp_path):
    out = damaged(sweep_folder, tmp_path / "moved", [])
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(UserError, match=r"cohort_0 has no checkpoint to write it again from: both are lost; train"):
        load_results(out)


def test_a_program_of_the_users_own_is_told_the_folder(sweep_folder, tmp_path):
    out = damaged(sweep_folder, tmp_path / "moved", [])
    write_sweep_file(out, read_sweep_file(out) | {"command": "study.py 3"})
    with pytest.raises(UserError, match=r"the same sweep with out='.*/moved' writes it again"):
        load_results(out)
