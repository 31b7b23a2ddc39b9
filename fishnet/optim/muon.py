"""Muon: orthogonalized momentum for kernels, Adam's direction for all other parameters."""

import math
from typing import Any, cast

import jax
import optax
from jax.typing import ArrayLike

from fishnet.optim.adaptive import ADAM_B2, ADAM_EPS
from fishnet.optim.decay import check_numbers, kernel_decay
from fishnet.optim.masks import kernel_mask

UPDATE_RMS = 0.2  # of an entry of a kernel's direction: about Adam's


def muon(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Muon: `d = 0.2 sqrt(max(i, o)) U V^T + weight_decay * p` for kernels, Adam's direction for biases and scales.

    `U S V^T` is the Nesterov momentum `b m / (1 - b^(t+1)) + (1 - b) g / (1 - b^t)` of a kernel as a matrix [i, o], t
    the step from 1, b `momentum`, m the running mean of g; a convolution's kernel [kh, kw, i, o] is the matrix
    [kh * kw * i, o]. Five Newton-Schulz iterations stand in for `U V^T`: they put the singular values between about 0.7
    and 1.2. The factor gives the entries the size that Adam's have, so that one learning rate serves both kinds of
    parameters; the first and the last layer are kernels like the others.

    Args:
        momentum: the fraction kept of the kernels' momentum, and Adam's beta_1.
        weight_decay: fraction of a kernel taken off at each step at learning rate 1 (decoupled), on kernels only.

    Returns:
        An optax transformation; its state is a step count and two trees like the parameters (kernels have no use for
        their second moments, which are kept so that the state is made of whole trees).

    Raises:
        UsageError: a plain number is out of its range.

    Source: Jordan 2024, https://kellerjordan.github.io/posts/muon; the factor is that of Liu et al. 2025,
    https://arxiv.org/abs/2502.16982
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(scale_by_muon_or_adam(momentum), kernel_decay(weight_decay))


def scale_by_muon_or_adam(momentum: ArrayLike) -> optax.GradientTransformation:
    """Transformation of `muon` without weight decay, whose state is that of Adam over all parameters.

    `optax.contrib.muon` itself keeps the first moments of kernels and of the rest in two trees full of holes.
    """
    adam = optax.scale_by_adam(b1=momentum, b2=ADAM_B2, eps=ADAM_EPS)
    # Any: optax's types do not say that its rules take any tree and that their states are named tuples.
    orthogonal: Any = optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=cast(Any, matrix_dimensions))

    def update(grads: optax.Updates, state: Any, params: optax.Params | None = None) -> tuple:
        chosen = jax.tree.leaves(kernel_mask(grads))

        def pick_kernels(tree: optax.Params) -> list[jax.Array]:
            return [leaf for leaf, kernel in zip(jax.tree.leaves(tree), chosen, strict=True) if kernel]

        before = orthogonal.init(pick_kernels(grads))._replace(count=state.count, mu=pick_kernels(state.mu))
        directions = iter(orthogonal.update(pick_kernels(grads), before)[0])
        # Adam's first moment is Muon's too.
        updates, state = adam.update(grads, state, params)
        leaves, tree = jax.tree.flatten(updates)
        leaves = [rescale_to_adam(next(directions)) if kernel else d for d, kernel in zip(leaves, chosen, strict=True)]
        return tree.unflatten(leaves), state

    return optax.GradientTransformation(adam.init, cast(Any, update))


def matrix_dimensions(kernels: list[jax.Array]) -> list[optax.contrib.MuonDimensionNumbers]:
    """Axes of each kernel that are the rows of its matrix (all but the last), in optax's form."""
    return [optax.contrib.MuonDimensionNumbers(tuple(range(k.ndim - 1)), k.ndim - 1) for k in kernels]


def rescale_to_adam(orthogonal: jax.Array) -> jax.Array:
    """Rescales the orthogonal `U V^T` of a matrix [i, o] to the size of Adam's directions."""
    outputs = orthogonal.shape[-1]
    return orthogonal * (UPDATE_RMS * math.sqrt(max(orthogonal.size // outputs, outputs)))
