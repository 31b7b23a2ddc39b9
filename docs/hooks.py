"""Pages that mkdocs generates from the code: command line, catalogue, API, and pages kept outside docs/.

mkdocs calls `on_files` with the pages that it has found under docs/; the generated ones join them, so that links
between both kinds are checked. It calls `on_post_page` with each page as HTML.
"""

import ast
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from fishnet.checks.value_types import format_value
from fishnet.sweep.spec.recipe import FIELDS

ROOT = Path(__file__).parent.parent
PACKAGES = ("nn", "optim", "losses", "augment", "metrics", "stats", "models", "data", "probes", "pretraining", "sweep")
FIRST = ["Sweep", "run_sweep", "Result", "load_run", "LoadedRun"]  # of the page of fishnet.sweep
COMMANDS = ("experiments", "configs")  # packages whose modules are run by `python -m`
REMOTE = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')
EXAMPLE = re.compile(r"^\[`(examples/\w+\.py)`\]\(\.\./\1\)$", re.MULTILINE)  # a link to one on a line of its own
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/**/*.md")  # pages kept beside what they describe


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    pages = {f"api/{name}.md": api_page(name) for name in PACKAGES}
    pages |= {"recipe.md": recipe_page(), "cli.md": command_line_page(), "catalogue.md": catalogue_page()}
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            pages[str(path.relative_to(ROOT))] = path.read_text().replace("](docs/", "](")
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Shows the examples where a page links to them."""

    def code(link: re.Match) -> str:
        return f'```python title="{link[1]}"\n{(ROOT / link[1]).read_text()}```'

    return EXAMPLE.sub(code, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses a page that would load anything from elsewhere: the site works offline and tells nobody who reads it.

    Raises:
        PluginError: with what it would load.
    """
    if remote := REMOTE.search(output):
        raise PluginError(f"{page.file.src_uri} loads {remote[0]}")
    return output


def api_page(package: str) -> str:
    """Markdown of one package: its modules in alphabetical order, each with its public members."""
    lines = [f"# fishnet.{package}", ""]
    if package == "sweep":
        lines += ["The fields of `Recipe` are [listed by themselves](../recipe.md).", ""]
        return "\n".join([*lines, "::: fishnet.sweep", "    options:", f"      members: {public_face()}", ""])
    for module in public_modules(package):
        lines += [f"::: {module}", ""]
    return "\n".join(lines)


def public_modules(package: str) -> list[str]:
    """Dotted names of a package's documented modules."""
    folder = ROOT / "fishnet" / package
    names = [f"fishnet.{package}.{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]
    return [f"fishnet.{package}"] * has_docstring(folder / "__init__.py") + names


def public_face() -> list[str]:
    """Names that `from fishnet.sweep import ...` gives, the most used ones first."""
    tree = ast.parse((ROOT / "fishnet" / "sweep" / "__init__.py").read_text())
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    names = [name for name in ast.literal_eval(assigned["__all__"]) if name != "Recipe"]
    return sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))


def has_docstring(path: Path) -> bool:
    """Returns True where a module has a docstring."""
    return ast.get_docstring(ast.parse(path.read_text())) is not None


def recipe_page() -> str:
    """Markdown with a table of recipe fields for each part of the catalogue."""
    lines = [
        "# Recipe fields",
        "",
        "A recipe is everything that determines one training run. Each field is an argument of `Recipe`, a flag and an "
        "axis. *Static* fields change shapes or add parameters, so runs that differ in one have programs of their own; "
        "*traced* ones are numbers in a shared program; those of the *host* are read outside of it.",
    ]
    for part in dict.fromkeys(field.part for field in FIELDS.values()):
        lines += ["", f"## {part}", "", "| field | default | kind | meaning |", "|---|---|---|---|"]
        for name, field in FIELDS.items():
            if field.part == part:
                kind = "traced" if field.role == "scalar" else field.role
                meaning = re.sub(r"([|*])", r"\\\1", " ".join(field.help.split()))
                used = f" Used by {field.used_by.words()}." if field.used_by else ""
                lines.append(f"| `{name}` | `{format_value(field.default)}` | {kind} | {meaning}.{used} |")
    return "\n".join(lines) + "\n"


def command_line_page() -> str:
    """Markdown with the help of every command."""
    modules = [f"{package}.{path.stem}" for package in COMMANDS for path in sorted((ROOT / package).glob("[!_]*.py"))]
    with ThreadPoolExecutor(2) as pool:
        helps = list(pool.map(lambda module: output_of("-m", module, "--help"), modules))
    lines = [
        "# Command line",
        "",
        "What each command prints with `--help`. Every recipe field is a flag, `--lr 0.1`, and an axis, "
        "`--axis lr=0.01,0.1`. The names that a field takes, with formulas and papers, are in the "
        "[catalogue](catalogue.md).",
    ]
    for module, text in zip(modules, helps, strict=True):
        lines += ["", f"## python -m {module}", "", "```text", text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def catalogue_page() -> str:
    """Markdown with every component, as `python -m experiments.describe` prints it."""
    lines = [
        "# Catalogue",
        "",
        "Every component with its formula and its source, as `python -m experiments.describe` prints it. The names "
        "of a section are values of the flag in its heading.",
    ]
    # Each heading is underlined with equals signs.
    _, *sections = re.split(r"^(.+)\n=+$", output_of("-m", "experiments.describe"), flags=re.MULTILINE)
    for heading, body in zip(sections[::2], sections[1::2], strict=True):
        name, flag = re.fullmatch(r"(.+?)(?:  \((--[\w-]+)\))?", heading).groups()
        lines += ["", f"## {name}" + (f" (`{flag}`)" if flag else ""), "", "```text", body.strip("\n"), "```"]
    return "\n".join(lines) + "\n"


def output_of(*arguments: str) -> str:
    """Standard output of a Python command, 100 columns wide."""
    environment = os.environ | {"COLUMNS": "100", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout
