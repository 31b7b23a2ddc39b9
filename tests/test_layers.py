"""Folders import downward only: the imports of every file are read and compared with one list."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A folder may import those named before it, and itself.
LAYERS = (
    "fishnet/__init__.py",
    "fishnet/errors.py",
    "fishnet/lookup.py",
    "fishnet/checks",
    "fishnet/host",
    "fishnet/source_hash",
    "fishnet/nn",
    "fishnet/optim",
    "fishnet/losses",
    "fishnet/augment",
    "fishnet/metrics",
    "fishnet/stats",
    "fishnet/models",
    "fishnet/data",
    "fishnet/probes",
    "fishnet/pretraining",
    "fishnet/sweep/spec",
    "fishnet/sweep/program",
    "fishnet/sweep/plan",
    "fishnet/sweep/store",
    "fishnet/sweep/distributed",
    "fishnet/sweep/run",
    "fishnet/sweep",
    "fishnet/report",
    "fishnet/contrib",
    "fishnet/cli",
    "fishnet/study",
    "benchmarks/baselines",
    "experiments",
    "configs",
    "benchmarks",
)


def layer(path: str) -> int:
    """Position in `LAYERS` of a file, by the longest folder that it is in."""
    fitting = [name for name in LAYERS if path == name or path.startswith(f"{name}/")]
    if not fitting:
        raise LookupError(f"{path} is in no layer")
    return LAYERS.index(max(fitting, key=len))


def files() -> list[Path]:
    folders = {name.split("/")[0] for name in LAYERS}
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Files of this project that a file imports, anywhere in it, relative to the root."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {file for name in found if (file := file_of(name))}


def file_of(name: str) -> str | None:
    """The file of a dotted name of a module, or of something in it."""
    parts = name.split(".")
    for count in (len(parts), len(parts) - 1):
        base = Path(*parts[:count]) if count else Path()
        for candidate in (base.with_suffix(".py"), base / "__init__.py") if count else ():
            if (ROOT / candidate).is_file():
                return candidate.as_posix()
    return None


@pytest.mark.parametrize("name", LAYERS)
def test_a_folder_imports_only_those_before_it(name):
    upward = [
        f"{own} imports {other}"
        for path in files()
        if layer(own := path.relative_to(ROOT).as_posix()) == LAYERS.index(name)
        for other in sorted(imported(path))
        if layer(other) > LAYERS.index(name)
    ]
    assert not upward, "\n".join(upward)


def test_a_folder_of_the_engine_holds_at_most_twelve_modules():
    for folder in (ROOT / "fishnet" / "sweep").iterdir():
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 12, folder.name
