"""Probes of the features before the head: ranks, class means and neural collapse."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

ROUNDING = 1e-6  # of the largest eigenvalue of a float32 matrix: smaller ones are rounding errors


class ClassMoments(NamedTuple):
    """Moments of the features of the images so far, a carry for `fori_loop` and `scan`."""

    count: Array  # [k] float32, images of each class
    mean: Array  # [k, f] their mean
    within: Array  # [f, f] sum over images of (h - mean of its class)(h - mean of its class)'
    gram: Array  # [f, f] sum over images of h h'


def init_class_moments(classes: int, features: int) -> ClassMoments:
    """Initial moments, before the first image, of k classes with f features."""
    square = jnp.zeros((features, features), jnp.float32)
    return ClassMoments(jnp.zeros((classes,)), jnp.zeros((classes, features)), square, square)


def add_features(moments: ClassMoments, features: Float[Array, "b f"], labels: Int[Array, " b"]) -> ClassMoments:
    """Adds a batch of images to the moments.

    Scatter of two sets: `W = W_1 + W_2 + n_1 n_2 / (n_1 + n_2) d d'`, d the difference of their means: sums of
    squares, in which nothing cancels.

    Args:
        moments: so far.
        features: h, of each image.
        labels: integers in [0, k).

    Source: Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", 1983.
    """
    h = features.astype(jnp.float32)
    of_class = (labels[:, None] == jnp.arange(len(moments.count))).astype(jnp.float32)  # [b, k]
    count = of_class.sum(0)
    mean = _product(of_class.T, h) / jnp.maximum(count, 1)[:, None]
    centered = h - mean[labels]
    total = moments.count + count
    d = mean - moments.mean
    weight = moments.count * count / jnp.maximum(total, 1)
    return ClassMoments(
        total,
        moments.mean + (count / jnp.maximum(total, 1))[:, None] * d,
        moments.within + _product(centered.T, centered) + _product(d.T, weight[:, None] * d),
        moments.gram + _product(h.T, h),
    )


def singular_values(gram: Float[Array, "f f"]) -> Float[Array, " f"]:
    """Singular values of a matrix H [n, f] from H' H, the largest first.

        sigma = sqrt(eigenvalues of H' H); eigenvalues below 1e-6 of the largest, which are rounding errors, as 0

    Args:
        gram: H' H, symmetric, float32.
    """
    values = jnp.linalg.eigvalsh(gram)[::-1]
    return jnp.sqrt(jnp.where(values > ROUNDING * values[0], values, 0.0))


def effective_rank(sigma: Float[Array, " r"]) -> Float[Array, ""]:
    """Effective rank of a matrix: the exponential of the entropy of its singular values.

        erank = exp(-sum_i p_i log p_i),   p_i = sigma_i / sum_j sigma_j

    Args:
        sigma: singular values, 0 or more.

    Returns:
        [] from 1 to the number of singular values; NaN if all are 0.

    Source: Roy and Vetterli, "The Effective Rank: A Measure of Effective Dimensionality", EUSIPCO 2007.
    """
    p = sigma / sigma.sum()
    entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0))
    return jnp.where(sigma.sum() > 0, jnp.exp(entropy), jnp.nan)


def stable_rank(sigma: Float[Array, " r"]) -> Float[Array, ""]:
    """Stable rank, squared Frobenius norm over squared spectral norm: `sum_i sigma_i^2 / max_i sigma_i^2`.

    Args:
        sigma: singular values, 0 or more.

    Returns:
        [] from 1 to the rank; NaN if all are 0.

    Source: Rudelson and Vershynin, "Sampling from Large Matrices", arXiv:math/0503442.
    """
    scaled = sigma / sigma.max()
    return jnp.square(scaled).sum()


def class_cosines(mean: Float[Array, "k f"], count: Float[Array, " k"]) -> Float[Array, "k k"]:
    """Cosines between the class means, relative to their center: 1 for classes that coincide.

        cos_ij = <m_i - m, m_j - m> / (|m_i - m| |m_j - m|),   m = mean of the class means

    When classes have collapsed to a simplex all of them are -1 / (k - 1).

    Args:
        mean: of each class.
        count: images of each class; classes without any are left out.

    Returns:
        [k, k] in [-1, 1]; NaN for classes without images and for a mean that is the center.

    Source: Papyan, Han and Donoho, "Prevalence of Neural Collapse", arXiv:2008.08186, NC2.
    """
    d = _from_centre(mean, count)
    unit = d / jnp.linalg.norm(d, axis=1, keepdims=True)
    there = (count > 0)[:, None] & (count > 0)
    return jnp.where(there, jnp.clip(_product(unit, unit.T), -1.0, 1.0), jnp.nan)


def collapse(moments: ClassMoments) -> Float[Array, ""]:
    """Neural collapse NC1: scatter within classes over the scatter between them, in the directions between classes.

        NC1 = tr(S_W S_B^+) / k,   S_W = mean over images of (h - m_c)(h - m_c)',
        S_B = mean over classes of (m_c - m)(m_c - m)',   m = mean of the class means

    The paper's classes are all of one size. Here every image counts alike in S_W and every class in S_B.

    Args:
        moments: of all images; k are the classes that have any.

    Returns:
        [] 0 or more; towards 0 when the classes collapse to their means. NaN if no class differs from another.

    Source: Papyan, Han and Donoho, "Prevalence of Neural Collapse", arXiv:2008.08186, NC1.
    """
    present = (moments.count > 0).sum()
    d = _from_centre(moments.mean, moments.count) / jnp.sqrt(present)
    values, vectors = jnp.linalg.eigh(_product(d.T, d))
    used = values > ROUNDING * values[-1]
    within = _product(moments.within / moments.count.sum(), vectors)
    along = (vectors * within).sum(0)  # v' S_W v for each eigenvector
    total = jnp.where(used, along / jnp.where(used, values, 1.0), 0.0).sum() / present
    return jnp.where(values[-1] > 0, total, jnp.nan)


def feature_metrics(moments: ClassMoments) -> dict[str, Array]:
    """Ranks of the features, their spread within and between classes, and the nearest other class of each.

        erank = exp(-sum p log p), p = sigma / sum sigma;   srank = sum sigma^2 / max sigma^2;
        within = tr S_W,   between = tr S_B,   NC1 = tr(S_W S_B^+) / k;   nearest_c = max_(j != c) cos(m_c - m, m_j - m)

    sigma are the singular values of the features [images, f] as they are, not centered: one feature vector for all
    images has rank 1. Singular values below a thousandth of the largest count as 0.

    Args:
        moments: of all images.

    Returns:
        `effective_rank`, `stable_rank`, `within_variance` and `between_variance` (squared units of a feature) and
        `collapse`, each [], and `nearest_class_cosine` [k].

    Source: Roy and Vetterli, "The Effective Rank", EUSIPCO 2007; Papyan, Han and Donoho, arXiv:2008.08186.
    """
    sigma = singular_values(moments.gram)
    d = _from_centre(moments.mean, moments.count)
    cosines = class_cosines(moments.mean, moments.count)
    others = ~jnp.eye(len(cosines), dtype=bool) & jnp.isfinite(cosines)
    nearest = jnp.where(others, cosines, -jnp.inf).max(1)
    return {
        "effective_rank": effective_rank(sigma),
        "stable_rank": stable_rank(sigma),
        "within_variance": jnp.trace(moments.within) / moments.count.sum(),
        "between_variance": jnp.square(d).sum() / (moments.count > 0).sum(),
        "collapse": collapse(moments),
        "nearest_class_cosine": jnp.where(jnp.isfinite(nearest), nearest, jnp.nan),
    }


def _from_centre(mean: Array, count: Array) -> Array:
    """Subtracts from the class means [k, f] their mean; 0 for classes without images."""
    there = (count > 0).astype(mean.dtype)[:, None]
    return (mean - (mean * there).sum(0) / there.sum()) * there


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
