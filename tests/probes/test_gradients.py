"""Figures of gradients, parameters and updates, layer by layer, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishnet.errors import UsageError
from fishnet.optim.masks import global_norm
from fishnet.probes.gradients import cosine, first_to_last, gradient_cosines, gradient_metrics
from fishnet.probes.layers import finite_layers, kernel_layers, layer_norms, layer_sizes, split_by_layer
from fishnet.probes.weights import small_fraction, sparsity_metrics, update_metrics, zero_fraction

RNG = np.random.default_rng(0)
LAYERS = ("b", "se_1/reduce", "norm", "a")


def tree_of(scale=1.0):
    shapes = {
        "a": {"kernel": (4, 3), "bias": (3,)},
        "b": {"kernel": (3, 3, 2, 5)},
        "se_1": {"reduce": {"kernel": (5, 4), "bias": (4,)}},
        "norm": {"scale": (4,), "bias": (4,)},
    }
    return jax.tree.map(lambda s: scale * RNG.normal(size=s), shapes, is_leaf=lambda s: isinstance(s, tuple))


def low(tree):
    return jax.tree.map(jnp.float32, tree)


def flat(tree, layer):
    for part in layer.split("/"):
        tree = tree[part]
    return np.concatenate([np.ravel(leaf) for leaf in tree.values()])


GRADS, BEFORE, PARAMS, AFTER = tree_of(), tree_of(), tree_of(10.0), tree_of(10.0)


def test_gradients_equal_numpy():
    found = jax.jit(lambda p, g: gradient_metrics(p, g, LAYERS))(low(PARAMS), low(GRADS))
    norms = [np.linalg.norm(flat(GRADS, layer)) for layer in LAYERS]
    np.testing.assert_allclose(found["gradient_norm"], norms, rtol=1e-5)
    np.testing.assert_allclose(
        found["gradient_rms"], [np.std([*v, *-v]) for v in map(flat, [GRADS] * 4, LAYERS)], rtol=1e-5
    )
    assert found["gradient_ratio"] == pytest.approx(norms[0] / norms[3], rel=1e-5)


def test_squares_of_layers_add_up():
    parts, whole = layer_norms(low(GRADS), LAYERS), global_norm(low(GRADS))
    np.testing.assert_allclose(jnp.square(parts).sum(), whole**2, rtol=1e-6)
    np.testing.assert_array_equal(layer_sizes(GRADS, LAYERS), [90, 24, 8, 15])
    assert kernel_layers(GRADS, LAYERS) == ("b", "se_1/reduce", "a")


def test_first_and_last_are_those_with_a_kernel():
    norms = jnp.float32([3, 5, 7, 2])
    assert first_to_last(norms, ("norm", "b", "c", "d"), ("b", "c")) == pytest.approx(5 / 7)


def test_lanes_have_their_own_figures():
    both = jax.tree.map(lambda *x: jnp.stack(x), low(GRADS), low(BEFORE))
    found = jax.vmap(lambda g: gradient_metrics(low(PARAMS), g, LAYERS))(both)
    for lane, grads in enumerate((GRADS, BEFORE)):
        one = gradient_metrics(low(PARAMS), low(grads), LAYERS)
        jax.tree.map(lambda a, b, lane=lane: np.testing.assert_allclose(a[lane], b, rtol=1e-6), found, one)


def test_parameters_without_a_layer_are_refused():
    with pytest.raises(UsageError, match=r"parameter norm/.* belongs to none of the layers b, se_1/reduce, a"):
        split_by_layer(GRADS, ("b", "se_1/reduce", "a"))
    with pytest.raises(UsageError, match="layer 'c' has no parameters"):
        split_by_layer(GRADS, (*LAYERS, "c"))


def test_cosines_equal_numpy():
    found = jax.jit(lambda a, b: gradient_cosines(a, b, LAYERS))(low(GRADS), low(BEFORE))
    whole = [np.concatenate([flat(tree, layer) for layer in LAYERS]) for tree in (GRADS, BEFORE)]

    def cos(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert found["gradient_cosine"] == pytest.approx(cos(*whole), abs=1e-6)
    expected = [cos(flat(GRADS, layer), flat(BEFORE, layer)) for layer in LAYERS]
    np.testing.assert_allclose(found["layer_gradient_cosine"], expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, -3.0, 1e30, 1e-30])
def test_cosine_with_itself(scale):
    other = jax.tree.map(lambda g: jnp.float32(g) * scale, GRADS)
    assert cosine(low(GRADS), other) == pytest.approx(np.sign(scale), abs=1e-6)
    assert np.isnan(cosine(low(GRADS), jax.tree.map(jnp.zeros_like, other)))


def test_updates_equal_numpy():
    found = update_metrics(low(PARAMS), low(AFTER), LAYERS)
    norms = [np.linalg.norm(flat(PARAMS, layer)) for layer in LAYERS]
    moved = [np.linalg.norm(flat(AFTER, layer) - flat(PARAMS, layer)) for layer in LAYERS]
    np.testing.assert_allclose(found["parameter_norm"], norms, rtol=1e-5)
    np.testing.assert_allclose(found["update_norm"], moved, rtol=1e-5)
    np.testing.assert_allclose(found["update_ratio"], np.divide(moved, norms), rtol=1e-5)


def test_a_frozen_layer_does_not_move():
    after = AFTER | {"b": PARAMS["b"]}
    found = update_metrics(low(PARAMS), low(after), LAYERS)
    assert (found["update_norm"][0], found["update_ratio"][0]) == (0, 0)
    assert (found["update_norm"][1:] > 0).all()


def test_planted_zeros_are_counted():
    kernel = RNG.normal(size=(3, 3, 2, 10))
    kernel.ravel()[:45] = 0
    kernel.ravel()[45:63] = 1e-6
    tree = low(PARAMS | {"b": {"kernel": kernel}})
    found = jax.jit(lambda p: sparsity_metrics(p, LAYERS))(tree)
    assert found["zero_weights"].shape == (3,)
    np.testing.assert_allclose(found["zero_weights"], [45 / 180, 0, 0])
    assert found["small_weights"][0] == pytest.approx(63 / 180, abs=0.02)
    rms = np.sqrt(np.mean(kernel**2))
    assert found["small_weights"][0] == pytest.approx(np.mean(np.abs(kernel) < 0.01 * rms))


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20), st.sampled_from([1e-25, 1.0, 1e25]))
def test_small_ones_do_not_depend_on_the_scale(values, scale):
    kernel = np.float32(values)
    kernel[np.abs(kernel) < 1e-3] = 0
    found = small_fraction(jnp.asarray(kernel * np.float32(scale)))
    assert found == small_fraction(jnp.asarray(kernel))
    assert zero_fraction(jnp.asarray(kernel)) <= found <= 1
    assert small_fraction(jnp.zeros(3)) == 1


def test_a_layer_that_is_not_finite_is_found():
    tree = low(PARAMS)
    assert finite_layers(tree, LAYERS).all()
    tree["norm"]["bias"] = tree["norm"]["bias"].at[2].set(jnp.nan)
    np.testing.assert_array_equal(finite_layers(tree, LAYERS), [True, True, False, True])
