"""Misclassified test photographs of a run, with the predicted classes."""

import base64
import io
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fishnet.data import Task, load_task
from fishnet.errors import UserError
from fishnet.report.results import Results

MOST = 24  # photographs
MOST_A_CLASS = 3  # so that one hard class does not fill the strip


@dataclass(frozen=True)
class Mistake:
    """Misclassified photograph with the run's probabilities."""

    example: int  # index into Task.images
    picture: str  # data URI
    truth: str
    truth_probability: float
    guesses: tuple[tuple[str, float], ...]  # class, probability; most probable first


def load_run_task(results: Results, run: int, data_dir: str | os.PathLike | None = None) -> Task:
    """Loads the task that a run was trained on, and checks that it is the same.

    Raises:
        UserError: its files are gone, or are no longer those of the sweep.
    """
    recipe = results.recipe(run)
    name, size = recipe["task"], recipe["image_size"]
    options = results.sweep.get("data_options", {})
    size = None if size == "auto" else int(size)
    task = load_task(name, size, data_dir, options.get("group_regex"), options.get("strict", False))
    known = results.sweep.get("data", {}).get(f"{name} at {recipe['image_size']}", task.fingerprint)
    if task.fingerprint != known:
        raise UserError(f"the data of {name} have changed since the sweep")
    return task


def find_mistakes(results: Results, run: int, task: Task) -> list[Mistake]:
    """Most confident mistakes of a run on the test split, a few of each true class, most confident first."""
    table = results.test_predictions(run)
    classes = results.classes_of(run)
    columns = [f"p_{name}" for name in classes]
    if table.empty or not set(columns) <= set(table.columns) or table["example"].max() >= len(task.images):
        return []
    probabilities = table[columns].to_numpy(float)
    labels, examples = table["label"].to_numpy(), table["example"].to_numpy()
    guess = probabilities.argmax(1)
    wrong = np.flatnonzero(guess != labels)
    found: list[Mistake] = []
    seen = np.zeros(len(classes), int)
    for i in wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")]:
        seen[labels[i]] += 1
        if seen[labels[i]] > MOST_A_CLASS:
            continue
        top = np.argsort(-probabilities[i], kind="stable")[:2]
        guesses = tuple((classes[k], float(probabilities[i, k])) for k in top)
        picture = data_uri(task.images[examples[i]])
        truth = float(probabilities[i, labels[i]])
        found.append(Mistake(int(examples[i]), picture, classes[labels[i]], truth, guesses))
        if len(found) == MOST:
            break
    return found


def data_uri(image: np.ndarray) -> str:
    """Encodes a uint8 image [h, w, 3] or [h, w, 1] as a PNG in a `data:` URI."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
