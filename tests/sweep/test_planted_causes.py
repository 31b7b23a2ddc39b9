"""What is planted in a network is what its probe shows: one lane a cause. (Overflows: test_probing.py.)"""

import dataclasses

import pandas as pd
import pytest

from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.spec.random_search import Samples
from tests.sweep.conftest import TINY

pytestmark = pytest.mark.slow

HEALTHY = {"activation": "relu", "init": "he_normal", "init_gain": 1.0, "init_bias": 0.0, "lr": 0.05}
CAUSES = {
    "healthy": {},
    "no effect": {"lr": 0.04},
    "dead": {"init_bias": -30.0},
    "vanishing": {"activation": "sigmoid", "init": "glorot_normal"},
    "alike": {"init": "constant", "init_gain": 0.3},
    "hardly moving": {"lr": 1e-4},
}
PROBES = ("gradients", "updates", "dead_units", "features")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The runs by cause, and the table of probes with the cause of each row."""
    base = dataclasses.replace(
        TINY, depth=3, norm="none", optimizer="sgd", schedule="constant", epochs=2, probes=PROBES, probe_images=0
    )
    points = [HEALTHY | change for change in CAUSES.values()]
    samples = Samples({name: list(dict.fromkeys(point[name] for point in points)) for name in HEALTHY}, points)
    result = run_sweep(Sweep(base, samples=samples, seeds=1), tmp_path_factory.mktemp("planted") / "out", devices=1)
    table = pd.read_parquet(result.out / "probes.parquet")
    names = dict(zip(result.runs["run"], CAUSES, strict=True))
    return result.runs.assign(cause=result.runs["run"].map(names)).set_index("cause"), table.assign(
        cause=table["run"].map(names)
    )


def figure(table: pd.DataFrame, name: str, when: str, over: str = "mean", layer: str | None = None) -> pd.Series:
    """By cause, of the first or the last measurement."""
    own = table[(table["probe"] == name) & ((table["layer"] == layer) if layer else True)]
    step = own.groupby("cause")["step"].transform("min" if when == "first" else "max")
    return own[own["step"] == step].groupby("cause")["value"].agg(over)


def test_dead_units_show_as_dead(planted):
    found = figure(planted[1], "dead_units", "last", layer="act_2")
    assert found["dead"] == 1.0
    assert found["healthy"] < 1.0 and found["no effect"] < 1.0 and found["alike"] < 1.0


def test_a_vanishing_gradient_shows_in_its_ratio(planted):
    found = figure(planted[1], "gradient_ratio", "first")
    assert found["vanishing"] < 0.1 < 0.2 < found["healthy"] < 20


def test_units_that_are_alike_show_in_the_rank_of_the_features(planted):
    found = figure(planted[1], "effective_rank", "last")
    assert found["alike"] == pytest.approx(1.0, abs=0.01)
    assert found["healthy"] > 1.2 and found["no effect"] > 1.2


def test_a_rate_that_is_too_low_shows_in_the_steps(planted):
    """Of plain gradient descent from the same start: in proportion to the rate."""
    found = figure(planted[1], "update_ratio", "first", layer="dense_0")
    rates = {cause: (HEALTHY | change)["lr"] for cause, change in CAUSES.items()}
    for cause in ("hardly moving", "no effect"):
        assert found[cause] / found["healthy"] == pytest.approx(rates[cause] / HEALTHY["lr"], rel=1e-4)


def test_what_has_no_effect_measures_as_the_healthy_network(planted):
    """The same seed and data, at a rate a fifth lower: the same first gradients, and like figures after two epochs."""
    _, table = planted
    for name in ("gradient_norm", "gradient_ratio"):
        found = figure(table, name, "first")
        assert found["no effect"] == pytest.approx(found["healthy"], rel=1e-6)
    for name in ("dead_units", "effective_rank"):
        found = figure(table, name, "last")
        assert found["no effect"] == pytest.approx(found["healthy"], rel=0.3, abs=0.05)
