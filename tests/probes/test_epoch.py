"""Probes of a network on training images, against loops over images and layers in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.losses import cross_entropy
from fishnet.models.norm_statistics import normalization_gap
from fishnet.nn.activations import relu, tanh
from fishnet.probes import Batches, record_forward
from fishnet.probes.classes import class_metrics, margins
from fishnet.probes.epoch import dead_units, features, gradient_noise, sharpness
from fishnet.probes.noise_scale import noise_scale_of_examples
from fishnet.probes.norm_gap import norm_gap
from tests.probes.conftest import BATCHES, CLASSES, IMAGES, LABELS, mlp, net_of, standardised, wide


def weighted(logits, labels):
    """Another loss than cross-entropy: class weights."""
    return jnp.float32([1.0, 2.0, 0.5])[labels] * cross_entropy(logits, labels)


def test_batches():
    assert BATCHES.positions.shape == (4, 6)
    images, labels = BATCHES.at(2)
    np.testing.assert_array_equal(images, IMAGES[12:18])
    np.testing.assert_array_equal(labels, LABELS[12:18])
    seen = BATCHES.fold(lambda total, images, labels: total + labels.sum(), jnp.int32(0))
    assert seen == LABELS.sum()
    assert Batches.of(IMAGES, LABELS, 7).positions.shape == (3, 7)
    with pytest.raises(UsageError, match="24 images do not make a batch of 25"):
        Batches.of(IMAGES, LABELS, 25)


def test_a_unit_that_lives_in_one_image_is_not_dead():
    net = net_of(mlp(norm="batch", widths=(12, 12)))
    params = dict(net.params)
    # The last image of the last batch alone brings unit 0 above zero, unit 1 nothing does.
    x = standardised(IMAGES)
    outside = x - x[:-1].mean(0)
    towards = np.linalg.lstsq(np.append(outside, [outside[-1]], 0), np.append(np.full(24, -1.0), 3.0), rcond=None)[0]
    kernel = params["dense_0"]["kernel"].at[:, 0].set(jnp.float32(towards)).at[:, 1].set(0.0)
    params |= {"dense_0": {"kernel": kernel}, "norm_0": {**params["norm_0"], "bias": jnp.full(12, -0.5)}}
    net = net._replace(variables={**net.variables, "params": params})
    found = jax.jit(lambda v: dead_units(net._replace(variables=v), BATCHES))(net.variables)["dead_units"]
    sites = record_forward(lambda: net.logits(IMAGES)).sites
    expected = [1 - (np.asarray(site.y) > 0).any(0).mean() for site in sites.values()]
    assert expected[0] >= 1 / 12
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Over fewer images the fraction is an upper bound.
    fewer = jax.jit(lambda: dead_units(net, BATCHES._replace(positions=BATCHES.positions[:1])))()["dead_units"]
    assert (fewer >= found).all()


def test_sites_beyond_the_tenth_keep_their_places():
    """Names are not sorted: act_10 comes after act_9."""
    net = net_of(mlp(widths=(2,) * 11 + (4,)))
    found = jax.jit(lambda: dead_units(net, BATCHES))()["dead_units"]
    sites = record_forward(lambda: net.logits(IMAGES)).sites
    expected = [1 - (np.asarray(site.y) > 0).any(0).mean() for site in sites.values()]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_features_of_all_images_at_once():
    net = net_of(mlp(norm="batch"))
    found = jax.jit(lambda v: features(net._replace(variables=v), BATCHES))(net.variables)
    h = np.asarray(record_forward(lambda: net.logits(IMAGES)).features, np.float64)
    sigma = np.linalg.svd(h, compute_uv=False)
    p = sigma / sigma.sum()
    assert found["effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p + 1e-30))), rel=1e-3)
    means = np.array([h[np.equal(LABELS, c)].mean(0) for c in range(CLASSES)])
    assert found["within_variance"] == pytest.approx(np.mean(np.sum((h - means[LABELS]) ** 2, 1)), rel=1e-4)
    centred = means - means.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(found["nearest_class_cosine"], (unit @ unit.T - 3 * np.eye(3)).max(1), atol=1e-4)


def linear_gradients(net, images, labels):
    """Gradients of cross-entropy by kernel and bias of a network without hidden units, [b, weights], float64."""
    x, head = standardised(images), wide(net.params["head"])
    z = x @ head["kernel"] + head["bias"]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    d = p - np.eye(CLASSES)[labels]
    return np.concatenate([np.einsum("bi,bo->bio", x, d).reshape(len(x), -1), d], 1), z, p


def linear_net(losses=cross_entropy):
    return net_of(mlp(widths=()), losses=losses)


def test_noise_of_a_linear_net_equals_the_definition():
    net = linear_net()
    found = jax.jit(lambda v: gradient_noise(net._replace(variables=v), BATCHES))(net.variables)
    grads = linear_gradients(net, IMAGES, LABELS)[0]
    batches = grads.reshape(4, 6, -1).mean(1)
    small, large = np.mean(np.sum(batches**2, 1)), np.sum(batches.mean(0) ** 2)
    assert found["gradient_square"] == pytest.approx((4 * large - small) / 3, rel=1e-3)
    assert found["gradient_trace"] == pytest.approx(6 * 4 * (small - large) / 3, rel=1e-3)
    ratio = found["gradient_trace"] / found["gradient_square"]
    np.testing.assert_allclose(found["noise_scale"], ratio, rtol=1e-5)
    single = jax.jit(lambda: gradient_noise(net, BATCHES._replace(positions=BATCHES.positions.reshape(24, 1))))()
    exact = noise_scale_of_examples(jnp.float32(grads))
    np.testing.assert_allclose(single["gradient_trace"], exact.trace, rtol=1e-3)


def test_sharpness_of_a_linear_net_equals_the_definition():
    """H = mean of (diag(p) - p p') x (x, 1)(x, 1)' over the images of the first batch."""
    net = linear_net()
    found = jax.jit(lambda v: sharpness(net._replace(variables=v), BATCHES))(net.variables)
    _, _, p = linear_gradients(net, IMAGES[:6], LABELS[:6])
    x = np.append(standardised(IMAGES[:6]), np.ones((6, 1)), 1)
    hessian = np.mean([np.kron(np.outer(a, a), np.diag(q) - np.outer(q, q)) for a, q in zip(x, p, strict=True)], 0)
    assert found["sharpness"] == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)
    assert found["two_over_lr"] == pytest.approx(20)


def test_margins():
    logits = jnp.float32([[3, 1, 2], [3, 1, 2], [0, -1, -2]])
    np.testing.assert_array_equal(margins(logits, jnp.array([0, 2, 1])), [1, -1, -1])


UNEVEN = np.array([0] * 13 + [2] * 7 + [1] * 1 + [2] * 3, np.int32)


@pytest.mark.parametrize("size", [6, 4, 24])
def test_classes_of_a_linear_net_equal_the_definition(size):
    net = linear_net(weighted)
    batches = Batches.of(IMAGES, UNEVEN, size)
    found = jax.jit(lambda v: class_metrics(net._replace(variables=v), batches))(net.variables)
    grads, z, p = linear_gradients(net, IMAGES, UNEVEN)
    weights = np.array([1.0, 2.0, 0.5])[UNEVEN]
    grads, losses = grads * weights[:, None], -weights * np.log(p[np.arange(24), UNEVEN])
    others = np.where(np.eye(CLASSES)[UNEVEN] > 0, -np.inf, z).max(1)
    norms = []
    for c in range(CLASSES):
        own = np.equal(UNEVEN, c)
        assert found["class_loss"][c] == pytest.approx(losses[own].mean(), rel=1e-4)
        assert found["class_margin"][c] == pytest.approx((z[np.arange(24), UNEVEN] - others)[own].mean(), rel=1e-4)
        norms.append(np.linalg.norm(grads[own].mean(0)))
        if c == 1:
            assert np.isnan(found["class_gradient_variance"][c])
    np.testing.assert_allclose(found["class_gradient_norm"], norms, rtol=1e-4)
    pull = norms * np.bincount(UNEVEN)
    np.testing.assert_allclose(found["class_gradient_share"], pull / pull.sum(), rtol=1e-4)


def test_variance_of_a_class_is_unbiased():
    """Over many orders of its images the estimate is the trace of the sample covariance."""
    net, labels = linear_net(), jnp.zeros(24, jnp.int32)
    estimate = jax.jit(
        lambda order: class_metrics(net, Batches(jnp.asarray(IMAGES), labels, order.reshape(4, 6)))[
            "class_gradient_variance"
        ][0]
    )
    rng = np.random.default_rng(0)
    found = [estimate(jnp.int32(rng.permutation(24))) for _ in range(300)]
    grads = linear_gradients(net, IMAGES, np.zeros(24, int))[0]
    error = float(np.std(found)) / 300**0.5
    assert np.mean(found) == pytest.approx(np.trace(np.cov(grads.T)), abs=4 * error)


def test_a_class_without_images():
    net = linear_net()
    found = jax.jit(lambda: class_metrics(net, Batches.of(IMAGES, np.zeros(24, np.int32) + 2, 6)))()
    for name, figure in found.items():
        assert np.isnan(figure[:2]).all() and np.isfinite(figure[2]), name
    assert found["class_gradient_share"][2] == pytest.approx(1)


def test_gap_equals_the_one_on_the_host():
    """On one batch, for which `normalization_gap` takes all images as one."""
    model = mlp(norm="batch")
    net = net_of(model)
    batches = Batches.of(IMAGES, LABELS, 24)
    found = jax.jit(lambda v: norm_gap(net._replace(variables=v), batches))(net.variables)
    expected = normalization_gap(model, net.variables, IMAGES, LABELS, [IMAGES])
    for name, row in expected.items():
        assert found[f"loss_{name}"] == pytest.approx(row["loss"], rel=1e-4)
        assert found[f"accuracy_{name}"] == pytest.approx(row["accuracy"])
    # Of a single batch the precise statistics are its own.
    assert found["logit_gap_precise"] == pytest.approx(0, abs=1e-4)
    difference = net.logits(IMAGES) - net.logits(IMAGES, as_trained=True)
    assert found["logit_gap_running"] == pytest.approx(float(jnp.sqrt(jnp.square(difference).mean())), rel=1e-4)
    assert found["logit_gap_running"] > 0.05


@pytest.mark.slow
def test_gap_over_several_batches():
    model = mlp(norm="batch")
    net = net_of(model)
    found = jax.jit(lambda v: norm_gap(net._replace(variables=v), BATCHES))(net.variables)
    losses = [
        cross_entropy(net.logits(IMAGES[i : i + 6], as_trained=True), LABELS[i : i + 6]).mean() for i in range(0, 24, 6)
    ]
    assert found["loss_batch"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["logit_gap_precise"] > 1e-3


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_no_gap_without_batch_norm(norm):
    net = net_of(mlp(norm=norm))
    found = jax.jit(lambda: norm_gap(net, BATCHES))()
    assert found["logit_gap_running"] == found["logit_gap_precise"] == 0
    np.testing.assert_allclose([found["loss_running"], found["loss_precise"]], found["loss_batch"], rtol=1e-6)


def test_the_loss_of_a_net_is_that_of_training_without_noise():
    net = net_of(mlp(norm="batch", dropout=0.5, act=tanh), losses=weighted)
    trained = mlp(norm="batch", act=tanh).apply(net.variables, IMAGES, train=True, mutable=["batch_stats"])[0]
    expected = weighted(trained, LABELS).mean()
    np.testing.assert_allclose(net.loss(net.params, IMAGES, LABELS), expected, rtol=1e-5)


LONG = [pytest.param(probe, marks=pytest.mark.slow) for probe in (gradient_noise, sharpness, class_metrics)]


@pytest.mark.parametrize("probe", [dead_units, features, *LONG, norm_gap])
def test_lanes_have_their_own_figures(probe):
    model = mlp(norm="batch", act=relu)
    lanes = [net_of(model, seed) for seed in (1, 2)]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(net.variables for net in lanes))

    def measure(variables):
        return probe(lanes[0]._replace(variables=variables), BATCHES)

    found, alone = jax.jit(jax.vmap(measure))(both), jax.jit(measure)
    for lane, net in enumerate(lanes):
        for name, value in alone(net.variables).items():
            np.testing.assert_allclose(found[name][lane], value, rtol=2e-3, atol=1e-4, err_msg=name)
