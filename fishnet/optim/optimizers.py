"""Optimizers as descent directions at unit learning rate: a step adds `-lr * direction`.

They are built of optax's parts. The numbers (momentum, weight decay) may be traced, and the learning rate is not among
them, so that runs which differ in any of the three share one compiled program. The state of each optimizer starts
from zero and is made of trees shaped like the parameters and of scalars, nothing else. The scalars are step counts,
save for those of `schedule_free`.

Three optimizers change more of a step than its direction; this step serves all of them:

    grads = gradient(params)
    if optimizer.ascend:  # sam
        grads = gradient(optimizer.ascend(params, grads, rho))
    rule = optax.with_extra_args_support(optimizer.build(momentum, weight_decay))
    direction, state = rule.update(grads, state, params, learning_rate=lr)  # only schedule_free looks at lr
    params = params - lr * direction
    best = optimizer.evaluate(params, state) if optimizer.evaluate else params  # schedule_free
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import optax
from jax.typing import ArrayLike

from fishnet.errors import UsageError
from fishnet.lookup import Table
from fishnet.optim.adaptive import adagrad, adam, adamw, lamb, nadam, rmsprop
from fishnet.optim.momentum import lion, momentum, nesterov, sgd
from fishnet.optim.muon import muon
from fishnet.optim.sam import sam_ascend
from fishnet.optim.schedule_free import evaluation_params, schedule_free


@dataclass(frozen=True)
class Optimizer:
    """Optimizer: a rule that turns gradients into a descent direction, and its default learning rate.

    Attributes:
        build: `build(momentum, weight_decay) -> optax.GradientTransformation`. Its `update(grads, state, params)`
            gives the direction d of the step `params - lr * d`. Both numbers may be traced scalars; a plain number
            outside its range (momentum in [0, 1), weight decay 0 or more and finite) raises `UsageError`.
        default_lr: the learning rate that `lr="auto"` stands for, per step, for losses that are means over the batch.
        uses_momentum: whether `momentum` has any effect.
        needs_lr: whether `update` must be told the rate of its step: `update(grads, state, params, learning_rate=lr)`,
            lr being what the direction is multiplied by, schedule and warm-up included.
        ascend: `ascend(params, grads, rho) -> params`, the point whose gradient goes into `update`, found from the
            gradient at `params`; rho may be traced. None: there is no second gradient.
        evaluate: `evaluate(params, state) -> params`, the parameters to validate, select and keep. None: those that are
            trained.
        own_program: whether runs with it get programs of their own: it takes a second gradient, evaluates other
            parameters than it trains (both imply it), or costs matrix products that no other optimizer has.
    """

    build: Callable[[ArrayLike, ArrayLike], optax.GradientTransformation]
    default_lr: float
    uses_momentum: bool = True
    needs_lr: bool = False
    ascend: Callable[[optax.Params, optax.Updates, ArrayLike], optax.Params] | None = None
    evaluate: Callable[[optax.Params, Any], optax.Params] | None = None
    own_program: bool = False

    def __post_init__(self) -> None:
        if self.ascend or self.evaluate:
            object.__setattr__(self, "own_program", True)


def as_optax(
    optimizer: Optimizer, lr: ArrayLike | optax.Schedule, momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0
) -> optax.GradientTransformation:
    """Makes an optax optimizer, whose updates are added to the parameters: `-lr * direction`.

    Args:
        optimizer: one of `OPTIMIZERS`.
        lr: learning rate, or a schedule of it by step, such as from `fishnet.optim.schedules.as_schedule`.
        momentum, weight_decay: see `Optimizer.build`.

    Returns:
        A transformation for `optax.apply_updates`.

    Raises:
        UsageError: the optimizer changes more of a step than its direction (sam, schedule_free), or a plain number is
            out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> optimizer = as_optax(OPTIMIZERS["adamw"], lr=1e-3, weight_decay=0.01)
        >>> params = {"kernel": jnp.ones((2, 2))}
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update({"kernel": jnp.ones((2, 2))}, state, params)
        >>> print(np.asarray(updates["kernel"]).round(5))
        [[-0.00101 -0.00101]
         [-0.00101 -0.00101]]
    """
    if optimizer.ascend or optimizer.needs_lr or optimizer.evaluate:
        raise UsageError("this optimizer needs a step of its own, see the docstring of fishnet.optim.optimizers")
    return optax.chain(optimizer.build(momentum, weight_decay), optax.scale_by_learning_rate(cast(Any, lr)))


# Default rates: momentum's was chosen on the validation split of reef; nesterov and sam have the same step.
# adagrad, lamb: PyTorch's and NVIDIA Apex's defaults. rmsprop: that of Graves 2013 with momentum 0.9, where Hinton
# advises 1e-3 without. adam, nadam: Keras's defaults, adam's also the paper's. lion: a tenth of adamw's, as the paper
# advises. muon: adamw's, whose step size it shares. schedule_free: ten times momentum's; the authors advise 10 to 50
# times a classical rate.
OPTIMIZERS: Table[Optimizer] = Table(
    {
        "sgd": Optimizer(sgd, default_lr=0.1, uses_momentum=False),
        "momentum": Optimizer(momentum, default_lr=0.05),
        "nesterov": Optimizer(nesterov, default_lr=0.05),
        "adagrad": Optimizer(adagrad, default_lr=1e-2, uses_momentum=False),
        "rmsprop": Optimizer(rmsprop, default_lr=1e-4),
        "adam": Optimizer(adam, default_lr=1e-3),
        "nadam": Optimizer(nadam, default_lr=1e-3),
        "adamw": Optimizer(adamw, default_lr=1e-3),
        "lamb": Optimizer(lamb, default_lr=1e-3),
        "lion": Optimizer(lion, default_lr=1e-4),
        "muon": Optimizer(muon, default_lr=1e-3, own_program=True),
        "sam": Optimizer(momentum, default_lr=0.05, ascend=sam_ascend),
        "schedule_free": Optimizer(schedule_free, default_lr=0.5, needs_lr=True, evaluate=evaluation_params),
    }
)
