"""Schedule-free SGD: gradients between an iterate and its average, evaluation at the average."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from fishnet.optim.decay import check_numbers, kernel_decay


class ScheduleFreeState(NamedTuple):
    """State of schedule-free SGD; all zero at the start."""

    lead: optax.Params  # like the parameters: x - y, the average less the point of the gradient
    top_lr: jax.Array  # [] float32, largest learning rate so far
    weight_sum: jax.Array  # [] float32, sum over steps of the squares of top_lr


def schedule_free(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformationExtraArgs:
    """Schedule-free SGD: `z <- z - lr g`, `x <- (1 - c) x + c z`, `y <- (1 - b) z + b x`, with g the gradient at y.

    All three start at the initial parameters. The parameters that are trained are y; those to evaluate are x, from
    `evaluation_params`. b is `momentum`. The weight of a step in the average is the square of the largest rate so far,
    and c its share in the sum of these weights: 1/t at a constant rate, and less than that in the steps of a warm-up.

    The learning rate is part of the rule: it sets c, and y moves by the averaging too, not by `lr * d` with a d that
    knows nothing of lr. So `update` takes the rate of its step, the product of the learning rate and the schedule's
    multiplier, and gives the direction `d = (y - y') / lr`, along which `params - lr * d` is y'. The schedule to use is
    `constant` with a warm-up; any other is followed as it is. A step of rate 0, as at the start of a warm-up, changes
    nothing; it has no direction.

    Own arithmetic and not `optax.contrib.schedule_free`: that divides by b, starts from a copy of the parameters, and
    wants one rate or a function of the step. Kept are y and x - y, so b = 0 (plain averaging of SGD) is no exception.

    Batch norm's running moments belong to y: at x they are slightly off unless they are estimated anew.

    Args:
        momentum: b, the weight of the average in the point of the gradient, in [0, 1). More sensitive than that of
            `momentum`: the authors advise 0.9, and 0.95 to 0.98 in very long runs.
        weight_decay: factor of the L2 term at y, on kernels only (coupled, as in the authors' program).

    Returns:
        An optax transformation with `update(grads, state, params, learning_rate=lr)`; lr, [] and 0 or more, may be
        traced. Its state is one tree like the parameters and two float32 scalars.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Defazio et al. 2024, https://arxiv.org/abs/2405.15682
    """
    check_numbers(momentum, weight_decay)
    decay = kernel_decay(weight_decay)

    def init(params: optax.Params) -> ScheduleFreeState:
        return ScheduleFreeState(jax.tree.map(jnp.zeros_like, params), jnp.float32(0), jnp.float32(0))

    def update(
        grads: optax.Updates, state: ScheduleFreeState, params: optax.Params, *, learning_rate: ArrayLike
    ) -> tuple[optax.Updates, ScheduleFreeState]:
        lr = jnp.asarray(learning_rate, jnp.float32)
        moves = lr > 0
        top_lr = jnp.maximum(state.top_lr, lr)
        weight = jnp.where(moves, jnp.square(top_lr), 0.0)
        weight_sum = state.weight_sum + weight
        share = weight / jnp.where(moves, weight_sum, 1.0)
        grads, _ = decay.update(grads, decay.init(params), params)
        # With x - z = lead / (1 - b), the three rules for y' - y and x' - y' in terms of lead and g alone.
        along = 1 - momentum + momentum * share
        across = momentum * share / ((1 - momentum) * jnp.where(moves, lr, 1.0))
        direction = jax.tree.map(lambda g, lead: along * g + across * lead, grads, state.lead)
        lead = jax.tree.map(lambda g, lead: (1 - share) * (lead + (1 - momentum) * lr * g), grads, state.lead)
        return direction, ScheduleFreeState(lead, top_lr, weight_sum)

    # optax's type of an update lacks the keyword that this rule must be given.
    return optax.GradientTransformationExtraArgs(init, cast(Any, update))


def evaluation_params(params: optax.Params, state: ScheduleFreeState) -> optax.Params:
    """Parameters to evaluate, x = y + (x - y).

    Args:
        params: y, those that are trained.
        state: of `schedule_free`.

    Returns:
        A tree like `params`.
    """
    return jax.tree.map(jnp.add, params, state.lead)
