"""Names what is on your own photographs, with a network that an experiment has trained.

    python -m experiments.predict --run runs/ablation-0123456789 --images fish.jpg holiday/
    python -m experiments.predict --run runs/ablation-0123456789 --index 7 --images holiday/ --csv names.csv
    python -m experiments.predict --run runs/train-0123456789 --images holiday/ --mc-dropout 50

Prints the three most probable species of each photograph. The probabilities are the network's: it chooses among the
species it was trained on and knows no others. Photographs that cannot be read are named and passed over.

With --mc-dropout T a network that was trained with dropout answers T times, each time without other features. The
probabilities are the means of its answers; the entropy (of the means) says how unsure they are, the mutual information
how much of that is because the answers contradict each other. Both are in nats: 0 is sure. The draws are fixed, so that
the same photograph gets the same figures each time.
"""

import csv
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments._cli import Parser, guarded
from experiments._output import width_of_output
from fishnet.errors import UsageError, UserError

BATCH = 64
TOP = 3


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
        check_writable(Path(flags.csv))
    paths, problems = find_images(flags.images)
    from fishnet.report.results import load_results

    results = load_results(flags.run)
    run = results.best_run if index is None else index
    if run is None:
        raise UserError(f"no run in {flags.run} has a result: all have diverged or are not finished")
    if run not in set(results.runs["run"]):
        raise UsageError(f"--index: {run} is not among the runs 0 to {len(results.runs) - 1} of {flags.run}")
    from fishnet.sweep import load_run

    loaded = load_run(flags.run, run)
    if passes is not None and not (loaded.recipe.dropout or loaded.recipe.stochastic_depth):
        raise UsageError(f"--mc-dropout: run {run} was trained without dropout, so that all passes would be alike")
    images, names = [], []
    for path in paths:
        try:
            images.append(read(path, loaded))
            names.append(str(path))
        except UserError as error:
            problems.append(str(error))
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
    if not images:
        raise UserError("none of the images can be used")
    row = results.row(run)
    title = f"run {run}: {row['arm']}, seed {row['seed']}"
    if passes is None:
        probabilities, doubts = probabilities_of(loaded, np.stack(images)), {}
    else:
        probabilities, doubts = monte_carlo_of(loaded, np.stack(images), passes)
        title += f"; Monte-Carlo dropout, {passes} {'pass' if passes == 1 else 'passes'}"
    print_guesses(title, names, loaded.classes, probabilities, doubts)
    if flags.csv is not None:
        write_csv(Path(flags.csv), names, loaded.classes, probabilities, doubts)
    return 0


def find_images(given: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The image files among files and folders (searched with their sub-folders), and what was wrong with the rest.

    Files are taken as they are named; of a folder, those whose ending Pillow knows.
    """
    from PIL import Image

    endings = set(Image.registered_extensions())
    found: dict[Path, None] = {}
    problems = []
    for path in map(Path, given):
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in endings and not p.name.startswith("."))
        if not inside:
            problems.append(f"{path}: no images in this folder")
        found |= dict.fromkeys(inside)
    return list(found), problems


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

    from fishnet.nn.convolution import gemm
    from fishnet.uncertainty import mc_dropout

    # The passes are a loop, in which XLA's own convolution is slow on CPU.
    model = model.clone(conv=gemm) if jax.default_backend() == "cpu" else model
    key = jax.random.key(0, impl="threefry2x32")
    return jax.jit(lambda variables, images: mc_dropout(model, variables, images, key, passes))


def in_batches(answer: Callable[[np.ndarray], Any], images: np.ndarray) -> Any:
    """What `answer` gives for images [n, h, w, c], one size of batch at a time: its tree of arrays [n, ...] float64."""
    import jax

    from fishnet.sweep.settings import held_settings

    batch = min(BATCH, len(images))
    parts = []
    with held_settings():
        for chunk in chunks(images, batch):
            padded = np.concatenate([chunk, np.zeros((batch - len(chunk), *images.shape[1:]), np.uint8)])
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
    """A row a photograph: image, species, probability, a column a species with its probability, figures of doubt."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", "species", "probability", *(f"p_{name}" for name in classes), *doubts])
            figures = np.column_stack([probabilities, *doubts.values()])
            for name, row, best in zip(names, figures, probabilities.argmax(-1), strict=True):
                table.writerow([name, classes[best], f"{row[best]:.6f}", *(f"{value:.6f}" for value in row)])
    except OSError as error:
        raise UserError(f"--csv: cannot write {path}: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Refuses a file that could not be written, before any work is done."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        reason = (
            "is a folder" if path.is_dir() else "is not writable" if folder.is_dir() else f"{folder} is not a folder"
        )
        raise UserError(f"--csv: cannot write {path}: {reason}")


def run_number(text: str) -> int:
    """A run's number as the user typed it."""
    if not text.isdecimal():
        raise UsageError(f"--index: {text!r} is not a run's number (0, 1, ...)")
    return int(text)


def number_of_passes(text: str) -> int:
    """A number of passes as the user typed it."""
    if not text.isdecimal() or len(text) > 10 or not 1 <= int(text) < 2**31:
        raise UsageError(f"--mc-dropout: {text!r} is not a number of passes (1, 2, ...)")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
