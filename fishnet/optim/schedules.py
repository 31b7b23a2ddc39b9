"""Learning-rate schedules as functions f(progress) -> multiplier, both in [0, 1], with peak 1.

The learning rate is a separate, traced scale. Progress is step / total steps and starts at 0, so 1 is never
reached. Every shape is elementwise in `progress` and has no Python branch on it, so it may be traced; where it is
known, what is outside [0, 1], such as a step, is refused. `with_floor`
around a schedule lets it end above 0; `with_warmup` around that adds a warm-up.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fishnet.checks.traced import check_progress, violates
from fishnet.errors import UsageError
from fishnet.lookup import Table
from fishnet.optim.plateau import plateau

Schedule = Callable[[ArrayLike], jax.Array]

ONECYCLE_RISE = 0.3  # fraction of the run in which the learning rate rises
ONECYCLE_START = 1 / 25  # multiplier at progress 0
ONECYCLE_END = 1 / 25e4  # multiplier at progress 1
EXPONENTIAL_END = 1e-2  # multiplier at progress 1
STEP_FACTOR = 0.1
STEPS_AT = (0.5, 0.75)  # fractions of the run
POLYNOMIAL_POWER = 2
COSINE_RISE = 0.05  # fraction of the run in which `warmup_cosine` rises
CYCLES = 4.0  # in a run


def constant(progress: ArrayLike) -> jax.Array:
    """Constant schedule: 1 at any progress.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1].
    """
    return jnp.ones_like(as_progress(progress))


def cosine(progress: ArrayLike) -> jax.Array:
    """Cosine decay from 1 to 0: `(1 + cos(pi progress)) / 2`.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1].

    Source: Loshchilov and Hutter 2017 without restarts, https://arxiv.org/abs/1608.03983
    """
    return half_cosine(1.0, 0.0, as_progress(progress))


def onecycle(progress: ArrayLike) -> jax.Array:
    """One-cycle schedule: half a cosine from 1/25 up to 1 at progress 0.3, then half a cosine down to 1/250,000.

    The shape of `optax.cosine_onecycle_schedule` and of PyTorch's `OneCycleLR`, which brings its own rise and needs no
    warm-up. Only the rate is cycled: momentum stays as it is.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1].

    Source: Smith and Topin 2018, https://arxiv.org/abs/1708.07120
    """
    progress = as_progress(progress)
    rise = half_cosine(ONECYCLE_START, 1.0, progress / ONECYCLE_RISE)
    fall = half_cosine(1.0, ONECYCLE_END, (progress - ONECYCLE_RISE) / (1 - ONECYCLE_RISE))
    return jnp.where(progress < ONECYCLE_RISE, rise, fall)


def exponential(progress: ArrayLike) -> jax.Array:
    """Exponential decay from 1 to 1/100: `0.01 ** progress`.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1].

    Source: `optax.exponential_decay` with `decay_rate=0.01` over the whole run.
    """
    return EXPONENTIAL_END ** as_progress(progress)


def step(progress: ArrayLike) -> jax.Array:
    """Step decay: 1, from progress 0.5 on 0.1, from 0.75 on 0.01.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1].

    Source: He et al. 2016, section 4.2 (32k and 48k of 64k iterations), https://arxiv.org/abs/1512.03385
    """
    progress = as_progress(progress)
    return jnp.where(progress < STEPS_AT[0], 1.0, jnp.where(progress < STEPS_AT[1], STEP_FACTOR, STEP_FACTOR**2))


def polynomial(progress: ArrayLike) -> jax.Array:
    """Quadratic decay from 1 to 0: `(1 - progress)^2`.

    Power 2, that of LARS: power 1 is the linear decay, whose slope does not end at 0; powers below 1 (0.9 in DeepLab)
    drop to 0 at the very end.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1].

    Source: You et al. 2017, https://arxiv.org/abs/1708.03888
    """
    return (1 - as_progress(progress)) ** POLYNOMIAL_POWER


def warmup_cosine(progress: ArrayLike) -> jax.Array:
    """Cosine decay after a linear warm-up in the first 5 % of the run: `with_warmup(cosine, progress, 0.05)`.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1].

    Source: Goyal et al. 2017, https://arxiv.org/abs/1706.02677, and Loshchilov and Hutter 2017, see `cosine`
    """
    return with_warmup(cosine, progress, COSINE_RISE)


def cyclic_triangular(progress: ArrayLike, cycles: ArrayLike = CYCLES) -> jax.Array:
    """Triangular cycles, linear from 0 to 1 and back: `1 - |2 phase - 1|`, `phase = frac(cycles p)`.

    Args:
        progress: p [...] in [0, 1].
        cycles: how many in a run, above 0, broadcast against progress; may be traced.

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1], or `cycles` and not positive and finite.

    Source: Smith 2017, https://arxiv.org/abs/1506.01186
    """
    return 1 - jnp.abs(2 * phase(progress, cycles) - 1)


def cyclic_sine(progress: ArrayLike, cycles: ArrayLike = CYCLES) -> jax.Array:
    """Sine cycles between 0 and 1, starting halfway up: `(1 + sin(2 pi cycles progress)) / 2`.

    With a floor r it is `r + (1 - r) / 2 * (1 + sin(2 pi cycles progress))`. Smith's cycles in a round form.

    Args:
        progress: [...] in [0, 1].
        cycles: how many in a run, above 0, broadcast against progress; may be traced.

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1], or `cycles` and not positive and finite.

    Source: Smith 2017, section 3.1, on other forms of the cycle, https://arxiv.org/abs/1506.01186
    """
    return 0.5 * (1 + jnp.sin(2 * jnp.pi * phase(progress, cycles)))


def with_floor(multiplier: ArrayLike, floor: ArrayLike) -> jax.Array:
    """Raises the lowest multiplier from 0 to `floor`: `floor + (1 - floor) * multiplier`.

    Args:
        multiplier: [...] in [0, 1].
        floor: lowest rate over peak rate, in [0, 1]; may be traced. 0 is the multiplier itself, bit for bit.

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `floor` is known and outside [0, 1].

    Example:
        >>> print(np.asarray(with_floor(cosine(jnp.array([0.0, 0.5, 1.0])), 0.1)).round(2))
        [1.   0.55 0.1 ]
    """
    if violates(floor, lambda floor: (floor >= 0) & (floor <= 1)):
        raise UsageError(f"floor {floor} is not in [0, 1]: it is a fraction of the peak rate")
    return cast(jax.Array, floor + (1 - floor) * as_float(multiplier))


def with_warmup(shape: Schedule, progress: ArrayLike, warmup: ArrayLike) -> jax.Array:
    """Puts a linear warm-up from 0 ahead of a schedule: `p / w` below w, from there `shape((p - w) / (1 - w))`.

    The first step of a warm-up thus has multiplier 0.

    Args:
        shape: one of `SCHEDULES`, or any function of progress.
        progress: p [...] in [0, 1].
        warmup: w, a fraction of the run in [0, 1), may be traced; 0 is `shape` itself.

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1], or `warmup` and outside [0, 1).

    Source: Goyal et al. 2017, https://arxiv.org/abs/1706.02677
    """
    if violates(warmup, lambda warmup: (warmup >= 0) & (warmup < 1)):
        raise UsageError(f"warmup {warmup} is not in [0, 1): it is a fraction of the run")
    p, w = as_progress(progress), as_float(warmup)
    # The rise is divided by 1 where there is none, so that neither it nor its gradient is 0 / 0.
    rise = p / jnp.where(w > 0, w, 1.0)
    return jnp.where(p < w, rise, shape(jnp.maximum(p - w, 0.0) / (1 - w)))


def as_schedule(
    shape: Schedule, lr: ArrayLike, steps: int, warmup: ArrayLike = 0.0, floor: ArrayLike = 0.0
) -> Callable[[ArrayLike], jax.Array]:
    """Makes a schedule of optax, from the step to the learning rate: `lr * shape(step / steps)`.

    Args:
        shape: one of `SCHEDULES`, or any function of progress.
        lr: peak learning rate.
        steps: of the whole run, 1 or more.
        warmup: as for `with_warmup`.
        floor: as for `with_floor`.

    Returns:
        `f(step) -> learning rate`, for steps from 0 to `steps`.

    Raises:
        UsageError: `steps` is below 1, or, when called, a known step is beyond the run.

    Example:
        >>> schedule = as_schedule(cosine, lr=0.1, steps=100, warmup=0.1)
        >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.05, 0.1, 0.05, 0.0]
    """
    if steps < 1:
        raise UsageError(f"a schedule needs 1 step or more, got {steps}")
    rate: Any = lr
    return lambda step: rate * with_warmup(lambda p: with_floor(shape(p), floor), jnp.asarray(step) / steps, warmup)


def as_progress(progress: ArrayLike) -> jax.Array:
    """Casts progress to floating point; UsageError where it is known and outside [0, 1]."""
    check_progress(progress)
    return as_float(progress)


def as_float(x: ArrayLike) -> jax.Array:
    """Casts x to float32, or to float64 if it is float64."""
    return jnp.asarray(x, jnp.result_type(x, jnp.float32))


def phase(progress: ArrayLike, cycles: ArrayLike) -> jax.Array:
    """Phase of a run in its current cycle, in [0, 1)."""
    if violates(cycles, lambda cycles: (cycles > 0) & (cycles < np.inf)):
        raise UsageError(f"cycles {cycles} is not a positive finite number")
    turns = as_progress(progress) * as_float(cycles)
    return turns - jnp.floor(turns)


def half_cosine(start: float, end: float, fraction: jax.Array) -> jax.Array:
    """Half a cosine from `start` at 0 to `end` at 1: `end + (start - end) (1 + cos(pi fraction)) / 2`."""
    return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * fraction))


SCHEDULES: Table[Schedule] = Table(
    {
        "constant": constant,
        "step": step,
        "exponential": exponential,
        "polynomial": polynomial,
        "cosine": cosine,
        "warmup_cosine": warmup_cosine,
        "onecycle": onecycle,
        "cyclic_triangular": cyclic_triangular,
        "cyclic_sine": cyclic_sine,
        "plateau": plateau,
    }
)

# Those that also take a number of cycles.
CYCLIC = ("cyclic_triangular", "cyclic_sine")
