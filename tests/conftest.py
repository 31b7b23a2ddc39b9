"""Settings of the whole suite: two CPU devices, shapes in signatures checked, no network, no user cache."""

import os
import shutil
import time
from collections import Counter
from pathlib import Path

# For what the tests compile themselves, components mostly: a quarter to half less than at LLVM's default level. The
# engine asks for level 1 at every call of the compiler, which wins over this: sweeps are tested as users run them.
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

# Before JAX makes its devices: many tests spread lanes over two.
jax.config.update("jax_num_cpu_devices", 2)

# Signatures of what is small and called often are checked against their jaxtyping annotations.
# (Modules that refuse a wrong type themselves, in one sentence, are not among them.)
NETWORKS = ("network", "mlp", "cnn", "resnet", "separable", "efficientnet", "hybrid", "scratch")
install_import_hook(
    ["fishnet.nn", "fishnet.losses", "fishnet.augment.images", *(f"fishnet.models.{name}" for name in NETWORKS)],
    "beartype.beartype",
)

# An estimate that fails is a note to the user; here it is a failure.
best_effort.RAISE = True

KEPT = Path(__file__).parents[1] / ".pytest_cache" / "programs"
MOST_KEPT = 2**30  # bytes
KERNELS = KEPT.parent / "fishnet" / "kernels"


def _folder_of_programs() -> str:
    """Folder where JAX keeps compiled programs, which it finds again by their content, for this and later sessions."""
    from fishnet.cli.compilation_cache import machine_key

    if sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) > MOST_KEPT:
        shutil.rmtree(KEPT)
    return str(KEPT / machine_key())


# Compiled by whichever of a session's processes needs a program first; the first of them sets the variable.
if (PROGRAMS := os.environ.get("FISHNET_TEST_PROGRAMS")) is None:
    PROGRAMS = os.environ["FISHNET_TEST_PROGRAMS"] = _folder_of_programs()
for name, value in {
    "jax_compilation_cache_dir": PROGRAMS,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

LONGEST = ("sweep/test_probing", "sweep/", "test_transfer", "probes/", "experiments/", "test_memory")
# Folders and files of the inner loop: what stands alone, and of the engine what compiles no sweep.
QUICK = (
    *("augment/", "data/", "losses/", "metrics/", "nn/", "optim/", "stats/", "test_"),
    *(f"sweep/test_{name}.py" for name in ("doors", "history", "limits", "recipe", "slices", "validate")),
)
NOT_QUICK = (
    *("augment/test_augment.py", "losses/test_softmax_family.py", "nn/test_convolution.py", "nn/test_norms.py"),
    "nn/cpu/",
    *("stats/test_compare.py", "stats/test_planning.py"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is quick, and put files that take long first: begun last, they would leave one process without work."""

    def place(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(LONGEST) if f"tests/{name}" in item.nodeid), len(LONGEST))

    for item in items:
        other = any(item.get_closest_marker(name) for name in ("slow", "fault", "smoke"))
        name = item.nodeid.removeprefix("tests/")
        if name.startswith(QUICK) and not name.startswith(NOT_QUICK) and not other:
            item.add_marker("quick")
    items.sort(key=place)


LONG = 20  # CPU seconds of a test, with the fixtures that it is the first to ask for
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


def pytest_terminal_summary(terminalreporter) -> None:
    """Name tests that have become slow without being marked so."""
    spent = Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport) and not {"slow", "fault", "smoke"} & set(report.keywords):
            spent[report.nodeid] += report.duration
    for nodeid, seconds in spent.most_common():
        if seconds > LONG:
            terminalreporter.write_line(f"{seconds:.0f} CPU s, and not marked slow: {nodeid}")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keeps the user's cache and data folder out of the tests."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    if not (kernels := cache / "fishnet" / "kernels").exists():  # compiled once for all tests and sessions
        kernels.parent.mkdir(parents=True)
        KERNELS.mkdir(parents=True, exist_ok=True)
        kernels.symlink_to(KERNELS, target_is_directory=True)
    monkeypatch.delenv("FISHNET_DATA", raising=False)


@pytest.fixture(scope="session")
def kernels() -> None:
    """Loads the compiled kernels for CPU, from a cache that sessions share; skips where they cannot be had."""
    from fishnet.nn.cpu import library

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "cache_dir", lambda: KERNELS.parent)
        if reason := library.missing_kernels():
            pytest.skip(reason)
