"""Ledger of claims: what courses and papers claim about these questions, and what the experiments found.

    python -m experiments.claims                     # gathers the full runs under runs/ into docs/claims.md
    python -m experiments.claims --run               # runs what is missing first, one experiment after the other
    python -m experiments.claims --size quick --out /tmp/claims.md

Every experiment that asks a question leaves `answer.json` in its folder (runs/NAME-SIZE). The ledger lists its claims:
the statement, who makes it, supported, refuted or undecided on these tasks, and the difference with its interval. The
answers are copied next to it, into answers/, and their figures into figures/; an experiment without a folder keeps the
answer that it has in answers/. So does one whose answer is malformed: the file is named on standard error, the others
are gathered, and the exit code is 1. A claim is as good as its experiment: the page of the answer says how it was
tested, on what and within which limits.
"""

import argparse
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fishnet.cli.own_files import check_own_file
from fishnet.cli.parser import Parser, run_guarded
from fishnet.errors import UsageError, UserError
from fishnet.host.files import read_regular_file
from fishnet.host.numbers import counted
from fishnet.lookup import unknown_name
from fishnet.study.question import QUESTIONS, SIZES, needs_files
from fishnet.study.record import VERDICTS, BadAnswer, read_answer

T = TypeVar("T")
FIGURES = ("evidence", "mechanism")
TITLE = "# What is claimed, and what was found"


def main(argv: Sequence[str] | None = None) -> int:
    """Gathers the ledger from its command line."""
    return run_guarded(run, argv)


def run(argv: Sequence[str]) -> int:
    """Runs what is missing, if asked to, and writes the ledger."""
    flags = parser().parse(argv)
    if flags.size not in SIZES:
        raise unknown_name("size", flags.size, SIZES)
    if flags.data_dir is not None and (not flags.run or flags.size == "smoke"):
        raise UsageError(
            f"--data-dir {flags.data_dir} would have no effect: it belongs to --run, in another size than smoke"
        )
    runs, out = Path(flags.runs), Path(flags.out)
    check_own_file("--out", out, (TITLE,), make_folder=True)
    if flags.run:
        for name in QUESTIONS:
            files = flags.data_dir if flags.data_dir and takes_files(name, flags.size) else None
            train(name, flags.size, output_folder(runs, name, flags.size), files)
    problems: list[str] = []
    for name in QUESTIONS:
        read_usable(
            problems,
            lambda name=name: copy_to_ledger(output_folder(runs, name, flags.size), out.parent, name, flags.size),
        )
    answers = {
        name: read_usable(problems, lambda name=name: read_answer(ledger_file(out.parent, name), name))
        for name in QUESTIONS
    }
    found = {name: record for name, record in answers.items() if record is not None and record["size"] == flags.size}
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not found:
        raise UserError(f"no answers of size {flags.size} under {runs}: run the experiments, or use --run")
    write_if_changed(out, make_ledger(found, flags.size).encode())
    total = Counter(claim["verdict"] for record in found.values() for claim in record["claims"])
    claims = counted(sum(total.values()), "claim")
    print(f"{claims} of {counted(len(found), 'experiment')}: {count_verdicts(total)}")
    missing = [name for name in QUESTIONS if name not in found]
    print(f"not run yet: {', '.join(missing)}\n" * bool(missing) + f"saved {out}")
    return 1 if problems else 0


def read_usable(problems: list[str], read: Callable[[], T]) -> T | None:
    """Reads a file of an answer; None where it is unusable, with the reason added to the problems."""
    try:
        return read()
    except BadAnswer as error:
        problems.append(str(error))
        return None


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m experiments.claims", description=__doc__)
    flags.add_argument("--run", action="store_true", help="run the experiments first; finished ones are not run again")
    flags.add_argument("--size", default="full", help="of the experiments: full (default), quick or smoke")
    flags.add_argument("--runs", default="runs", metavar="DIR", help="where their folders are; default runs")
    flags.add_argument("--out", default="docs/claims.md", metavar="FILE", help="the ledger; default docs/claims.md")
    flags.add_argument("--data-dir", metavar="DIR", help="with --run: folder with the files of mnist")
    flags.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return flags


def takes_files(name: str, size: str) -> bool:
    """Returns True where a size of an experiment needs a data folder."""
    return needs_files(importlib.import_module(f"experiments.{name}").question(), size)


def output_folder(runs: Path, name: str, size: str) -> Path:
    """Output folder of an experiment of a size."""
    return runs / f"{name}-{size}"


def train(name: str, size: str, out: Path, data_dir: str | None = None) -> None:
    """Runs one experiment as a command of its own.

    Raises:
        UserError: it failed.
    """
    command = [sys.executable, "-m", f"experiments.{name}", f"--{size}", "--quiet", "--out", str(out)]
    done = subprocess.run(command + (["--data-dir", data_dir] if data_dir else []))
    if done.returncode:
        raise UserError(f"experiments.{name} ended with exit code {done.returncode}")


def ledger_file(docs: Path, name: str) -> Path:
    """File in which the ledger keeps the answer of an experiment."""
    return docs / "answers" / f"{name}.json"


def copy_to_ledger(folder: Path, docs: Path, name: str, size: str) -> None:
    """Copies an answer and its figures, if there are any, next to the ledger: all or none.

    Raises:
        BadAnswer: it or a figure cannot be used; the one that was kept before stands.
        UserError: it cannot be copied.
    """
    record = read_answer(folder / "answer.json", name)
    if record is None:
        return
    if record["size"] != size:
        raise BadAnswer(f"{folder / 'answer.json'} cannot be used: it is of size {record['size']}, not {size}")
    copies = {docs / "figures" / f"{name}_{figure}.svg": folder / "figures" / f"{figure}.svg" for figure in FIGURES}
    copies[ledger_file(docs, name)] = folder / "answer.json"  # the last: it stands for the others
    contents = {copy: read_part(source) for copy, source in copies.items()}
    for copy, content in contents.items():
        write_if_changed(copy, content)


def read_part(path: Path) -> bytes:
    """Reads a file that belongs to an answer.

    Raises:
        BadAnswer: there is none, or nothing in it.
    """
    try:
        content = read_regular_file(path)
    except OSError as error:
        raise BadAnswer(f"{path} cannot be read: {error.strerror or error}") from error
    if not content:
        raise BadAnswer(f"{path} is empty")
    return content


def write_if_changed(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, and makes its folder if need be; one that says the same is not touched.

    Raises:
        UserError: it cannot be written.
    """
    from fishnet.host.files import write_whole

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.read_bytes() == content:
            return
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    write_whole(path, content)


def make_ledger(found: Mapping[str, Mapping[str, Any]], size: str) -> str:
    """The ledger as Markdown."""
    total = Counter(claim["verdict"] for record in found.values() for claim in record["claims"])
    lines = [
        TITLE,
        "",
        f"{counted(sum(total.values()), 'statement')} of courses and papers, tested by "
        f"{counted(len(found), 'experiment')} "
        f"(`python -m experiments.claims`, size {size}): {count_verdicts(total)}. A statement is supported where every "
        "difference that it predicts was found, refuted where one of them is opposite or shown to be smaller than what "
        "matters, and undecided where the intervals do not tell. Differences are in the mean over seeds, each with "
        "its own 95 % interval; the verdict beside it allows for all arms of a comparison at once (Holm), so that an "
        "interval that excludes 0 may stay undecided. "
        "The wording is ours; the source is where the statement, or the recommendation behind it, is found. The "
        "sample is that of seeds; training, validation and test photographs are fixed. All hold for these tasks, "
        "networks and budgets and no further. An error of 5 % is that of a table of comparisons: of so many statements "
        "a few will be judged wrongly.",
        "",
        "| experiment | runs | time | claims: supported | refuted | undecided | device |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for name, record in found.items():
        made, verdicts = dict(record["made"]), Counter(claim["verdict"] for claim in record["claims"])
        counts = [str(verdicts.get(verdict, 0)) for verdict in VERDICTS]
        lines.append("| " + " | ".join((f"`{name}`", made["runs"], made["time"], *counts, made["device"])) + " |")
    for name, record in found.items():
        made = dict(record["made"])
        lines += [
            "",
            f'<a id="{name}"></a>',  # links to an answer outlast the wording of its question
            "",
            f"## {record['question']}",
            "",
            *format_answer(record["answer"]),
            f"![what shows it](figures/{name}_evidence.svg)",
            "",
            f"![why](figures/{name}_mechanism.svg)",
            "",
            "| claim | after | on these tasks | measured | difference |",
            "|---|---|---|---|---|",
        ]
        for claim in record["claims"]:
            effects = "; ".join(f"{arm}: {phrase}" for arm, phrase in claim["effects"].items())
            measured = f"{claim['measure']}, against {claim['control']}"
            cells = (claim["text"], claim["source"], claim["verdict"], measured, effects)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines += ["", f"`{made['command']}`; {made['device']}; {made['versions']}; finished {made['finished']}."]
    return "\n".join(lines) + "\n"


def format_answer(answer: str) -> list[str]:
    """The lines of an answer, the headline bold and an empty line behind each."""
    headline, *more = answer.splitlines()
    return [line for part in (f"**{headline}**", *more) for line in (part, "")]


def count_verdicts(total: Mapping[str, int]) -> str:
    """`12 supported, 5 refuted, 3 undecided`."""
    return ", ".join(f"{total.get(verdict, 0)} {verdict}" for verdict in VERDICTS)


if __name__ == "__main__":
    sys.exit(main())
