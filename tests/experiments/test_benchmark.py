"""The benchmark: what it makes of its figures, that all baselines train the same networks, and its command line."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.baselines import worker
from benchmarks.baselines.fishnet_baseline import Fishnet, Probed, Saving
from benchmarks.baselines.flax_baselines import Plain, Serial, SerialLoop, Vmap
from benchmarks.baselines.nets import NETS
from benchmarks.baselines.rows import Row, ratios, scaling_table, table, upkeep_table, verdicts, with_range
from benchmarks.baselines.worker import BASELINES
from experiments import benchmark

NET = replace(next(net for net in NETS if net.name == "cnn 16-32-64"), goals={"torch": 1.8, "serial": 1.2})
ROWS = [
    Row("fishnet", [5.0], [1.0, 2.0, 1.0]),
    Row("serial", [2.0], [3.0, 3.0, 3.0]),
    Row("torch", [0.1], [1.5, 2.0, 1.4]),
    Row("torch.compile", missing="torch is not installed"),
]


def test_ratios_are_of_each_round_and_of_the_fastest_mode():
    assert ratios(ROWS, ["serial"]) == [3.0, 1.5, 3.0]
    assert ratios(ROWS, ["serial", "torch"]) == [1.5, 1.0, 1.4]
    assert ratios(ROWS, ["vmap"]) is None
    assert ratios(ROWS[1:], ["serial"]) is None  # fishnet was not among them
    assert with_range([3.0, 1.5, 3.0]) == "3.00 (1.50 to 3.00)"


def test_tables_say_what_was_met_and_what_is_missing():
    met = [line.split(" | ") for line in verdicts({NET: ROWS}).splitlines()[2:]]
    assert [(line[1], line[-1]) for line in met] == [("torch", "no |"), ("serial", "yes |")]
    lines = table({NET: ROWS}).splitlines()
    assert "torch is not installed" in lines[-1] and "3.00 (1.50 to 3.00)" in lines[3]
    row = Row("fishnet", [1.0], [1.0], {"arguments": 2**21, "temporary": 2**20, "state a lane": 2**10})
    more = Row("fishnet", [1.0], [1.1], {"arguments": 2**22, "temporary": 2**20, "state a lane": 2**10})
    first, second = scaling_table({NET: [row], replace(NET, runs=64): [more]}).splitlines()[2:]
    assert first.endswith("| 16 | 1.000 (1.000 to 1.000) |  | 2.0 | 1.0 | 1.0 |")
    assert second.endswith("| 64 | 1.100 (1.100 to 1.100) | 1.10 (1.10 to 1.10) | 4.0 | 1.0 | 1.0 |")
    saving = Row("fishnet, a checkpoint an epoch", [1.0], [1.02, 2.02, 1.01])
    lines = upkeep_table({NET: [ROWS[0], saving]}).splitlines()
    assert lines[2].startswith(f"| {NET.name} | nothing | ") and lines[2].endswith(" |  |")
    assert lines[3] == f"| {NET.name} | a checkpoint an epoch | 1.020 (1.010 to 2.020) | 1.010 (1.010 to 1.020) |"


@pytest.mark.slow
def test_a_checkpoint_is_written_after_every_epoch():
    baseline = Saving(replace(NET, runs=2, batches=2, widths=(8,), image=(8, 8, 1), batch=4))
    baseline.prepare()
    baseline.train(5)  # after the first one, which warmed it up
    baseline.finish()
    assert sorted(path.name for path in baseline.checkpoints.folder.iterdir()) == ["2", "3"]


QUICKEST = [net if net.model == "mlp" else pytest.param(net, marks=pytest.mark.slow) for net in NETS]


@pytest.mark.parametrize("net", QUICKEST, ids=lambda net: net.name)
def test_every_baseline_trains_the_same_networks(net):
    """By the number of parameters of every run, and by the shapes of Flax's and PyTorch's."""
    baseline = Serial(net)
    shapes = [
        jax.eval_shape(Plain(each).init, jax.random.key(0), np.zeros((1, *net.image), np.float32))["params"]
        for each in net.each()
    ]
    counts = [baseline.count({"params": params}) for params in shapes]
    assert len(counts) == net.runs
    np.testing.assert_array_equal(Fishnet(net).layout().cohort.params, counts)
    pytest.importorskip("torch")
    from benchmarks.baselines.torch_baselines import network

    assert [sum(p.numel() for p in network(each).parameters()) for each in net.each()] == counts


@pytest.mark.slow
def test_the_flax_baselines_take_the_same_steps():
    """One run after the other, a loop of steps and all at once end with the same parameters."""
    net = replace(next(net for net in NETS if net.model == "mlp"), runs=2)
    serial, loop, together = Serial(net), SerialLoop(net), Vmap(net)
    for baseline in (serial, loop, together):
        baseline.prepare()
    loop.states = jax.tree.map(np.copy, serial.states)
    together.state = jax.tree.map(lambda *leaves: np.stack(leaves), *serial.states)
    for baseline in (serial, loop, together):
        baseline.train(3)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *serial.states)
    for other in (jax.tree.map(lambda *leaves: np.stack(leaves), *loop.states), together.state):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), stacked, other)


@pytest.mark.slow
def test_the_command_line_measures_and_saves(tmp_path, capsys):
    words = ["--quick", "--net", "mlp 784-10-10", "--against", "serial", "--rounds", "2", "--seconds", "0.02"]
    assert benchmark.main([*words, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "benchmark.json").read_text())
    (net,) = content["nets"]
    assert [row["baseline"] for row in net["rows"]] == ["fishnet", "serial"]
    assert all(len(row["milliseconds"]) == 2 and min(row["milliseconds"]) > 0 for row in net["rows"])
    assert content["machine"]["jax"] == jax.__version__
    assert (tmp_path / "benchmark.md").read_text() in capsys.readouterr().out


def test_what_was_measured_before_of_other_networks_stays(tmp_path):
    first, second = (replace(net, runs=2) for net in NETS[:2])
    path = tmp_path / "benchmark.json"
    earlier = {
        "machine": {"cores": "2"},
        "nets": benchmark.to_json_values({first: ROWS[:2], second: ROWS[:2]}, "7 rounds"),
    }
    path.write_text(json.dumps(earlier | {"scaling": [], "upkeep": []}))
    now = {
        "machine": {"cores": "2"},
        "nets": benchmark.to_json_values({second: ROWS}, "3 rounds"),
        "scaling": [],
        "upkeep": [],
    }
    content = benchmark.merge_earlier(now, path)
    assert [(entry["net"], entry["measured"]) for entry in content["nets"]] == [
        (first.name, "7 rounds"),
        (second.name, "3 rounds"),
    ]
    text = benchmark.as_text(content)
    assert f"{first.name}: 7 rounds; {second.name}: 3 rounds" in text and "torch is not installed" in text
    elsewhere = now | {"machine": {"cores": "16"}}
    assert benchmark.merge_earlier(elsewhere, path) == elsewhere
    assert benchmark.merge_earlier(now, tmp_path / "missing.json") == now


@pytest.mark.slow
def test_probes_are_part_of_the_program_that_is_timed():
    baseline = Probed(replace(NET, runs=2, batches=2, widths=(8,), image=(8, 8, 1), batch=4))
    baseline.EVERY = 2
    baseline.prepare()
    baseline.train(1)
    assert np.isfinite(np.asarray(baseline.states[0].probed.steps["gradient_norm"])).all()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--net", "cnn 16"], "unknown net 'cnn 16'"),
        (["--against", "keras"], "unknown baseline 'keras'"),
        (["--rounds", "0"], "--rounds: '0' is not a whole number of at least 1"),
    ],
)
def test_bad_input_is_one_line(words, said, capsys):
    assert benchmark.main(words) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and said in errors[0]


def test_every_baseline_is_a_class_of_its_module():
    for module, name in BASELINES.values():
        assert f"class {name}(" in (Path(worker.__file__).parent / f"{module}.py").read_text(), name
