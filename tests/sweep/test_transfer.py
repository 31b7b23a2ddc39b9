"""Transfer from run to run: trunks, frozen layers, layers that begin to learn later."""

import dataclasses
import itertools
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import pandas as pd
import pytest

from fishnet.data import load_task
from fishnet.errors import UsageError, UserError
from fishnet.host.interrupt import Interrupt
from fishnet.models import MODELS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.plan.layout import make_layouts
from fishnet.sweep.program.build import plain_model
from fishnet.sweep.program.state import Lane, epoch_order
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.spec.trunk import parse_trunk
from tests.sweep.conftest import TINY, contents, trained

ONE = dataclasses.replace(TINY, epochs=1)
STILL = 1e-12  # a learning rate at which nothing moves that float32 could show


class Notes(Display):
    """Keeps the notes of the plan."""

    def plan(self, view) -> None:
        self.notes = view["notes"]


def leaves(tree) -> dict[str, np.ndarray]:
    return {"/".join(k.key for k in path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="module")
def moved(tiny, tmp_path_factory):
    """Runs that hardly move: from their own initial weights, and from two trunks of the `tiny` sweep."""
    trunks = ["none", *(f"{tiny[1].out}:{run}" for run in (0, 3))]
    sweep = Sweep(dataclasses.replace(ONE, lr=STILL, ema=0.5), axes={"trunk": trunks}, seeds=1)
    return sweep, run_sweep(sweep, tmp_path_factory.mktemp("moved") / "out", devices=1)


@pytest.mark.parametrize(("run", "source"), [(1, 0), (2, 3)])
def test_a_run_begins_with_the_trunk_of_another_and_a_new_head(tiny, moved, run, source):
    fresh, begun, theirs = (
        leaves(load_run(*of).variables["params"])
        for of in ((moved[1].out, 0), (moved[1].out, run), (tiny[1].out, source))
    )
    for name, value in begun.items():
        np.testing.assert_allclose(
            value, (fresh if name.startswith("head") else theirs)[name], rtol=1e-6, atol=1e-7, err_msg=name
        )
    assert any((begun[name] != fresh[name]).any() for name in begun)


def test_a_trunk_is_part_of_what_a_sweep_is(tiny, moved, tmp_path):
    sweep, result = moved
    before = contents(result.out)
    assert run_sweep(sweep, result.out).finished
    assert contents(result.out) == before


def test_trunks_that_do_not_fit_are_refused(tiny, tmp_path):
    out = tiny[1].out
    cases = [
        ({"trunk": f"{out}:9"}, UsageError, "trunk: run 9: .* has runs 0 to 3"),
        ({"trunk": f"{tmp_path}/nothing:0"}, UserError, "trunk: .*nothing holds no sweep"),
        ({"trunk": str(out)}, UsageError, "is not FOLDER:RUN"),
        (
            {"trunk": f"{out}:0", "widths": (16,)},
            UsageError,
            "dense_0/kernel has shape \\(192, 8\\) in the pretrained network and \\(192, 16\\)",
        ),
        ({"trunk": f"{out}:0", "widths": (8, 8)}, UsageError, "has no dense_1/kernel, which the classifier"),
    ]
    for changes, error, message in cases:
        with pytest.raises(error, match=message):
            run_sweep(Sweep(dataclasses.replace(ONE, **changes), seeds=1), tmp_path / "out", devices=1)
        assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_trunk_without_norm_serves_a_network_with_one(tiny, tmp_path):
    """What the other network did not have stays as it is initialised."""
    recipe = dataclasses.replace(ONE, trunk=f"{tiny[1].out}:0", norm="none", lr=STILL)
    begun = leaves(load_run(run_sweep(Sweep(recipe, seeds=1), tmp_path / "out", devices=1).out).variables["params"])
    theirs = leaves(load_run(tiny[1].out).variables["params"])
    np.testing.assert_allclose(begun["dense_0/kernel"], theirs["dense_0/kernel"], rtol=1e-6)
    assert "norm_0/scale" not in begun and "norm_0/scale" in theirs


@pytest.mark.parametrize("freeze", ["input_norm", "norm_0", "trunk"])
@pytest.mark.slow
def test_a_frozen_norm_that_the_trunk_does_not_have_is_noted(tiny, tmp_path, freeze):
    """The trunk has a batch norm in its hidden layer and none of its images."""
    recipe = dataclasses.replace(ONE, trunk=f"{tiny[1].out}:0", input_norm="batch", freeze=freeze)
    shown = Notes()
    out = run_sweep(Sweep(recipe, seeds=1), tmp_path / "out", devices=1, display=shown).out
    statistics = load_run(out).variables["batch_stats"]
    still = [name for name, found in statistics.items() if not np.any(found["mean"]) and np.all(found["var"] == 1)]
    assert still == ([] if freeze == "norm_0" else ["input_norm"])
    notes = [note for note in shown.notes if "statistics of mean 0 and variance 1" in note]
    assert ["(input_norm)" in note for note in notes] == [True] * len(still)


HARSH = {"weight_decay": 0.1, "max_norm": 0.1, "l1": 0.1, "l2": 0.1, "clip": 0.1, "momentum": 0.9}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Runs of which parts are frozen, all with what would move a weight besides its gradient."""
    base = dataclasses.replace(ONE, widths=(8, 8), **HARSH)
    axes = {"freeze": ["trunk", "norm_0/*+norm_1+head"]}
    shown = Notes()
    out = tmp_path_factory.mktemp("frozen") / "out"
    result = run_sweep(Sweep(base, axes=axes, seeds=1), out, devices=1, display=shown)
    assert [note for note in shown.notes if "statistics of mean 0 and variance 1" in note]
    return result


@pytest.mark.parametrize(
    ("run", "still", "held"),
    [
        (0, {"dense_0/kernel", "norm_0/scale", "norm_0/bias", "dense_1/kernel", "norm_1/scale", "norm_1/bias"}, "01"),
        (1, {"norm_0/scale", "norm_0/bias", "norm_1/scale", "norm_1/bias", "head/kernel", "head/bias"}, "1"),
    ],
)
@pytest.mark.slow
def test_a_frozen_leaf_has_an_exactly_zero_update(frozen, gradual, run, still, held):
    """And a frozen layer keeps its statistics, but not one of which the parameters alone are frozen."""
    lanes = trained(frozen.out, run)["lanes"]
    begin, end = gradual[0], leaves(lanes["params"]) | leaves(lanes["statistics"])
    statistics = {f"norm_{site}/{name}" for site in held for name in ("mean", "var")}
    assert {name for name in end if np.array_equal(end[name][0], begin[name])} == still | statistics


@pytest.fixture(scope="module")
def on_a_trunk(tiny, tmp_path_factory):
    """Runs of every optimizer with a frozen trunk, with all that moves a weight besides its gradient."""
    recipe = dataclasses.replace(ONE, trunk=f"{tiny[1].out}:0", freeze="trunk", ema=0.9, **HARSH)
    optimizers = [name for name, of in OPTIMIZERS.items() if of.evaluate is None]
    sweep = Sweep(recipe, axes={"optimizer": optimizers}, seeds=1)
    return run_sweep(sweep, tmp_path_factory.mktemp("on_a_trunk") / "out", devices=1)


@pytest.mark.slow
def test_a_frozen_trunk_is_kept_bit_for_bit_by_every_optimizer(tiny, on_a_trunk):
    """Its parameters, the average of them, and its statistics, also where these are estimated anew."""
    theirs = load_run(tiny[1].out).variables
    for run in on_a_trunk.runs["run"]:
        ours = load_run(on_a_trunk.out, run).variables
        for name in ("dense_0", "norm_0"):
            jax.tree.map(np.testing.assert_array_equal, ours["params"][name], theirs["params"][name])
        jax.tree.map(np.testing.assert_array_equal, ours["batch_stats"], theirs["batch_stats"])
        assert (ours["params"]["head"]["kernel"] != theirs["params"]["head"]["kernel"]).all()


@pytest.mark.slow
def test_a_frozen_batch_norm_trains_with_the_statistics_that_it_keeps(tiny, tmp_path):
    """With a head that hardly moves the training loss is that of a plain network in evaluation."""
    recipe = dataclasses.replace(ONE, trunk=f"{tiny[1].out}:0", freeze="trunk", lr=STILL)
    result = run_sweep(Sweep(recipe, seeds=1), tmp_path / "out", devices=1)
    loaded, task = load_run(result.out), load_task("synthetic", 8)
    train = task.splits["train"]
    logits = loaded.model.apply(loaded.variables, task.images[train], train=False)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, task.labels[train]).mean()
    found = pd.read_parquet(result.out / "curves.parquet")["train_loss"][0]
    assert found == pytest.approx(float(expected), rel=1e-5)
    as_trained = loaded.model.clone(frozen_norms={}, batch_statistics=True)
    others = as_trained.apply(loaded.variables, task.images[train], train=False)
    assert abs(found - optax.softmax_cross_entropy_with_integer_labels(others, task.labels[train]).mean()) > 1e-3


class OneRun:
    """The compiled program of one run, called by hand."""

    def __init__(self, recipe: Recipe) -> None:
        (run,) = Sweep(recipe, seeds=1).runs()
        run = dataclasses.replace(run, recipe=resolve(recipe))
        devices, self.task = jax.devices()[:1], load_task("synthetic", 8)
        (self.layout,) = make_layouts([run], {("synthetic", 8): self.task}, devices)
        self.cohort, self.program = self.layout.cohort, self.layout.bind(devices)
        self.program.compile(["init", "train"], Interrupt())
        (self.lanes,) = self.program.init()

    def train(self, start: int, stop: int) -> None:
        """Makes the steps from `start` to `stop` of an epoch."""
        lr_scales = [np.ones(self.program.lanes, np.float32)]
        (self.lanes,) = self.program.train([self.lanes], lr_scales, self.layout.work([0]), start, stop)

    def state(self) -> dict[str, np.ndarray]:
        """Parameters and statistics, and the velocity under names of its own."""
        velocity = {f"velocity/{name}": leaf for name, leaf in leaves(self.lanes.slots.trees[0]).items()}
        found = leaves(self.lanes.params) | leaves(self.lanes.statistics) | velocity
        return {name: leaf[0].copy() for name, leaf in found.items()}


@pytest.fixture(scope="module")
def gradual() -> list[dict[str, np.ndarray]]:
    """The states of a run with two blocks of layers, from the start of each of its four epochs."""
    run = OneRun(dataclasses.replace(TINY, widths=(8, 8), epochs=4, unfreeze=(1, 3), **HARSH))
    found, per_epoch = [run.state()], run.cohort.config.steps_per_epoch
    for epoch in range(4):
        run.train(epoch * per_epoch, (epoch + 1) * per_epoch)
        found.append(run.state())
    return found


@pytest.mark.slow
def test_sam_climbs_in_the_layers_that_learn():
    """A step with a frozen hidden layer: the steepest point is looked for in the head alone."""
    lr, rho = 0.1, 0.5
    recipe = dataclasses.replace(TINY, optimizer="sam", unfreeze=(1,), lr=lr, rho=rho, momentum=0.0)
    run = OneRun(recipe)
    traced, data = jax.tree.map(lambda leaf: leaf[0], run.program.traced[0]), run.program.data[0]
    seen = epoch_order(Lane(run.cohort.config, traced.ids, traced.hparams, data), 0)[: recipe.batch_size]
    params, statistics = jax.tree.map(lambda leaf: leaf[0].copy(), (run.lanes.params, run.lanes.statistics))
    model = plain_model(resolve(recipe), run.task.classes, 1)
    run.train(0, 1)

    def loss(head):
        variables = {"params": params | {"head": head}, "batch_stats": statistics}
        constant = {"constants": {"standardize": {"mean": data.mean, "std": data.std}}}
        logits = model.apply(variables | constant, data.images[seen], train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, data.labels[seen]).mean()

    uphill = jax.grad(loss)(params["head"])
    length = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(uphill)))
    slope = jax.grad(loss)(jax.tree.map(lambda p, g: p + rho * g / length, params["head"], uphill))
    expected = jax.tree.map(lambda p, g: p - lr * g, params["head"], slope)
    found = jax.tree.map(lambda leaf: leaf[0], run.lanes.params["head"])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)


@pytest.mark.slow
def test_layers_begin_to_learn_block_by_block(gradual):
    """Two epochs at 1 and 3: the head alone, then the upper layer, then the lower one too.

    With their statistics; and until then weight decay gathers in no velocity.
    """
    moved = [{name for name in a if (a[name] != b[name]).any()} for a, b in itertools.pairwise(gradual)]
    head, upper, lower = ({name for name in gradual[0] if part in name} for part in ("head/", "_1/", "_0/"))
    assert moved == [head, head | upper, head | upper, head | upper | lower]


def test_patterns_that_match_nothing_are_refused(tmp_path):
    for freeze, message in [("conv_0", "'conv_0' matches no parameter"), ("trunk+head", "freezes every parameter")]:
        with pytest.raises(UsageError, match=message):
            run_sweep(Sweep(dataclasses.replace(ONE, freeze=freeze), seeds=1), tmp_path / "out", devices=1)
    with pytest.raises(UsageError, match="2 blocks of layers, but the network has 1"):
        run_sweep(Sweep(dataclasses.replace(TINY, unfreeze=(1, 2)), seeds=1), tmp_path / "out", devices=1)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_is_what_the_trunk_does_not_have(name):
    model = MODELS[name](classes=3, widths=(8, 8), **({"experts": (1,)} if name == "hybrid" else {}))
    images = np.zeros((1, 8, 8, 1), np.uint8)
    whole, trunk = (
        set(jax.eval_shape(lambda m=m: m.init(jax.random.key(0), images, False))["params"])
        for m in (model, model.clone(headless=True))
    )
    assert whole - trunk == whole & set(MODELS[name].head_modules(whole))


def test_several_trunks_are_dealt_to_the_seeds_in_turn(tiny, tmp_path):
    """Seed by seed the same as with that one trunk."""
    assert [parse_trunk("a:b:4-6", seed) for seed in (0, 1, 2, 3, 7)] == [(Path("a:b"), run) for run in (4, 5, 6, 4, 5)]
    assert parse_trunk("runs/a-1:3", 9) == (Path("runs/a-1"), 3)
    for wrong in ("a:3-", "a:3-2", "a:-2", "a:1-2-3", "a:x"):
        with pytest.raises(UsageError, match="FOLDER:FIRST-LAST"):
            parse_trunk(wrong)
    folder = tiny[1].out
    dealt = run_sweep(Sweep(dataclasses.replace(ONE, trunk=f"{folder}:0-1"), seeds=3), tmp_path / "dealt").runs
    one = run_sweep(Sweep(dataclasses.replace(ONE, trunk=f"{folder}:1"), seeds=[1]), tmp_path / "one").runs
    np.testing.assert_array_equal(dealt["val_loss"][dealt["seed"] == 1], one["val_loss"])
    assert load_run(tmp_path / "dealt", run=2).recipe.trunk == f"{folder}:0-1"
