"""Pooling over non-overlapping windows, as strided slices: any size, any window, rank 4 throughout."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from fishnet.errors import UsageError


def _taps(x: Array, window: int) -> list[Array]:
    """The `window`^2 strided slices [b, h // window, w // window, c] of `x`, row by row."""
    h, w = x.shape[1] // window * window, x.shape[2] // window * window
    if not h or not w:
        raise UsageError(f"a pooling window of {window} does not fit a map of {x.shape[1]} x {x.shape[2]} pixels")
    return [x[:, i:h:window, j:w:window] for i in range(window) for j in range(window)]


def max_pool(x: Float[Array, "b h w c"], window: int = 2) -> Float[Array, "b p q c"]:
    """The largest value of each window.

        y[b, p, q, c] = max over 0 <= i, j < window of x[b, window p + i, window q + j, c]

    Args:
        x: maps [b, h, w, c].
        window: side of the window and stride, in pixels; rows and columns that fill no window are left out.

    Returns:
        [b, h // window, w // window, c].

    Raises:
        UsageError: the window is larger than the map.
    """
    taps = _taps(x, window)
    y = taps[0]
    for tap in taps[1:]:
        y = jnp.maximum(y, tap)
    return y


def mean_pool(x: Float[Array, "b h w c"], window: int = 2) -> Float[Array, "b p q c"]:
    """The mean of each window.

        y[b, p, q, c] = mean over 0 <= i, j < window of x[b, window p + i, window q + j, c]

    Args:
        x: maps [b, h, w, c].
        window: side of the window and stride, in pixels; rows and columns that fill no window are left out.

    Returns:
        [b, h // window, w // window, c].

    Raises:
        UsageError: the window is larger than the map.
    """
    return sum(_taps(x, window)) / window**2


POOLS: dict[str, Callable[..., Array]] = {"max": max_pool, "mean": mean_pool}
