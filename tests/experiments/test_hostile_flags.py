"""Random command lines of hostile values: each is understood or refused in one sentence, and nothing is trained."""

import importlib
import os
import random

import pytest

from experiments import lr_range
from fishnet.cli.sweep_flags import make_parser, parse_request
from fishnet.errors import UserError
from fishnet.study.question import SIZES
from fishnet.study.question import parse_args as question_asked
from fishnet.sweep.plan.layout import check_overrides
from fishnet.sweep.spec.recipe import FIELDS, value_names
from fishnet.sweep.spec.validation import check_lowering, check_sweep

NUMBERS = ["0", "1", "2", "3", "0.5", "0.1", "-1", "-0", "1e-46", "-1e-46", "1e38", "1e999", "1e-999", "nan", "inf"]
NUMBERS += ["1_000", "٣", "²", "0x10", "+5", " 5 ", "5.", ".5", "1e3", "1e9", "4294967296", "9" * 25, "9" * 5000]
NUMBERS += ["0.9999999999", "1000000", "65537", "-", "e", "1e", "1e+", "--1"]
LISTS = [
    "1-2",
    "16-32",
    "8",
    "0-0",
    "1-",
    "-1-2",
    "1--2",
    "1e-3-0.1",
    "-".join("9" * 400),
    "a+b",
    "+",
    "a+a",
    "1-0.5-nan",
]
WORDS = ["", " ", "\t\n", "a", "none", "auto", "all", "relu", "\x00", "\x1b[31m", "\udcff", "é" * 200, "'", "%s", "{0}"]
TASKS = [
    "synthetic",
    "mnist-mini",
    "reef",
    "folder:",
    "folder:/no/such",
    "folder:~nobody/x",
    "folder:/dev/null",
    "folder",
]
TASKS += [
    "reef?",
    "reef?train",
    "reef?train=",
    "reef?train=nan",
    "reef?train=1e-46",
    "reef?noise=9&noise=9",
    "synthetic?x",
]
TASKS += [
    "reef?few=a:1",
    "synthetic?few=rising:1e9",
    "synthetic?noise=0.5@99999",
    "synthetic?shift=brightness:1e999",
    "?",
]
TASKS += [
    "synthetic?only=rising+rising",
    "synthetic?train=" + "9" * 5000,
    "folder:\x00",
    "folder:" + "x" * 5000,
    "mnist",
]
TARGETS = ["val_accuracy>=0.5", "val_loss<=1e400", ">=", "val_accuracy>=٣", "lr>=1", "val_accuracy=1", "val_ece<=-0"]
TRUNKS = ["a:0", ":", "a:", ":0", "a:1-0", "a:" + "9" * 5000, "/dev/null:0", "\x00:1", "~nobody/a:0"]
RANGES = [
    "1..2",
    "2..1",
    "1..",
    "..",
    "1..2:log",
    "0..1:log",
    "nan..1",
    "1..inf",
    "1e-46..1",
    "-1e38..1e38",
    "1e-37..1e38:log",
]
RANGES += [
    "1..1.0000000001",
    "1..9999999999",
    "0..0.00000001",
    "1..2:",
    "1..2:ln",
    "1...2",
    "....",
    "1..2..3",
    "1:2..3",
]
AXES = [
    "=",
    "lr",
    "lr=",
    "=1",
    "seed=1",
    "lr=1,1",
    "lr=1,,2",
    "nome=1",
    "LR=1",
    "lr=a",
    "norm=none,batch",
    "epochs=1,2",
]
ADDRESSES = ["a:1", "a:99999", ":", "a:", ":1", "[::1]:80", "a:" + "9" * 5000, "a:٣", "\x00:1"]
PATTERNS = ["(", "[a-", "(?P<x>)", "a{99999999}", "\\", "(a+)+$", "*", "\\d+"]
POOL = [*NUMBERS, *LISTS, *WORDS, *TASKS, *TARGETS, *TRUNKS, *RANGES, *AXES, *ADDRESSES, *PATTERNS]

TRAINING = [importlib.import_module(f"experiments.{name}").EXPERIMENT for name in ("ablation", "train", "lr_range")]
QUESTION = importlib.import_module("experiments.capacity").question()


def plausible(draw, name):
    """Some value that suits field `name` now and then."""
    valid = [str(value) for value in value_names().get(name, ())] or NUMBERS[:6]
    return draw.choice({"task": TASKS, "trunk": TRUNKS, "widths": LISTS}.get(name, valid))


def command_line(draw, parser):
    """Some flags with some values."""
    words = []
    actions = [action for action in parser._actions if action.dest not in ("help", "debug")]
    for action in draw.sample(actions, draw.randint(1, 5)):
        flag = draw.choice(action.option_strings)
        flag = flag.replace("-", "_").replace("__", "--", 1) if draw.random() < 0.2 else flag
        if action.nargs == 0:
            words.append(flag)
            continue
        name, value = action.dest, draw.choice(POOL)
        if draw.random() < 0.5 and name in FIELDS:
            value = plausible(draw, name)
        elif name in ("axis", "sample") and draw.random() < 0.8:
            name = draw.choice(list(FIELDS))
            values = [plausible(draw, name) if draw.random() < 0.7 else draw.choice(POOL) for _ in range(2)]
            value = f"{name}={draw.choice(RANGES) if draw.random() < 0.3 else ','.join(values)}"
        words += [f"{flag}={value}"] if draw.random() < 0.5 else [flag, value]
    return words


def refused(job, words):
    """Whether a command line is refused; every other exception is a mistake of the program."""
    try:
        job(words)
    except UserError as error:
        assert str(error).strip(), words
        return True
    return False


def checked(experiment):
    """All that a command does before data are read or anything is compiled."""

    def job(words):
        request = (
            lr_range.parse_range_test(words) if experiment.name == "lr_range" else parse_request(experiment, words)
        )
        check_overrides(request.lane_width, request.lowering, request.devices, request.share_batches)
        check_sweep(request.sweep, request.data_dir, request.group_regex, request.strict)
        check_lowering(request.sweep, request.lowering)

    return job


@pytest.mark.parametrize("experiment", TRAINING, ids=lambda experiment: experiment.name)
def test_training_commands(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(f"{os.environ.get('FISHNET_FUZZ_SEED', '0')} {experiment.name}")
    job, parser = checked(experiment), make_parser(experiment)
    many = int(os.environ.get("FISHNET_FUZZ", "150"))
    found = [
        refused(job, ["--task=synthetic"] * (draw.random() < 0.5) + command_line(draw, parser)) for _ in range(many)
    ]
    assert sum(found) > many // 3
    assert not list(tmp_path.iterdir())


def test_questions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw, found = random.Random(1), 0
    for _ in range(50):
        words = [f"--{size}" for size in SIZES if draw.random() < 0.3]
        words += [word for flag in ("--devices", "--data-dir", "--out") for word in (flag, draw.choice(POOL))]
        found += refused(lambda words: question_asked(QUESTION, words), words)
    assert found > 25
    assert not list(tmp_path.iterdir())
