"""Sharpness-aware minimization (SAM): the gradient is taken at a nearby point of higher loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from fishnet.checks.traced import violates
from fishnet.errors import UsageError
from fishnet.optim.masks import global_norm

RHO = 0.05  # radius of the neighborhood, in the units of the parameters; the paper's for CIFAR-10 and ImageNet


def sam_ascend(params: optax.Params, grads: optax.Updates, rho: ArrayLike = RHO) -> optax.Params:
    """Ascends to the point where SAM takes its second gradient: `p + rho * g / |g|`, |g| over all parameters.

    A step of SAM takes the gradient at params, ascends, takes the gradient of the same batch there (with the same
    augmentation and dropout), and calls `update(second gradient, state, params)` with the params of the start, on which
    weight decay and the step act. Running moments of batch norm are those of the first pass: the second sees a network
    that is never used.

    Args:
        params: a tree of arrays.
        grads: the loss's gradient at `params`.
        rho: radius, 0 or more; may be traced. 0 is the base optimizer alone, at twice the cost.

    Returns:
        A tree like `params`; the params themselves where the gradient is 0.

    Raises:
        UsageError: `rho` is known, and negative or not finite.

    Source: Foret et al. 2021, https://arxiv.org/abs/2010.01412
    """
    if violates(rho, lambda rho: (rho >= 0) & (rho < np.inf)):
        raise UsageError(f"rho {rho} is not 0 or a positive finite number")
    norm = global_norm(grads)
    stretch = rho / jnp.where(norm > 0, norm, 1.0)
    return jax.tree.map(lambda p, g: p + stretch * g, params, grads)
