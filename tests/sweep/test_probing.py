"""Probes in a sweep: they change nothing, are those of the run alone, go on after a stop, and measure what they say."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from fishnet.checks.value_types import format_value
from fishnet.data import load_task
from fishnet.errors import UsageError
from fishnet.losses import cross_entropy
from fishnet.probes import PROBES, Batches, Net, record_forward
from fishnet.probes.epoch import features
from fishnet.sweep import Interrupted, Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.run import phase
from fishnet.sweep.spec.field_parsing import coerce, parse_value
from fishnet.sweep.spec.validation import check_sweep
from tests.sweep.conftest import TINY, Stopper, assert_same_run, trained

# 8 steps an epoch, of which 0, 3 and 6 are measured; the last two epochs' ends are not and are.
PROBED = dataclasses.replace(
    TINY, norm="batch", dropout=0.1, probes=tuple(PROBES), probe_every=3, probe_epochs=2, probe_images=100, epochs=4
)
PLAIN = dataclasses.replace(PROBED, probes=(), probe_every=50, probe_epochs=1, probe_images=2048)
# By these, all runs and each run alone share one program; activations are in the program of `cnn`.
AXES = {"dropout": [0.1, 0.3], "lr": [0.05, 0.1]}


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    return run_sweep(Sweep(PROBED, axes=AXES, seeds=2), tmp_path_factory.mktemp("probed") / "out", devices=1)


@pytest.fixture(scope="module")
def table(probed) -> pd.DataFrame:
    return pd.read_parquet(probed.out / "probes.parquet")


def without_probes(tree: dict) -> dict:
    tree["lanes"].pop("probed")
    history = {name: v for name, v in tree["history"].items() if not name.startswith("probed_")}
    return {"lanes": tree["lanes"], "history": {k: v for k, v in history.items() if k != "seconds"}}


def assert_same_training(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, without_probes(trained(one)), without_probes(trained(other)))
    for name in ("curves", "class_curves", "predictions"):
        pd.testing.assert_frame_equal(*(pd.read_parquet(out / f"{name}.parquet") for out in (one, other)))


@pytest.mark.slow
def test_probing_changes_nothing(probed, tmp_path):
    plain = run_sweep(Sweep(PLAIN, axes=AXES, seeds=2), tmp_path / "plain", devices=1)
    assert not (plain.out / "probes.parquet").exists()
    assert "first_bad_layer" not in plain.runs
    assert trained(plain.out)["lanes"]["probed"] == {}
    assert_same_training(probed.out, plain.out)


STEPS = tuple(name for name, probe in PROBES.items() if probe.kind != "epoch")


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """At width 1, where choices are real branches."""
    base = Recipe(task="synthetic", image_size=8, model="cnn", widths=(8, 8), batch_size=64, epochs=2, dropout=0.1)
    base = dataclasses.replace(base, probes=(*STEPS, "dead_units"), probe_every=1)
    sweep = Sweep(base, axes={"activation": ["relu", "elu"]}, seeds=2)
    return sweep, run_sweep(sweep, tmp_path_factory.mktemp("cnn") / "out", devices=2)


@pytest.mark.slow
def test_probing_changes_nothing_at_width_1(cnn, tmp_path):
    sweep, result = cnn
    plain = Sweep(dataclasses.replace(sweep.recipe, probes=(), probe_every=50), axes=sweep.axes, seeds=2)
    assert_same_training(result.out, run_sweep(plain, tmp_path / "plain", devices=2).out)


@pytest.mark.slow
def test_lane_equals_its_solo_run_at_width_1(cnn, tmp_path):
    sweep, result = cnn
    alone = Sweep(dataclasses.replace(sweep.recipe, activation="elu"), seeds=[1])
    assert_same_run(result.out, 3, run_sweep(alone, tmp_path / "cnn", devices=1).out, 0)


@pytest.mark.slow
def test_lane_equals_its_solo_run(probed, tmp_path):
    alone = Sweep(dataclasses.replace(PROBED, dropout=0.3, lr=0.1), seeds=[0])
    assert_same_run(probed.out, 6, run_sweep(alone, tmp_path / "mlp", devices=1).out, 0)
    mine, own = (pd.read_parquet(out / "probes.parquet") for out in (probed.out, tmp_path / "mlp"))
    own["run"] = 6
    pd.testing.assert_frame_equal(mine[mine.run == 6].reset_index(drop=True), own, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("after", [9.0, 20.0])
def test_a_sweep_that_was_stopped_has_the_same_figures(probed, table, tmp_path, after, monkeypatch):
    monkeypatch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(phase, "CALL_SECONDS", 1e-6)
    sweep = Sweep(PROBED, axes=AXES, seeds=2)
    with pytest.raises(Interrupted):
        run_sweep(sweep, tmp_path / "out", devices=1, display=Stopper(after))
    part = pd.read_parquet(tmp_path / "out" / "probes.parquet")
    assert 0 < len(part) < len(table)
    run_sweep(sweep, tmp_path / "out", devices=1)
    for run in range(8):
        assert_same_run(probed.out, run, tmp_path / "out", run)
    again = pd.read_parquet(tmp_path / "out" / "probes.parquet")
    pd.testing.assert_frame_equal(table, again, check_exact=True)


@pytest.mark.slow
def test_rows_are_those_that_were_due(table):
    found = table[table.run == 3]
    assert list(table.columns) == ["run", "epoch", "step", "probe", "layer", "index", "class", "value"]
    norms = found[found.probe == "gradient_norm"]
    assert norms.step.unique().tolist() == [e * 8 + s for e in range(4) for s in (0, 3, 6)]
    assert (norms.epoch == norms.step // 8 + 1).all()
    one = norms[norms.step == 11]
    assert one.layer.tolist() == ["dense_0", "norm_0", "head"] and one["index"].tolist() == [0, 1, 2]
    assert one["class"].isna().all() and one.value.gt(0).all()
    ratios = found[found.probe == "gradient_ratio"]
    assert ratios.layer.isna().all() and ratios["index"].isna().all() and len(ratios) == 12
    margins = found[found.probe == "class_margin"]
    assert margins.step.unique().tolist() == [16, 32]
    assert margins["class"].unique().tolist() == ["horizontal", "falling", "upright", "rising"]
    assert found[found.probe == "saturation"].layer.unique().tolist() == ["act_0"]
    assert found[found.probe == "zero_weights"].layer.unique().tolist() == ["dense_0", "head"]
    figures = [figure for probe in PROBES.values() for figure in probe.gives]
    assert set(found.probe) == set(figures)
    assert (table[["run", "epoch", "step"]].diff().dropna().iloc[:, 0] >= 0).all()
    # The first gradient of all has none before it.
    missing = table[table.value.isna()]
    assert set(missing.probe) <= {"gradient_cosine", "layer_gradient_cosine"} and (missing.step == 0).all()


def of(table: pd.DataFrame, run: int, probe: str) -> pd.DataFrame:
    return table[(table.run == run) & (table.probe == probe)]


@pytest.mark.slow
def test_gradients_add_up_to_those_of_the_curves(cnn):
    """Measured at every step, the lengths of the layers give the mean length that the curves have."""
    result = cnn[1]
    table, curves = (pd.read_parquet(result.out / f"{name}.parquet") for name in ("probes", "curves"))
    for run in range(4):
        squares = of(table, run, "gradient_norm").assign(value=lambda t: t.value.astype(float) ** 2)
        whole = squares.groupby(["epoch", "step"]).value.sum() ** 0.5
        expected = curves[curves.run == run].set_index("epoch").grad_norm
        np.testing.assert_allclose(whole.groupby("epoch").mean(), expected, rtol=1e-5)


@pytest.mark.slow
def test_updates_lead_from_one_step_to_the_next(cnn):
    """|w(t+1)| is within |u(t)| of |w(t)|, and the norms of the last step are those of the network that was kept."""
    table = pd.read_parquet(cnn[1].out / "probes.parquet")
    lanes = trained(cnn[1].out)["lanes"]
    for layer in ("conv_0", "norm_1", "head"):
        own = table[(table.layer == layer) & (table.run == 2)].groupby("probe").value
        norms, moved, ratios = (own.get_group(f).to_numpy() for f in ("parameter_norm", "update_norm", "update_ratio"))
        assert (np.abs(np.diff(norms)) <= moved[:-1] * 1.001 + 1e-6).all() and (moved > 0).all()
        np.testing.assert_allclose(ratios, moved / norms, rtol=1e-5)
        last = np.sqrt(sum(np.sum(np.float64(leaf[2]) ** 2) for leaf in lanes["params"][layer].values()))
        assert abs(last - norms[-1]) <= moved[-1] * 1.001
    zeros = of(table, 2, "zero_weights")
    assert (zeros.value == 0).all() and zeros.layer.unique().tolist() == ["conv_0", "conv_1", "head"]


@pytest.mark.slow
def test_dead_units_are_those_of_the_network(cnn):
    result = cnn[1]
    table, task = pd.read_parquet(result.out / "probes.parquet"), load_task("synthetic", 8)
    for run in range(2):  # relu
        loaded = load_run(result.out, run)
        if result.runs.best_epoch[run] != 2:
            continue
        images = np.asarray(task.images)[task.splits["train"]]
        sites = record_forward(
            lambda loaded=loaded, images=images: loaded.model.apply(loaded.variables, images, False)
        ).sites
        expected = [1 - (np.asarray(site.y) > 0).any((0, 1, 2)).mean() for site in sites.values()]
        found = of(table, run, "dead_units").query("epoch == 2")
        np.testing.assert_allclose(found.value, expected, atol=1e-6)
    assert (result.runs.best_epoch[:2] == 2).any()


@pytest.mark.slow
def test_figures_of_an_epoch_are_those_of_the_library(probed, table):
    """On the images that were looked at, whichever order they are in."""
    task = load_task("synthetic", 8)
    run = next(run for run in range(8) if probed.runs.best_epoch[run] == 4)
    loaded = load_run(probed.out, run)
    order = np.random.default_rng(0).permutation(task.splits["train"])[:96].reshape(3, 32)
    net = Net(loaded.model, loaded.variables, cross_entropy, np.float32(0.1))
    found = features(net, Batches(task.images, task.labels, order))
    for name in ("effective_rank", "within_variance", "collapse"):
        own = of(table, run, name).query("epoch == 4").value.item()
        np.testing.assert_allclose(own, found[name], rtol=1e-3)
    logits = net.logits(task.images[order.ravel()])
    losses = cross_entropy(logits, task.labels[order.ravel()])
    own = of(table, run, "loss_running").query("epoch == 4").value.item()
    np.testing.assert_allclose(own, losses.mean(), rtol=1e-4)


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    base = dataclasses.replace(TINY, norm="none", activation="identity", optimizer="sgd", epochs=2)
    base = dataclasses.replace(base, probes=("first_bad", "gradients"), probe_every=1)
    sweep = Sweep(base, axes={"lr": [0.05, 1e6], "init_gain": [1.0, 1e5]}, seeds=1)
    return run_sweep(sweep, tmp_path_factory.mktemp("wild") / "out", devices=1)


@pytest.mark.slow
def test_where_a_run_went_wrong(wild):
    runs = wild.runs.set_index(["lr", "init_gain"])
    calm = runs.loc[(0.05, 1.0)]
    assert calm.status == "ok" and pd.isna(calm.first_bad_layer) and pd.isna(calm.first_bad_phase)
    bad = runs[runs.status == "diverged"]
    assert len(bad) >= 1 and bad.first_bad_step.notna().all()
    assert bad.first_bad_phase.isin(["update", "forward", "loss", "backward"]).all()
    assert bad[bad.first_bad_phase != "loss"].first_bad_layer.isin(["dense_0", "norm_0", "head"]).all()
    table = pd.read_parquet(wild.out / "probes.parquet")
    for run, step in bad[["run", "first_bad_step"]].itertuples(index=False):
        steps = of(table, run, "gradient_norm").step
        assert steps.max() == step  # measured up to and with the bad step
        values = of(table, run, "gradient_norm")
        assert np.isfinite(values[values.step < step].value).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probes": ("gradient",)}, "unknown probe 'gradient': valid are .* did you mean 'gradients'"),
        ({"probes": ("updates", "updates")}, r"'updates\+updates' has updates twice"),
        ({"probe_every": 0, "probes": ("updates",)}, "probe_every: '0'"),
        ({"probe_every": 5}, "probe_every: '5' would have no effect in any run: it is used only with probes grad"),
        ({"probe_every": 5, "probes": ("dead_units",)}, "would have no effect"),
        ({"probe_images": 0, "probes": ("updates",)}, "would have no effect in any run: it is used only with probes d"),
        ({"probe_epochs": 2, "probes": ("first_bad",)}, "would have no effect"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        check_sweep(Sweep(dataclasses.replace(Recipe(), **changes), seeds=1))


def test_a_list_of_names_is_written_with_pluses():
    for text, names in {
        "none": (),
        "updates": ("updates",),
        "noise_scale+sharpness": ("noise_scale", "sharpness"),
    }.items():
        assert parse_value("probes", text) == coerce("probes", list(names)) == names
        assert format_value(names) == format_value(list(names)) == text


@pytest.mark.slow
def test_a_slope_that_only_neighbours_learn_is_no_layer_of_a_run(tmp_path):
    base = dataclasses.replace(TINY, epochs=1, probes=("gradients",))
    both = run_sweep(Sweep(base, axes={"activation": ["relu", "prelu"]}, seeds=1), tmp_path / "both", devices=1)
    table = pd.read_parquet(both.out / "probes.parquet")
    assert of(table, 0, "gradient_norm").layer.tolist() == ["dense_0", "norm_0", "head"]
    learned = of(table, 1, "gradient_norm")
    assert learned.layer.tolist() == ["dense_0", "norm_0", "act_0", "head"]
    assert learned["index"].tolist() == [0, 1, 2, 3] and of(table, 0, "gradient_rms")["index"].tolist() == [0, 1, 2]
    assert (learned.value > 0).all()


def test_probes_may_be_an_axis():
    sweep = Sweep(TINY, axes={"probes": [(), ("gradients",), ["first_bad"]]}, seeds=1)
    assert [arm["probes"] for arm in sweep.arms()] == [(), ("gradients",), ("first_bad",)]
    assert [run.arm for run in sweep.runs()] == ["probes=none", "probes=gradients", "probes=first_bad"]
    with pytest.raises(UsageError, match=r"probes: 'gradients' is not names joined with \+"):
        Sweep(TINY, axes={"probes": ["gradients"]}, seeds=1)
