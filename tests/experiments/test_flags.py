"""Flags that every command shares: nothing is given twice, nothing is empty, no option is ignored."""

import argparse
import importlib
from types import SimpleNamespace

import pytest

from fishnet.cli.parser import Parser, parse_whole, split_flags
from fishnet.cli.sweep_flags import make_parser
from fishnet.errors import UsageError
from fishnet.study.question import QUESTIONS, SIZES, parse_args
from fishnet.study.question import make_parser as question_parser

LISTS = {"--axis", "--sample", "--net", "--images"}  # flags that collect what they are given


def parser_of(command):
    """The parser of one of the commands, without what it imports for its answer."""
    module = importlib.import_module(command)
    if hasattr(module, "EXPERIMENT"):
        return make_parser(module.EXPERIMENT)
    return module.parser()


def question_flags(name):
    return question_parser(SimpleNamespace(name=name, about=""))


COMMANDS = [
    *("experiments.ablation", "experiments.train", "experiments.lr_range", "configs.mnist_cnn", "configs.reef_resnet"),
    *("experiments.predict", "experiments.describe", "experiments.benchmark", "experiments.claims"),
]
PARSERS = {name: parser_of(name) for name in COMMANDS} | {f"questions of {QUESTIONS[1]}": question_flags(QUESTIONS[1])}


def flags(command, takes_value):
    """The flags of a command that take a value, or those that do not."""
    return [
        flag
        for action in PARSERS[command]._actions
        for flag in action.option_strings
        if flag.startswith("--") and flag != "--help" and (action.nargs != 0) is takes_value
    ]


def refusal(command, *words):
    with pytest.raises(UsageError) as caught:
        PARSERS[command].parse(words)
    return str(caught.value)


@pytest.mark.parametrize("command", PARSERS)
def test_an_empty_value_is_refused(command):
    for flag in flags(command, takes_value=True):
        for empty in ("", " \t"):
            assert refusal(command, flag, empty) == f"{flag}: {empty!r} is empty: give it a value"
            assert refusal(command, f"{flag}={empty}") == f"{flag}: {empty!r} is empty: give it a value"


@pytest.mark.parametrize("command", PARSERS)
def test_a_flag_is_given_once(command):
    for flag in set(flags(command, takes_value=True)) - LISTS:
        typed = flag.replace("-", "_").replace("__", "--")
        assert refusal(command, flag, "3", f"{typed}=4") == f"{flag} is given twice: '3' and '4'"
        assert refusal(command, flag, "3", flag, "3") == f"{flag} is given twice: '3' and '3'"
    for flag in flags(command, takes_value=False):
        assert refusal(command, flag, flag) == f"{flag} is given twice"


def test_a_switch_and_its_opposite():
    parser = Parser(prog="x")
    parser.add_argument("--color", action=argparse.BooleanOptionalAction)
    with pytest.raises(UsageError, match=r"^--color and --no-color are both given$"):
        parser.parse(["--color", "--no-color"])


def test_flags_that_collect_are_given_as_often_as_wanted():
    found = PARSERS["experiments.ablation"].parse(["--axis", "lr=1", "--axis=depth=2", "--sample", "a", "--sample=b"])
    assert (found.axis, found.sample) == (["lr=1", "depth=2"], ["a", "b"])
    found = PARSERS["experiments.predict"].parse(["--run", "r", "--images", "a", "b", "--images", "c"])
    assert found.images == ["a", "b", "c"]


def test_words_are_told_apart_from_flags():
    assert split_flags(["x", "--a", "b", "c", "--d=e=f", "--g"]) == [("--a", ["b", "c"]), ("--d", ["e=f"]), ("--g", [])]
    parser = Parser(prog="x")
    parser.add_argument("--lr")
    with pytest.raises(UsageError, match="'stray' belongs to no flag"):
        parser.parse(["--lr", "1", "stray"])


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1e3", "1_000", "٣", "0x10", " 5", "nan", "9" * 5000])
def test_a_whole_number_is_written_in_plain_digits(text):
    with pytest.raises(UsageError, match="is not a whole number of at least 1 and at most 7"):
        parse_whole("rates", text, most=7)
    assert [parse_whole("rates", ok, most=7) for ok in ("1", "+3", "007")] == [1, 3, 7]


# --- no flag is ignored: flags of a job, where they have an effect and where not ---


def code_of(capsys, command, *words):
    """The exit code of a command and what it says."""
    module = importlib.import_module(f"experiments.{command}")
    code = module.main(module.EXPERIMENT, list(words)) if command == "train" else module.main(list(words))
    text = capsys.readouterr()
    return code, text.err


@pytest.mark.parametrize(
    ("command", "words", "part"),
    [
        ("describe", ["--part", "optimizers", "--image-size", "8"], "--image-size 8 would have no effect"),
        ("describe", ["--part", "pairings", "--depth", "2"], "--depth 2 would have no effect"),
        ("describe", ["--part", "losses", "--widths", "8"], "--widths 8 would have no effect"),
        ("describe", ["--part", "models", "--image-size", "100000"], "100000: it must be 1 to 4096 pixels"),
        ("describe", ["--part", "models", "--widths", "100000"], "'100000' is not at least 1 and at most 65536"),
        ("describe", ["--part", "models", "--depth", "9" * 25], "is too large for any field"),
        ("benchmark", ["--part", "scaling", "--net", "cnn 16-32-64"], "--net cnn 16-32-64 would have no effect"),
        ("benchmark", ["--part", "upkeep", "--against", "serial"], "--against serial would have no effect"),
        ("benchmark", ["--part", "upkeep", "--seconds", "3"], "--seconds 3 would have no effect"),
        ("benchmark", ["--quick", "--net", "40 arms"], "--net '40 arms' would have no effect"),
        ("benchmark", ["--net", "40 arms", "--against", "vmap"], "none of these trains 40 arms"),
        ("benchmark", ["--against", "serial,serial"], "serial is there twice"),
        ("benchmark", ["--net", "40 arms", "--net", "40 arms"], "--net 40 arms is given twice"),
        ("benchmark", ["--seconds", "nan"], "'nan' is not a number above 0 and at most 3600"),
        ("benchmark", ["--seconds", "1e9"], "'1e9' is not a number above 0 and at most 3600"),
        ("benchmark", ["--rounds", "1_0"], "'1_0' is not a whole number of at least 1 and at most 1000"),
        ("claims", ["--data-dir", "/tmp"], "--data-dir /tmp would have no effect"),
        ("claims", ["--run", "--size", "smoke", "--data-dir", "/tmp"], "--data-dir /tmp would have no effect"),
        ("train", ["--task", "synthetic", "--data-dir", "/tmp"], "the data folder /tmp would have no effect"),
        ("train", ["--task", "synthetic", "--strict"], "strict would have no effect"),
        ("train", ["--task", "synthetic", "--group-regex", "a"], "a group regex ('a') applies to folder:PATH only"),
        ("train", ["--task", "synthetic", "--halving", "3"], "halving stopping would have no effect"),
        ("train", ["--task", "synthetic", "--median-stop"], "median stopping would have no effect"),
        ("train", ["--task", "synthetic", "--rung", "2"], "--rung 2 would have no effect"),
        ("train", ["--task", "synthetic", "--epochs", "1", "--target", "val_loss<=1"], "would have no effect"),
        ("train", ["--task", "synthetic", "--model", "mlp", "--lowering", "gemm"], "an mlp has no convolutions"),
        ("train", ["--task", "synthetic", "--share-batches", "--lane-width", "auto"], "share_batches would have no"),
        ("train", ["--task", "synthetic", "--share-batches", "--lane-width", "1"], "share_batches would have no"),
    ],
)
def test_a_flag_without_effect_is_refused(tmp_path, monkeypatch, capsys, command, words, part):
    monkeypatch.chdir(tmp_path)
    code, error = code_of(capsys, command, *words)
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith("error: ") and part in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_take_a_data_folder_where_they_read_files(name):
    question = importlib.import_module(f"experiments.{name}").question()
    for size in SIZES:
        words = [f"--{size}", "--data-dir", "/tmp"]
        if name == "mnist_speed" and size != "smoke":
            assert parse_args(question, words).data_dir == "/tmp"
        else:
            with pytest.raises(UsageError, match=f"--data-dir /tmp would have no effect: {name} --{size} reads no"):
                parse_args(question, words)
