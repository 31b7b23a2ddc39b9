"""Settings of the whole suite: two CPU devices, shapes in signatures checked, no network, no user cache."""

import atexit
import os
import shutil
import tempfile
import time

# The level that the engine itself asks for on CPU; the default takes two thirds longer to compile.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # see experiments/__init__.py

import jax
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from fishnet.host import best_effort

# The same examples every time, and no verdict that depends on how busy the machine is.
settings.register_profile("fishnet", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fishnet")

# An estimate that fails is a note to the user; here it is a failure.
best_effort.RAISE = True

# Before JAX makes its devices: many tests spread lanes over two.
jax.config.update("jax_num_cpu_devices", 2)

# Programs of the same shapes are compiled once a session, by whichever of its processes needs one first.
if (PROGRAMS := os.environ.get("FISHNET_TEST_PROGRAMS")) is None:
    PROGRAMS = os.environ["FISHNET_TEST_PROGRAMS"] = tempfile.mkdtemp(prefix="fishnet-programs-")
    atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)
for name, value in {
    "jax_compilation_cache_dir": PROGRAMS,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

# Signatures of what is small and called often are checked against their jaxtyping annotations.
install_import_hook(["fishnet.nn", "fishnet.models", "fishnet.losses", "fishnet.augment.images"], "beartype.beartype")


LONGEST = ("sweep/test_probing", "sweep/", "test_transfer", "probes/", "experiments/", "test_memory")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long first: one that is begun last keeps one process busy while the others have ended."""

    def place(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(LONGEST) if f"tests/{name}" in item.nodeid), len(LONGEST))

    items.sort(key=place)


_CPU = [0.0]


def _cpu_seconds_since_last() -> float:
    """CPU seconds of this process, its threads and its ended children since the last call."""
    before, _CPU[0] = _CPU[0], time.process_time() + sum(os.times()[2:4])
    return _CPU[0] - before


def pytest_runtest_logstart() -> None:
    _cpu_seconds_since_last()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Let `--durations` show CPU seconds, which do not depend on what else the machine does."""
    report = yield
    report.duration = _cpu_seconds_since_last()
    return report


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keeps the user's cache and data folder out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("FISHNET_DATA", raising=False)
