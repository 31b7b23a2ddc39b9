"""The network from scratch against autodiff, finite differences, NumPy in float64, Optax and the Linen model."""

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from fishnet.data import load_task
from fishnet.errors import UsageError
from fishnet.models import MODELS, scratch
from fishnet.models.scratch import Parameters
from fishnet.nn.activations import relu
from fishnet.nn.norms import NORMS

M = 32
RNG = np.random.default_rng(0)
X = RNG.normal(size=(M, 784)).astype(np.float32)
LABELS = RNG.integers(0, 10, M).astype(np.int32)
EXTREME = [
    [1e4, -1e4, 0.0],
    [-1e4, -1e4, -1e4],
    [1e4, 1e4, -1e4],
    [-1e4, 1e4, 1e4],
    [3e38, -3e38, 0.0],
    [-3e38, -3e38, 3e38],
]


initial = jax.jit(scratch.initial, static_argnums=1)
forward = jax.jit(scratch.forward)
loss = jax.jit(scratch.loss)
train = jax.jit(scratch.train)
PARAMS = jax.tree.map(
    lambda leaf: leaf + 0.1 * RNG.normal(size=leaf.shape).astype(np.float32), initial(jax.random.key(0), scratch.SIZES)
)


@jax.jit
def gradients(params, x, labels):
    return scratch.backward(params, x, labels, scratch.forward(params, x))


@jax.jit
def loss_of(params, x, labels):
    return scratch.loss(scratch.forward(params, x).z2, labels)


def linen_loss(params, x, labels):
    """The same by JAX's and Optax's functions."""
    logits = jax.nn.relu(x @ params.w1 + params.b1) @ params.w2 + params.b2
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def close(found, expected, tolerance):
    """Within `tolerance` of the largest entry of each leaf."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() <= tolerance * np.abs(b).max()


def test_initial_parameters_are_hes():
    params = jax.tree.map(np.asarray, initial(jax.random.key(3), (784, 300, 50)))
    assert [leaf.shape for leaf in params] == [(784, 300), (300,), (300, 50), (50,)]
    for w, fan_in in ((params.w1, 784), (params.w2, 300)):
        assert float(w.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=5 / w.size**0.5)
        assert abs(float(w.mean())) < 5 * (2 / fan_in / w.size) ** 0.5
    assert not params.b1.any()
    assert not params.b2.any()
    assert [leaf.shape for leaf in PARAMS] == [(784, 10), (10,), (10, 10), (10,)]


@pytest.mark.parametrize("own", [False, True])
def test_gradients_equal_autodiff(own):
    expected = jax.jit(jax.grad(loss_of if own else linen_loss))(PARAMS, X, LABELS)
    close(gradients(PARAMS, X, LABELS), expected, 1e-6)
    assert min(np.abs(leaf).max() for leaf in expected) > 1e-3


def test_a_unit_at_zero_passes_no_gradient():
    black = gradients(initial(jax.random.key(0), scratch.SIZES), np.zeros_like(X), LABELS)
    assert not black.w1.any()
    assert not black.b1.any()
    assert black.b2.any()


def test_gradients_equal_finite_differences_in_float64():
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        params = Parameters(*(rng.normal(size=shape) for shape in ((5, 4), (4,), (4, 3), (3,))))
        x, labels = rng.normal(size=(7, 5)), LABELS[:7] % 3
        found = gradients(params, x, labels)
        for name, leaf in params._asdict().items():
            slopes = np.zeros_like(leaf)
            for index in np.ndindex(leaf.shape):
                step = np.zeros_like(leaf)
                step[index] = 1e-6
                up, down = (loss_of(params._replace(**{name: leaf + h}), x, labels) for h in (step, -step))
                slopes[index] = (up - down) / 2e-6
            assert getattr(found, name).dtype == jnp.float64
            np.testing.assert_allclose(getattr(found, name), slopes, atol=1e-9)


@pytest.mark.parametrize("row", EXTREME, ids=str)
def test_right_at_extreme_logits(row):
    """The identity as second layer, so that the biases are the logits."""
    k = len(row)
    params = Parameters(*map(np.float32, (np.zeros((2, k)), np.zeros(k), np.eye(k), row)))
    x, labels = np.ones((k, 2), np.float32), np.arange(k)
    layers = forward(params, x)
    exact = np.tile(np.float32(row).astype(np.float64), (k, 1))
    np.testing.assert_array_equal(layers.z2, exact.astype(np.float32))
    np.testing.assert_allclose(layers.p, softmax(exact, -1), rtol=1e-6)
    np.testing.assert_allclose(layers.p.sum(-1), 1.0, rtol=1e-6)
    expected = -log_softmax(exact, -1)[np.arange(k), labels]
    # Losses beyond the largest float32 are cut off there.
    expected = np.minimum(expected, np.finfo(np.float32).max)
    assert float(loss(layers.z2, labels)) == pytest.approx(expected.mean(), rel=1e-6)
    for label, value in enumerate(expected):
        assert float(loss(layers.z2, np.full(k, label))) == pytest.approx(value, rel=1e-6)
    dz2 = (softmax(exact, -1) - np.eye(k)) / k
    found = gradients(params, x, labels)
    np.testing.assert_allclose(found.b2, dz2.sum(0), atol=1e-7)
    assert all(np.isfinite(leaf).all() for leaf in found)


def test_only_differences_of_logits_count():
    z, labels = np.float32([[0, 12, -3], [1, 0, 2], [4, -2, 0]]), np.array([1, 0, 2])
    assert loss(z + 4096, labels) == loss(z, labels)
    np.testing.assert_allclose(
        loss(z, labels), -np.mean(log_softmax(z.astype(np.float64), -1)[np.arange(3), labels]), rtol=1e-6
    )


def test_a_label_outside_is_no_class():
    assert all(np.isnan(loss(np.zeros((3, 3), np.float32), np.array([0, label, 1]))) for label in (-1, 3))


def test_equals_the_linen_model():
    """MLP 784-10-10 without norm, given the same weights."""
    model = MODELS["mlp"](classes=10, widths=(10,), norm=NORMS["none"], act=relu)
    images = np.random.default_rng(2).integers(0, 256, (M, 28, 28, 1)).astype(np.uint8)
    mean, std = np.float32([33.0]), np.float32([79.0])
    variables = {
        "params": {
            "dense_0": {"kernel": PARAMS.w1},
            "norm_0": {"bias": PARAMS.b1},
            "head": {"kernel": PARAMS.w2, "bias": PARAMS.b2},
        },
        "constants": {"standardize": {"mean": mean, "std": std}},
    }
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(lambda leaf: leaf.shape, variables["params"])

    def model_loss(learned):
        logits = model.apply({**variables, "params": learned}, images, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean(), logits

    x = ((images - mean) / std).reshape(M, -1)
    slopes, logits = jax.jit(jax.grad(model_loss, has_aux=True))(variables["params"])
    np.testing.assert_allclose(forward(PARAMS, x).z2, logits, atol=1e-5)
    expected = Parameters(slopes["dense_0"]["kernel"], slopes["norm_0"]["bias"], *reversed(slopes["head"].values()))
    close(gradients(PARAMS, x, LABELS), expected, 1e-6)


def test_update_equals_optax():
    slopes = gradients(PARAMS, X, LABELS)
    sgd = optax.sgd(0.3)
    updates, _ = sgd.update(slopes, sgd.init(PARAMS))
    close(scratch.update(PARAMS, slopes, 0.3), optax.apply_updates(PARAMS, updates), 1e-7)


def test_training_equals_steps_in_numpy_and_lanes_equal_solo_runs():
    rows = np.random.default_rng(3).integers(0, M, (5, 8))
    rates = jnp.float32([0.05, 0.2])
    starts = [initial(jax.random.key(seed), scratch.SIZES) for seed in (1, 2)]
    lanes = jax.jit(jax.vmap(scratch.train, in_axes=(0, None, None, None, 0)))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts), X, LABELS, rows, rates
    )
    for lane, (start, rate) in enumerate(zip(starts, rates, strict=True)):
        alone = train(start, X, LABELS, rows, rate)
        close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes), alone, 1e-6)
        weights, losses = numpy_training(start, rows, float(rate))
        close(alone[0], weights, 1e-5)
        np.testing.assert_allclose(alone[1], losses, rtol=1e-5)


def numpy_training(params, rows, lr):
    """The textbook's loop, an example at a time, in float64."""
    w1, b1, w2, b2 = (np.asarray(leaf, np.float64) for leaf in params)
    losses = []
    for batch in rows:
        total, slopes = 0.0, [np.zeros_like(leaf) for leaf in (w1, b1, w2, b2)]
        for i in batch:
            x = X[i].astype(np.float64)
            h = np.maximum(x @ w1 + b1, 0)
            p = softmax(h @ w2 + b2)
            total -= np.log(p[LABELS[i]])
            error = p - np.eye(10)[LABELS[i]]
            hidden = (w2 @ error) * (h > 0)
            for slope, part in zip(slopes, (np.outer(x, hidden), hidden, np.outer(h, error), error), strict=True):
                slope += part / len(batch)
        losses.append(total / len(batch))
        w1, b1, w2, b2 = (leaf - lr * slope for leaf, slope in zip((w1, b1, w2, b2), slopes, strict=True))
    return Parameters(w1, b1, w2, b2), losses


def test_learns_digits():
    task = load_task("mnist-mini", 28)
    x = ((task.images - task.mean) / task.std).reshape(len(task.images), -1).astype(np.float32)
    val, orders = task.splits["val"], np.random.default_rng(0)
    rows = np.concatenate([orders.permutation(task.splits["train"])[:5984].reshape(-1, 32) for _ in range(2)])
    start = initial(jax.random.key(0), scratch.SIZES)
    params, losses = train(start, x, task.labels, rows, 0.1)
    guesses = [np.asarray(forward(p, x[val]).p).argmax(-1) for p in (start, params)]
    before, after = (np.mean(guess == task.labels[val]) for guess in guesses)
    assert before < 0.3
    assert after > 0.85
    assert losses.shape == (374,)
    assert np.mean(losses[-50:]) < np.mean(losses[:50]) / 2


def test_a_row_that_does_not_exist_is_seen():
    params, losses = train(PARAMS, X, LABELS, np.full((5, 8), M), 0.1)
    assert np.isnan(losses).all()
    assert np.isnan(params.w1).any()


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_a_rate_that_makes_no_sense_is_refused(lr):
    with pytest.raises(UsageError, match=str(lr)):
        scratch.update(PARAMS, PARAMS, lr)


@pytest.mark.parametrize("sizes", [(784, 0, 10), (784, 10, 1)])
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(UsageError, match=str(prod(sizes[1:2]))):
        scratch.initial(jax.random.key(0), sizes)
