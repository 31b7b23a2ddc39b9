"""Optimizers whose state is at most one velocity: sgd, momentum, nesterov, lion."""

import optax
from jax.typing import ArrayLike

from fishnet.optim.decay import check_numbers, kernel_decay

LION_B2 = 0.99


def sgd(momentum: ArrayLike = 0.0, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Stochastic gradient descent: `d = g + weight_decay * p`; `momentum` has no effect.

    Args:
        momentum: accepted so that all optimizers are built alike; unused.
        weight_decay: factor of the L2 term, on kernels only (see `kernels`).

    Returns:
        An optax transformation without state arrays.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Robbins and Monro 1951, https://doi.org/10.1214/aoms/1177729586
    """
    check_numbers(momentum, weight_decay)
    return kernel_decay(weight_decay)


def momentum(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Heavy-ball momentum: `t <- g + weight_decay * p + momentum * t`, `d = t` (not damped by `1 - momentum`).

    Args:
        momentum: the fraction of the trace kept each step.
        weight_decay: factor of the L2 term, on kernels only.

    Returns:
        An optax transformation; its state is one tree like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Polyak 1964; in the form of Sutskever et al. 2013, http://proceedings.mlr.press/v28/sutskever13.html
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(kernel_decay(weight_decay), optax.trace(decay=momentum))


def nesterov(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Nesterov momentum: `g' = g + weight_decay * p`, `t <- g' + momentum * t`, `d = g' + momentum * t`.

    Args:
        momentum: the fraction of the trace kept each step.
        weight_decay: factor of the L2 term, on kernels only.

    Returns:
        An optax transformation; its state is one tree like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Sutskever et al. 2013, http://proceedings.mlr.press/v28/sutskever13.html
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(kernel_decay(weight_decay), optax.trace(decay=momentum, nesterov=True))


def lion(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Lion, the sign of a momentum: `d = sign(momentum * m + (1 - momentum) g) + weight_decay * p`, then m.

    The momentum is updated by `m <- 0.99 m + 0.01 g`. Every entry moves by exactly the learning rate, so that only a
    falling schedule lets it come to rest.

    Args:
        momentum: beta_1, the weight of the remembered mean in the sign; the fraction kept of the mean stays 0.99.
        weight_decay: fraction of a kernel taken off at each step at learning rate 1 (decoupled), on kernels only. The
            paper's is 3 to 10 times AdamW's, as its rate is 3 to 10 times smaller.

    Returns:
        An optax transformation; its state is a step count and one tree like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Chen et al. 2023, https://arxiv.org/abs/2302.06675
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(optax.scale_by_lion(b1=momentum, b2=LION_B2), kernel_decay(weight_decay))
