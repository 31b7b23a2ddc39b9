"""Products with the Hessian against finite differences, eigenvalues against matrices that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.losses import cross_entropy
from fishnet.models import MODELS
from fishnet.nn.activations import gelu, prelu, relu, tanh
from fishnet.nn.conv_implementations import LOWERINGS
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.norm_formulas import KINDS
from fishnet.nn.norms import NormByKind
from fishnet.nn.pooling import mean_pool
from fishnet.probes.sharpness import hessian_product, lanczos, top_eigenvalue
from tests.probes.conftest import IMAGES, LABELS, mlp, net_of, variables_of

RNG = np.random.default_rng(0)


def symmetric(eigenvalues):
    q = np.linalg.qr(RNG.normal(size=(len(eigenvalues),) * 2))[0]
    return jnp.float32(q @ np.diag(eigenvalues) @ q.T)


@pytest.mark.parametrize(
    "eigenvalues", [[5, 1, 0.5, -2, 0], [-1, -3, -9, -2, -4], [2, 2, 2, 2, 2], [3, 0, 0, 0, 0]],
    ids=["mixed", "negative", "equal", "rank 1"],
)  # fmt: skip
def test_as_many_steps_as_dimensions_find_the_largest(eigenvalues):
    a = symmetric(eigenvalues)
    found = top_eigenvalue(lambda w: w @ a @ w / 2, jnp.float32(RNG.normal(size=5)), jax.random.key(0), steps=5)
    assert found.value == pytest.approx(max(eigenvalues), abs=1e-4)
    assert found.error == pytest.approx(0, abs=1e-3)


def test_few_steps_find_the_largest_of_many():
    eigenvalues = np.append(np.linspace(-1, 1, 300), [4.0, 2.0])
    a = symmetric(eigenvalues)
    found = top_eigenvalue(lambda w: w @ a @ w / 2, jnp.zeros(302), jax.random.key(0))
    assert found.value == pytest.approx(4, rel=1e-3)
    assert abs(found.value - 4) <= found.error + 1e-4
    early = top_eigenvalue(lambda w: w @ a @ w / 2, jnp.zeros(302), jax.random.key(0), steps=2)
    assert early.value <= 4 and np.abs(eigenvalues - early.value).min() <= early.error


def test_the_projection_has_the_eigenvalues_of_the_matrix():
    a = symmetric([7, 3, -2, 1])
    alphas, betas = lanczos(lambda v: a @ v, jnp.float32(RNG.normal(size=4)), 4)
    t = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    np.testing.assert_allclose(np.linalg.eigvalsh(t), [-2, 1, 3, 7], atol=1e-4)
    with pytest.raises(UsageError, match="1 step or more, got 0"):
        lanczos(lambda v: v, jnp.ones(2), 0)


def test_linear_regression_has_a_hessian_that_is_known():
    """Mean of (x w - y)^2 over n images of a linear net: H = 2 X'X / n, wherever w is and whatever y."""
    x, y = RNG.normal(size=(20, 6)), RNG.normal(size=20)
    expected = np.linalg.eigvalsh(2 * x.T @ x / 20)[-1]
    params = {"w": jnp.float32(RNG.normal(size=6))}
    found = top_eigenvalue(lambda p: jnp.square(jnp.float32(x) @ p["w"] - y).mean(), params, jax.random.key(3), 6)
    assert found.value == pytest.approx(expected, rel=1e-4)


def test_lanes_each_have_their_own():
    scales = jnp.float32([1.0, 10.0])
    a = symmetric([3, 1, -1])
    found = jax.jit(jax.vmap(lambda s: top_eigenvalue(lambda w: s * w @ a @ w / 2, jnp.ones(3), jax.random.key(0), 3)))(
        scales
    )
    np.testing.assert_allclose(found.value, [3, 30], rtol=1e-4)


def difference(loss, params, vector, h):
    """The Hessian times a vector by a central difference of gradients."""
    moved = [jax.tree.map(lambda p, v, s=s: p + s * h * v, params, vector) for s in (1, -1)]
    return jax.tree.map(lambda a, b: (a - b) / (2 * h), *map(jax.grad(loss), moved))


# Everything that has a gradient of its own: pooling, moments, switched activations, each lowering.
LANE = {
    "act": ActivationByIndex((relu, tanh, gelu, prelu), 1),
    "norm": NormByKind(KINDS.index("batch"), pixels=False, weights=False),
}


CNN = partial(MODELS["cnn"], classes=3, widths=(8, 8), batch_statistics=True, **LANE)
MAPS = np.random.default_rng(1).integers(0, 256, (6, 6, 6, 2)).astype(np.uint8)
VARIABLES = variables_of(CNN(), shape=(1, 6, 6, 2))
VECTOR = jax.tree.map(lambda p: jnp.float32(RNG.normal(size=p.shape)), VARIABLES["params"])


def loss_of(model):
    def loss(params):
        return cross_entropy(model.apply({**VARIABLES, "params": params}, MAPS, train=False), LABELS[:6]).mean()

    return loss


def product_of(model):
    return jax.jit(lambda p, v: hessian_product(loss_of(model), p, v))(VARIABLES["params"], VECTOR)


def assert_alike(found, expected, share):
    size = np.sqrt(sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(expected)))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=share * size, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["gemm", "winograd"])
def test_products_with_the_hessian_of_a_network(lowering):
    """Without maxima, whose winner may change within a difference."""
    model = CNN(conv=LOWERINGS[lowering], pool=mean_pool)
    expected = difference(jax.jit(loss_of(model)), VARIABLES["params"], VECTOR, 1e-3)
    assert_alike(product_of(model), expected, 0.01)


@pytest.mark.slow
def test_products_with_the_hessian_through_maxima():
    def plain(x):
        b, h, w, c = x.shape
        return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))

    assert_alike(product_of(CNN()), product_of(CNN(pool=plain)), 1e-4)


def test_the_whole_hessian_of_a_small_network():
    """All eigenvalues of the matrix itself, made column by column in float64 differences of float32 gradients."""
    model = mlp(act=tanh, widths=(4,))
    net = net_of(model)
    flat, unravel = jax.flatten_util.ravel_pytree(net.params)

    @jax.jit
    def columns():
        def column(v):
            product = hessian_product(lambda p: net.loss(p, IMAGES, LABELS), net.params, unravel(v))
            return jax.flatten_util.ravel_pytree(product)[0]

        return jax.lax.map(column, jnp.eye(len(flat)))

    hessian = np.asarray(columns(), np.float64)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-4)
    largest = np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]
    found = jax.jit(lambda p: top_eigenvalue(lambda p: net.loss(p, IMAGES, LABELS), p, jax.random.key(0)))(net.params)
    assert found.value == pytest.approx(largest, rel=1e-3)
    assert abs(found.value - largest) <= found.error + 1e-3 * largest
