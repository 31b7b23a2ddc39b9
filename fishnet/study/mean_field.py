"""Mean-field theory compared with the gradients of a sweep of perceptrons before the first step."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fishnet.study.derived_metrics import iterate_runs
from fishnet.sweep.spec.recipe import Recipe

if TYPE_CHECKING:
    from fishnet.report.results import Results
    from fishnet.study.trials import Trial

# fan-in times the variance of a weight, in layers of equal width.
VARIANCES = {"glorot_normal": 1.0, "lecun_normal": 1.0, "he_normal": 2.0}
HIDDEN = "dense_"  # how the names of hidden layers begin
FIELDS = ("activation", "init", "init_gain")  # of a recipe, that the theory knows of


def has_theory(fields: Mapping[str, Any], base: Recipe) -> bool:
    """Whether the theory applies to an arm: plain layers of independent weights."""
    return set(fields) <= {*FIELDS, "lr"} and fields.get("init", base.init) in VARIANCES


def predict_profile(fields: Mapping[str, Any], base: Recipe, depth: int) -> np.ndarray:
    """Predicts the sizes of the hidden kernels' gradients, [layer], relative to the last.

    Args:
        fields: of the arm.
        base: the recipe that it changes.
        depth: hidden layers.
    """
    from fishnet.nn.activations import ACTIVATIONS
    from fishnet.probes.mean_field import gradient_profile, mean_field

    activation, init, gain = (fields.get(name, getattr(base, name)) for name in FIELDS)
    variance = VARIANCES[str(init)] * float(gain) ** 2
    return np.asarray(gradient_profile(mean_field(ACTIVATIONS[str(activation)], variance, depth)))


def distance_to_theory(base: Recipe) -> Callable[["Results"], dict[int, float]]:
    """Metric: largest distance, in decades, of a hidden layer's first gradient from the theory.

    Both profiles are relative to the last hidden layer. Runs with norms or other weights than the theory's, and those
    of which a layer has no gradient, are left out.

    Args:
        base: the recipe that the arms change.
    """

    def of(results: "Results") -> dict[int, float]:
        profiles, runs = first_gradients(results.probes), results.runs.set_index("run")
        found, expected = {}, {}
        for run, values in profiles.items():
            row: dict[str, Any] = {name: runs.loc[run].get(name, getattr(base, name)) for name in (*FIELDS, "norm")}
            if row.pop("norm") != "none" or not has_theory(row, base):
                continue
            key = (*row.values(), len(values))
            if key not in expected:
                expected[key] = np.log10(predict_profile(row, base, len(values)))
            with np.errstate(divide="ignore"):
                measured = np.log10(values / values[-1])
            if np.isfinite(measured).all():
                found[run] = float(np.abs(measured - expected[key]).max())
        return found

    return of


def first_gradients(probes: pd.DataFrame) -> dict[int, np.ndarray]:
    """Run -> root mean square of the hidden kernels' gradients at the first measurement, [layer]."""
    if not len(probes):
        return {}
    table = probes[(probes["probe"] == "gradient_rms") & probes["layer"].astype(str).str.startswith(HIDDEN)]
    table = table[table["step"] == table.groupby("run")["step"].transform("min")].sort_values("index")
    return {run: rows["value"].to_numpy(np.float64) for run, rows in iterate_runs(table)}


def last_gradient(trial: "Trial", label: str) -> float:
    """Gradient size of an arm's last hidden kernel, geometric mean over seeds; NaN if unknown."""
    look = trial.looks[0]
    found = first_gradients(look.results.probes)
    own = [found[run][-1] for run in look.runs(label) if run in found]
    return float(np.exp(np.log(own).mean())) if own else float("nan")
