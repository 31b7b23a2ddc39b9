"""Monte-Carlo dropout against its passes one by one; entropy and mutual information against SciPy and their bounds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy

from fishnet.errors import UsageError
from fishnet.models import MODELS
from fishnet.models import mc_dropout as uncertainty
from fishnet.models.mc_dropout import check_passes, mc_dropout, summarize
from fishnet.nn.convolution import gemm
from fishnet.nn.norms import NORMS

B, K, T = 4, 3, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (B, 6, 6, 1)).astype(np.uint8)
KEY = jax.random.key(7)
MLP = MODELS["mlp"](classes=K, widths=(12, 8), norm=NORMS["none"], dropout=0.5)
CNN = MODELS["cnn"](
    classes=K, widths=(8,), dropout=0.4, dropout_kind=1, dropout_layers=("input", "blocks", "dense"), conv=gemm
)
RESNET = MODELS["resnet"](classes=K, widths=(4,), depth=1, norm=NORMS["none"], conv=gemm, stochastic_depth=0.5)


def variables_of(model):
    """Kernels large enough for answers that differ, other parameters at rest."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        if leaf.ndim > 1:
            return jnp.float32(rng.normal(size=leaf.shape) * (3 / np.prod(leaf.shape[:-1])) ** 0.5)
        return jnp.full(leaf.shape, path[-1].key in ("scale", "var"), jnp.float32)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, False))
    variables = jax.tree_util.tree_map_with_path(fill, shapes)
    return {**variables, "constants": {"standardize": {"mean": jnp.float32([128]), "std": jnp.float32([74])}}}


def runner(model):
    """`f(images, key, passes)`, compiled."""
    return jax.jit(partial(mc_dropout, model, variables_of(model)))


mlp_run = runner(MLP)
summarised = jax.jit(summarize)
entropy_in_nats = jax.jit(uncertainty.entropy)


def passes_one_by_one(model):
    """[T, b, k]: each pass for each image alone."""
    network, variables = model.clone(monte_carlo=True), variables_of(model)

    @jax.jit
    def logits(image, t):
        rngs = {"dropout": jax.random.fold_in(KEY, t)}
        return network.apply(variables, image[None], train=False, rngs=rngs)[0]

    return softmax([[np.asarray(logits(image, t), np.float64) for image in IMAGES] for t in range(T)], -1)


@pytest.mark.parametrize("model", [MLP, CNN, RESNET], ids=["mlp", "cnn", "resnet"])
def test_equals_the_passes_one_by_one(model):
    p = passes_one_by_one(model)
    found = (mlp_run if model is MLP else runner(model))(IMAGES, KEY, T)
    np.testing.assert_allclose(found.probabilities, p.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.entropy, entropy(p.mean(0), axis=-1), atol=1e-5)
    information = entropy(p.mean(0), axis=-1) - entropy(p, axis=-1).mean(0)
    np.testing.assert_allclose(found.mutual_information, information, atol=1e-5)
    assert information.max() > 0.02
    assert np.ptp(p, 0).max() > 0.1


def test_an_image_does_not_depend_on_its_neighbours_but_on_the_key():
    together = mlp_run(IMAGES, KEY, T)
    swapped = mlp_run(IMAGES[::-1], KEY, T)
    beside_black = mlp_run(IMAGES * (np.arange(B) == 2)[:, None, None, None], KEY, T)
    for rows, others, black in zip(together, swapped, beside_black, strict=True):
        np.testing.assert_allclose(others[::-1], rows, atol=1e-6)
        np.testing.assert_allclose(black[2], rows[2], atol=1e-6)
    other = mlp_run(IMAGES, jax.random.key(8), T)
    assert np.abs(other.probabilities - together.probabilities).max() > 0.01


def test_a_model_evaluated_by_batches_answers_with_its_running_statistics():
    """The statistics of a single image are none that it was trained or evaluated with."""
    model = MODELS["mlp"](classes=K, widths=(12,), norm=NORMS["batch"], dropout=0.5)
    usual, batched = (runner(of)(IMAGES, KEY, T) for of in (model, model.clone(batch_statistics=True)))
    jax.tree.map(np.testing.assert_array_equal, usual, batched)


def test_number_of_passes_rate_and_key_may_differ_from_lane_to_lane():
    variables = variables_of(MLP)

    def run(passes, rate, key):
        return mc_dropout(MLP.clone(dropout=rate), variables, IMAGES, key, passes)

    keys = jax.random.split(KEY, 3)
    lanes = jax.jit(jax.vmap(run))(jnp.array([1, 4, T]), jnp.array([0.5, 0.0, 0.5]), keys)
    for lane, passes in ((0, 1), (2, T)):
        for found, expected in zip(lanes, mlp_run(IMAGES, keys[lane], passes), strict=True):
            np.testing.assert_allclose(found[lane], expected, atol=1e-6)
    plain = softmax(np.asarray(MLP.apply(variables, IMAGES, train=False), np.float64), -1)
    np.testing.assert_allclose(lanes.probabilities[1], plain, atol=1e-6)
    np.testing.assert_allclose(lanes.mutual_information[:2], 0.0, atol=1e-6)


def test_memory_does_not_grow_with_the_passes():
    """No array of the program has an axis of passes."""
    program = str(jax.make_jaxpr(lambda key: mc_dropout(MLP, variables_of(MLP), IMAGES, key, 977))(KEY))
    assert "while" in program or "scan" in program
    assert not any(f"[{axis}" in program or f",{axis}" in program for axis in ("977,", "977]"))


@given(arrays(np.float32, (T, B, K), elements=st.floats(-300, 300, width=32)))
@settings(max_examples=60)
def test_bounds(logits):
    p = softmax(logits, -1)
    found = summarised(p)
    mean = p.astype(np.float64).mean(0)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-6)
    np.testing.assert_allclose(found.entropy, entropy(mean, axis=-1), atol=1e-5)
    assert np.all(found.mutual_information >= 0)
    assert np.all(found.mutual_information <= found.entropy)
    assert np.all(found.entropy <= np.float32(np.log(K)))


def test_what_the_two_figures_tell_apart():
    """Three images: sub-networks that disagree, an ambiguous image, a clear one."""
    half = [[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 1]], [[0, 1.0, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 1]]
    found = summarised(np.float32(half))
    np.testing.assert_allclose(found.entropy, [np.log(2), np.log(3), 0], atol=1e-6)
    np.testing.assert_allclose(found.mutual_information, [np.log(2), 0, 0], atol=1e-6)
    with pytest.raises(UsageError, match="none"):
        summarize(np.zeros((0, 2, 3), np.float32))


def test_an_even_spread_is_at_the_bound():
    """Of these k rounding would put the sum above log k."""
    for k in (7, 12):
        even = np.full((1, k), 1 / k, np.float32)
        found = float(entropy_in_nats(even)[0])
        assert found == pytest.approx(np.log(k), rel=1e-6)
        assert found <= float(jnp.log(k))


@pytest.mark.parametrize("passes", [0, -3, 2.5, float("nan"), float("inf"), 2**31])
def test_passes_that_make_no_mean_are_refused(passes):
    with pytest.raises(UsageError, match=rf"got {passes}$"):
        mc_dropout(MLP, {}, IMAGES, KEY, passes)
    check_passes(1)
    check_passes(100.0)


@pytest.mark.parametrize(
    "model",
    [MLP.clone(dropout=0.0), MLP.clone(dropout=0), MLP.clone(dropout_layers=()), RESNET.clone(stochastic_depth=0.0)],
)
def test_a_model_that_drops_nothing_is_refused(model):
    with pytest.raises(UsageError, match="alike"):
        mc_dropout(model, {}, IMAGES, KEY, 3)
