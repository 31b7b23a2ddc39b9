"""Output folders as `run_sweep` leaves them, made up in a moment."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fishnet.host.parquet import write_table
from fishnet.metrics import classification as metrics
from fishnet.sweep.spec.field_parsing import shown_value
from fishnet.sweep.spec.random_search import Samples
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file

SPECIES = ("Abudefduf vaigiensis", "Amphiprion clarkii", "Chaetodon lunulatus", "Neoniphon sammara", "Zebrasoma scopas")
GRID = {"activation": ["relu", "leaky_relu", "elu", "gelu"], "norm": ["none", "batch", "layer", "group"]}


def fabricate(
    out,
    axes=GRID,
    seeds=3,
    epochs=6,
    classes=SPECIES,
    diverged=(),
    absent=(),
    examples=120,
    predictions=True,
    recipe=None,
    task=None,
    samples=None,
    stopped=(),
):
    """Writes the tables of a finished sweep of a synthetic or given task.

    Args:
        out: the folder.
        diverged: run numbers that went non-finite in their second epoch.
        absent: names of classes without any image in the test split.
        examples: images a split.
        predictions: whether predictions.parquet exists.
        recipe: the base recipe.
        samples: what is drawn, if anything.
        stopped: run numbers that were ended early.
        task: when given, its labels, classes and splits are used instead of made-up ones.
    """
    rng = np.random.default_rng(0)
    sweep = Sweep(
        dataclasses.replace(recipe or Recipe(task="synthetic"), epochs=epochs),
        axes,
        seeds,
        samples=samples or Samples(),
    )
    if task is not None:
        classes = task.classes
        index = {split: task.splits[split] for split in ("val", "test")}
        labels = {split: task.labels[index[split]] for split in index}
    else:
        frequency = np.array([0.0 if name in absent else 1 / (1 + i) for i, name in enumerate(classes)])
        labels = {s: rng.choice(len(classes), examples, p=frequency / frequency.sum()) for s in ("val", "test")}
        index = {"val": np.arange(examples), "test": np.arange(examples) + examples}
    rows, curves, class_curves, per_class, predicted = [], [], [], [], []
    for run in sweep.runs():
        arm = sweep.arms().index(run.values)
        skill = 1.5 + 1.6 * np.sin(1 + arm * 1.3) + 0.1 * rng.normal()
        row = {"run": run.index, "arm": run.arm, "seed": run.recipe.seed}
        row |= {k: shown_value(v) if isinstance(v, str | tuple) else v for k, v in run.values.items()}
        bad = run.index in diverged
        last = min(epochs, 1) if bad else epochs
        row |= {
            "status": "diverged" if bad else "stopped" if run.index in stopped else "ok",
            "first_bad_step": 57 if bad else None,
            "best_epoch": last,
            "params": 24_000 + arm,
            "train_seconds": 4.0 + rng.random(),
        }
        for split in ("val", "test"):
            signal = np.eye(len(classes))[labels[split]] * skill
            logits = signal + rng.normal(size=(len(labels[split]), len(classes)))
            summed = metrics.summary(labels[split], logits)
            row |= {f"{split}_{k}": np.nan if bad else float(v) for k, v in summed.items()}
            if not bad:
                p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
                frame = {"run": run.index, "split": split, "example": index[split], "label": labels[split]}
                predicted.append(pd.DataFrame(frame | {f"p_{c}": p[:, i] for i, c in enumerate(classes)}))
        rows.append(row)
        if not bad:
            each = metrics.per_class(labels["test"], logits)
            per_class.append(pd.DataFrame({"run": run.index, "class": classes} | each))
        for epoch in range(1, last + 1):
            part = 1 - np.exp(-epoch / 2)
            noise = 1 + 0.03 * rng.normal()
            curve = {
                "run": run.index,
                "epoch": epoch,
                "train_loss": 2.7 - 2 * part * noise,
                "lr": 0.02,
                "grad_norm": 1.0,
            }
            curve |= {"train_accuracy": 0.2 + 0.7 * part * noise, "val_loss": 2.7 - 1.8 * part * noise}
            for name in ("accuracy", "balanced_accuracy", "macro_auc", "macro_f1", "ece"):
                curve[f"val_{name}"] = (0.5 if bad else row[f"val_{name}"]) * part * noise
            curves.append(curve)
            class_curves.append(
                pd.DataFrame(
                    {
                        "run": run.index,
                        "epoch": epoch,
                        "class": classes,
                        "val_auc": 0.9 * part,
                        "val_loss": 1.0,
                        "train_loss": 1.0,
                    }
                )
            )
    tables = {"runs": pd.DataFrame(rows), "curves": pd.DataFrame(curves)}
    if per_class:
        tables |= {"per_class": pd.concat(per_class), "class_curves": pd.concat(class_curves)}
    if predictions and predicted:
        tables["predictions"] = pd.concat(predicted)
    out.mkdir(parents=True, exist_ok=True)
    cohort = {
        "runs": len(rows),
        "lane_width": 1,
        "lowering": "gemm",
        "devices": 2,
        "steps_per_epoch": 35,
        "epochs": epochs,
        "dropped_images": 8,
        "reason": "same shapes",
    }
    size = 32 if sweep.recipe.task == "reef" else 16
    fingerprint = task.fingerprint if task else "0" * 64
    arms = [
        {"arm": run.arm, "lr": 0.02, "image_size": size, "augment": "none"} for run in sweep.runs()[:: len(sweep.seeds)]
    ]
    tasks = {run.recipe.task for run in sweep.runs()}
    spec = sweep.spec() | {
        "spec_hash": sweep.hash(),
        "programs": 1,
        "plan": [cohort],
        "device": "cpu x 2 (AMD EPYC)",
        "arms": arms,
        "classes": {name: list(classes) for name in tasks},
        "data": {f"{name} at {size}": fingerprint for name in tasks},
        "data_options": {},
        "functions": {},
        "command": "python -m experiments.ablation",
        "versions": {"python": "3.11.2", "jax": "0.10.1", "flax": "0.12.8"},
        "started": "2030-01-02T03:04:05+00:00",
        "finished": "2030-01-02T03:08:05+00:00",
    }
    spec["recipe"] |= {"lr": 0.02, "image_size": size, "augment": "none"}
    write_sweep_file(out, spec)
    for name, table in tables.items():
        put(out, name, table)
    return out


def put(out, name, table):
    """Writes a table in the place of the one that a folder has, as its sweep would have."""
    content = read_sweep_file(out)
    digest = write_table(out / f"{name}.parquet", table, {"sweep": content["spec_hash"]})
    write_sweep_file(out, content | {"tables": content.get("tables", {}) | {name: digest}})


def drop(out, name):
    """Takes a table away, as if its sweep had had none."""
    (out / f"{name}.parquet").unlink()
    content = read_sweep_file(out)
    content["tables"].pop(name)
    write_sweep_file(out, content)


@pytest.fixture
def sweep_folder(tmp_path):
    """`sweep_folder(**options)` makes up an output folder and returns its path."""
    return lambda **options: fabricate(tmp_path / "out", **options)
