"""Names what is on your own photographs, with a network that an experiment has trained.

    python -m experiments.predict --run runs/ablation-0123456789 --images fish.jpg holiday/
    python -m experiments.predict --run runs/ablation-0123456789 --index 7 --images holiday/ --csv names.csv
    python -m experiments.predict --run runs/train-0123456789 --images holiday/ --mc-dropout 50

Prints the three most probable species of each photograph. The probabilities are the network's: it chooses among the
species it was trained on and knows no others. Of a folder all files are looked at that training would look at, in
sub-folders too; what cannot be read, or is hidden, is passed over: the first three of a folder are named, the rest
counted. A CSV file is written in place of one that this command wrote before, never in place of anything else. Names
that cannot be shown as they are, and cells that a spreadsheet would take for formulas, are escaped as in Python.

With --mc-dropout T a network that was trained with dropout answers T times, each time without other features. The
probabilities are the means of its answers; the entropy (of the means) says how unsure they are, the mutual information
how much of that is because the answers contradict each other. Both are in nats: 0 is sure. The draws are fixed, so that
the same photograph gets the same figures each time.
"""

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fishnet.cli.output import width_of_output
from fishnet.cli.own_files import check_own_file
from fishnet.cli.parser import Parser, guarded
from fishnet.data.paths import is_within
from fishnet.errors import UsageError, UserError
from fishnet.host.files import write_whole
from fishnet.host.names import csv_cell, printable, visible

BATCH = 64
TOP = 3
FEW = 3  # problems of a folder's files that are told one by one
HEADER = ("image", "species", "probability")  # of the CSV file: by these it is known as one of predict's


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 1 also when no photograph could be read."""
    return guarded(predict, argv)


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
        raise UserError(f"no run in {flags.run} has a selected epoch: {why_none(list(results.runs['status']))}")
    if run not in set(results.runs["run"]):
        raise UsageError(f"--index: {run} is not among the runs 0 to {len(results.runs) - 1} of {flags.run}")
    from fishnet.sweep import load_run

    loaded = load_run(flags.run, run)
    if passes is not None and not (loaded.recipe.dropout or loaded.recipe.stochastic_depth):
        raise UsageError(f"--mc-dropout: run {run} was trained without dropout, so that all passes would be alike")
    images, names, unread = [], [], []
    for path in paths:
        try:
            images.append(read(path, loaded))
            names.append(str(path))
        except UserError as error:
            (problems if paths[path] is None else unread).append(str(error))
    for problem in [*problems, *in_few_lines(unread)]:
        print(f"skipped: {visible(problem)}", file=sys.stderr)
    if not images:
        raise UserError("none of the images can be used")
    row = results.row(run)
    title = visible(f"run {run}: {row['arm']}, seed {row['seed']}")
    if passes is None:
        probabilities, doubts = probabilities_of(loaded, np.stack(images)), {}
    else:
        probabilities, doubts = monte_carlo_of(loaded, np.stack(images), passes)
        title += f"; Monte-Carlo dropout, {passes} {'pass' if passes == 1 else 'passes'}"
    names = [printable(name) for name in names]
    print_guesses(title, names, loaded.classes, probabilities, doubts)
    if flags.csv is not None:
        write_csv(Path(flags.csv), names, loaded.classes, probabilities, doubts)
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
        problems += in_few_lines([f"{hidden}: hidden, or made by the system" for hidden in passed_over])
        if not files:
            problems.append(f"{path}: no files in this folder")
        found |= {file: path for file in files if file not in found}
    return found, problems


def in_few_lines(problems: Sequence[str]) -> list[str]:
    """Problems of files that nobody has named one by one: the first three, and how many more there are."""
    more = len(problems) - FEW
    return [*problems[:FEW], *([f"{more} more files"] if more > 0 else [])]


def why_none(statuses: Sequence[str]) -> str:
    """Why no run has a selected epoch, in words: `2 diverged, 1 not finished`.

    Args:
        statuses: of all runs.
    """
    words = {"diverged": "diverged", "running": "not finished"}
    counts = Counter(words.get(status, "whose select_by was undefined in every epoch") for status in statuses)
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def read(path: Path, loaded) -> np.ndarray:
    """One photograph as the network expects it, [size, size, c] uint8: grey for a network trained on grey images."""
    from fishnet.data.images import read_image

    image = read_image(path, loaded.recipe.image_size)
    if channels_of(loaded) == 3:
        return image
    return np.rint(image @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)  # ITU-R BT.601


def channels_of(loaded) -> int:
    """How many channels the network's images have: what standardises them (or their batch norm) has a mean for each."""
    variables = loaded.variables
    first = (
        variables["constants"]["standardize"] if variables.get("constants") else variables["batch_stats"]["input_norm"]
    )
    return len(first["mean"])


def probabilities_of(loaded, images: np.ndarray) -> np.ndarray:
    """Softmax of the network's logits for images [n, h, w, c]: [n, class] float64."""
    import jax
    from scipy.special import softmax

    variables = jax.device_put(loaded.variables)
    forward = jax.jit(lambda variables, batch: loaded.model.apply(variables, batch, train=False))
    return softmax(in_batches(lambda batch: forward(variables, batch), images), axis=-1)


def monte_carlo_of(loaded, images: np.ndarray, passes: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean probabilities [n, class] for images [n, h, w, c] by Monte-Carlo dropout, and two figures of doubt [n]."""
    import jax

    answer, variables = monte_carlo_answer(loaded.model, passes), jax.device_put(loaded.variables)
    found = in_batches(lambda batch: answer(variables, batch), images)
    doubts = {"predictive_entropy": found.entropy, "mutual_information": found.mutual_information}
    return found.probabilities, doubts


def monte_carlo_answer(model, passes: int) -> Callable[[Any, np.ndarray], Any]:
    """`f(variables, images [b, h, w, c]) -> MonteCarlo`, compiled once for all runs of a model; the draws are fixed."""
    import jax

    from fishnet.models.mc_dropout import mc_dropout
    from fishnet.nn.convolution import gemm

    # The passes are a loop, in which XLA's own convolution is slow on CPU.
    model = model.clone(conv=gemm) if jax.default_backend() == "cpu" else model
    key = jax.random.key(0, impl="threefry2x32")
    return jax.jit(lambda variables, images: mc_dropout(model, variables, images, key, passes))


def in_batches(answer: Callable[[np.ndarray], Any], images: np.ndarray) -> Any:
    """What `answer` gives for images [n, h, w, c], one size of batch at a time: its tree of arrays [n, ...] float64."""
    import jax

    from fishnet.host.jax_settings import hold_settings

    batch = min(BATCH, len(images))
    parts = []
    with hold_settings():
        for chunk in chunks(images, batch):
            # With photographs, not with black: a network evaluated with the statistics of a batch sees them too.
            padded = np.concatenate([chunk, images[: batch - len(chunk)]])
            parts.append(jax.device_get(answer(padded)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(images)].astype(np.float64), *parts)


def chunks(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`images` in pieces of `size`; the last may be shorter."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def print_guesses(
    title: str,
    names: Sequence[str],
    classes: Sequence[str],
    probabilities: np.ndarray,
    doubts: Mapping[str, np.ndarray],
) -> None:
    """A line a photograph: its name, the most probable species, the first in bold type, and the figures of doubt."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console(width=width_of_output(), markup=False, highlight=False, emoji=False)
    folder, names = without_common_folder(names)
    title += f"; images in {folder}" if folder else ""
    separator = Text(", " if console.width >= 120 else "\n")
    name_width = max(20, console.width // (3 if doubts else 2))
    columns = [Column(overflow="fold", max_width=name_width), Column(), *([Column(no_wrap=True)] if doubts else [])]
    table = Table.grid(*columns, padding=(0, 3, 0, 0), pad_edge=False)
    for photograph, (name, row) in enumerate(zip(names, probabilities, strict=True)):
        top = np.argsort(-row, kind="stable")[:TOP]
        guesses = [Text(f"{classes[k]} {100 * row[k]:.0f}\u00a0%", "bold" if k == top[0] else "") for k in top]
        figures = [Text(f"{what.replace('_', ' ')} {of[photograph]:.3f} nats") for what, of in doubts.items()]
        table.add_row(Text(name), *(separator.join(cell) for cell in (guesses, figures) if cell))
    console.print(Text(title, "dim"))
    console.print(table)


def without_common_folder(names: Sequence[str]) -> tuple[str, list[str]]:
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
    doubts: Mapping[str, np.ndarray],
) -> None:
    """A row a photograph: image, species, probability, a column a species with its probability, figures of doubt.

    Args:
        path: written whole or not at all.
        names: [n] of the photographs.
        classes: [k] names.
        probabilities: [n, k].
        doubts: name -> [n].
    """
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow([*HEADER, *(f"p_{name}" for name in classes), *doubts])
    figures = np.column_stack([probabilities, *doubts.values()])
    for name, row, best in zip(names, figures, probabilities.argmax(-1), strict=True):
        cells = csv_cell(name), csv_cell(classes[int(best)])
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
    """A run's number as the user typed it."""
    if not text.isdecimal() or len(text) > 10:
        raise UsageError(f"--index: {text!r} is not a run's number (0, 1, ...)")
    return int(text)


def number_of_passes(text: str) -> int:
    """A number of passes as the user typed it."""
    if not text.isdecimal() or len(text) > 10 or not 1 <= int(text) < 2**31:
        raise UsageError(f"--mc-dropout: {text!r} is not a number of passes (1, 2, ...)")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
