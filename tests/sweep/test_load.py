"""A trained run comes back as a plain Linen model that says what it said in the sweep."""

import dataclasses
import json
import shutil
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import predict
from fishnet.data import load_task
from fishnet.data.task import make_task
from fishnet.data.tasks import TASKS, Source
from fishnet.errors import UsageError, UserError
from fishnet.models import CNN, MLP
from fishnet.nn.norm_formulas import KINDS
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.store.checkpoint import Checkpoints, identity
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file
from tests.sweep.conftest import TINY, trained


@pytest.fixture(scope="module")
def every_norm(tmp_path_factory):
    """A CNN with every norm, everywhere and behind one layer only, with two activations; and its images."""
    recipe = Recipe(
        task="synthetic", image_size=8, model="cnn", widths=(8, 8), batch_size=32, epochs=2, dropout=0.2, lr=0.1
    )
    axes = {
        "activation": ["prelu", "tanh"],
        "norm": [k for k in KINDS if k != "layer_channel"],
        "norm_layers": ["all", (2,)],
    }
    result = run_sweep(Sweep(recipe, axes=axes, seeds=1), tmp_path_factory.mktemp("norms") / "out", devices=1)
    return result, load_task("synthetic", 8)


def probabilities(out, run: int, images) -> np.ndarray:
    loaded = load_run(out, run)
    return np.asarray(jax.nn.softmax(loaded.model.apply(loaded.variables, images, train=False)))


def recorded(out, run: int) -> pd.DataFrame:
    table = pd.read_parquet(out / "predictions.parquet")
    return table[table["run"] == run]


# Without those that are slow, each norm is still in both places and with both activations.
RUNS = [
    run if (run // 16 + run // 2 + run) % 2 == 0 else pytest.param(run, marks=pytest.mark.slow) for run in range(32)
]


@pytest.mark.parametrize("run", RUNS)
def test_a_loaded_network_gives_the_probabilities_of_the_sweep(every_norm, run):
    result, task = every_norm
    rows = recorded(result.out, run)
    expected = rows[[f"p_{name}" for name in task.classes]].to_numpy()
    images = task.images[rows["example"]]
    found = probabilities(result.out, run, images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3, "all images look alike to this network: nothing was compared"
    np.testing.assert_allclose(probabilities(result.out, run, images.astype(np.float32)), found, atol=1e-6)


def test_a_sweep_of_an_earlier_spelling_is_read(every_norm, tmp_path):
    out = shutil.copytree(every_norm[0].out, tmp_path / "old")
    content = read_sweep_file(out)
    run = every_norm[0].runs["norm"].eq("weight_standardized").idxmax()
    content["recipe"]["norm"] = "weight_standardised"
    content["axes"]["norm"] = [name.replace("standardized", "standardised") for name in content["axes"]["norm"]]
    assert "weight_standardised" in content["axes"]["norm"]
    write_sweep_file(out, content)
    assert load_run(out, run).recipe.norm == "weight_standardized"


def test_a_loaded_network_is_plain(every_norm):
    result, task = every_norm
    for run, row in enumerate(result.runs.itertuples()):
        loaded = load_run(result.out, run)
        assert isinstance(loaded.model, CNN)
        assert loaded.classes == task.classes
        assert (loaded.recipe.norm, loaded.recipe.activation) == (row.norm, row.activation)
        assert sum(leaf.size for leaf in jax.tree.leaves(loaded.variables["params"])) == row.params
        collections = {"params", "constants"} | ({"batch_stats"} if row.norm == "batch" else set())
        assert set(loaded.variables) == collections
        np.testing.assert_array_equal(loaded.variables["constants"]["standardize"]["mean"], task.mean)


def test_a_loaded_network_can_be_trained_on(every_norm):
    """Its variables are those that its own init would make: nothing of the sweep clings to it."""
    result, task = every_norm
    loaded = load_run(result.out, np.int64(2))
    images = jnp.asarray(task.images[:4])
    fresh = jax.eval_shape(lambda i: loaded.model.init(jax.random.key(0), i, train=False), images)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), dict(tree)) for tree in (fresh, loaded.variables)]
    assert shapes[0] == shapes[1]

    @jax.jit
    def step(variables):
        rngs = {"dropout": jax.random.key(1)}
        return loaded.model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])

    logits, after = step(loaded.variables)
    assert isinstance(loaded.model, nn.Module)
    assert logits.shape == (4, 4)
    before = loaded.variables["batch_stats"]["norm_0"]["mean"]
    assert not np.array_equal(after["batch_stats"]["norm_0"]["mean"], before)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A sweep trained on a folder of photographs that is not there any more, and the photographs in memory."""
    synthetic = load_task("synthetic", 8)
    fish = ["crab", "ray", "eel", "cod"]
    task = make_task("folder:/gone", 255 - synthetic.images, synthetic.labels, synthetic.splits, fish)
    sweep = Sweep(dataclasses.replace(TINY, task=task.name), axes={"lr": ["auto", 0.1]}, seeds=2)
    out = tmp_path_factory.mktemp("photos") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "folder", Source(lambda request: task, (8,), 8))
        run_sweep(sweep, out, devices=1)
    return out, task


@pytest.mark.slow
def test_a_run_is_loaded_after_its_photographs_are_gone(photographs):
    out, task = photographs
    with pytest.raises(UserError):
        load_task(task.name, 8)
    loaded = load_run(out, 1)
    assert loaded.classes == ("crab", "ray", "eel", "cod")
    assert isinstance(loaded.model, MLP)
    rows = recorded(out, 1)
    expected = rows[[f"p_{name}" for name in loaded.classes]].to_numpy()
    np.testing.assert_allclose(probabilities(out, 1, task.images[rows["example"]]), expected, atol=1e-5)


def test_what_cannot_be_loaded_is_named(tiny, tmp_path):
    out = shutil.copytree(tiny[1].out, tmp_path / "out")
    for run in (-1, 4):
        with pytest.raises(UsageError, match=f"run {run}: .* has runs 0 to 3"):
            load_run(out, run)
    with pytest.raises(UserError, match=r"holds no sweep: there is no sweep\.json in it"):
        load_run(tmp_path / "nowhere")
    shutil.rmtree(out / "checkpoints")
    lost = r"the networks of this finished sweep are lost: .*cohort_0 is missing or empty \(its tables are whole\); .* "
    with pytest.raises(UserError, match=lost + "train the sweep again into another folder"):
        load_run(out)
    (out / "curves.parquet").unlink()
    with pytest.raises(UserError, match=r"cohort_0 is missing or empty; .* train the sweep again into another folder"):
        load_run(out)
    write_sweep_file(out, read_sweep_file(out) | {"finished": None})
    with pytest.raises(UserError, match="cohort_0 holds no checkpoint yet"):
        load_run(out)


def spoil(out) -> None:
    """Leaves no checkpoint of a sweep that can be read."""
    for path in (out / "checkpoints").glob("cohort_*/*/digest/metadata"):
        path.write_text("")


def test_checkpoints_of_which_none_can_be_read_are_lost_networks(tiny, tmp_path, capsys):
    """A finished sweep is not begun again, so that no folder is to be removed; and the error alone is shown."""
    out = shutil.copytree(tiny[1].out, tmp_path / "out")
    spoil(out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=r"are lost: .*cohort_0 has no checkpoint that can be read .its tables are"):
            load_run(out)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    assert predict.main(["--run", str(out), "--images", str(tmp_path / "a.png")]) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: the networks of this finished sweep are lost") and text.count("\n") == 1
    assert run_sweep(tiny[0], out).finished


def test_without_table_and_checkpoints_the_advice_leads_on(tiny, tmp_path):
    out = shutil.copytree(tiny[1].out, tmp_path / "out")
    spoil(out)
    (out / "curves.parquet").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="cohort_0 can be read; remove that folder to start this part"):
            run_sweep(tiny[0], out, devices=1)
    shutil.rmtree(out / "checkpoints" / "cohort_0")
    run_sweep(tiny[0], out, devices=1)
    assert load_run(out).run == 0


def test_a_checkpoint_that_was_passed_over_is_told_to_the_caller(stopped, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "out")
    newest = max((out / "checkpoints" / "cohort_0").iterdir(), key=lambda path: int(path.name))
    (newest / "digest" / "metadata").write_text("")
    with pytest.warns(UserWarning, match=f"checkpoint {newest} is damaged and was passed over") as caught:
        load_run(out)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_run_without_a_selected_epoch_is_refused(stopped, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "out")
    of = identity(read_sweep_file(out)["spec_hash"], "cohort_0")
    checkpoints = Checkpoints(out / "checkpoints" / "cohort_0", of)
    tree = checkpoints.restore(warn=pytest.fail)
    tree["history"]["best_epoch"] = np.array([1, 0, 1, 1], np.int32)
    checkpoints.save(tree)
    checkpoints.finish()
    load_run(out, 0)
    with pytest.raises(UserError, match=r"run 1 of .* has no selected epoch"):
        load_run(out, 1)


def test_only_the_functions_of_the_run_itself_are_needed(tiny, tmp_path):
    """A sweep of an activation and an optimizer of the user's own, seen by a process that has neither."""
    out = shutil.copytree(tiny[1].out, tmp_path / "out")
    content = read_sweep_file(out)
    content["axes"] = {"activation": ["relu", "mine"], "optimizer": ["momentum", "mine"]}
    content["seeds"] = [0]
    write_sweep_file(out, json.loads(json.dumps(content)))
    assert load_run(out, 0).recipe.activation == "relu"
    with pytest.raises(UserError, match="trained with optimizer 'mine', a function of the user's own"):
        load_run(out, 1)
    with pytest.raises(UserError, match="trained with activation 'mine', a function of the user's own"):
        load_run(out, 2)


@pytest.fixture(scope="module")
def by_statistics(tmp_path_factory):
    """The same training, evaluated with each kind of statistics."""
    sweep = Sweep(TINY, axes={"eval_statistics": ["running", "batch", "precise"]}, seeds=1)
    return run_sweep(sweep, tmp_path_factory.mktemp("statistics") / "out", devices=1)


@pytest.mark.parametrize("run", range(3))
@pytest.mark.slow
def test_a_network_is_loaded_with_the_statistics_it_was_evaluated_with(by_statistics, run):
    task = load_task("synthetic", 8)
    rows = recorded(by_statistics.out, run).query("split == 'val'")
    expected = rows[[f"p_{name}" for name in task.classes]].to_numpy()
    # The validation split is one chunk, so its statistics are those of the batch here.
    np.testing.assert_allclose(probabilities(by_statistics.out, run, task.images[rows["example"]]), expected, atol=1e-5)


@pytest.mark.slow
def test_the_statistics_change_the_evaluation_only(by_statistics):
    curves = pd.read_parquet(by_statistics.out / "curves.parquet")
    train, val = (curves.pivot(index="epoch", columns="run", values=f"{split}_loss") for split in ("train", "val"))
    assert (train[0] == train[1]).all() and (train[0] == train[2]).all()
    assert all((val[a] != val[b]).all() for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.slow
def test_precise_statistics_of_trained_weights_are_what_probes_see(by_statistics):
    lanes = trained(by_statistics.out)["lanes"]
    seen, precise = lanes["statistics"]["norm_0"]["mean"], lanes["estimated"]["norm_0"]["mean"]
    np.testing.assert_array_equal(seen, precise)
    assert (seen[2] != seen[0]).all()


@pytest.mark.slow
def test_precise_statistics_are_those_of_the_training_images(by_statistics):
    """Ahead of the first norm every batch is on the same scale: there they are the moments of all images."""
    task, loaded = load_task("synthetic", 8), load_run(by_statistics.out, 2)
    pixels = task.images[task.splits["train"]].astype(np.float64)
    standard = loaded.variables["constants"]["standardize"]
    x = ((pixels - np.asarray(standard["mean"])) / np.asarray(standard["std"])).reshape(len(pixels), -1)
    outputs = x @ np.float64(loaded.variables["params"]["dense_0"]["kernel"])
    found = loaded.variables["batch_stats"]["norm_0"]
    np.testing.assert_allclose(found["mean"], outputs.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["var"], outputs.var(0), rtol=1e-4)
