"""Output that cannot be written: closed, on a full disk, its reader gone. What was computed is kept all the same."""

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fishnet.cli.output import Output, guard_output, output_width, settle_environment
from fishnet.cli.parser import run_guarded

ROOT = Path(__file__).parents[2]


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


class Gone(io.StringIO):
    """A pipe whose reader has gone: noticed when its buffer is flushed."""

    def flush(self):
        raise BrokenPipeError(32, "Broken pipe")


class Closed(io.StringIO):
    """A stream that the program itself has closed."""

    def write(self, text):
        raise ValueError("I/O operation on closed file")


BROKEN = {"full": Full, "gone": Gone, "closed": Closed, "none": lambda: None}


@pytest.mark.parametrize("stream", BROKEN.values(), ids=BROKEN)
def test_a_job_goes_on_when_its_output_cannot_be_written(monkeypatch, capsys, stream):
    done = []

    def job(argv):
        print("a table", flush=True)
        sys.stdout.writelines(["more\n"])
        done.append(True)
        return 0

    monkeypatch.setattr(sys, "stdout", stream())
    assert run_guarded(job, []) == 1
    assert done
    error = capsys.readouterr().err
    assert error.startswith("error: standard output cannot be written (")
    assert error.count("\n") == 1


@pytest.mark.parametrize("stream", BROKEN.values(), ids=BROKEN)
def test_a_job_that_says_nothing_does_not_care(monkeypatch, stream):
    if stream is not Gone:
        monkeypatch.setattr(sys, "stdout", stream())
        assert run_guarded(lambda argv: 0, []) == 0


@pytest.mark.parametrize("stream", BROKEN.values(), ids=BROKEN)
def test_without_standard_error_the_result_is_printed(monkeypatch, capsys, stream):
    def job(argv):
        print("on the way", file=sys.stderr, flush=True)
        print("a table")
        return 0

    monkeypatch.setattr(sys, "stderr", stream())
    assert run_guarded(job, []) == 0
    assert capsys.readouterr().out == "a table\n"


def test_what_an_encoding_lacks_is_written_in_ascii(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run_guarded(lambda argv: print("1.8 ± .01 \udcff") or 0, []) == 0
    stream.seek(0)
    assert stream.buffer.read() == b"1.8 \\xb1 .01 \\udcff\n"


def test_the_streams_are_given_back(capsys):
    before = sys.stdout, sys.stderr
    with guard_output() as output:
        assert isinstance(sys.stdout, Output) and output.encoding
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("size", ["abc", "0", "-5", "", "²", "9" * 5000, "1e3", "120"])
def test_nonsense_sizes_of_a_terminal_do_not_count(monkeypatch, size):
    monkeypatch.setenv("COLUMNS", size)
    monkeypatch.setenv("LINES", size)
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    before = dict(os.environ)
    with settle_environment():
        assert os.environ.get("COLUMNS") == os.environ.get("LINES") == ("120" if size == "120" else None)
        assert "MPLBACKEND" not in os.environ
        assert output_width() == (120 if size == "120" else 1000)
    assert dict(os.environ) == before


def test_an_error_of_the_machine_is_no_error_of_the_program(capsys):
    def job(argv):
        raise PermissionError(13, "Permission denied", "/a/folder")

    assert run_guarded(job, []) == 1
    assert capsys.readouterr().err == "error: /a/folder: Permission denied\n"


def test_an_error_of_the_program_is_not_taken_for_one_of_the_machine(capsys):
    def job(argv):
        raise OSError(9, "Bad file descriptor")

    assert run_guarded(job, []) == 1
    assert capsys.readouterr().err.startswith("error: unexpected OSError: ")


@pytest.mark.parametrize(
    ("given", "code", "said"), [(None, 0, ""), (3, 3, ""), ("no such thing", 1, "error: no such thing\n")]
)
def test_an_exit_keeps_its_code_and_its_text(capsys, given, code, said):
    """As Python itself does it."""

    def job(argv):
        raise SystemExit(given)

    assert run_guarded(job, []) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("redirection", [">&-", "> /dev/full", "<&- >&- 2>&-"])
def test_a_process_ends_in_one_line(redirection):
    """What Python itself does with its streams at its end, which no other test sees."""
    command = f"{sys.executable} -m experiments.describe --part clipping {redirection}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    if "2>" not in redirection:
        assert done.stderr.startswith("error: standard output cannot be written (")
        assert done.stderr.count("\n") == 1


def test_memory_that_is_not_there_is_no_error_of_the_program(capsys):
    def job(argv):
        return len(bytearray(2**62))

    assert run_guarded(job, []) == 1
    assert capsys.readouterr().err == "error: out of memory\n"


def test_a_warning_for_the_user_is_one_line_without_its_place(capsys):
    def job(argv):
        with warnings.catch_warnings():  # pytest would keep them
            warnings.simplefilter("always")
            warnings.showwarning = lambda *what: sys.stderr.write(warnings.formatwarning(*what[:4]))
            warnings.warn("checkpoint 3\x1b is damaged", stacklevel=1)
            warnings.warn("overflow", RuntimeWarning, stacklevel=1)
        return 0

    assert run_guarded(job, []) == 0
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first == "warning: checkpoint 3\\x1b is damaged"
    assert second.startswith(f"{__file__}:") and second.endswith("RuntimeWarning: overflow")
