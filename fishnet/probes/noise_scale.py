"""Gradient noise scale: the batch size beyond which larger batches hardly help."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fishnet.checks.traced import violates
from fishnet.errors import UsageError
from fishnet.optim.masks import global_norm


class GradientSum(NamedTuple):
    """Sum of the gradients of batches so far, a carry for `fori_loop` and `scan`."""

    total: Any  # a tree like the parameters: their sum
    squares: Array  # [] float32, sum of their squared lengths
    count: Array  # [] float32, how many


class NoiseScale(NamedTuple):
    """Estimates of `noise_scale`."""

    scale: Array  # [] B, examples
    trace: Array  # [] tr(Sigma), of the gradient of a single example
    square: Array  # [] |G|^2


def init_gradient_sum(params: Any) -> GradientSum:
    """Initial sum, before the first batch.

    Args:
        params: of the network; only shapes and types matter.
    """
    return GradientSum(jax.tree.map(jnp.zeros_like, params), jnp.float32(0), jnp.float32(0))


def add_gradient(so_far: GradientSum, grads: Any) -> GradientSum:
    """Adds the gradient of one batch to the sum.

    Args:
        so_far: of batches of the same size.
        grads: of the mean loss of a batch, a tree like the parameters.
    """
    return GradientSum(
        jax.tree.map(jnp.add, so_far.total, grads),
        so_far.squares + jnp.square(global_norm(grads)),
        so_far.count + 1,
    )


def noise_scale(gradients: GradientSum, batch: ArrayLike) -> NoiseScale:
    """Simple noise scale, from the gradients of m >= 2 batches of b examples and of all of them.

        B = tr(Sigma) / |G|^2,   s = mean |g_i|^2,   g = |mean g_i|^2,
        |G|^2 = (m g - s) / (m - 1),   tr(Sigma) = b m (s - g) / (m - 1)

    G is the gradient of the mean loss over all data, Sigma the covariance of the gradients of single examples. Both
    estimates are unbiased, their ratio is not; over few batches it is little more than an order of magnitude. Batches
    of b give s, the m of them together, as one of m b, give g. Batches much smaller than B waste little data.

    Args:
        gradients: of batches of different examples.
        batch: b, their size.

    Returns:
        B in examples, infinite where the estimate of |G|^2 is 0 or less, and both estimates in units of a squared
        gradient; NaN from fewer than 2 batches.

    Raises:
        UsageError: `batch` is known and below 1.

    Source: McCandlish et al., "An Empirical Model of Large-Batch Training", arXiv:1812.06162, equation 2.9 and
    appendix A.1.
    """
    if violates(batch, lambda batch: batch >= 1):
        raise UsageError(f"a noise scale needs batches of 1 example or more, got {batch}")
    m = gradients.count
    small = gradients.squares / m
    large = jnp.square(global_norm(gradients.total) / m)
    square = (m * large - small) / (m - 1)
    trace = cast(Array, batch * m * (small - large) / (m - 1))
    scale = jnp.where(square <= 0, jnp.inf, trace / square)
    return NoiseScale(scale, trace, square)


def noise_scale_of_examples(grads: Float[Array, "n w"]) -> NoiseScale:
    """Simple noise scale from the gradients of n >= 2 single examples: `noise_scale` with b = 1.

    Args:
        grads: a row an example.
    """
    n = jnp.float32(grads.shape[0])
    return noise_scale(GradientSum(grads.sum(0), jnp.square(grads).sum(), n), 1)
