"""Adaptive optimizers, which divide by the root of a second moment: adagrad, rmsprop, adam, nadam, adamw, lamb.

Every second moment starts at 0, as in the papers and in PyTorch, and not at 0.1 (optax's adagrad) or 1 (TensorFlow's
RMSProp): such a start, in units of the squared gradient, would damp the first steps by the gradient's scale.
"""

import optax
from jax.typing import ArrayLike

from fishnet.optim.decay import check_numbers, kernel_decay
from fishnet.optim.masks import kernel_mask

ADAM_B2 = 0.999
ADAM_EPS = 1e-8
RMSPROP_DECAY = 0.9
LAMB_EPS = 1e-6
# Under the root, so that it is PyTorch's 1e-10 beside it. Optax's 1e-7 would turn gradients below 3e-4, which are
# common here, into plain SGD.
ADAGRAD_EPS = 1e-20


def adagrad(momentum: ArrayLike = 0.0, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """AdaGrad: `g' = g + weight_decay * p`, `s <- s + g'^2`, `d = g' / sqrt(s + 1e-20)`; `momentum` has no effect.

    The sum only grows, so the steps shrink like one over the root of their number.

    Args:
        momentum: accepted so that all optimizers are built alike; unused.
        weight_decay: factor of the L2 term, on kernels only (coupled: the sum of squares rescales it).

    Returns:
        An optax transformation; its state is one tree like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(kernel_decay(weight_decay), optax.scale_by_rss(initial_accumulator_value=0.0, eps=ADAGRAD_EPS))


def rmsprop(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """RMSProp: `v <- 0.9 v + 0.1 g'^2`, `t <- g' / (sqrt(v) + 1e-8) + momentum * t`, `d = t`.

    `g' = g + weight_decay * p`. v starts at 0 and is not bias-corrected, so the first steps are up to sqrt(10) times as
    long as later ones.

    Args:
        momentum: the fraction of the trace of rescaled gradients kept each step; 0 is Hinton's own rule. The trace is
            not damped by `1 - momentum`.
        weight_decay: factor of the L2 term, on kernels only (coupled: the second moment rescales it).

    Returns:
        An optax transformation; its state is two trees like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Hinton 2012, http://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf; with momentum
    Graves 2013, https://arxiv.org/abs/1308.0850
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(
        kernel_decay(weight_decay),
        optax.scale_by_rms(decay=RMSPROP_DECAY, eps=ADAM_EPS, initial_scale=0.0, eps_in_sqrt=False),
        optax.trace(decay=momentum),
    )


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
    return optax.chain(kernel_decay(weight_decay), optax.scale_by_adam(b1=momentum, b2=ADAM_B2, eps=ADAM_EPS))


def nadam(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """Adam with Nesterov momentum: `d = (b m / (1 - b^(t+1)) + (1 - b) g' / (1 - b^t)) / (sqrt(v^) + 1e-8)`.

    b is `momentum`, t the step from 1, and `g' = g + weight_decay * p`, m and v^ are Adam's. Without Dozat's schedule
    of momenta, which PyTorch has.

    Args:
        momentum: beta_1.
        weight_decay: factor of the L2 term, on kernels only (coupled, as in `adam`).

    Returns:
        An optax transformation; its state is a step count and two trees like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(
        kernel_decay(weight_decay), optax.scale_by_adam(b1=momentum, b2=ADAM_B2, eps=ADAM_EPS, nesterov=True)
    )


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
        kernel_decay(weight_decay),
    )


def lamb(momentum: ArrayLike = 0.9, weight_decay: ArrayLike = 0.0) -> optax.GradientTransformation:
    """LAMB, Adam with a trust ratio a kernel: `u = m^ / (sqrt(v^) + 1e-6) + weight_decay * p`, `d = u |p| / |u|`.

    A kernel thus changes by the same fraction of its norm whatever its gradient, or by u itself where either norm is 0.
    Biases and scales step along u, as in the authors' program: next to 0 they could not grow otherwise.

    Args:
        momentum: beta_1, the fraction of the first moment kept each step.
        weight_decay: added to Adam's direction ahead of the ratio, on kernels only: neither coupled (no second moment
            rescales it) nor quite decoupled (the ratio does).

    Returns:
        An optax transformation; its state is a step count and two trees like the parameters.

    Raises:
        UsageError: a plain number is out of its range.

    Source: You et al. 2020, https://arxiv.org/abs/1904.00962
    """
    check_numbers(momentum, weight_decay)
    return optax.chain(
        optax.scale_by_adam(b1=momentum, b2=ADAM_B2, eps=LAMB_EPS),
        kernel_decay(weight_decay),
        optax.masked(optax.scale_by_trust_ratio(), kernel_mask),
    )
