"""Components of the user's own: another one is another sweep, and what is trained is what they are now."""

import dataclasses
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from fishnet.data import DataOptions, load_task
from fishnet.errors import UsageError, UserError
from fishnet.losses import LOSSES
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.conv_implementations import LOWERINGS
from fishnet.nn.norms import NORMS
from fishnet.optim.optimizers import OPTIMIZERS, Optimizer
from fishnet.source_hash import digest as source_hash
from fishnet.source_hash.digest import hash_each
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.plan.past_times import program_key
from fishnet.sweep.plan.user_components import COMPONENTS, functions_of, user_functions
from fishnet.sweep.program.program import get_functions
from fishnet.sweep.run.inputs import describe, spec_hash
from fishnet.sweep.spec.validation import check_recipe

TINY = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=64, epochs=1)
SCALE = 1.0


def reads_a_global(x):
    return jnp.tanh(x) * SCALE


@jax.jit
def jitted(x):
    return jnp.sin(x) * SCALE


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return jnp.maximum(x, 0) * self.scale


@pytest.mark.slow
def test_what_is_trained_is_what_a_component_reads_now(monkeypatch, tmp_path):
    """The test loss that a sweep writes is that of the plain Flax network with the functions as they are now."""
    instance = Scaled(1.0)
    own = {"global": reads_a_global, "jitted": jitted, "instance": instance}
    for name, function in own.items():
        monkeypatch.setitem(ACTIVATIONS, name, function)
    sweep = Sweep(TINY, axes={"activation": [*own, "elu"]}, seeds=1)
    first = run_sweep(sweep, tmp_path / "first", devices=1).runs
    monkeypatch.setitem(globals(), "SCALE", 0.25)
    instance.scale = 0.25
    monkeypatch.setitem(ACTIVATIONS, "elu", lambda x: jnp.tanh(x) * 0.5)
    second = run_sweep(sweep, tmp_path / "second", devices=1).runs
    task = load_task("synthetic", 8)
    test = task.splits["test"]
    jax.clear_caches()
    for run in range(4):
        loaded = load_run(tmp_path / "second", run)
        logits = loaded.model.apply(loaded.variables, task.images[test], train=False)
        loss = -log_softmax(np.asarray(logits, np.float64), -1)[np.arange(len(test)), task.labels[test]].mean()
        assert second["test_loss"][run] == pytest.approx(loss, rel=1e-4)
        assert abs(second["test_loss"][run] - first["test_loss"][run]) > 1e-3
    with pytest.raises(UserError, match=r"holds another sweep .*function activation=global .*reads_a_global"):
        run_sweep(sweep, tmp_path / "first", devices=1)
    with pytest.raises(UserError, match=r"was trained with .*reads_a_global .*, and here it is .*reads_a_global"):
        load_run(tmp_path / "first", 0)
    with pytest.raises(UserError, match=r"was trained with fishnet's own activation=elu, and here it is .*lambda"):
        load_run(tmp_path / "first", 3)


def test_another_optimizer_of_the_same_name_is_another_sweep(monkeypatch):
    sweep = Sweep(dataclasses.replace(TINY, optimizer="mine"), seeds=1)
    hashes = []
    for rule in (optax.identity, optax.identity, optax.set_to_zero):
        own = Optimizer(lambda momentum, decay, rule=rule: rule(), default_lr=0.1)
        monkeypatch.setitem(OPTIMIZERS, "mine", own)
        hashes.append(describe(sweep, DataOptions())["spec_hash"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_how_fast_a_program_ran_is_not_told_of_one_with_another_component(monkeypatch):
    recipe, keys = dataclasses.replace(TINY, activation="mine"), []
    for scale in (1, 1, 2):
        monkeypatch.setitem(ACTIVATIONS, "mine", Scaled(scale))
        keys.append(program_key("a shape", hash_each(functions_of([recipe], [])), jax.devices()))
    assert keys[0] == keys[1] != keys[2] != program_key("a shape", {}, jax.devices())


@pytest.mark.parametrize("field", COMPONENTS)
def test_a_replaced_entry_of_each_table_belongs_to_the_sweep(field, monkeypatch):
    table = COMPONENTS[field]
    name = next(reversed(table))
    value = (name,) if field == "probes" else name
    sweep = Sweep(dataclasses.replace(Recipe(), **{field: value}), seeds=1)
    assert user_functions(sweep) == {}
    other = next(iter(table.values()))
    monkeypatch.setitem(table, name, other)
    assert user_functions(sweep) == {f"{field}={name}": other}
    assert sweep.hash(hash_each(user_functions(sweep))) != sweep.hash()


def test_the_augmentation_that_auto_stands_for_belongs_to_the_sweep(monkeypatch):
    monkeypatch.setitem(COMPONENTS["augment"], "flip_shift", lambda key, images: images)
    assert set(user_functions(Sweep(Recipe(), seeds=1))) == {"augment=flip_shift"}


def test_components_that_no_run_names_do_not_belong_to_the_sweep(monkeypatch):
    before = describe(Sweep(TINY, seeds=1), DataOptions())["spec_hash"]
    monkeypatch.setitem(ACTIVATIONS, "unused", reads_a_global)
    assert describe(Sweep(TINY, seeds=1), DataOptions())["spec_hash"] == before


@pytest.mark.parametrize(("field", "table", "name"), [("norm", NORMS, "batch"), ("loss", LOSSES, "cross_entropy")])
def test_a_replaced_formula_is_refused(field, table, name, monkeypatch):
    monkeypatch.setitem(table, name, next(reversed(table.values())))
    with pytest.raises(UsageError, match=f"{field} '{name}' was replaced in its table"):
        check_recipe(dataclasses.replace(TINY, **{field: name}))


def scaled_convolution(lhs, rhs, *arguments, **options):
    return jax.lax.conv_general_dilated(lhs, rhs * SCALE, *arguments, **options)


CONVOLVED = dataclasses.replace(TINY, model="cnn")


@pytest.mark.parametrize(
    ("name", "asked"),
    [("mine", {"lowering": "mine"}), ("mine", {"lane_width": "auto"}), ("winograd", {}), ("native", {})],
)
def test_a_lowering_of_the_users_own_belongs_to_the_sweep_that_may_use_it(name, asked, monkeypatch):
    sweep = Sweep(CONVOLVED, seeds=1)
    plain = spec_hash(sweep, DataOptions(), **asked)
    monkeypatch.setitem(LOWERINGS, name, scaled_convolution)
    assert user_functions(sweep, **asked) == {f"lowering={name}": scaled_convolution}
    hashes = {plain, spec_hash(sweep, DataOptions(), **asked)}
    monkeypatch.setitem(globals(), "SCALE", 0.5)
    assert len(hashes | {spec_hash(sweep, DataOptions(), **asked)}) == 3
    assert user_functions(sweep, "gemm") == user_functions(Sweep(TINY, seeds=1)) == {}


@pytest.mark.slow
def test_another_lowering_of_the_same_name_is_not_finished_before(monkeypatch, tmp_path):
    monkeypatch.setitem(LOWERINGS, "mine", scaled_convolution)
    sweep = Sweep(CONVOLVED, seeds=1)
    run_sweep(sweep, tmp_path / "out", lowering="mine", devices=1)
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert found["functions"].keys() == {"lowering=mine"}
    assert run_sweep(sweep, tmp_path / "out", lowering="mine", devices=1).finished
    monkeypatch.setitem(globals(), "SCALE", 0.5)
    with pytest.raises(UserError, match=r"holds another sweep .*function lowering=mine .*scaled_convolution"):
        run_sweep(sweep, tmp_path / "out", lowering="mine", devices=1)


@pytest.mark.slow
def test_a_component_that_changes_its_own_state_is_told_of(monkeypatch, tmp_path):
    """It fills a dictionary while it is traced: in the same process it then looks like another component."""
    seen = {}

    def memoizes(x):
        seen[x.shape] = True
        return jnp.tanh(x)

    monkeypatch.setitem(ACTIVATIONS, "mine", memoizes)
    sweep = Sweep(dataclasses.replace(TINY, activation="mine"), seeds=1)
    with pytest.warns(UserWarning, match="component activation=mine changes its own state.*__fishnet_version__"):
        run_sweep(sweep, tmp_path / "out", devices=1)
    advice = "a component that changes its own state .* attribute __fishnet_version__"
    with pytest.raises(UserError, match=rf"holds another sweep .*function activation=mine .*{advice}"):
        run_sweep(sweep, tmp_path / "out", devices=1)
    with pytest.raises(UserError, match=f"was trained with .*{advice}"):
        load_run(tmp_path / "out", 0)
    memoizes.__fishnet_version__ = "1"
    with warnings.catch_warnings(action="error"):
        run_sweep(sweep, tmp_path / "versioned", devices=1)
    assert run_sweep(sweep, tmp_path / "versioned", devices=1).finished
    assert load_run(tmp_path / "versioned", 0).recipe.activation == "mine"


def test_components_that_no_run_names_leave_jax_caches_alone(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "unused", Scaled(3.0))
    cleared = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    get_functions(dataclasses.replace(TINY, seed=77), hash_each(functions_of([TINY], ["native"])))
    assert not cleared
    get_functions(
        dataclasses.replace(TINY, seed=77),
        hash_each(functions_of([dataclasses.replace(TINY, activation="unused")], ["native"])),
    )
    assert cleared


@pytest.mark.slow
def test_components_are_hashed_once_before_and_once_after_training(monkeypatch, tmp_path):
    """And once for each program, of those that its runs name."""
    monkeypatch.setitem(ACTIVATIONS, "mine", Scaled(4.0))
    hashed = []
    original = source_hash.source_hash
    monkeypatch.setattr(source_hash, "source_hash", lambda value, name: hashed.append(name) or original(value, name))
    sweep = Sweep(TINY, axes={"activation": ["relu", "mine"], "widths": [(8,), (12,)]}, seeds=1)
    result = run_sweep(sweep, tmp_path / "out", devices=1)
    assert hashed == ["activation=mine"] * (2 + result.programs)
