"""The command line: what it understands, and how it refuses the rest."""

from pathlib import Path

import pytest

from experiments import ablation, train
from fishnet.checks.value_types import format_value
from fishnet.cli.parser import run_guarded, usable_cores
from fishnet.cli.sweep_flags import make_parser, parse_request
from fishnet.errors import UsageError, UserError
from fishnet.sweep.distributed.shard import Shard
from fishnet.sweep.spec.field_parsing import parse_value
from fishnet.sweep.spec.recipe import FIELDS, Recipe
from fishnet.sweep.spec.search_space import Choices, Range
from fishnet.sweep.spec.stopping import Stopping

LISTS = {
    "widths": "8-16",
    "norm_layers": "1-3",
    "max_norm_layers": "1-3",
    "unfreeze": "1-2",
    "unfreeze_rates": "1-0.5",
}


def other_value(name):
    """Some value of field `name` that is not its default, as a user would type it."""
    default = getattr(Recipe(), name)
    if name in LISTS:
        return LISTS[name]
    if isinstance(default, float):
        return format_value(default / 2 + 0.125)
    return (
        str(default + 1)
        if isinstance(default, int)
        else "0.25"
        if name in ("lr", "act_coefficient")
        else "64"
        if name in ("image_size", "se_reduction")
        else "x"
    )


VALUES = {name: other_value(name) for name in FIELDS}


def asked(*words, experiment=ablation.EXPERIMENT):
    return parse_request(experiment, list(words))


def refused(*words, experiment=ablation.EXPERIMENT):
    with pytest.raises(UsageError) as caught:
        parse_request(experiment, list(words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("separator", ["-", "_"])
@pytest.mark.parametrize("joined", [True, False])
def test_every_field_is_a_flag(separator, joined):
    pairs = [(f"--{name.replace('_', separator)}", value) for name, value in VALUES.items()]
    words = [f"{flag}={value}" for flag, value in pairs] if joined else [word for pair in pairs for word in pair]
    sweep = asked(*words, experiment=train.EXPERIMENT).sweep
    for name, value in VALUES.items():
        if name != "seed":
            assert getattr(sweep.recipe, name) == parse_value(name, value)
            assert getattr(sweep.recipe, name) != getattr(Recipe(), name)
    assert sweep.seeds == (1,)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "seed"])
def test_every_field_is_an_axis(name):
    default = format_value(getattr(Recipe(), name))
    sweep = asked("--axis", f"{name.replace('_', '-')}={default},{VALUES[name]}").sweep
    assert list(sweep.axes) == [name]
    assert len(sweep.axes[name]) == 2


def test_every_field_has_its_docstring_as_help():
    text = " ".join(make_parser(ablation.EXPERIMENT).format_help().split())
    for name, field in FIELDS.items():
        assert field.help
        assert f"--{name.replace('_', '-')} {field.metavar} " in text
        if name != "seed":
            assert field.help in text


def test_the_main_job():
    request = asked()
    assert len(request.sweep.runs()) == 48
    assert len(request.sweep.arms()) == 16
    assert (request.sweep.recipe.task, request.sweep.recipe.model) == ("reef", "cnn")
    assert request.sweep.recipe.epochs >= 6
    assert request.command == "python -m experiments.ablation"
    assert request.out is None


def test_axes_of_the_user_replace_the_usual_ones():
    sweep = asked("--axis", "lr=0.1,0.01", "--axis", "widths=16-32,32-64", "--seeds", "2").sweep
    assert dict(sweep.axes) == {"lr": (0.1, 0.01), "widths": ((16, 32), (32, 64))}
    assert sweep.seeds == (0, 1)


def test_a_flag_fixes_a_usual_axis():
    sweep = asked("--norm", "batch").sweep
    assert list(sweep.axes) == ["activation"]
    assert sweep.recipe.norm == "batch"


def test_seeds_by_number_or_by_name():
    assert asked("--seeds", "3").sweep.seeds == (0, 1, 2)
    assert asked("--seeds", "3,5,8").sweep.seeds == (3, 5, 8)
    assert asked("--seeds", "7,").sweep.seeds == (7,)
    assert asked("--seed", "7").sweep.seeds == (7,)


def test_overrides_of_the_plan():
    request = asked(
        "--lane_width", "4", "--devices", "1", "--lowering", "native", "--data_dir", "d", "--strict", "--quiet"
    )
    assert (request.lane_width, request.devices, request.lowering, request.data_dir) == (4, 1, "native", "d")
    assert request.strict
    assert request.quiet
    assert [asked("--lane-width", word).lane_width for word in ("all", "auto")] == ["all", "auto"]


def test_the_command_can_be_pasted_into_a_shell():
    assert asked("--task", "folder:/my photos").command == "python -m experiments.ablation --task 'folder:/my photos'"


def test_train_takes_no_axes():
    sweep = asked(experiment=train.EXPERIMENT).sweep
    assert (dict(sweep.axes), sweep.seeds) == ({}, (0,))
    assert "experiments.ablation" in refused("--axis", "lr=1,2", experiment=train.EXPERIMENT)
    assert "experiments.ablation" in refused("--sample", "lr=1..2", experiment=train.EXPERIMENT)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--epocs", "3"], ["'--epocs'", "'--epochs'"]),
        (["--norm_postion", "pre"], ["'--norm_postion'", "'--norm-position'"]),
        (["--epochs"], ["--epochs", "expected one argument"]),
        (["--epochs", "3.5"], ["epochs", "'3.5'", "whole number"]),
        (["--lr", "fast"], ["lr", "'fast'", "number"]),
        (["--lr", "nan"], ["lr", "'nan'"]),
        (["--widths", "16,32"], ["widths", "'16,32'", "hyphens"]),
        (["--axis", "activaton=relu"], ["'activaton'", "did you mean 'activation'"]),
        (["--axis", "norm"], ["'norm'", "--axis norm="]),
        (["--axis", "norm="], ["'norm='"]),
        (["--axis", "norm=none,,batch"], ["'norm=none,,batch'", "empty"]),
        (["--axis", "norm=none,none"], ["norm", "'none' twice"]),
        (["--axis", "lr=1e-3,0.001"], ["lr", "'1e-3'"]),
        (["--axis", "norm=none", "--axis", "norm=batch"], ["'norm'", "twice"]),
        (["--axis", "seed=1,2"], ["'seed=1,2'", "--seeds"]),
        (["--axis", "norm=none", "--norm", "batch"], ["norm", "--norm batch"]),
        (["--seeds", "0"], ["seeds", "0"]),
        (["--seeds", "two"], ["seeds", "'two'"]),
        (["--seeds", "1,1"], ["seeds", "1", "twice"]),
        (["--seeds=-1"], ["seeds", "-1"]),
        (["--seeds", "1_000"], ["seeds", "'1_000'"]),
        (["--seeds", "4294967296"], ["seeds", "4294967296", "32,768"]),
        (["--seeds", "9" * 5000], ["seeds", "999"]),
        (["--seeds", "1,,2"], ["seeds", "'1,,2'"]),
        (["--draws", "1000000000", "--sample", "lr=1..2"], ["draws", "1000000000", "32,768"]),
        (["--devices", "1e9"], ["--devices", "'1e9'"]),
        (["--devices", "1000000000"], ["--devices", "'1000000000'", "1024"]),
        (["--lane-width", "1000000000"], ["--lane-width", "'1000000000'", "32768"]),
        (["--shard", "1/1000000"], ["'1/1000000'", "32,768"]),
        (["--lr", "1e-46"], ["lr", "'1e-46'", "float32"]),
        (["--sample", "lr=1e-46..1"], ["lr", "'1e-46'", "float32"]),
        (["--target", "val_accuracy>=1_0"], ["target", "1_0"]),
        (["--seed", "1", "--seeds", "2"], ["--seed 1", "--seeds 2"]),
        (["--devices", "0"], ["--devices", "'0'"]),
        (["--lane-width", "wide"], ["--lane-width", "'wide'", "all or auto"]),
        (["--sample", "activaton=relu"], ["'activaton'", "did you mean 'activation'"]),
        (["--sample", "lr"], ["'lr'", "--sample lr="]),
        (["--sample", "lr=.3..1e-3"], ["lr", "'0.3..0.001' is no range", "typed as '.3..1e-3'"]),
        (["--sample", "lr=0..0.1:log"], ["lr", "'0..0.1:log' is logarithmic"]),
        (["--sample", "lr=0.1..0.2:ln"], ["lr", "'0.1..0.2:ln'", ":log"]),
        (["--sample", "lr=0.1.."], ["lr", "'0.1..' lacks an end"]),
        (["--sample", "lr=slow..0.1"], ["lr", "'slow'"]),
        (["--sample", "depth=1..2.5"], ["depth", "'2.5'", "whole number"]),
        (["--sample", "norm=1..3"], ["'norm=1..3'", "no number"]),
        (["--sample", "norm=none,,batch"], ["'norm=none,,batch'", "empty"]),
        (["--sample", "norm=none,none"], ["norm", "'none' twice"]),
        (["--sample", "lr=1,2", "--sample", "lr=1..2"], ["'lr'", "twice"]),
        (["--sample", "seed=1..9"], ["'seed=1..9'", "--seeds"]),
        (["--sample", "lr=1..2", "--lr", "1e-1"], ["lr", "--lr 1e-1"]),
        (["--sample", "lr=1..2", "--axis", "lr=1"], ["lr", "an axis and to be sampled"]),
        (["--sample", "lr=1..2", "--draws", "0"], ["--draws", "'0'"]),
        (["--sample", "depth=1..3", "--draws", "4"], ["draws", "4", "3"]),
        (["--sample", "lr=1..2", "--sampler", "halton"], ["'halton'", "sobol, random"]),
        (["--sample", "lr=1..2", "--draw-seed", "-1"], ["--draw-seed", "'-1'"]),
        (["--draws", "8"], ["--draws 8", "no effect"]),
        (["--sampler", "random"], ["--sampler random", "no effect"]),
        (["stray"], ["'stray'"]),
    ],
)
def test_bad_input_is_one_line_that_repeats_it(words, parts):
    message = refused(*words)
    assert all(part in message for part in parts), message


def test_a_negative_number_is_a_value():
    assert asked("--lr", "-1e-3").sweep.recipe.lr == -0.001  # refused later, by the field's range
    assert asked("--lr", "-.5").sweep.recipe.lr == -0.5


def test_a_value_is_quoted_as_it_was_typed():
    request = asked("--lr", "-1e-3")
    assert str(request.as_typed(UsageError("lr: '-0.001' is not above 0"))).endswith("(typed as '-1e-3')")
    assert str(request.as_typed(UsageError("something else"))) == "something else"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("bad value"), 2, "error: bad value\n"),
        (UserError("bad file\nmore"), 1, "error: bad file more\n"),
        (ZeroDivisionError("oops\nmore"), 1, "error: unexpected ZeroDivisionError: oops (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "stopped: interrupted\n"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(capsys, error, code, text):
    def job(argv):
        raise error

    assert run_guarded(job, []) == code
    assert capsys.readouterr() == ("", text)
    assert run_guarded(job, ["--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_a_stopped_sweep_is_no_error(capsys):
    class Interrupted(UserError):
        exit_code = 143

    def job(argv):
        raise Interrupted("stopped by SIGTERM; epoch 3 is saved")

    assert run_guarded(job, []) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM; epoch 3 is saved\n"


def test_cores():
    assert usable_cores() >= 1


def test_when_arms_end_early():
    assert not asked().sweep.stopping
    assert asked("--halving", "3", "--rung", "2").sweep.stopping == Stopping(halving=3, first=2)
    assert asked("--median-stop", "--target", "val_accuracy>=0.8").sweep.stopping == Stopping(
        median=True, target="val_accuracy>=0.8"
    )
    assert "--rung 2 would have no effect" in refused("--rung", "2")
    assert "--halving: '0' is not a whole number" in refused("--halving", "0")
    assert "halving: 1 is neither 0 (none) nor at least 2" in refused("--halving", "1")
    assert "unknown target metric 'accuracy'" in refused("--target", "accuracy>=0.8")


def test_fields_are_drawn_from_ranges_and_values():
    words = ["lr=1e-3..0.3:log", "dropout=0...5", "image-size=16..32", "optimizer=momentum,adam", "widths=8-16,16-32"]
    flags = [part for word in words for part in ("--sample", word)]
    samples = asked(*flags, "--draws", "8", "--sampler", "random", "--draw-seed", "0").sweep.samples
    assert dict(samples.space) == {
        "lr": Range(0.001, 0.3, log=True),
        "dropout": Range(0.0, 0.5),
        "image_size": Range(16, 32),
        "optimizer": Choices(("momentum", "adam")),
        "widths": Choices(((8, 16), (16, 32))),
    }
    assert (len(samples.points), samples.method, samples.seed) == (8, "random", 0)


def test_draws_take_the_place_of_the_usual_axes_and_stand_beside_the_users():
    assert [
        len(asked("--sample", "lr=0.1..1", *more).sweep.arms()) for more in ([], ["--axis", "norm=none,batch"])
    ] == [
        16,
        32,
    ]


def test_planted_defects_are_part_of_a_tasks_name():
    axis = asked("--axis", "task=reef,reef?train=0.25,reef?few=Chromis_chrysura:20&noise=0.2@3").sweep.axes["task"]
    assert axis == ("reef", "reef?train=0.25", "reef?few=Chromis_chrysura:20&noise=0.2@3")
    words = ["--task", "reef?shift=brightness:-0.5&train=0.5"]
    assert asked(*words).sweep.recipe.task == words[1]
    assert asked(*words).command.endswith("--task 'reef?shift=brightness:-0.5&train=0.5'")
    (point,) = asked("--sample", "task=reef?noise=0.1", "--draws", "1").sweep.samples.points
    assert point == {"task": "reef?noise=0.1"}


def test_a_path_is_no_range():
    (point,) = asked("--sample", "task=folder:../a", "--draws", "1").sweep.samples.points
    assert point == {"task": f"folder:{Path.cwd().parent / 'a'}"}


# --- several processes ---


def test_a_cluster_says_which_shard_it_is_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert parse_request(train.EXPERIMENT, []).shard == Shard(2, 4)
    assert parse_request(train.EXPERIMENT, ["--shard", "1/1"]).shard == Shard()
    assert parse_request(train.EXPERIMENT, ["--shard", "3/8"]).shard == Shard(3, 8)
    assert parse_request(train.EXPERIMENT, ["--ray"]).shard == Shard()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "two")
    message = "SLURM_STEP_NUM_TASKS in the environment is 'two', no whole number"
    assert message in refused(experiment=train.EXPERIMENT)
    assert parse_request(train.EXPERIMENT, ["--shard", "1/1"]).shard == Shard()


def test_a_process_alone_trains_all_runs():
    request = parse_request(train.EXPERIMENT, [])
    assert (request.shard, request.ray, request.ray_shards) == (Shard(), None, None)


def test_ray_takes_an_address_and_a_number_of_shards():
    request = parse_request(train.EXPERIMENT, ["--ray", "--ray-shards", "3"])
    assert (request.ray, request.ray_shards) == ("auto", 3)
    assert parse_request(train.EXPERIMENT, ["--ray", "10.0.0.1:6379"]).ray == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--shard", "3/2"], r"shard '3/2' is not I/N with I from 1 to N"),
        (["--shard", "0/2"], r"shard '0/2' is not I/N"),
        (["--shard", "two"], r"shard 'two' is not I/N"),
        (["--ray-shards", "2"], r"--ray-shards 2 would have no effect: it belongs to --ray"),
        (["--ray", "--ray-shards", "0"], r"'0' is not a whole number of at least 1"),
        (["--ray", "--shard", "1/2"], r"--ray and --shard 1/2 contradict each other"),
        (["--distributed"], r"--distributed is no more: give --shard I/N; in a job of Slurm"),
        (["--no-distributed"], r"--no-distributed is no more: give --shard 1/1"),
        (["--coordinator", "10.0.0.1:1234"], r"--coordinator is no more: give --shard I/N"),
        (["--processes", "2"], r"--processes is no more: give --shard I/N"),
        (["--process", "1"], r"--process is no more: give --shard I/N, with I from 1"),
    ],
)
def test_a_shard_that_cannot_be_is_refused(argv, message):
    with pytest.raises(UsageError, match=message):
        parse_request(train.EXPERIMENT, argv)
