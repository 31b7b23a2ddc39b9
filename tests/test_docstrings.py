"""Docstrings of the packages below: each is there, and begins with a verb or a noun of the field."""

import ast
from pathlib import Path

import pytest

PACKAGES = (
    "augment", "checks", "data", "host", "losses", "metrics", "models", "nn", "optim", "pretraining", "probes",
    "source_hash", "stats",
)  # fmt: skip
ROOT = Path(__file__).parent.parent / "fishnet"
FILES = sorted([*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))])
# Words that begin a clause or a riddle, not a summary. "Whether" is for what returns a truth value.
NO_BEGINNINGS = set(
    "a an as at beside both by each either every for from he how if in it its now of on one only over see she some "  # noqa: SIM905
    "such that the their these they this those to under until what when where which while who why with within".split()
)


def documented(path: Path) -> list[tuple[str, ast.AST]]:
    """Lists the module and its public classes, functions and methods by name, without functions within functions."""
    found = []

    def walk(node: ast.AST, name: str) -> None:
        found.append((name, node))
        if isinstance(node, ast.Module | ast.ClassDef):
            for child in node.body:
                public = isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_")
                if public and child.name != "setup":
                    walk(child, f"{name}.{child.name}")

    walk(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_public_thing_has_a_docstring_that_begins_as_a_summary(path: Path) -> None:
    missing, riddles = [], []
    for name, node in documented(path):
        text = ast.get_docstring(node)
        if text is None:
            missing += [name] if not isinstance(node, ast.Module) or node.body else []
            continue
        first = text.split(maxsplit=1)[0].strip('",.:;').lower()
        if first in NO_BEGINNINGS:
            riddles.append(f"{name}: {text.splitlines()[0]}")
        if first == "whether" and not (isinstance(node, ast.FunctionDef) and "ool" in ast.unparse(node.returns)):
            riddles.append(f"{name}: {text.splitlines()[0]}")
    assert not missing, missing
    assert not riddles, "\n".join(riddles)
