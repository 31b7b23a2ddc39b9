"""Constraints on parameters besides the optimizer: max-norm, penalties in the loss, averaged weights."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from fishnet.checks.traced import violates
from fishnet.errors import UsageError
from fishnet.optim.clipping import check_limit
from fishnet.optim.masks import kernel_mask, path_names, unit_norms


def select_all(path: tuple[str, ...]) -> bool:
    """Selects the kernels of all layers: always True."""
    return True


def max_norm(
    params: optax.Params, limit: ArrayLike | optax.Params, select: Callable[[tuple[str, ...]], bool] = select_all
) -> optax.Params:
    """Applies the max-norm constraint after an update: `w * min(1, limit / |w|)` for the weights w into each unit.

    The norm is over i of a dense kernel [i, o] and over kh, kw, i of a convolution's [kh, kw, i, o] (see `unit_norms`).

    Args:
        params: a tree of arrays of one network (no lane axis).
        limit: largest norm, 0 or more (the paper: 3 to 4); may be traced; or a tree like `params` of such. Infinity
            leaves params as they are, bit for bit.
        select: `f(path) -> bool`, whether to constrain the kernel at a path such as ("conv_0", "kernel").

    Returns:
        A tree like `params`.

    Raises:
        UsageError: `limit` is a known number that is negative or NaN, or `kernel_mask` has no rule for a parameter.

    Example:
        >>> params = {"kernel": jnp.array([[3.0, 0.3], [4.0, 0.4]])}
        >>> print(np.asarray(max_norm(params, 1.0)["kernel"]).round(2))
        [[0.6 0.3]
         [0.8 0.4]]

    Source: Srivastava et al. 2014, section 5.1, https://jmlr.org/papers/v15/srivastava14a.html
    """
    if jax.tree.structure(limit) != jax.tree.structure(params):
        one = cast(ArrayLike, limit)
        check_limit(one)
        limit = jax.tree.map(lambda _: one, params)

    def constrained(path: tuple, w: jax.Array, kernel: bool, limit: ArrayLike) -> jax.Array:
        if not (kernel and select(path_names(path))):
            return w
        norm = unit_norms(w, kernel)
        long = norm > limit
        return w * jnp.where(long, limit / jnp.where(long, norm, 1.0), 1.0)

    return jax.tree_util.tree_map_with_path(constrained, params, kernel_mask(params), limit)


def l1_penalty(params: optax.Params, factor: ArrayLike) -> jax.Array:
    """L1 penalty, a term of the loss: `factor * sum |w|` over all kernels; the gradient at w = 0 is 0.

    Args:
        params: a tree of arrays of one network (no lane axis).
        factor: 0 or more; may be traced.

    Returns:
        The term, [].

    Raises:
        UsageError: `factor` is a plain number that is negative or not finite, or no rule covers a parameter.

    Source: Tibshirani, "Regression Shrinkage and Selection via the Lasso", J. R. Stat. Soc. B 58 (1996)
    """
    check_factor(factor)
    # The gradient of `jnp.abs` at 0 is 1: weights that have come to rest there would be driven off again.
    total = sum(jnp.sum(w * jax.lax.stop_gradient(jnp.sign(w))) for w in kernel_leaves(params))
    return cast(jax.Array, factor * total)


def l2_penalty(params: optax.Params, factor: ArrayLike) -> jax.Array:
    """L2 penalty, a term of the loss: `factor / 2 * sum w^2` over all kernels.

    Its gradient is `factor * w`: what coupled weight decay of that factor adds. It goes through gradient clipping and
    shows in the loss, which weight decay does not.

    Args:
        params: a tree of arrays of one network (no lane axis).
        factor: 0 or more; may be traced.

    Returns:
        The term, [].

    Raises:
        UsageError: `factor` is a plain number that is negative or not finite, or no rule covers a parameter.

    Source: Krogh and Hertz, "A Simple Weight Decay Can Improve Generalization", NIPS 1991
    """
    check_factor(factor)
    return cast(jax.Array, factor / 2 * sum(jnp.sum(jnp.square(w)) for w in kernel_leaves(params)))


def add_penalties(
    loss: jax.Array, grads: optax.Updates, params: optax.Params, l1: jax.Array, l2: jax.Array
) -> tuple[jax.Array, optax.Updates]:
    """Adds the L1 and L2 penalties of `params` to the loss [] and their gradients to `grads`.

    Args:
        loss, grads: of the data; a tree like `params`.
        params: of one network.
        l1, l2: [] float32, factors as for `l1_penalty` and `l2_penalty`; where both are 0 nothing is computed.
    """

    def penalize(loss: jax.Array, grads: optax.Updates, params: optax.Params) -> tuple[jax.Array, optax.Updates]:
        term, slopes = jax.value_and_grad(lambda p: l1_penalty(p, l1) + l2_penalty(p, l2))(params)
        return loss + term, jax.tree.map(jnp.add, grads, slopes)

    return lax.cond((l1 > 0) | (l2 > 0), penalize, lambda loss, grads, params: (loss, grads), loss, grads, params)


def ema(average: optax.Params, params: optax.Params, decay: ArrayLike, step: ArrayLike) -> optax.Params:
    """Debiased exponential moving average of the weights: `a <- a + (1 - decay) / (1 - decay^step) (p - a)`.

    That is `m / (1 - decay^step)` of `m <- decay * m + (1 - decay) * p` with m = 0 at the start, as in `optax.ema`,
    without a moment m that is not fit for use: the first average is the first params, and young averages weigh all
    their params nearly alike. What `average` was before the first step does not matter.

    Args:
        average: a tree like `params`, the average so far.
        params: a tree of arrays, after the update of this step.
        decay: the fraction kept of an old average, in [0, 1); may be traced. 0: the average is the params, bit for bit.
        step: [] updates made, this one included, so 1 at the first; may be traced.

    Returns:
        A tree like `params`.

    Raises:
        UsageError: `decay` is known and outside [0, 1).

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control Optim. 30
    (1992); as an exponential average: Tarvainen and Valpola, arXiv:1703.01780; its debiasing: Kingma and Ba,
    arXiv:1412.6980, section 3
    """
    if violates(decay, lambda decay: (decay >= 0) & (decay < 1)):
        raise UsageError(f"decay {decay} of the average of the weights is not in [0, 1)")
    fresh = 1 - jnp.asarray(decay, jnp.float32)
    # 1 - decay^step to full precision also where decay is next to 1.
    weight = fresh / -jnp.expm1(step * jnp.log1p(-fresh))
    first = (jnp.asarray(step) <= 1) | (fresh == 1)
    return jax.tree.map(lambda a, p: jnp.where(first, p, a + weight * (p - a)), average, params)


def kernel_leaves(params: optax.Params) -> list[jax.Array]:
    """Lists the kernels of a tree of parameters."""
    mask = jax.tree.leaves(kernel_mask(params))
    return [w for w, kernel in zip(jax.tree.leaves(params), mask, strict=True) if kernel]


def check_factor(factor: ArrayLike) -> None:
    """Refuses known numbers that are negative or not finite; traced ones pass.

    Raises:
        UsageError: `factor` is one of them.
    """
    if violates(factor, lambda factor: (factor >= 0) & (factor < np.inf)):
        raise UsageError(f"penalty factor {factor} is not 0 or a positive finite number")
