"""Compiled programs are kept between commands, and change nothing but the time to the first step."""

import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from fishnet.cli import compilation_cache as _programs
from fishnet.cli.compilation_cache import enable_cache, machine_key

COMMAND = "--task synthetic --model mlp --widths 8 --image-size 8 --epochs 2 --batch-size 32 --dropout 0.1 --quiet"
# Of a command, not of the suite.
OWN = {"JAX_COMPILATION_CACHE_DIR": "", "JAX_ENABLE_COMPILATION_CACHE": "true"}


@pytest.mark.slow
def test_a_second_start_finds_its_programs_and_ends_with_the_same_numbers(tmp_path):
    environment = os.environ | OWN | {"XDG_CACHE_HOME": str(tmp_path)}
    for name in ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_COMPILATION_CACHE_DIR"):
        environment.pop(name)
    curves, programs = [], []
    for out in ("first", "second"):
        command = [sys.executable, "-m", "experiments.train", *COMMAND.split(), "--out", str(tmp_path / out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0
        assert not re.search(r"^[EWI]\d{4} |[Ww]arning", done.stderr, re.MULTILINE), done.stderr
        curves.append(pd.read_parquet(tmp_path / out / "curves.parquet").drop(columns="seconds", errors="ignore"))
        programs.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*-cache")})
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    assert any("train_groups" in path.name for path in programs[0])
    # A short program may be kept by the second command only: what is kept depends on the time its compilation took.
    assert programs[0].items() <= programs[1].items()
    assert {path.name for path in programs[1] if "train_groups" in path.name} == {
        path.name for path in programs[0] if "train_groups" in path.name
    }


def test_a_cache_of_ones_own_is_left_alone(monkeypatch):
    import jax

    before = jax.config.jax_compilation_cache_dir
    assert before  # the suite's own
    assert enable_cache() is None
    assert jax.config.jax_compilation_cache_dir == before


def test_other_versions_flags_or_processors_have_a_folder_of_their_own(monkeypatch):
    keys = {machine_key()}
    assert keys == {machine_key()}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    keys.add(machine_key())
    monkeypatch.setattr(_programs, "version", lambda package: "99.0")
    keys.add(machine_key())
    monkeypatch.setattr(_programs.platform, "machine", lambda: "another")
    keys.add(machine_key())
    assert len(keys) == 4


@pytest.mark.parametrize("home", ["/proc/nowhere"])
def test_where_nothing_can_be_written_nothing_is_kept(monkeypatch, home):
    import jax

    monkeypatch.setenv("XDG_CACHE_HOME", home)
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert enable_cache() is None
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
