"""Schedule `plateau`: a constant times a multiplier that is cut when the validation loss stops falling."""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from fishnet.checks.traced import check_progress, violates
from fishnet.errors import UsageError

THRESHOLD = 1e-4  # fraction by which a loss must be below the lowest one to count as better


def plateau(progress: ArrayLike) -> jax.Array:
    """Constant 1: the learning rate follows the validation loss, by the multiplier of `update_plateau`.

    Args:
        progress: [...] in [0, 1].

    Returns:
        The multiplier [...].

    Raises:
        UsageError: `progress` is known and outside [0, 1].
    """
    check_progress(progress)
    return jnp.ones(jnp.shape(progress), jnp.result_type(progress, jnp.float32))


@struct.dataclass
class PlateauState:
    """State of the schedule `plateau`, see `update_plateau`."""

    best: jax.Array  # [] float32, the lowest loss that counted; infinity before the first
    bad_epochs: jax.Array  # [] int32, since then or since the last cut
    multiplier: jax.Array  # [] float32, of the learning rate


def init_plateau() -> PlateauState:
    """Initial state: multiplier 1."""
    return PlateauState(best=jnp.float32(jnp.inf), bad_epochs=jnp.int32(0), multiplier=jnp.float32(1))


def update_plateau(
    state: PlateauState,
    value: ArrayLike,
    factor: ArrayLike = 0.1,
    patience: ArrayLike = 10,
    minimum: ArrayLike = 0.0,
) -> PlateauState:
    """Updates the state at the end of an epoch, and cuts the multiplier after more than `patience` bad epochs.

        multiplier <- max(factor * multiplier, minimum)

    An epoch is good when `value < (1 - 1e-4) * best`, and then value is the new best; otherwise, and when value is
    NaN, it is bad. A good epoch and a cut both set the count of bad ones to 0. This is PyTorch's `ReduceLROnPlateau`
    with mode `min`, without cool-down and without its least change of the rate; defaults are PyTorch's.

    Args:
        state: after the epoch before.
        value: [] validation loss of the epoch.
        factor: in (0, 1); may be traced.
        patience: bad epochs in a row that are tolerated, 0 or more; may be traced.
        minimum: lowest multiplier, lowest rate over peak rate, in [0, 1]; may be traced.

    Returns:
        The state whose multiplier holds for the next epoch.

    Raises:
        UsageError: a number that is known is out of its range.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html
    """
    if violates(factor, lambda factor: (factor > 0) & (factor < 1)):
        raise UsageError(f"plateau factor {factor} is not between 0 and 1")
    if violates(patience, lambda patience: patience >= 0):
        raise UsageError(f"plateau patience {patience} is not 0 or more epochs")
    if violates(minimum, lambda minimum: (minimum >= 0) & (minimum <= 1)):
        raise UsageError(f"plateau minimum {minimum} is not in [0, 1]: it is a fraction of the peak rate")
    value = jnp.asarray(value, jnp.float32)
    good = value < state.best * (1 - THRESHOLD)
    bad_epochs = jnp.where(good, 0, state.bad_epochs + 1)
    cut = bad_epochs > patience
    return PlateauState(
        best=jnp.where(good, value, state.best),
        bad_epochs=jnp.where(cut, 0, bad_epochs),
        multiplier=jnp.where(cut, jnp.maximum(state.multiplier * factor, minimum), state.multiplier),
    )
