"""Monte-Carlo dropout arms: trained runs evaluated again with dropout active."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fishnet.errors import UsageError
from fishnet.report.results import Results
from fishnet.study.plan import Plan
from fishnet.study.prediction import make_mc_dropout_predictor, predict_in_batches

if TYPE_CHECKING:
    from fishnet.study.question import QuestionArgs
    from fishnet.study.trials import Look, Trial
    from fishnet.sweep.run.progress import Display

TABLE = "monte_carlo.parquet"  # beside the sweep's tables


@dataclass(frozen=True)
class MonteCarloRuns:
    """Plan with further arms: networks of trained arms, evaluated with Monte-Carlo dropout.

    Args:
        plan: the sweep.
        again: label of the new arm -> the arm, trained with dropout, whose runs are asked.
        passes: of Monte-Carlo dropout; in a smoke test 2.
    """

    plan: Plan
    again: Mapping[str, str]
    passes: int = 50
    name: str = field(init=False)
    arms: Mapping[str, Mapping[str, Any]] = field(init=False)  # new ones with the fields of those that are asked

    def __post_init__(self) -> None:
        arms = dict(self.plan.settled_arms)
        object.__setattr__(self, "name", self.plan.name)
        object.__setattr__(self, "arms", arms | {label: arms[base] for label, base in self.again.items()})

    @property
    def sizes(self) -> Mapping[str, Mapping[str, Any]]:
        """Sizes of the plan whose networks are evaluated again."""
        return self.plan.sizes

    def settled(self, trials: Mapping[str, "Trial"]) -> "MonteCarloRuns":
        """Returns the plan itself: its arms depend on no other trial."""
        return self

    def labels(self, size: str) -> tuple[str, ...]:
        """Labels of the arms of a size, trained arms first."""
        trained = self.plan.labels(size)
        return (*trained, *(label for label, base in self.again.items() if base in trained))

    def seeds_from(self, size: str, done: int = 0) -> range:
        """Seeds of a look, after the first `done` seeds."""
        return self.plan.seeds_from(size, done)

    def train(
        self, asked: "QuestionArgs", out: Path, display: "Display", seeds: Sequence[int], labels: Sequence[str]
    ) -> "Look":
        """Trains the arms, evaluates the Monte-Carlo arms and reads the tables."""
        from fishnet.study.trials import Look

        bases = {self.again[label] for label in labels if label in self.again}
        trained = [label for label in self.plan.labels(asked.size) if label in bases or label in labels]
        look = self.plan.train(asked, out, display, seeds, trained)
        again = {label: base for label, base in self.again.items() if label in labels}
        asked_of = {label: look.runs(base) for label, base in again.items()}
        display.stage(f"{self.name}: Monte-Carlo dropout")
        results = add_monte_carlo(look.results, asked_of, 2 if asked.size == "smoke" else self.passes)
        first = len(look.results.runs) // look.seeds
        places = look.places or tuple(range(len(trained)))
        return Look(results, (*trained, *again), (*places, *range(first, first + len(again))))


def add_monte_carlo(results: Results, asked_of: Mapping[str, Sequence[int]], passes: int) -> Results:
    """Adds rows for Monte-Carlo runs to the tables; predictions made before are read from the folder.

    The new runs are numbered behind those of the sweep, arm by arm and seed by seed. They have test figures at the
    epoch that was chosen for their run, rows in `per_class` and `predictions`, and no curves and no validation figures.

    Args:
        results: of a sweep.
        asked_of: new arm -> the runs that are asked, seed by seed.
        passes: of Monte-Carlo dropout.

    Raises:
        UsageError: an arm was trained without dropout.
    """
    from fishnet.host.parquet import BadTable, read_table, write_table

    of = dict(enumerate((run for runs in asked_of.values() for run in runs), start=len(results.runs)))
    fine = set(results.runs.loc[results.runs["status"] != "diverged", "run"])
    wanted = {run: base for run, base in of.items() if base in fine}
    path, owner = results.out / TABLE, {"sweep": results.sweep["spec_hash"]}
    try:
        table = read_table(path, owner)
    except BadTable:
        table = None
    if table is None or not is_table_of(table, wanted, passes):
        table = predict_again(results, wanted, passes)
        write_table(path, table, owner)
    return add_predictions(results, of, table)


def is_table_of(table: pd.DataFrame, wanted: Mapping[int, int], passes: int) -> bool:
    """Whether a table of Monte-Carlo predictions belongs to these runs and this number of passes."""
    asked = dict(zip(table["run"], table["of"], strict=True))
    return asked == dict(wanted) and set(table["passes"]) <= {passes}


def predict_again(results: Results, of: Mapping[int, int], passes: int) -> pd.DataFrame:
    """Mean probabilities of runs on their test split, as rows of `predictions`, with two uncertainties.

    Args:
        results: of a sweep.
        of: new run -> the run that is asked.
        passes: of Monte-Carlo dropout.

    Raises:
        UsageError: see `mc_dropout`.
    """
    import jax

    from fishnet.data import load_task
    from fishnet.sweep import load_run

    answers, tasks, parts = {}, {}, []
    for run, base in of.items():
        loaded = load_run(results.out, base)
        recipe = loaded.recipe
        assert recipe.image_size != "auto", "a saved recipe has its size in pixels"
        if not (recipe.dropout or recipe.stochastic_depth):
            raise UsageError(f"Monte-Carlo dropout: run {base} of {results.out} was trained without dropout")
        if recipe.task not in tasks:
            tasks[recipe.task] = load_task(recipe.task, recipe.image_size)
        task = tasks[recipe.task]
        positions = task.splits["test"]
        answer = answers.setdefault(replace(recipe, seed=0), make_mc_dropout_predictor(loaded.model, passes))
        variables = jax.device_put(loaded.variables)
        found = predict_in_batches(lambda batch, f=answer, v=variables: f(v, batch), task.images[positions])
        parts.append(
            {
                "run": run,
                "of": base,
                "passes": passes,
                "split": "test",
                "example": positions.astype(np.int64),
                "label": task.labels[positions].astype(np.int64),
                "entropy": found.entropy,
                "mutual_information": found.mutual_information,
                **{f"p_{name}": found.probabilities[:, c] for c, name in enumerate(task.classes)},
            }
        )
    empty = pd.DataFrame({"run": [], "of": [], "passes": []})
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True) if parts else empty


def add_predictions(results: Results, of: Mapping[int, int], table: pd.DataFrame) -> Results:
    """Adds Monte-Carlo runs to the tables of a sweep.

    Args:
        results: of the sweep.
        of: new run -> the run that was asked.
        table: of `predict_again`.
    """
    from fishnet.metrics.classification import per_class, summary

    rows, classes = [], []
    known = results.runs.set_index("run")
    for run, base in of.items():
        row: dict[str, Any] = {str(name): value for name, value in known.loc[base].items()} | {"run": run}
        row |= {name: np.nan for name in row if name.startswith(("val_", "test_"))}
        mine = table[table["run"] == run].dropna(axis=1, how="all")
        if len(mine):
            names = [name for name in map(str, mine) if name.startswith("p_")]
            labels, p = mine["label"].to_numpy(), mine[names].to_numpy(np.float64)
            logits = np.log(np.maximum(p, np.finfo(np.float64).tiny))
            row |= {f"test_{name}": float(value) for name, value in summary(labels, logits).items()}
            of_classes = {name: np.asarray(value) for name, value in per_class(labels, logits).items()}
            classes.append(pd.DataFrame({"run": run, "class": [name[2:] for name in names]} | of_classes))
        rows.append(row)
    kept = table[[name for name in table if name in results.predictions]]
    return replace(
        results,
        runs=pd.concat([results.runs, pd.DataFrame(rows).astype(results.runs.dtypes.to_dict())], ignore_index=True),
        per_class=pd.concat([results.per_class, *classes], ignore_index=True),
        predictions=pd.concat([results.predictions, kept], ignore_index=True),
    )
