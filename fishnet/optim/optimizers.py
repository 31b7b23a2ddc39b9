"""Optimizers as descent directions at unit learning rate: the engine steps by `-lr * direction`.

Built of optax's parts. The numbers (momentum, weight decay) may be traced, and the learning rate is not among
them, so that lanes which differ in any of the three share one compiled program. The state of each optimizer is
made of trees shaped like the parameters and of scalar counts, nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from fishnet.errors import UsageError

ADAM_B2 = 0.999
ADAM_EPS = 1e-8

# Named because their rank alone can mislead: attention's biases have rank 2.
NEVER_DECAYED = ("bias", "scale")


@dataclass(frozen=True)
class Optimizer:
    """A rule that turns gradients into a descent direction, and the rate it is usually run at.

    Attributes:
        build: `build(momentum, weight_decay) -> optax.GradientTransformation`. Its `update(grads, state, params)`
            gives the direction d of the step `params - lr * d`. Both numbers may be traced scalars; a plain number
            outside its range (momentum in [0, 1), weight decay 0 or more and finite) raises `UsageError`.
        default_lr: the rate that `lr="auto"` stands for, per step, for losses that are means over the batch.
        uses_momentum: whether `momentum` has any effect.
    """

    build: Callable[[ArrayLike, ArrayLike], optax.GradientTransformation]
    default_lr: float
    uses_momentum: bool = True


def sgd(momentum: ArrayLike = 0.0, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Stochastic gradient descent: `d = g + weight_decay * p`; `momentum` has no effect.

    Args:
        momentum: accepted so that all optimizers are built alike; unused.
        weight_decay: factor of the L2 term, on kernels only (see `kernels`).

    Returns:
        An optax transformation without state arrays.

    Raises:
        UsageError: a plain number is out of its range.
    """
    check_numbers(momentum, weight_decay)
    return coupled_decay(weight_decay)


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
    return optax.chain(coupled_decay(weight_decay), optax.trace(decay=momentum))


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
    return optax.chain(coupled_decay(weight_decay), optax.trace(decay=momentum, nesterov=True))


def adam(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Adam with its L2 term in the gradient: `g' = g + weight_decay * p`, `d = m^ / (sqrt(v^) + 1e-8)`.

    m^ and v^ are the bias-corrected running means of g' (fraction kept `momentum`, Adam's beta_1) and of g'^2 (fraction
    kept 0.999).

    Args:
        momentum: beta_1.
        weight_decay: factor of the L2 term, on kernels only; the second moment rescales it (`adamw` does not).

    Returns:
        An optax transformation; its state is a step count and two trees like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(coupled_decay(weight_decay), optax.scale_by_adam(b1=momentum, b2=ADAM_B2, eps=ADAM_EPS))


def adamw(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Adam with decoupled weight decay: `d = m^ / (sqrt(v^) + 1e-8) + weight_decay * p`.

    Args:
        momentum: beta_1, the fraction of the first moment kept each step.
        weight_decay: fraction of a kernel taken off at each step at learning rate 1, on kernels only.

    Returns:
        An optax transformation; its state is a step count and two trees like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(
        optax.scale_by_adam(b1=momentum, b2=ADAM_B2, eps=ADAM_EPS),
        optax.add_decayed_weights(weight_decay, mask=kernels),
    )


def coupled_decay(weight_decay: ArrayLike) -> optax.GradientTransformation:
    """The gradient of `weight_decay / 2 * |p|^2` added to the kernels' gradients, ahead of the rest of a chain."""
    return optax.add_decayed_weights(weight_decay, mask=kernels)


def kernels(params: optax.Params) -> optax.Params:
    """Which parameters weight decay acts on: those of rank 2 or more that are no bias and no scale.

    Args:
        params: a tree of floating-point arrays of one network (no lane axis).

    Returns:
        A tree like `params` of Python booleans.

    Raises:
        UsageError: no rule covers a leaf: it is not a floating-point array, or is called "kernel" with a rank below 2.
    """

    def decayed(path: tuple, leaf: ArrayLike) -> bool:
        name = str(getattr(path[-1], "key", getattr(path[-1], "name", ""))) if path else ""
        rank, floating = jnp.ndim(leaf), jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        if not floating or (name == "kernel" and rank < 2):
            raise UsageError(
                f"weight decay has no rule for parameter {jax.tree_util.keystr(path)} "
                f"(shape {jnp.shape(leaf)}, {jnp.result_type(leaf)})"
            )
        return rank >= 2 and name not in NEVER_DECAYED

    return jax.tree_util.tree_map_with_path(decayed, params)


def check_numbers(momentum: ArrayLike, weight_decay: ArrayLike) -> None:
    """Refuses plain numbers out of range; traced and array values pass, for nothing can be asked of them yet.

    Raises:
        UsageError: momentum is not in [0, 1), or weight decay is negative or not finite.
    """
    if isinstance(momentum, int | float | np.number) and not 0 <= momentum < 1:
        raise UsageError(f"momentum {momentum} is not in [0, 1)")
    if isinstance(weight_decay, int | float | np.number) and not (weight_decay >= 0 and math.isfinite(weight_decay)):
        raise UsageError(f"weight decay {weight_decay} is not 0 or a positive finite number")


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(sgd, default_lr=0.1, uses_momentum=False),
    "momentum": Optimizer(momentum, default_lr=0.05),
    "nesterov": Optimizer(nesterov, default_lr=0.05),
    "adam": Optimizer(adam, default_lr=1e-3),
    "adamw": Optimizer(adamw, default_lr=1e-3),
}
