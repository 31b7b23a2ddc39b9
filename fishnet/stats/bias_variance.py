"""Decomposition of the squared error of networks into bias, and variance from training sets and from seeds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fishnet.checks.arrays import ArrayLike
from fishnet.errors import UsageError


class BiasVariance(NamedTuple):
    """Bias and variance: `error = bias + variance`, exactly; each [...]."""

    error: np.ndarray  # mean squared error of the class probabilities
    bias: np.ndarray  # squared, with the noise of the labels
    variance: np.ndarray


class VarianceBySource(NamedTuple):
    """Variance by its source: `error = bias + sets + seeds`, exactly; each a number."""

    error: float
    bias: float  # squared, with the noise of the labels
    sets: float  # variance that the choice of the training set brings
    seeds: float  # variance that the seed brings, on one training set


def bias_variance(probabilities: Float[ArrayLike, "r *lead n k"], labels: Int[ArrayLike, " n"]) -> BiasVariance:
    """Splits the squared error of class probabilities (Brier score) of several networks into bias and variance.

        error    = mean_r mean_i |p_ri - y_i|^2
        variance = mean_i 1/(R - 1) sum_r |p_ri - m_i|^2,   m_i = mean_r p_ri
        bias     = mean_i |m_i - y_i|^2 - variance / R

    y_i is the one-hot label. Bias and variance are estimated without bias from R networks; a bias
    near 0 may come out below it. Where the p are guesses (0 and one 1 themselves), half of each is the split of the
    0-1 error: its mean is the share of wrong guesses, and variance is that of Kohavi and Wolpert.

    Args:
        probabilities: p [R, ..., n, k], networks that differ in their training sets, seeds or both.
        labels: [n] integers in [0, k).

    Returns:
        Each [...] float64.

    Raises:
        UsageError: fewer than 2 networks, or shapes that do not fit.

    Source: Geman, Bienenstock and Doursat 1992, https://doi.org/10.1162/neco.1992.4.1.1; for guesses: Kohavi and
    Wolpert, "Bias Plus Variance Decomposition for Zero-One Loss Functions", ICML 1996
    """
    p, y = _validate(probabilities, labels, 3)
    if len(p) < 2:
        raise UsageError(f"a variance needs 2 networks or more, got {len(p)}")
    error = np.square(p - y).sum(-1).mean((0, -1))
    variance = p.var(0, ddof=1).sum(-1).mean(-1)
    return BiasVariance(error, error - variance, variance)


def variance_by_source(probabilities: Float[ArrayLike, "d s n k"], labels: Int[ArrayLike, " n"]) -> VarianceBySource:
    """Splits the variance of `bias_variance` by its source: the training set or the seed.

        seeds = E_d Var_s(p | d),   sets = Var_d(E_s(p | d)),   error = bias + sets + seeds

    each summed over classes, averaged over images and estimated without bias: the variance of D means of S networks is
    taken less seeds / S, so that sets may come out below 0 where training sets hardly matter.

    Args:
        probabilities: [D, S, n, k], D training sets with S seeds each.
        labels: [n] integers in [0, k).

    Raises:
        UsageError: fewer than 2 training sets or seeds, or shapes that do not fit.

    Source: Neal et al., "A Modern Take on the Bias-Variance Tradeoff in Neural Networks", arXiv:1810.08591
    """
    p, y = _validate(probabilities, labels, 4)
    if p.ndim != 4 or min(p.shape[:2]) < 2:
        raise UsageError(f"probabilities {p.shape} are not [sets, seeds, n, k] with 2 sets and 2 seeds or more")
    error = np.square(p - y).sum(-1).mean()
    seeds = p.var(1, ddof=1).sum(-1).mean()
    sets = p.mean(1).var(0, ddof=1).sum(-1).mean() - seeds / p.shape[1]
    return VarianceBySource(float(error), float(error - sets - seeds), float(sets), float(seeds))


def _validate(probabilities: ArrayLike, labels: ArrayLike, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Checks probabilities and labels; returns them as float64, labels one-hot [n, k]."""
    p, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if labels.ndim != 1 or p.ndim < axes or p.shape[-2] != len(labels) or 0 in p.shape:
        raise UsageError(f"probabilities {p.shape} and labels {labels.shape} are not [r, ..., n, k] and [n]")
    if labels.min() < 0 or labels.max() >= p.shape[-1]:
        raise UsageError(f"labels {labels.min()} to {labels.max()} do not fit {p.shape[-1]} classes")
    return p, np.eye(p.shape[-1])[labels]
