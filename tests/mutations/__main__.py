"""Does the test suite notice what is broken on purpose? Each mutation is one wrong change to a copy of the tree.

    python -m tests.mutations --list
    python -m tests.mutations
    python -m tests.mutations dropout_not_rescaled resume_skips_an_epoch --likely

Runs the test files that are likely to fail first, and only if they pass all others, those marked slow last; what fails
is run once more without the change. Prints a line a mutation: caught or missed, by which test, after how many seconds.
Exit code 1 if any is missed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.mutations.table import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("fishnet", "experiments")
NOT_COPIED = (".git", "__pycache__", "runs", "*.egg-info", ".pytest_cache", ".ruff_cache", "site")
CAUGHT = "caught by"


class Outcome(NamedTuple):
    """What the tests said: the first that failed, empty if all passed."""

    failed: str
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Tries the mutations that are named, all by default; returns 1 if the tests pass with any of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations to try; default: all")
    parser.add_argument("--list", action="store_true", help="print what there is and where, and try nothing")
    parser.add_argument("--likely", action="store_true", help="run no other tests than the likely files")
    flags = parser.parse_args(argv)
    if unknown := set(flags.names) - {mutation.name for mutation in MUTATIONS}:
        parser.error(f"no mutation is called {', '.join(sorted(unknown))}")
    chosen = [mutation for mutation in MUTATIONS if not flags.names or mutation.name in flags.names]
    texts = {path.relative_to(ROOT): path.read_text() for source in SOURCES for path in (ROOT / source).rglob("*.py")}
    places = {mutation.name: find(mutation, texts) for mutation in chosen}
    if lost := [f"{mutation.name}: {mutation.old!r}" for mutation in chosen if len(places[mutation.name]) != 1]:
        print("not once in the sources:", *lost, sep="\n    ", file=sys.stderr)
        return 1
    if flags.list:
        for mutation in chosen:
            print(f"{mutation.name:36} {places[mutation.name][0]}")
        return 0
    missed = 0
    with tempfile.TemporaryDirectory(prefix="fishnet-mutations-") as scratch:
        for mutation in chosen:
            verdict = attempt(mutation, places[mutation.name][0], Path(scratch), flags.likely)
            missed += not verdict.startswith(CAUGHT)
            print(f"{mutation.name:36} {verdict}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


def find(mutation: Mutation, texts: Mapping[Path, str]) -> list[Path]:
    """The file in which the text of a mutation stands, as often as it does."""
    return [path for path, text in texts.items() for _ in range(text.count(mutation.old))]


def attempt(mutation: Mutation, place: Path, scratch: Path, only_likely: bool) -> str:
    """Runs the tests with one mutation, and the one that failed without it too; returns the verdict in a line."""
    tree = scratch / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
    source = (tree / place).read_text().replace(mutation.old, mutation.new)
    compile(source, str(place), "exec")  # what cannot be read is no mutation
    (tree / place).write_text(source)
    wanted = [f"test_{name}.py" for name in mutation.likely]
    found = {path.name: str(path.relative_to(tree)) for path in (tree / "tests").rglob("test_*.py")}
    if missing := [name for name in wanted if name not in found]:
        print(f"{mutation.name}: no {', '.join(missing)}", flush=True)
    likely = [found[name] for name in wanted if name in found]
    others = [f"--ignore={path}" for path in likely]
    stages = [["-n0", *likely], ["-n0", "-m", "slow", *likely]] if likely else []
    stages += [] if only_likely else [others, ["-m", "slow", *others]]
    seconds = 0.0
    for arguments in stages:
        outcome = run_tests(tree, scratch, arguments)
        seconds += outcome.seconds
        if outcome.failed:
            slow = ["-m", "slow"] if "slow" in arguments else []
            if run_tests(ROOT, scratch, ["-n0", *slow, outcome.failed]).failed:
                return f"UNKNOWN: {outcome.failed} fails without it too"
            return f"{CAUGHT} {outcome.failed}{' (slow)' if slow else ''}, {seconds:.0f} s"
    return f"MISSED by {' '.join(likely) if only_likely else 'all tests'}, {seconds:.0f} s"


def run_tests(tree: Path, scratch: Path, arguments: Sequence[str]) -> Outcome:
    """Runs pytest in a tree until the first failure.

    Compiled programs are kept from one mutation to the next: they are found again by their content.

    Raises:
        SystemExit: pytest neither passed nor failed a test.
    """
    environment = os.environ | {"PYTHONPATH": str(tree), "FISHNET_TEST_PROGRAMS": str(scratch / "programs")}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-rfE", *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode in (0, 5):  # 5: no test was selected
        return Outcome("", seconds)
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Outcome(found[1], seconds)


if __name__ == "__main__":
    sys.exit(main())
