"""Probes of a network on training images, at the end of an epoch: `f(net, batches) -> {name: array}`.

All are pure and work under `jax.jit` and `jax.vmap`. They use the images without augmentation, and the parameters that
are trained, not an average of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fishnet.probes.activations import active_units, dead_fraction, merge_active
from fishnet.probes.context import Batches, Net, zeros_like_result
from fishnet.probes.features import add_features, feature_metrics, init_class_moments
from fishnet.probes.noise_scale import add_gradient, init_gradient_sum, noise_scale
from fishnet.probes.recording import site_names
from fishnet.probes.sharpness import STEPS, top_eigenvalue


def dead_units(net: Net, batches: Batches) -> dict[str, Array]:
    """Fraction of each activation's channels that are saturated for every image and pixel, and so never active.

        dead = #{channels c: |f'(x)| <= 0.1 max |f'| for all images and pixels} / channels

    For relu: channels that are never above 0. In evaluation, with running statistics.

    Args:
        net: the network.
        batches: the images; over fewer than an epoch's the fraction is an upper bound.

    Returns:
        `dead_units` [site] in [0, 1], in order of execution.

    Source: Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", ICML 2013; Lu et
    al., "Dying ReLU and Initialization", arXiv:1903.06733.
    """

    def of_batch(images: Array) -> dict[str, Array]:
        return active_units(net.seen(images).sites)

    first = batches.at(0)[0]
    active = batches.fold(
        lambda active, images, labels: merge_active(active, of_batch(images)), zeros_like_result(of_batch, first)
    )
    return {"dead_units": dead_fraction(active, site_names(lambda: net.logits(first)))}


def features(net: Net, batches: Batches) -> dict[str, Array]:
    """Ranks of the features before the head, their spread within and between classes, and the nearest class.

        erank = exp(-sum p log p), p = sigma / sum sigma;   srank = sum sigma^2 / max sigma^2;
        within = tr S_W,   between = tr S_B,   NC1 = tr(S_W S_B^+) / k;   nearest_c = max_(j != c) cos(m_c - m, m_j - m)

    In evaluation, with running statistics; see `fishnet.probes.features.feature_metrics`.

    Args:
        net: the network, with a layer `head`.
        batches: the images.

    Returns:
        `effective_rank`, `stable_rank`, `within_variance`, `between_variance` and `collapse` [], and
        `nearest_class_cosine` [k].

    Source: Roy and Vetterli, "The Effective Rank: A Measure of Effective Dimensionality", EUSIPCO 2007; Papyan, Han and
    Donoho, "Prevalence of Neural Collapse", arXiv:2008.08186.
    """

    def of_batch(images: Array) -> tuple[Array, Array]:
        seen = net.seen(images)
        assert seen.features is not None, "a classifier has a head"
        return seen.features, seen.result

    h, logits = jax.eval_shape(of_batch, batches.at(0)[0])
    moments = batches.fold(
        lambda so_far, images, labels: add_features(so_far, of_batch(images)[0], labels),
        init_class_moments(logits.shape[-1], h.shape[-1]),
    )
    return feature_metrics(moments)


def gradient_noise(net: Net, batches: Batches) -> dict[str, Array]:
    """Simple noise scale: the batch size beyond which larger batches hardly make the gradient less noisy.

        B = tr(Sigma) / |G|^2, without bias in tr(Sigma) and |G|^2: from single batches and all of them together

    With the statistics of each batch, as in training; of the training loss without penalties.

    Args:
        net: the network.
        batches: 2 or more, of the training's size.

    Returns:
        `noise_scale` (examples), `gradient_trace` and `gradient_square` (squared gradients), each []; NaN from a single
        batch.

    Source: McCandlish et al., "An Empirical Model of Large-Batch Training", arXiv:1812.06162, equation 2.9 and
    appendix A.1.
    """
    gradients = batches.fold(
        lambda so_far, images, labels: add_gradient(so_far, jax.grad(net.loss)(net.params, images, labels)),
        init_gradient_sum(net.params),
    )
    found = noise_scale(gradients, float(batches.positions.shape[1]))
    return {"noise_scale": found.scale, "gradient_trace": found.trace, "gradient_square": found.square}


def sharpness(net: Net, batches: Batches) -> dict[str, Array]:
    """Largest Hessian eigenvalue of the loss on one fixed batch, and 2 / lr, above which descent is unstable.

        sharpness = max over unit v of v' H v;   plain gradient descent is stable below 2 / lr, with a momentum of beta
                                                 below 2 (1 + beta) / lr, which is 3.8 / lr for the usual 0.9

    On the first batch, always with the same first vector, by 16 steps of Lanczos' method; in float32, with the
    statistics of the batch, as in training, and without penalties and decay.

    Args:
        net: the network and its learning rate.
        batches: only the first is used.

    Returns:
        `sharpness`, `sharpness_error` (an eigenvalue is no further away) and `two_over_lr`, each [].

    Source: Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability",
    arXiv:2103.00065.
    """
    images, labels = batches.at(0)
    net = net._replace(model=net.model.clone(dtype=jnp.float32))
    found = top_eigenvalue(lambda params: net.loss(params, images, labels), net.params, jax.random.key(0), STEPS)
    return {"sharpness": found.value, "sharpness_error": found.error, "two_over_lr": 2 / jnp.asarray(net.lr)}
