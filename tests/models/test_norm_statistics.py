"""Precise statistics of batch norm against loops in NumPy, Flax's batch norm and running means that have converged."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.special import log_softmax

from fishnet.errors import UsageError
from fishnet.models import MODELS
from fishnet.models.norm_statistics import (
    add_batch,
    batch_moments,
    empty_population,
    logits_with,
    normalization_gap,
    precise_statistics,
)
from fishnet.nn.activations import relu
from fishnet.nn.norm_formulas import EPS, KINDS
from fishnet.nn.norms import NORMS, NormByKind

RNG = np.random.default_rng(0)
BATCHES = (RNG.integers(0, 256, (3, 8, 4, 4, 1)) * RNG.uniform(0.4, 1, (3, 1, 1, 1, 1))).astype(np.uint8)
LABELS = np.arange(8) % 3
MODEL = MODELS["mlp"](classes=3, widths=(5, 4), act=relu, dropout=0.5)
MEAN, STD = 90.0, 60.0


def variables_of(model, seed=1):
    """Normal kernels, scales and shifts that differ, running statistics that were never moved."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if path[0].key == "params":
            return jnp.float32(rng.normal(size=leaf.shape) + (path[-1].key == "scale"))
        return jnp.full(leaf.shape, path[-1].key == "var", jnp.float32)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), BATCHES[0], False))
    constants = {"standardize": {"mean": jnp.float32([MEAN]), "std": jnp.float32([STD])}}
    return {**jax.tree_util.tree_map_with_path(fill, shapes), "constants": constants}


VARIABLES = variables_of(MODEL)
moments_of = jax.jit(partial(batch_moments, MODEL))


def numpy_moments(params, images):
    """Mean and variance of a batch before each of the two norms, each normalised with its own; float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = ((images.astype(np.float64) - MEAN) / STD).reshape(len(images), -1)
    found = {}
    for site in range(2):
        z = x @ params[f"dense_{site}"]["kernel"]
        mean, var = z.mean(0), np.mean((z - z.mean(0)) ** 2, 0)
        found[f"norm_{site}"] = {"mean": mean, "var": var}
        norm = params[f"norm_{site}"]
        x = np.maximum(norm["scale"] * (z - mean) / np.sqrt(var + EPS) + norm["bias"], 0)
    return found


def assert_close(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected)


def test_moments_of_a_batch_equal_numpy_and_flax():
    found = moments_of(VARIABLES, BATCHES[0])
    assert_close(found, numpy_moments(VARIABLES["params"], BATCHES[0]), rtol=1e-5, atol=1e-6)
    z = ((BATCHES[0] - np.float32(MEAN)) / np.float32(STD)).reshape(8, -1) @ VARIABLES["params"]["dense_0"]["kernel"]
    norm = nn.BatchNorm(use_running_average=False, momentum=0.0)
    kept = norm.apply(norm.init(jax.random.key(0), z), z, mutable=["batch_stats"])[1]["batch_stats"]
    assert_close(found["norm_0"], dict(kept), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 5, 8)], ids=["equal", "unequal"])
def test_precise_statistics_equal_numpy(sizes):
    """Average of means, and of second moments less the square of that: by the number of images."""
    batches = [batch[:size] for batch, size in zip(BATCHES, sizes, strict=True)]
    found = precise_statistics(MODEL, VARIABLES, iter(batches))
    each = [numpy_moments(VARIABLES["params"], batch) for batch in batches]
    expected = {}
    for site in ("norm_0", "norm_1"):
        mean = np.average([one[site]["mean"] for one in each], axis=0, weights=sizes)
        second = np.average([one[site]["var"] + one[site]["mean"] ** 2 for one in each], axis=0, weights=sizes)
        expected[site] = {"mean": mean, "var": second - mean**2}
    assert_close(found["batch_stats"], expected, rtol=1e-5, atol=1e-6)
    assert found["params"] is VARIABLES["params"]
    assert found["constants"] is VARIABLES["constants"]
    # Of the first norm, whose inputs no norm has touched, these are the moments of all images at once.
    whole = numpy_moments(VARIABLES["params"], np.concatenate(batches))
    assert_close(found["batch_stats"]["norm_0"], whole["norm_0"], rtol=1e-5, atol=1e-6)
    assert np.abs(each[0]["norm_1"]["mean"] - expected["norm_1"]["mean"]).max() > 0.01


def test_compiled_loop_over_lanes_equals_the_loop_over_batches():
    other = variables_of(MODEL, seed=2)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def run(variables, batches):
        def add(i, population):
            return add_batch(population, batch_moments(MODEL, variables, batches[i]))

        return lax.fori_loop(0, len(batches), add, empty_population(variables))

    lanes = run(jax.tree.map(lambda *leaves: jnp.stack(leaves), VARIABLES, other), jnp.asarray(BATCHES))
    np.testing.assert_array_equal(lanes.weight, 3)
    for lane, variables in enumerate((VARIABLES, other)):
        found = jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes.moments)
        assert_close(found, precise_statistics(MODEL, variables, BATCHES)["batch_stats"], rtol=2e-5, atol=1e-5)


def test_running_statistics_that_have_converged_are_precise():
    """The same batch over and over, in training: the running ones go where the precise ones are at once."""
    model = MODEL.clone(dropout=0.0)

    def train(_, statistics):
        variables = {**VARIABLES, "batch_stats": statistics}
        return model.apply(variables, BATCHES[0], train=True, mutable=["batch_stats"])[1]["batch_stats"]

    running = jax.jit(lambda: lax.fori_loop(0, 200, train, VARIABLES["batch_stats"]))()
    precise = precise_statistics(MODEL, VARIABLES, BATCHES[:1])["batch_stats"]
    assert_close(dict(running), precise, rtol=1e-5, atol=1e-6)


def test_nothing_cancels():
    """Far from zero the difference of second moment and squared mean would be noise in float32."""
    mean = np.float32([[1e4, 1e4], [1e4 + 1, 1e4 - 3], [1e4 - 1, 1e4]])
    var = np.float32([[1e-2, 1], [2e-2, 4], [0, 1]])
    population = empty_population({"batch_stats": {"deep": {"norm": {"mean": jnp.zeros(2), "var": jnp.ones(2)}}}})
    for m, v in zip(mean, var, strict=True):
        population = add_batch(population, {"deep": {"norm": {"mean": m, "var": v}}})
    found = population.moments["deep"]["norm"]
    wide = mean.astype(np.float64)
    np.testing.assert_allclose(found["mean"], wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["var"], var.mean(0) + wide.var(0), rtol=1e-3)


def test_norms_of_other_kinds_keep_their_statistics_and_dead_channels_have_zeros():
    kinds = [NormByKind(jnp.int32(KINDS.index(kind)), pixels=False, weights=False) for kind in ("layer", "batch")]
    model = MODEL.clone(norm=tuple(kinds))
    variables = variables_of(model)
    variables["batch_stats"]["norm_0"] = {"mean": jnp.full(5, 0.3), "var": jnp.full(5, 0.7)}
    variables["params"]["dense_1"]["kernel"] = variables["params"]["dense_1"]["kernel"].at[:, 2].set(0.0)
    found = precise_statistics(model, variables, BATCHES)["batch_stats"]
    assert_close(found["norm_0"], variables["batch_stats"]["norm_0"], rtol=1e-6)
    assert np.abs(np.array([found["norm_1"]["mean"][2], found["norm_1"]["var"][2]])).max() < 1e-20
    assert found["norm_1"]["var"].sum() > 1


def test_a_model_without_batch_norm_passes_unchanged():
    model = MODEL.clone(norm=NORMS["layer"])
    variables = variables_of(model)

    def never():
        raise AssertionError("no batch is needed")
        yield

    found = precise_statistics(model, variables, never())
    assert found == variables
    assert batch_moments(model, variables, BATCHES[0]) == {}
    assert add_batch(empty_population(variables), {}).moments == {}


def test_logits_with_each_kind_of_statistics():
    model = MODEL.clone(dropout=0.0)
    images = BATCHES[1]
    apply_in_training = model.apply(VARIABLES, images, train=True, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(logits_with(MODEL, VARIABLES, images, "batch"), apply_in_training, atol=1e-5)
    in_evaluation = model.apply(VARIABLES, images, train=False)
    np.testing.assert_allclose(logits_with(MODEL, VARIABLES, images, "running"), in_evaluation, atol=1e-5)
    assert np.abs(apply_in_training - in_evaluation).max() > 0.1
    with pytest.raises(UsageError, match=r"'runing'.*did you mean 'running'"):
        logits_with(MODEL, VARIABLES, images, "runing")


def test_gap_is_measured():
    images = BATCHES[0]
    found = normalization_gap(MODEL, VARIABLES, images, LABELS, BATCHES)
    precise = precise_statistics(MODEL, VARIABLES, BATCHES)
    logits = {
        "running": MODEL.apply(VARIABLES, images, train=False),
        "batch": logits_with(MODEL, VARIABLES, images, "batch"),
        "precise": MODEL.apply(precise, images, train=False),
    }
    assert list(found) == list(logits)
    for name, row in logits.items():
        log_p = log_softmax(np.asarray(row, np.float64), -1)
        assert found[name]["loss"] == pytest.approx(-log_p[np.arange(8), LABELS].mean(), rel=1e-4)
        assert found[name]["accuracy"] == pytest.approx((log_p.argmax(-1) == LABELS).mean())
    assert len({round(row["loss"], 3) for row in found.values()}) == 3


def test_no_batch_is_refused():
    with pytest.raises(UsageError, match="none"):
        precise_statistics(MODEL, VARIABLES, [])
