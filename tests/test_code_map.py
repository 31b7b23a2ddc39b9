"""The README is short, its two commands stand first, and its code map names functions that exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.test_layers import LAYERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PLACES = re.findall(r"`([\w/]+\.py):([\w.]+)`", README)


def test_the_readme_is_short():
    assert README.count("\n") <= 150


def test_the_first_block_holds_the_two_commands():
    block = re.search(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]
    run, test = block.splitlines()
    assert run == "python -m pip install -c constraints.txt -e . && python -m experiments.ablation"
    assert test == 'python -m pip install -c constraints.txt -e ".[test]" && python -m pytest'


def test_the_code_map_leads_from_the_command_to_the_train_step():
    assert len(PLACES) >= 10
    assert PLACES[0][0].startswith("experiments/")
    assert any(name == "train_step" for _, name in PLACES)


def test_the_order_of_the_folders_is_the_one_that_imports_are_checked_against():
    sentence = re.search(r"A folder imports only from those before it:(.*?)\.\n", README, re.DOTALL)[1]
    named = re.findall(r"`([\w/]+)`", sentence)
    folders = [layer.removeprefix("fishnet/") for layer in LAYERS if not layer.endswith(".py")]
    assert named == [folder for folder in folders if folder not in ("sweep", "benchmarks/baselines")]


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_what_the_code_map_names_exists(file, name):
    names = names_in(ast.parse((ROOT / file).read_text()))
    assert name in names


def names_in(tree: ast.AST, prefix: str = "") -> set[str]:
    """Functions, classes, methods as `Class.method`, and names that a module assigns."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                found |= names_in(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return found
