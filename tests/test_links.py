"""Links between the pages of the repository lead somewhere, and the metadata agree."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
    *(ROOT / "tests").rglob("*.md"),
]
GENERATED = re.compile(
    r"docs/(recipe|cli|catalogue|api/\w+)\.md"
)  # by docs/hooks.py; `mkdocs build --strict` checks links to them
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    """Markdown without its blocks and spans of code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page: those of its headings, and those that are written out."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


def target_of(page: Path, link: str) -> Path:
    """The file that a link leads to; the site has pages from outside docs/ under the same names."""
    path = (page.parent / link).resolve()
    outside = ROOT / link
    return outside if not path.exists() and page.parent == ROOT / "docs" and outside.exists() else path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for link in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = target_of(page, path) if path else page
        if target.is_relative_to(ROOT) and GENERATED.fullmatch(str(target.relative_to(ROOT))):
            continue
        assert target.exists(), f"{page.relative_to(ROOT)}: {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{page.relative_to(ROOT)}: {link}"


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/engine.md", "docs/components.md", "docs/data.md"]
)
def test_the_files_that_a_page_names_exist(name):
    named = re.findall(
        r"`((?:fishnet|experiments|configs|benchmarks|examples|tests|docs)/[\w/.]*)", (ROOT / name).read_text()
    )
    assert not [path for path in named if "NAME" not in path and not (ROOT / path).exists()]


def test_the_citation_has_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()


def test_every_page_of_the_documentation_is_in_its_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f": {page.name}\n" not in menu]
    assert not missing
