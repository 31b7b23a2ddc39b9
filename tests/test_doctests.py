"""Examples in docstrings give the results that they show."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("augment", "losses", "metrics", "nn", "optim", "stats")


def examples() -> list[doctest.DocTest]:
    """Reads the examples from the sources, because the decorator that checks shapes hides functions from doctest."""
    found, parser = [], doctest.DocTestParser()
    for path in sorted(path for package in PACKAGES for path in (ROOT / "fishnet" / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                full = f"{name}.{getattr(node, 'name', '')}".rstrip(".")
                test = parser.get_doctest(text, {}, full, str(path), node.body[0].lineno - 1)
                found += [test] if test.examples else []
    return found


EXAMPLES = examples()


def test_every_package_shows_how_it_is_used() -> None:
    shown = {test.name.split(".")[1] for test in EXAMPLES}
    assert shown == set(PACKAGES)


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_an_example_gives_what_it_shows(test: doctest.DocTest) -> None:
    test.globs = dict(vars(importlib.import_module(".".join(test.name.split(".")[:3]))))
    output: list[str] = []
    failed = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=output.append)
    assert not failed.failed, "".join(output)
