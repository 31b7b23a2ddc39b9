"""The same sweep gives the same bits under any settings of JAX and NumPy, and leaves them as they were."""

import contextlib
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import describe
from experiments.train import EXPERIMENT
from fishnet.cli.main import main
from fishnet.cli.parser import run_guarded
from fishnet.errors import UserError
from fishnet.host.jax_settings import HELD, check_start_settings, hold_settings, start_settings
from fishnet.host.machine import visible_devices
from fishnet.models import CNN
from fishnet.study.prediction import predict_probabilities
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.program import program
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file

RECIPE = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), epochs=1, dropout=0.2, optimizer="adam")
SWEEP = Sweep(RECIPE, axes={"activation": ["gelu", "rrelu"]}, seeds=1)
# What a user may have set, in groups of one sweep each. Those of `numbers` change results where they are let in.
CHANGED = {
    "types": {"jax_enable_x64": True},
    "numbers": {
        "jax_threefry_partitionable": False,
        "jax_default_prng_impl": "rbg",
        "jax_random_seed_offset": 7,
        "jax_softmax_custom_jvp": True,
        "jax_default_matmul_precision": "bfloat16",
        "jax_enable_custom_prng": True,
    },
    "checks": {
        "jax_numpy_dtype_promotion": "strict",
        "jax_numpy_rank_promotion": "raise",
        "jax_disable_jit": True,
        "jax_debug_nans": True,
        "jax_transfer_guard_host_to_device": "disallow",
        "jax_transfer_guard_device_to_host": "disallow",
        "jax_check_tracer_leaks": True,
        "jax_legacy_prng_key": "error",
    },
}


@pytest.fixture
def settings():
    """`settings(name=value, ...)` sets options of JAX as a user does, for the rest of the test."""
    before = {}

    def change(**options):
        for name, value in options.items():
            before.setdefault(name, jax.config.values[name])
            jax.config.update(name, value)

    yield change
    for name, value in before.items():
        jax.config.update(name, value)


def trained(out) -> tuple[dict[str, pd.DataFrame], np.ndarray]:
    """Tables of the sweep, without the seconds it took, and what a run of it says of an image; traced anew."""
    jax.clear_caches()
    program._kept.clear()
    run_sweep(SWEEP, out, devices=1)
    tables = {path.name: pd.read_parquet(path) for path in sorted(out.glob("*.parquet"))}
    image = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    said = predict_probabilities(load_run(out, 1), image)
    return {name: table.drop(columns="train_seconds", errors="ignore") for name, table in tables.items()}, said


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """As trained with the settings of this process, which are JAX's own."""
    out = tmp_path_factory.mktemp("plain") / "out"
    return *trained(out), out


@pytest.mark.parametrize("group", CHANGED)
@pytest.mark.slow
def test_a_sweep_gives_the_same_bits_under_other_settings(group, plain, settings, tmp_path):
    settings(**CHANGED[group])
    mesh = jax.make_mesh((1,), ("x",), devices=jax.devices()[:1])
    with np.errstate(all="raise"), jax.set_mesh(mesh) if group == "checks" else contextlib.nullcontext():
        tables, said = trained(tmp_path / "out")
    assert tables.keys() == plain[0].keys() and {"runs.parquet", "curves.parquet"} <= tables.keys()
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, plain[0][name], check_exact=True)
    np.testing.assert_array_equal(said, plain[1])
    for name, value in CHANGED[group].items():
        assert getattr(jax.config, name) == value
    if group == "types":
        seen = [jnp.ones(1).dtype]
        thread = threading.Thread(target=lambda: seen.append(jnp.ones(1).dtype))
        thread.start(), thread.join()
        assert seen == [np.float64, np.float64]


def test_models_are_described_under_other_settings(settings, capsys, monkeypatch):
    monkeypatch.setattr("fishnet.models.MODELS", {"cnn": CNN})
    words = ["--part", "models", "--image-size", "8", "--widths", "4", "--depth", "1"]
    assert describe.main(words) == 0
    plain = capsys.readouterr().out
    settings(jax_enable_x64=True, jax_numpy_dtype_promotion="strict", jax_numpy_rank_promotion="raise")
    assert describe.main(words) == 0
    assert capsys.readouterr().out == plain


@pytest.mark.parametrize("name", HELD)
def test_each_setting_is_held_in_the_thread_that_asks_and_in_no_other(name, settings):
    if name not in jax.config.values:
        pytest.skip("this version of JAX does not have it")
    default = jax.config.values[name]
    others = {
        "jax_explicit_x64_dtypes": "error",
        "jax_numpy_dtype_promotion": "strict",
        "jax_numpy_rank_promotion": "raise",
        "jax_default_prng_impl": "rbg",
        "jax_legacy_prng_key": "error",
        "jax_random_seed_offset": 7,
        "jax_default_matmul_precision": "highest",
        "jax_use_hlo_logistic_lowering": True,
        "jax_exec_time_optimization_effort": 1.0,
        "jax_memory_fitting_effort": 1.0,
        "jax_memory_fitting_level": "O0",
        "jax_optimization_level": "O0",
        "jax_xla_profile_version": 3,
        "jax_array_garbage_collection_guard": "log",
        "jax_default_device": jax.devices("cpu")[0],
    }
    checks = ("_nan", "_oob", "_divide")
    other = others.get(name, "raise" if name.endswith(checks) else "log" if "guard" in name else None)
    other = (not default) if isinstance(default, bool) else other
    settings(**{name: other})
    outside = getattr(jax.config, name)
    assert outside != default
    with hold_settings():
        held = getattr(jax.config, name)
        assert held == (HELD[name] if name.endswith(("_guard", "_device", "_host")) else default)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(getattr(jax.config, name)))
        thread.start(), thread.join()
        assert seen == [outside]
    assert getattr(jax.config, name) == outside


def test_what_the_backend_reads_at_its_start_is_recorded_and_others_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_dump_to=/tmp/x")
    assert start_settings() == {}
    check_start_settings(tmp_path, {})
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true --xla_allow_excess_precision=false")
    flags = "--xla_allow_excess_precision=false --xla_cpu_enable_fast_math=true"
    assert start_settings() == {"XLA_FLAGS": flags}
    check_start_settings(tmp_path, {"settings": {"XLA_FLAGS": flags}})
    with pytest.raises(UserError, match=r"begun without XLA_FLAGS and would go on with XLA_FLAGS='--xla_allow"):
        check_start_settings(tmp_path, {})
    monkeypatch.delenv("XLA_FLAGS")
    with pytest.raises(UserError, match=r"begun with XLA_FLAGS=.* and would go on without XLA_FLAGS"):
        check_start_settings(tmp_path, {"settings": {"XLA_FLAGS": flags}})


def test_an_unfinished_sweep_does_not_go_on_with_other_flags(tiny, tmp_path, monkeypatch):
    out = shutil.copytree(tiny[1].out, tmp_path / "out")
    path = out / "sweep.json"
    write_sweep_file(out, read_sweep_file(out) | {"finished": None})
    before = path.read_bytes()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    with pytest.raises(UserError, match="would go on with XLA_FLAGS"):
        run_sweep(tiny[0], out, devices=1)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JAX_ENABLE_X64", "abc", "invalid truth value 'abc' for environment 'JAX_ENABLE_X64'"),
        ("JAX_NUMPY_RANK_PROMOTION", "x", 'Invalid value "x" for JAX flag jax_numpy_rank_promotion'),
        ("JAX_DEFAULT_DEVICE", "foo", "jax.default_device must be passed either a Device object or a name, got: 'foo'"),
    ],
)
def test_a_value_that_jax_cannot_read_is_told_with_its_variable(name, value, message, monkeypatch, capsys):
    """The messages are JAX's own."""

    def job(words):
        raise ValueError(message)

    monkeypatch.setenv(name, value)
    assert run_guarded(job, []) == 1
    assert capsys.readouterr().err == f"error: {name}={value}: JAX does not know this value ({message})\n"


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda'")])
def test_no_device_is_one_sentence_that_names_the_variable(error, monkeypatch, tmp_path, capsys):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=r"^JAX_PLATFORMS=cuda: JAX finds no such device here"):
        visible_devices()
    out = tmp_path / "out"
    with pytest.raises(UserError, match="JAX_PLATFORMS"):
        run_sweep(SWEEP, out)
    with pytest.raises(UserError, match="JAX_PLATFORMS"):
        load_run(out)
    assert main(EXPERIMENT, ["--task", "synthetic", "--out", str(out)]) == 1
    assert capsys.readouterr().err.startswith("error: JAX_PLATFORMS=cuda: JAX finds no such device")
    assert not out.exists()
