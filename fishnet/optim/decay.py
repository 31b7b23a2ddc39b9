"""Weight decay and the valid range of numbers, shared by all optimizers."""

from typing import cast

import jax
import numpy as np
import optax
from jax.typing import ArrayLike

from fishnet.checks.traced import violates
from fishnet.errors import UsageError
from fishnet.optim.masks import kernel_mask


def kernel_decay(weight_decay: ArrayLike) -> optax.GradientTransformation:
    """Adds `weight_decay * p` to the gradients or directions of the kernels.

    First in a chain it is coupled: the gradient of `weight_decay / 2 * |p|^2`, which the rest of the chain treats like
    any gradient. Last in a chain it is decoupled: nothing rescales it.

    Args:
        weight_decay: 0 or more; may be traced.

    Returns:
        An optax transformation without state arrays.

    Source: coupled: Krogh and Hertz, "A Simple Weight Decay Can Improve Generalization", NIPS 1991; decoupled:
    Loshchilov and Hutter, arXiv:1711.05101
    """
    return optax.add_decayed_weights(cast(jax.Array, weight_decay), mask=kernel_mask)


def check_numbers(momentum: ArrayLike, weight_decay: ArrayLike) -> None:
    """Refuses known numbers out of range; traced ones pass.

    Raises:
        UsageError: momentum is not in [0, 1), or weight decay is negative or not finite.
    """
    if violates(momentum, lambda momentum: (momentum >= 0) & (momentum < 1)):
        raise UsageError(f"momentum {momentum} is not in [0, 1)")
    if violates(weight_decay, lambda decay: (decay >= 0) & (decay < np.inf)):
        raise UsageError(f"weight decay {weight_decay} is not 0 or a positive finite number")
