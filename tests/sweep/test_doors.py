"""Arguments of a wrong type are refused at the door of the Python interface: one sentence, before any work."""

import re
import time

import numpy as np
import pytest

from fishnet.data import load_task
from fishnet.errors import UsageError
from fishnet.models.mc_dropout import check_dropout, check_passes
from fishnet.report.html import write_report
from fishnet.report.results import load_results
from fishnet.sweep import DataOptions, Range, Recipe, Samples, Stopping, Sweep, load_run, run_sweep
from tests.sweep.conftest import TINY, contents, leave_finished


def run(**arguments):
    """What `run_sweep` makes of one argument, the others as they should be; it must not come to the folder."""
    return lambda out: run_sweep(**{"sweep": Sweep(TINY, seeds=1), "out": out / "new"} | arguments)


def load(number):
    return lambda out: load_run(out, number)


def sweep(*arguments, **named):
    return lambda out: Sweep(*arguments, **named)


def made(kind, *arguments, **named):
    return lambda out: kind(*arguments, **named)


DRAWN = {"lr": [0.1, 0.2]}
CASES = [
    (sweep({"task": "reef"}), "recipe: {'task': 'reef'} (a dict) is not a Recipe"),
    (sweep(TINY, [("lr", [0.1])]), "axes: [('lr', [0.1])] (a list) is not a dictionary from recipe fields"),
    (sweep(TINY, None), "axes: None is not a dictionary"),
    (sweep(TINY, "lr=0.1"), "axes: 'lr=0.1' is not a dictionary"),
    (sweep(TINY, {"lr": 0.1}), "axis lr: 0.1 is not a list of values"),
    (sweep(TINY, {"activation": b"relu"}), "axis activation: b'relu' (a bytes) is not a list of values"),
    (sweep(TINY, {"lr": {0.1}}), "axis lr: {0.1} (a set) is not a list of values"),
    (sweep(TINY, {"lr": np.ones((1, 2))}), "lr: [1.0, 1.0] (a list) is not a number or 'auto'"),
    (sweep(TINY, {"activation": [np.tanh]}), "activation: <ufunc 'tanh'> (a ufunc) is not a name"),
    (sweep(TINY, {3: [1]}), "unknown axis '3'"),
    (sweep(TINY, seeds="3"), "seeds: '3' is neither a number of seeds nor a list"),
    (sweep(TINY, seeds=3.0), "seeds: 3.0 is neither"),
    (sweep(TINY, seeds=None), "seeds: None is neither"),
    (sweep(TINY, seeds=True), "seeds: True is neither"),
    (sweep(TINY, seeds=b"ab"), "seeds: b'ab' (a bytes) is neither"),
    (sweep(TINY, seeds={1, 2}), "seeds: {1, 2} (a set) is neither"),
    (sweep(TINY, seeds=[["a"]]), "seed: ['a'] (a list) is not a whole number"),
    (sweep(TINY, stopping={"halving": 2}), "stopping: {'halving': 2} (a dict) is not a Stopping"),
    (sweep(TINY, samples={"lr": [0.1]}), "samples: {'lr': [0.1]} (a dict) is not Samples"),
    (made(Stopping, halving="3"), "halving: '3' is not a whole number"),
    (made(Stopping, halving=2.5), "halving: 2.5 is not a whole number"),
    (made(Stopping, median="yes"), "median: 'yes' is not True or False"),
    (made(Stopping, halving=2, first=None), "first rung: None is not a whole number"),
    (made(Stopping, target=0.8), "target: 0.8 is not a text such as val_accuracy>=0.8"),
    (made(Samples, [("lr", [1])]), "samples: [('lr', [1])] (a list) is not a dictionary"),
    (made(Samples, {"lr": 0.1}), "sample lr: 0.1 is not a list of values"),
    (made(Samples, DRAWN, draws="2"), "draws: '2' is neither a number of draws nor a list"),
    (made(Samples, DRAWN, draws=[3]), "draw 1: 3 is not a dictionary"),
    (made(Samples, DRAWN, draws=[{3: 3}]), "draw 1 has the fields 3, not lr"),
    (made(Samples, DRAWN, draws=2, method=["sobol"]), "sampler: ['sobol'] (a list) is not one of sobol, random"),
    (made(Samples, DRAWN, draws=2, seed="1"), "draw seed: '1' is not a whole number"),
    (made(Samples, {"lr": Range("a", 3)}), "lr: 'a' is not a number or 'auto'"),
    (made(Samples, {"lr": Range(1, None)}), "lr: None is not a number or 'auto'"),
    (made(Range, 1, 3, log="yes"), "range: log: 'yes' is not True or False"),
    (made(Recipe, widths="16"), "widths: '16' is not whole numbers"),
    (made(Recipe, widths=16), "widths: 16 is not whole numbers"),
    (made(Recipe, widths=(1.5,)), "widths: (1.5,) (a tuple) is not whole numbers"),
    (made(Recipe, lr=None), "lr: None is not a number or 'auto'"),
    (made(Recipe, epochs=True), "epochs: True is not a whole number"),
    (made(Recipe, activation=np.tanh), "activation: <ufunc 'tanh'> (a ufunc) is not a name"),
    (made(Recipe, probes="gradients"), "probes: 'gradients' is not names"),
    (made(Recipe, task=3), "task: 3 is not a name"),
    (run(sweep=Recipe()), "sweep: Recipe(task='reef', "),
    (run(sweep={}), "sweep: {} (a dict) is not a Sweep"),
    (run(out=None), "out: None is not the path of a folder"),
    (run(out=3), "out: 3 is not the path of a folder"),
    (run(out=""), "out: '' is not the path of a folder"),
    (run(out="a\0b"), "out: 'a\\x00b' is not the path of a folder"),
    (run(lane_width=1.5), "lane width 1.5 is not a whole number from 1 to "),
    (run(lane_width="2"), "lane width '2' is not a whole number"),
    (run(lane_width=np.arange(3)), "lane width array([0, 1, 2]) (a ndarray) is not a whole number"),
    (run(lowering=["gemm"]), "lowering: ['gemm'] (a list) is not gemm, "),
    (run(devices="2"), "devices: '2' is not a whole number from 1"),
    (run(devices=1.0), "devices: 1.0 is not a whole number from 1"),
    (run(quiet="no"), "quiet: 'no' is not True or False"),
    (run(display=print), "display: <built-in function print>"),
    (run(data={"strict": True}), "data: {'strict': True} (a dict) is not DataOptions"),
    (run(command=["a"]), "command: ['a'] (a list) is not a text"),
    (run(share_batches="yes"), "share_batches: 'yes' is not True, False or None"),
    (made(DataOptions, data_dir=3), "data_dir: 3 is not the path of a folder"),
    (made(DataOptions, group_regex=3), "group_regex: 3 is not a regular expression"),
    (made(DataOptions, strict="yes"), "strict: 'yes' is not True or False"),
    (load("1"), "run: '1' is not a whole number"),
    (load(1.0), "run: 1.0 is not a whole number"),
    (load(True), "run: True is not a whole number"),
    (load(None), "run: None is not a whole number"),
    (load(-1), "run -1: "),
    (load(10**400), "run 1000000"),
    (made(load_run, ""), "out: '' is not the path of a folder"),
    (made(load_results, None), "out: None is not the path of a folder"),
    (made(write_report, 3), "out: 3 is not the path of a folder"),
    (lambda out: write_report(out, command=3), "command: 3 is not a text"),
    (made(load_task, 3), "unknown task '3'"),
    (made(load_task, ["reef"]), "unknown task \"['reef']\""),
    (made(load_task, "reef", "32"), "image size '32' is not a whole number of pixels"),
    (made(load_task, "synthetic", data_dir=3), "data_dir: 3 is not the path of a folder"),
    (made(load_task, "synthetic", strict="yes"), "strict: 'yes' is not True or False"),
    (made(check_dropout, "cnn"), "model: 'cnn' is not a network"),
    (run(shard=2), "shard: 2 is not a text such as 1/4"),
    (run(shard="2"), "shard '2' is not I/N with I from 1 to N"),
    (run(shard=2), "shard: 2 is not a text such as 1/4"),
    (run(shard="2"), "shard '2' is not I/N with I from 1 to N"),
    (made(check_passes, "3"), "passes: '3' is not a whole number of at least 1"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("doors") / "out"
    leave_finished(Sweep(TINY, seeds=2), out)
    return out


@pytest.mark.parametrize(("call", "message"), CASES, ids=[message[:40] for _, message in CASES])
def test_an_argument_of_a_wrong_type_is_refused_in_one_sentence(finished, call, message):
    out = finished
    before, began = contents(out), time.monotonic()
    with pytest.raises(UsageError, match=f"^{re.escape(message)}") as refusal:
        call(out)
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - began < 10
    assert contents(out) == before


def test_numbers_of_numpy_are_numbers():
    assert Stopping(halving=np.int32(3), first=np.int64(2)) == Stopping(halving=3, first=2)
    assert Range(np.float32(0.5), np.int64(2)) == Range(0.5, 2)
    assert Recipe(lr=np.float64(0.5), widths=[np.int64(4)], epochs=np.int8(2)) == Recipe(lr=0.5, widths=(4,), epochs=2)
