"""Optuna studies by sweeps: the trials of a round are the arms of one sweep, one program where shapes agree.

    study = optuna.create_study(storage="sqlite:///study.db", study_name="fish", load_if_exists=True)
    space = {"lr": Range(0.001, 0.3, log=True), "optimizer": ["momentum", "adam"]}
    study_sweeps(study, Recipe(task="reef"), space, seeds=2, batch=8, rounds=5, out="runs/study")

It needs the extra `optuna`. A call that was stopped is made again: rounds that were told stay told, and the one in
progress goes on. With a storage this is so because its trials are there, with their values. Without one, a new study
has to propose the same again, so its sampler needs a seed: finished rounds are then told from their folders without
any training. Where it proposes something else, the call is refused. With a storage leave the sampler without a seed, or
keep the sampler too (Optuna's documentation says how): a seeded one would begin its proposals again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

try:
    import optuna
except ImportError as error:
    raise ImportError("fishnet.contrib.optuna_study needs optuna: python -m pip install -e '.[optuna]'") from error
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fishnet.checks.arguments import as_folder, check_mapping, check_type, check_whole_number
from fishnet.checks.value_types import format_value
from fishnet.data.options import DataOptions
from fishnet.errors import UsageError, UserError
from fishnet.host.parquet import read_table
from fishnet.lookup import unknown_name
from fishnet.sweep.run.sweep import run_sweep
from fishnet.sweep.spec.field_parsing import parse_value
from fishnet.sweep.spec.history import LOWER_IS_BETTER
from fishnet.sweep.spec.random_search import Samples
from fishnet.sweep.spec.recipe import SELECTABLE, Recipe
from fishnet.sweep.spec.search_space import Choices, Range, domain_of
from fishnet.sweep.spec.sweep import Sweep, arm_name
from fishnet.sweep.store.finished import Result
from fishnet.sweep.store.folder import SWEEP_FILE, read_sweep_file

ROUND = "fishnet_round"  # user attribute of a trial: the round it belongs to


def study_sweeps(
    study: optuna.Study,
    recipe: Recipe,
    space: Mapping[str, Range | Sequence[Any]],
    seeds: int | Sequence[int] = 1,
    batch: int = 8,
    rounds: int = 4,
    *,
    out: str | Path,
    metric: str | None = None,
    lane_width: int | str | None = None,
    lowering: str | None = None,
    devices: int | None = None,
    quiet: bool = True,
    data: DataOptions | None = None,
) -> list[Result]:
    """Runs a study in rounds: asks for a batch of trials, trains them as the arms of a sweep, tells the results.

    A trial is told the mean over its seeds of a validation figure at the selected epochs, never a test figure; the same
    mean after each epoch is its intermediate value. A trial with a diverged seed is told as pruned, so that samplers
    learn to stay away without a value that only the other seeds have. Trials of a batch that ask for the same are
    trained once. A sampler for batches should allow for trials in progress (`TPESampler(constant_liar=True)`).

    Args:
        study: with one direction, that of the figure. Its storage is the user's; a study belongs to one `out`.
        recipe: what all trials share.
        space: recipe field -> a `Range`, or a list of values.
        seeds: as for `Sweep`.
        batch: trials a round.
        rounds: in all, those of earlier calls included.
        out: the folder that gets a sweep's folder a round: round_000, round_001, ...
        metric: one of the figures that `select_by` may be; None: the recipe's `select_by`.
        lane_width, lowering, devices, quiet, data: as for `run_sweep`.

    Returns:
        The results of the rounds that this call told.

    Raises:
        UsageError: numbers out of range, an unknown figure, a study of the other direction, arms that make no sense
            (their trials are told as failed).
        UserError: a round's folder holds other arms than the study proposes; see also `run_sweep`.

    Source: Akiba et al. 2019, https://arxiv.org/abs/1907.10902
    """
    check_type("study", study, optuna.Study, "a study of Optuna")
    check_type("recipe", recipe, Recipe, "a Recipe")
    check_mapping("space", space, "a dictionary from recipe fields to ranges and lists of values")
    check_type("metric", metric, (str, type(None)), "the name of a metric, or None")
    out, metric = as_folder("out", out), metric or recipe.select_by
    check_study(study, metric, batch, rounds)
    domains = {name: domain_of(name, given) for name, given in space.items()}
    results = []
    for number in range(rounds):
        folder = out / f"round_{number:03d}"
        trials = collect_trials(study, domains, number, batch, folder)
        waiting = [trial for trial in trials if isinstance(trial, optuna.Trial)]
        if not waiting:
            continue
        points = [point_of(trial.params) for trial in trials]
        different = list({arm_name(point): point for point in points}.values())
        check_folder(folder, different)
        try:
            samples = Samples(domains, different)
            sweep = Sweep(recipe, seeds=seeds, samples=samples)
            result = run_sweep(sweep, folder, lane_width, lowering, devices, quiet, data=data)
        except UsageError:
            for trial in waiting:
                study.tell(trial, state=TrialState.FAIL)
            raise
        written = read_sweep_file(folder)
        assert written is not None, "`run_sweep` has just written it"
        curves = read_table(folder / "curves.parquet", {"sweep": written["spec_hash"]})
        for trial in waiting:
            rows = result.runs[result.runs["arm"] == arm_name(point_of(trial.params))]
            report_arm(study, trial, rows, curves[curves["run"].isin(rows["run"])], metric)
        results.append(result)
    return results


def check_study(study: optuna.Study, metric: str, batch: int, rounds: int) -> None:
    """Refuses a study, domains or a number of rounds that cannot be run.

    Raises:
        UsageError: see `study_sweeps`.
    """
    for name, number in (("batch", batch), ("rounds", rounds)):
        if check_whole_number(name, number) < 1:
            raise UsageError(f"{name}: {number} is not at least 1")
    if metric not in SELECTABLE:
        raise unknown_name("metric", metric, SELECTABLE)
    wanted = StudyDirection.MINIMIZE if metric in LOWER_IS_BETTER else StudyDirection.MAXIMIZE
    if study.directions != [wanted]:
        has = " and ".join(direction.name.lower() for direction in study.directions)
        raise UsageError(f"metric {metric} needs a study with direction {wanted.name.lower()}, not {has}")


def collect_trials(
    study: optuna.Study, domains: Mapping[str, Range | Choices], number: int, batch: int, folder: Path
) -> list[optuna.Trial | FrozenTrial]:
    """The trials of a round: those that the study has (frozen, if they were told) and new ones for what is missing."""
    mine = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get(ROUND) == number]
    found: list[optuna.Trial | FrozenTrial] = [
        # Optuna has no other way to a trial of an earlier process that can still take intermediate values.
        optuna.Trial(study, trial._trial_id) if trial.state == TrialState.RUNNING else trial
        for trial in mine
        if trial.state != TrialState.FAIL
    ]
    told = not any(isinstance(trial, optuna.Trial) for trial in found)
    if found and (told or (folder / SWEEP_FILE).exists()):
        return found  # its arms are settled, whatever the batch is now
    distributions = {name: distribution_of(domain) for name, domain in domains.items()}
    for _ in range(batch - len(found)):
        trial = study.ask(distributions)
        trial.set_user_attr(ROUND, number)
        found.append(trial)
    return found


def distribution_of(domain: Range | Choices) -> BaseDistribution:
    """Converts a domain to an Optuna distribution; listed values are spelled as on the command line."""
    if isinstance(domain, Choices):
        return CategoricalDistribution([format_value(value) for value in domain.values])
    kind = IntDistribution if isinstance(domain.low, int) else FloatDistribution
    return kind(domain.low, domain.high, log=domain.log)


def point_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the parameters of a trial to the values of an arm."""
    return {name: parse_value(name, value) if isinstance(value, str) else value for name, value in params.items()}


def check_folder(folder: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Refuses a folder with other arms than a study proposes.

    Raises:
        UserError: with what can be done.
    """
    found = read_sweep_file(folder)
    if found is not None and list(Samples.of(found.get("samples", {})).points) != list(points):
        raise UserError(
            f"{folder} holds other arms than this study proposes: go on with the storage of the study that began it, "
            "or with a sampler of the same seed, or choose another out"
        )


def report_arm(study: optuna.Study, trial: optuna.Trial, runs: pd.DataFrame, curves: pd.DataFrame, metric: str) -> None:
    """Tells a study the intermediate values and the result of an arm.

    Args:
        study: that asked for it.
        trial: of the arm.
        runs: its rows of `runs.parquet`, one a seed.
        curves: its rows of `curves.parquet`.
        metric: a column of both.
    """
    means = curves.groupby("epoch")[metric].mean()
    for epoch, value in zip(means.index, means, strict=True):
        if np.isfinite(value):
            trial.report(float(value), int(epoch))
    value = float(runs[metric].mean(skipna=False))
    if (runs["status"] == "diverged").any():
        study.tell(trial, state=TrialState.PRUNED)
    elif np.isfinite(value):
        study.tell(trial, value)
    else:
        study.tell(trial, state=TrialState.FAIL)
