"""Learning-rate schedules as shapes: f(progress) -> multiplier, both in [0, 1], with peak 1.

The learning rate is a separate, traced scale. Progress is step / total steps and starts at 0, so 1 is never
reached. Every shape is elementwise in `progress` and has no Python branch on it, so it may be traced.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fishnet.errors import UsageError

Schedule = Callable[[ArrayLike], jax.Array]

ONECYCLE_RISE = 0.3  # share of the run in which the rate rises
ONECYCLE_START = 1 / 25  # multiplier at progress 0
ONECYCLE_END = 1 / 25e4  # multiplier at progress 1
EXPONENTIAL_END = 1e-2  # multiplier at progress 1


def constant(progress: ArrayLike) -> jax.Array:
    """No schedule: 1 at any progress.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].
    """
    return jnp.ones_like(floating(progress))


def cosine(progress: ArrayLike) -> jax.Array:
    """Half a cosine from 1 to 0: `(1 + cos(pi progress)) / 2`.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Source: Loshchilov and Hutter 2017 without restarts, https://arxiv.org/abs/1608.03983
    """
    return half_cosine(1.0, 0.0, floating(progress))


def onecycle(progress: ArrayLike) -> jax.Array:
    """Smith's one cycle: half a cosine from 1/25 up to 1 at progress 0.3, then half a cosine down to 1/250,000.

    The shape of `optax.cosine_onecycle_schedule` and of PyTorch's `OneCycleLR`, which brings its own rise and needs no
    warm-up. Only the rate is cycled: momentum stays as it is.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Source: Smith and Topin 2018, https://arxiv.org/abs/1708.07120
    """
    progress = floating(progress)
    rise = half_cosine(ONECYCLE_START, 1.0, progress / ONECYCLE_RISE)
    fall = half_cosine(1.0, ONECYCLE_END, (progress - ONECYCLE_RISE) / (1 - ONECYCLE_RISE))
    return jnp.where(progress < ONECYCLE_RISE, rise, fall)


def exponential(progress: ArrayLike) -> jax.Array:
    """Exponential decay from 1 to 1/100: `0.01 ** progress`.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Source: `optax.exponential_decay` with `decay_rate=0.01` over the whole run.
    """
    return EXPONENTIAL_END ** floating(progress)


def with_warmup(shape: Schedule, progress: ArrayLike, warmup: ArrayLike) -> jax.Array:
    """A linear rise from 0 ahead of a shape: `p / w` below w, from there `shape((p - w) / (1 - w))`.

    The very first step of a warm-up thus has multiplier 0.

    Args:
        shape: one of `SCHEDULES`, or any function of progress.
        progress: p [...] in [0, 1].
        warmup: w, a share of the run in [0, 1), may be traced; 0 is `shape` itself.

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `warmup` is a plain number outside [0, 1).

    Source: Goyal et al. 2017, https://arxiv.org/abs/1706.02677
    """
    if isinstance(warmup, int | float | np.number) and not 0 <= warmup < 1:
        raise UsageError(f"warmup {warmup} is not in [0, 1): it is a share of the run")
    p, w = floating(progress), floating(warmup)
    # The rise is divided by 1 where there is none, so that neither it nor its gradient is 0 / 0.
    rise = p / jnp.where(w > 0, w, 1.0)
    return jnp.where(p < w, rise, shape(jnp.maximum(p - w, 0.0) / (1 - w)))


def floating(x: ArrayLike) -> jax.Array:
    """x as an array of float32, or of float64 if it is one."""
    return jnp.asarray(x, jnp.result_type(x, jnp.float32))


def half_cosine(start: float, end: float, share: jax.Array) -> jax.Array:
    """Half a cosine from `start` at share 0 to `end` at share 1: `end + (start - end) (1 + cos(pi share)) / 2`."""
    return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * share))


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "onecycle": onecycle,
    "exponential": exponential,
}
