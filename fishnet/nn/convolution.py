"""Convolution lowerings: drop-in values for `nn.Conv(conv_general_dilated=...)`, channels last.

XLA's own convolution falls to a naive loop inside `scan`, `map` and `while` on CPU: 17 times slower than outside. The
matrix form does not, and its plain autodiff is faster than a rule of its own that rebuilds the patches.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fishnet.errors import UsageError
from fishnet.nn.sums import pixel_sum, pixels, wide


def gemm(
    lhs: Float[Array, "b *s i"],
    rhs: Float[Array, "*k j o"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: object = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: object = None,
    preferred_element_type: object = None,
) -> Float[Array, "b *t o"]:
    """Convolution as one matrix product: pad, take a strided slice a tap, concatenate on channels, multiply.

        y[b, p, q, o] = sum over i, j, c of x[b, s p + i, s q + j, c] k[i, j, c, o]

    A kernel of one pixel needs no patches; a depthwise one is a sum over taps of elementwise products; other groups
    are convolved one after the other.

    Args:
        lhs: maps [b, h, w, i], or with one or three spatial axes.
        rhs: kernel [kh, kw, i / feature_group_count, o].
        window_strides: a stride for each spatial axis, in pixels.
        padding: "SAME", "SAME_LOWER", "VALID", or (low, high) in pixels for each spatial axis.
        lhs_dilation: input dilation for each spatial axis; needs explicit padding, as in XLA.
        rhs_dilation: kernel dilation for each spatial axis.
        dimension_numbers: channels last, as `nn.Conv` passes them.
        feature_group_count: groups of channels that are convolved apart; i for a depthwise convolution.
        batch_group_count: 1.
        precision: of the matrix product, as for `jax.lax.dot_general`.
        preferred_element_type: dtype of the sums and the result; None for that of the inputs.

    Returns:
        Maps [b, p, q, o].

    Raises:
        UsageError: another layout than channels last, batch groups, unknown padding, or shapes that do not fit.
    """
    axes = lhs.ndim - 2
    groups, c, d = feature_group_count, lhs.shape[-1], rhs.shape[-1]
    lhs_dilation, rhs_dilation = tuple(lhs_dilation or (1,) * axes), tuple(rhs_dilation or (1,) * axes)
    _check_layout(lhs.shape, rhs.shape, dimension_numbers)
    if batch_group_count != 1:
        raise UsageError(f"the gemm lowering has no batch groups, got batch_group_count={batch_group_count}")
    if c != groups * rhs.shape[-2] or d % groups:
        raise UsageError(f"{c} channels in {groups} groups do not fit a kernel of shape {tuple(rhs.shape)}")
    reach = [(k - 1) * r + 1 for k, r in zip(rhs.shape, rhs_dilation, strict=False)]
    edges = _edges(lhs.shape[1:-1], reach, window_strides, padding, lhs_dilation)
    if any(edge != (0, 0, 0) for edge in edges):
        lhs = lax.pad(lhs, jnp.zeros((), lhs.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    if any(n < k for n, k in zip(lhs.shape[1:-1], reach, strict=True)):
        raise UsageError(f"a kernel that reaches over {reach} pixels does not fit padded maps of {lhs.shape[1:-1]}")
    if groups == c and groups > 1:
        lhs = jnp.repeat(lhs, d // c, axis=-1) if d > c else lhs
        y = _depthwise(lhs, rhs.reshape(*rhs.shape[:axes], d), tuple(window_strides), rhs_dilation)
        return y.astype(preferred_element_type or lhs.dtype)
    taps = _taps(lhs, rhs.shape[:axes], window_strides, rhs_dilation)

    def product(taps: list[Array], kernel: Array) -> Array:
        patches = taps[0] if len(taps) == 1 else jnp.concatenate(taps, axis=-1)
        y = lax.dot_general(
            patches.reshape(-1, patches.shape[-1]),
            kernel.reshape(-1, kernel.shape[-1]),
            (((1,), (0,)), ((), ())),
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
        return y.reshape(*patches.shape[:-1], kernel.shape[-1])

    if groups == 1:
        return product(taps, rhs)
    i, o = c // groups, d // groups
    parts = [product([t[..., g * i : (g + 1) * i] for t in taps], rhs[..., g * o : (g + 1) * o]) for g in range(groups)]
    return jnp.concatenate(parts, axis=-1)


def _check_layout(lhs: tuple[int, ...], rhs: tuple[int, ...], dimension_numbers: object) -> None:
    """Refuses any other layout than channels last."""
    axes = len(lhs) - 2
    numbers = lax.conv_dimension_numbers(lhs, rhs, dimension_numbers)
    maps, kernel = (0, axes + 1, *range(1, axes + 1)), (axes + 1, axes, *range(axes))
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (maps, kernel, maps):
        raise UsageError(f"the gemm lowering needs channels last (NHWC, HWIO, NHWC), got {dimension_numbers}")


def _edges(
    size: tuple[int, ...], reach: list[int], strides: Sequence[int], padding: object, dilation: tuple[int, ...]
) -> list[tuple[int, int, int]]:
    """(low, high, interior) padding in pixels for each spatial axis."""
    if isinstance(padding, str):
        if set(dilation) != {1}:
            raise UsageError(f"input dilation {dilation} needs explicit padding, got {padding!r}")
        if padding.upper() not in ("SAME", "SAME_LOWER", "VALID"):
            raise UsageError(f"padding must be SAME, SAME_LOWER, VALID or pairs of pixels, got {padding!r}")
        padding = lax.padtype_to_pads(size, reach, strides, padding)
    return [(int(low), int(high), g - 1) for (low, high), g in zip(padding, dilation, strict=True)]


def _taps(x: Array, window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> list[Array]:
    """For each kernel pixel, row by row, the slice [b, p, q, c] of padded maps `x` that it multiplies."""
    taps = []
    for index in itertools.product(*map(range, window)):
        low = [i * r for i, r in zip(index, dilation, strict=True)]
        last = [n - 1 - (k - 1) * r for n, k, r in zip(x.shape[1:-1], window, dilation, strict=True)]
        high = [a + n // s * s + 1 for a, n, s in zip(low, last, strides, strict=True)]
        taps.append(lax.slice(x, (0, *low, 0), (x.shape[0], *high, x.shape[-1]), (1, *strides, 1)))
    return taps


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, strides: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
    """Each channel of padded maps `x` with a kernel [kh, kw, c] of its own, in float32 or better."""
    taps = _taps(x, kernel.shape[:-1], strides, dilation)
    return sum(wide(tap) * wide(k) for tap, k in zip(taps, kernel.reshape(-1, kernel.shape[-1]), strict=True))


def _depthwise_forward(x: Array, kernel: Array, strides: tuple, dilation: tuple) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, strides, dilation), (x, kernel)


def _depthwise_backward(strides: tuple, dilation: tuple, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    # Autodiff would add up a padded array a tap, and reduce over pixels once a tap by XLA's slow reduction:
    # forward and backward at [64, 32, 32, 16] with 3x3 kernels take 9 ms this way, 35 ms that way (one CPU core).
    x, kernel = kept
    axes = tuple(range(kernel.ndim - 1))
    edges = []
    for n, p, k, s, r in zip(x.shape[1:-1], dy.shape[1:-1], kernel.shape, strides, dilation, strict=False):
        edges.append(((k - 1) * r, n - 1 - (p - 1) * s, s - 1))
    around = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    dx = _depthwise(around, jnp.flip(kernel, axes), (1,) * len(axes), dilation)
    taps = _taps(x, kernel.shape[:-1], strides, dilation)
    dk = [pixel_sum(pixels(wide(tap) * dy), computed=True).sum(0) for tap in taps]
    return dx.astype(x.dtype), jnp.stack(dk).reshape(kernel.shape).astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
