"""Classifies your own photographs with a network that an experiment has trained.

    python -m experiments.predict --run runs/ablation-0123456789 --images fish.jpg holiday/
    python -m experiments.predict --run runs/ablation-0123456789 --index 7 --images holiday/ --csv names.csv
    python -m experiments.predict --run runs/train-0123456789 --images holiday/ --mc-dropout 50

Prints the three most probable species of each photograph. The probabilities are the network's: it chooses among the
species it was trained on and knows no others. Folders are searched as for training, sub-folders included; unreadable
and hidden files are skipped: the first three of a folder are named, the rest counted. A CSV file replaces one that this
command wrote before, never any other file. Names that cannot be printed, and cells that a spreadsheet would take for
formulas, are escaped as in Python.

With --mc-dropout T a network that was trained with dropout predicts T times, each time with another dropout mask. The
probabilities are the means over these passes. The entropy of the means is the total uncertainty; the mutual information
is the part of it that comes from disagreement between passes. Both are in nats: 0 is certain. The masks are fixed, so
that the same photograph gets the same numbers each time.
"""

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fishnet.cli.output import output_width
from fishnet.cli.own_files import check_own_file
from fishnet.cli.parser import Parser, run_guarded
from fishnet.errors import UsageError, UserError
from fishnet.host.files import write_whole
from fishnet.host.names import escape_cell, escape_name, escape_text
from fishnet.host.paths import is_within

TOP = 3
FEW = 3  # problems of a folder's files that are told one by one
HEADER = ("image", "species", "probability")  # of the CSV file: by these it is known as one of predict's


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 1 also when no photograph could be read."""
    return run_guarded(predict, argv)


def parser() -> Parser:
    """The flags."""
    made = Parser(prog="python -m experiments.predict", description=__doc__)
    made.add_argument("--run", metavar="DIR", required=True, help="output folder of an experiment")
    made.add_argument("--index", metavar="N", help="which of its runs; default: the best by validation")
    made.add_argument(
        "--images", metavar="PATH", required=True, nargs="+", action="extend", help="photographs or folders"
    )
    made.add_argument(
        "--mc-dropout", metavar="T", help="Monte-Carlo dropout: the mean of T passes, and how they differ"
    )
    made.add_argument("--csv", metavar="FILE", help="also write the probability of every species to this file")
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def predict(argv: list[str]) -> int:
    """Reads the photographs, asks the network, prints (and writes) what it says."""
    flags = parser().parse(argv)
    index = None if flags.index is None else run_number(flags.index)
    passes = None if flags.mc_dropout is None else number_of_passes(flags.mc_dropout)
    if flags.csv is not None:
        check_writable(Path(flags.csv), Path(flags.run))
    paths, problems = find_images(flags.images)
    from fishnet.report.results import load_results
    from fishnet.sweep.store.folder import check_recipes

    results = load_results(flags.run, tables=())
    check_recipes(results.out, results.sweep)
    run = results.best_run if index is None else index
    if run is None:
        raise UserError(f"no run in {flags.run} has a selected epoch: {explain_no_epoch(list(results.runs['status']))}")
    if run not in set(results.runs["run"]):
        raise UsageError(f"--index: {run} is not among the runs 0 to {len(results.runs) - 1} of {flags.run}")
    from fishnet.study.prediction import predict_probabilities, predict_with_mc_dropout
    from fishnet.sweep import load_run

    loaded = load_run(flags.run, run)
    if passes is not None and not (loaded.recipe.dropout or loaded.recipe.stochastic_depth):
        raise UsageError(f"--mc-dropout: run {run} was trained without dropout, so that all passes would be alike")
    images, names, unread = [], [], []
    for path in paths:
        try:
            images.append(read_photograph(path, loaded))
            names.append(str(path))
        except UserError as error:
            (problems if paths[path] is None else unread).append(str(error))
    for problem in [*problems, *shorten_problems(unread)]:
        print(f"skipped: {escape_text(problem)}", file=sys.stderr)
    if not images:
        raise UserError("none of the images can be used")
    row = results.row(run)
    title = escape_text(f"run {run}: {row['arm']}, seed {row['seed']}")
    if passes is None:
        probabilities, uncertainty = predict_probabilities(loaded, np.stack(images)), {}
    else:
        probabilities, uncertainty = predict_with_mc_dropout(loaded, np.stack(images), passes)
        title += f"; Monte-Carlo dropout, {passes} {'pass' if passes == 1 else 'passes'}"
    names = [escape_name(name) for name in names]
    print_guesses(title, names, loaded.classes, probabilities, uncertainty)
    if flags.csv is not None:
        write_csv(Path(flags.csv), names, loaded.classes, probabilities, uncertainty)
    return 0


def find_images(given: Sequence[str]) -> tuple[dict[Path, Path | None], list[str]]:
    """The files among files and folders, with the folder that each was found in, and what was passed over.

    Files are taken as they are named, None being their folder; of a folder, those that training would look at.
    """
    from fishnet.data.folder_scan import walk

    found: dict[Path, Path | None] = {}
    problems = []
    for path in map(Path, given):
        if not path.is_dir():
            found[path] = None
            continue
        files, passed_over = walk(path)
        problems += shorten_problems([f"{hidden}: hidden, or made by the system" for hidden in passed_over])
        if not files:
            problems.append(f"{path}: no files in this folder")
        found |= {file: path for file in files if file not in found}
    return found, problems


def shorten_problems(problems: Sequence[str]) -> list[str]:
    """Shortens the problems of a folder's files: the first three, and the number of the others."""
    more = len(problems) - FEW
    return [*problems[:FEW], *([f"{more} more files"] if more > 0 else [])]


def explain_no_epoch(statuses: Sequence[str]) -> str:
    """Explains why no run has a selected epoch: `2 diverged, 1 not finished`.

    Args:
        statuses: of all runs.
    """
    words = {"diverged": "diverged", "running": "not finished"}
    counts = Counter(words.get(status, "whose select_by was undefined in every epoch") for status in statuses)
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def read_photograph(path: Path, loaded) -> np.ndarray:
    """Reads a photograph as the network expects it, [size, size, c] uint8: gray for a network of gray images."""
    from fishnet.data.images import read_image

    image = read_image(path, loaded.recipe.image_size)
    if count_channels(loaded) == 3:
        return image
    return np.rint(image @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)  # ITU-R BT.601


def count_channels(loaded) -> int:
    """Number of channels of the network's images: its standardization has a mean for each."""
    variables = loaded.variables
    first = (
        variables["constants"]["standardize"] if variables.get("constants") else variables["batch_stats"]["input_norm"]
    )
    return len(first["mean"])


def print_guesses(
    title: str,
    names: Sequence[str],
    classes: Sequence[str],
    probabilities: np.ndarray,
    uncertainty: Mapping[str, np.ndarray],
) -> None:
    """Prints a line a photograph: name, most probable species (the first in bold type), measures of uncertainty."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console(width=output_width(), markup=False, highlight=False, emoji=False)
    folder, names = strip_common_folder(names)
    title += f"; images in {folder}" if folder else ""
    separator = Text(", " if console.width >= 120 else "\n")
    name_width = max(20, console.width // (3 if uncertainty else 2))
    columns = [
        Column(overflow="fold", max_width=name_width),
        Column(),
        *([Column(no_wrap=True)] if uncertainty else []),
    ]
    table = Table.grid(*columns, padding=(0, 3, 0, 0), pad_edge=False)
    for photograph, (name, row) in enumerate(zip(names, probabilities, strict=True)):
        top = np.argsort(-row, kind="stable")[:TOP]
        guesses = [Text(f"{classes[k]} {100 * row[k]:.0f}\u00a0%", "bold" if k == top[0] else "") for k in top]
        figures = [Text(f"{what.replace('_', ' ')} {of[photograph]:.3f} nats") for what, of in uncertainty.items()]
        table.add_row(Text(name), *(separator.join(cell) for cell in (guesses, figures) if cell))
    console.print(Text(title, "dim"))
    console.print(table)


def strip_common_folder(names: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that all paths share, if any, and the paths from there."""
    if len({os.path.isabs(name) for name in names}) > 1:
        return "", list(names)
    folder = os.path.commonpath([os.path.dirname(name) for name in names])
    return folder, [os.path.relpath(name, folder) if folder else name for name in names]


def write_csv(
    path: Path,
    names: Sequence[str],
    classes: Sequence[str],
    probabilities: np.ndarray,
    uncertainty: Mapping[str, np.ndarray],
) -> None:
    """Writes a row a photograph: image, species, probability, the probability of every species, uncertainties.

    Args:
        path: written whole or not at all.
        names: [n] of the photographs.
        classes: [k] names.
        probabilities: [n, k].
        uncertainty: name -> [n].
    """
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow([*HEADER, *(f"p_{name}" for name in classes), *uncertainty])
    figures = np.column_stack([probabilities, *uncertainty.values()])
    for name, row, best in zip(names, figures, probabilities.argmax(-1), strict=True):
        cells = escape_cell(name), escape_cell(classes[int(best)])
        table.writerow([*cells, f"{row[best]:.6f}", *(f"{value:.6f}" for value in row)])
    try:
        write_whole(Path(os.path.realpath(path)), text.getvalue().encode())
    except UserError as error:
        raise UserError(f"--csv: {error}") from error


def check_writable(path: Path, run: Path) -> None:
    """Refuses a CSV file that cannot be written, or would take the place of something else, before any work is done.

    Args:
        path: of the file.
        run: the output folder whose network is asked.

    Raises:
        UserError: with the reason.
    """
    check_own_file("--csv", path, (f"{','.join(HEADER)},",))
    if is_within(path, run) and path.suffix != ".csv":
        raise UserError(
            f"--csv: cannot write {path}: it would be taken for a file of the run {run}; let its name end with .csv"
        )


def run_number(text: str) -> int:
    """Parses the number of a run."""
    if not text.isdecimal() or len(text) > 10:
        raise UsageError(f"--index: {text!r} is not a run's number (0, 1, ...)")
    return int(text)


def number_of_passes(text: str) -> int:
    """Parses a number of passes."""
    if not text.isdecimal() or len(text) > 10 or not 1 <= int(text) < 2**31:
        raise UsageError(f"--mc-dropout: {text!r} is not a number of passes (1, 2, ...)")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
