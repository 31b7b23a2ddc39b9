"""Probes of the classes: margin, loss and gradient of each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from fishnet.optim.masks import global_norm
from fishnet.probes.context import Batches, Net


def margins(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Margin by which the logit of the true class exceeds the best of the others; below 0 the prediction is wrong.

        margin = z_y - max over j != y of z_j

    Args:
        logits: z, of 2 classes or more.
        labels: integers in [0, k).

    Returns:
        [b], in units of a logit.

    Source: Bartlett, Foster and Telgarsky, "Spectrally-Normalized Margin Bounds", arXiv:1706.08498.
    """
    own = labels[:, None] == jnp.arange(logits.shape[-1])
    true = jnp.where(own, logits, 0.0).sum(-1)
    return true - jnp.where(own, -jnp.inf, logits).max(-1)


class _Sums(NamedTuple):
    """Sums over the images so far, by class."""

    gradient: Any  # of the class at hand, sum over its images
    norm: Array  # [k] length of the gradient of each class's mean loss
    margin: Array  # [k] sum
    loss: Array  # [k] sum
    variance: Array  # [k] weighted sum of estimates
    weight: Array  # [k] of these weights


def class_metrics(net: Net, batches: Batches) -> dict[str, Array]:
    """Margin, loss and gradient of each class: which classes are learned, and which dominate the gradient.

        margin = z_y - max over j != y of z_j;   g_c = gradient of the mean loss of the images of class c;
        share_c = n_c |g_c| / sum_j n_j |g_j|;   variance_c = tr Cov(gradient of one image of class c)

    The variance is estimated without bias from the two halves of each batch: `E |u - v|^2 = tr Cov (1/n_u + 1/n_v)` for
    the mean gradients u and v of n_u and n_v images. Batches hold images of one class at a time, so norms take running
    statistics, as in evaluation; a batch takes one forward and two backward passes, one for each half.

    Args:
        net: the network; its losses have the class weights of training, if any.
        batches: the images; regrouped here by class.

    Returns:
        `class_margin` (logits), `class_loss`, `class_gradient_norm`, `class_gradient_share` and
        `class_gradient_variance`, each [k]; NaN for a class without images, the variance also for one with a single
        one.

    Source: margins: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    arXiv:1906.07413; gradients: Francazi, Baity-Jesi and Lucchi, "A Theoretical Analysis of the Learning Dynamics under
    Class Imbalance", arXiv:2207.00391.
    """
    size, positions = batches.positions.shape[1], batches.positions.reshape(-1)
    labels = batches.labels[positions]
    k = jax.eval_shape(net.logits, batches.take(positions[:1])[0]).shape[-1]
    positions = positions[jnp.argsort(labels, stable=True)]
    count = (labels[:, None] == jnp.arange(k)).sum(0)
    end, last_batch = jnp.cumsum(count), jnp.cumsum(-(-count // size))  # one after each class's last image and batch

    def add(t: Array, sums: _Sums) -> _Sums:
        c = jnp.searchsorted(last_batch, t, side="right")
        of_class = t - jnp.where(c > 0, last_batch[jnp.maximum(c - 1, 0)], 0)
        at = end[c] - count[c] + of_class * size + jnp.arange(size)
        here = at < end[c]
        images, own = batches.take(positions[jnp.minimum(at, len(positions) - 1)])
        halves = [(here & (jnp.arange(size) % 2 == half)).astype(jnp.float32) for half in range(2)]

        def losses(params: Any) -> tuple[Array, Array]:
            logits = net.logits(images, params)
            return net.losses(logits, own), logits

        loss, pull, logits = jax.vjp(losses, net.params, has_aux=True)
        u, v = (pull(jnp.where(half > 0, 1.0, 0.0).astype(loss.dtype))[0] for half in halves)
        n_u, n_v = (half.sum() for half in halves)
        gradient = jax.tree.map(lambda s, a, b: jnp.where(of_class > 0, s, 0.0) + a + b, sums.gradient, u, v)
        apart = jax.tree.map(lambda a, b: a / jnp.maximum(n_u, 1) - b / jnp.maximum(n_v, 1), u, v)
        estimate = jnp.square(global_norm(apart)) / (1 / jnp.maximum(n_u, 1) + 1 / jnp.maximum(n_v, 1))
        weight = jnp.minimum(n_u, n_v)  # none where a half is empty
        return _Sums(
            gradient=gradient,
            norm=sums.norm.at[c].set(global_norm(gradient) / jnp.maximum(count[c], 1)),
            margin=sums.margin.at[c].add(jnp.where(here, margins(logits, own), 0.0).sum()),
            loss=sums.loss.at[c].add(jnp.where(here, loss, 0.0).sum()),
            variance=sums.variance.at[c].add(weight * estimate),
            weight=sums.weight.at[c].add(weight),
        )

    zeros = jnp.zeros((k,), jnp.float32)
    start = _Sums(jax.tree.map(jnp.zeros_like, net.params), zeros, zeros, zeros, zeros, zeros)
    sums = lax.fori_loop(0, last_batch[-1], add, start)
    there = count > 0
    brought = count * sums.norm
    metrics = {
        "class_margin": sums.margin / jnp.maximum(count, 1),
        "class_loss": sums.loss / jnp.maximum(count, 1),
        "class_gradient_norm": sums.norm,
        "class_gradient_share": brought / brought.sum(),
        "class_gradient_variance": jnp.where(sums.weight > 0, sums.variance / sums.weight, jnp.nan),
    }
    return {name: jnp.where(there, metric, jnp.nan) for name, metric in metrics.items()}
