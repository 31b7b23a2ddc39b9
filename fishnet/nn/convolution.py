"""Convolution lowerings: drop-in values for `nn.Conv(conv_general_dilated=...)`, channels last.

XLA's own convolution falls to a naive loop inside `scan`, `map` and `while` on CPU: 17 times slower than outside. The
matrix form does not. Its gradients keep the patches: rebuilding them from the maps is slower. The rules are for reverse
mode, `jax.jvp` does not pass.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fishnet.errors import UsageError


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
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
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

    Example:
        >>> import flax.linen as nn
        >>> layer = nn.Conv(4, (3, 3), strides=2, conv_general_dilated=gemm)
        >>> layer.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)))[0].shape
        (1, 4, 4, 4)

    Source: Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing",
    IWFHR 2006.
    """
    lhs = pad_maps(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
        batch_group_count,
    )  # fmt: skip
    axes = lhs.ndim - 2
    groups, c, d = feature_group_count, lhs.shape[-1], rhs.shape[-1]
    rhs_dilation = tuple(rhs_dilation or (1,) * axes)
    if groups == c and groups > 1:
        lhs = jnp.repeat(lhs, d // c, axis=-1) if d > c else lhs
        y = _depthwise(lhs, rhs.reshape(*rhs.shape[:axes], d), tuple(window_strides), rhs_dilation)
        return cast(Array, y).astype(preferred_element_type or lhs.dtype)
    layout = tuple(zip(rhs.shape[:axes], window_strides, rhs_dilation, strict=True))

    def product(x: Array, kernel: Array) -> Array:
        patches = cast(Array, _patches(x, layout, x.shape[1:-1]))
        y = lax.dot_general(
            patches.reshape(prod(patches.shape[:-1]), patches.shape[-1]),
            kernel.reshape(prod(kernel.shape[:-1]), kernel.shape[-1]),
            (((1,), (0,)), ((), ())),
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
        return y.reshape(*patches.shape[:-1], kernel.shape[-1])

    if groups == 1:
        return product(lhs, rhs)
    i, o = c // groups, d // groups
    parts = [product(lhs[..., g * i : (g + 1) * i], rhs[..., g * o : (g + 1) * o]) for g in range(groups)]
    return jnp.concatenate(parts, axis=-1)


def pad_maps(
    lhs: Float[Array, "..."],
    rhs: Float[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    dimension_numbers: object,
    feature_group_count: int,
    batch_group_count: int,
) -> Float[Array, "..."]:
    """Checks the arguments of a convolution and pads its maps, so that the rest is a "VALID" convolution.

    Arguments and errors as for `gemm`.

    Returns:
        Maps [b, h + low + high, w + low + high, i], with zeros between pixels where `lhs_dilation` asks for them.
    """
    axes = lhs.ndim - 2
    groups, c, d = feature_group_count, lhs.shape[-1], rhs.shape[-1]
    lhs_dilation, rhs_dilation = tuple(lhs_dilation or (1,) * axes), tuple(rhs_dilation or (1,) * axes)
    _check_layout(lhs.shape, rhs.shape, dimension_numbers)
    if batch_group_count != 1:
        raise UsageError(f"convolutions here have no batch groups, got batch_group_count={batch_group_count}")
    if c != groups * rhs.shape[-2] or d % groups:
        raise UsageError(f"{c} channels in {groups} groups do not fit a kernel of shape {tuple(rhs.shape)}")
    reach = [(k - 1) * r + 1 for k, r in zip(rhs.shape, rhs_dilation, strict=False)]
    edges = _edges(lhs.shape[1:-1], reach, window_strides, padding, lhs_dilation)
    if any(edge != (0, 0, 0) for edge in edges):
        lhs = lax.pad(lhs, jnp.zeros((), lhs.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    if any(n < k for n, k in zip(lhs.shape[1:-1], reach, strict=True)):
        raise UsageError(f"a kernel that reaches over {reach} pixels does not fit padded maps of {lhs.shape[1:-1]}")
    return lhs


def _check_layout(lhs: tuple[int, ...], rhs: tuple[int, ...], dimension_numbers: object) -> None:
    """Refuses any other layout than channels last."""
    axes = len(lhs) - 2
    numbers = lax.conv_dimension_numbers(lhs, rhs, dimension_numbers)
    maps, kernel = (0, axes + 1, *range(1, axes + 1)), (axes + 1, axes, *range(axes))
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (maps, kernel, maps):
        raise UsageError(f"convolutions here need channels last (NHWC, HWIO, NHWC), got {dimension_numbers}")


def _edges(
    size: tuple[int, ...],
    reach: list[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    dilation: tuple[int, ...],
) -> list[tuple[int, int, int]]:
    """Computes the (low, high, interior) padding in pixels of each spatial axis."""
    if isinstance(padding, str):
        if set(dilation) != {1}:
            raise UsageError(f"input dilation {dilation} needs explicit padding, got {padding!r}")
        if padding.upper() not in ("SAME", "SAME_LOWER", "VALID"):
            raise UsageError(f"padding must be SAME, SAME_LOWER, VALID or pairs of pixels, got {padding!r}")
        padding = lax.padtype_to_pads(size, reach, strides, padding)
    return [(int(low), int(high), g - 1) for (low, high), g in zip(padding, dilation, strict=True)]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _patches(x: Array, layout: tuple[tuple[int, int, int], ...], size: tuple[int, ...]) -> Array:
    """Extracts the patch that each output pixel sees: padded maps [b, *size, c] to [b, p, q, kh kw c].

    `layout` has (kernel size, stride, dilation) for each spatial axis. Slices are put side by side axis by axis: an
    axis at a time moves fewer short runs than a slice a tap.
    """
    for axis in range(len(layout), 0, -1):
        k, s, r = layout[axis - 1]
        if (k, s) != (1, 1):
            reach = x.shape[axis] - (k - 1) * r
            slices = [lax.slice_in_dim(x, i * r, i * r + reach, s, axis) for i in range(k)]
            x = jnp.concatenate(slices, axis=-1) if k > 1 else slices[0]
    return x


def _patches_forward(x: Array, layout: tuple, size: tuple[int, ...]) -> tuple[Array, None]:
    return _patches(x, layout, size), None


def _patches_backward(layout: tuple, size: tuple[int, ...], _: None, dy: Array) -> tuple[Array]:
    # Added up in place, one tap after the other. Autodiff adds padded arrays instead: a test of bounds a tap and pixel,
    # in a loop which XLA's CPU backend fuses into the one of the pooling before, and so runs four times. A training
    # step at 32 x 32, batch 64, one CPU core: CNN 16-32-64 25 against 31 ms, ResNet 16-32-64 172 against 185 ms.
    window, strides, dilation = zip(*layout, strict=True)
    c = dy.shape[-1] // prod(window)
    shape = dy.shape[0], *size, c
    dx = jnp.zeros(shape, jnp.promote_types(dy.dtype, jnp.float32))
    for n, index in enumerate(itertools.product(*map(range, window))):
        low = [i * r for i, r in zip(index, dilation, strict=True)]
        part = dy[..., n * c : (n + 1) * c].astype(dx.dtype)
        if set(strides) == {1}:
            here = lax.dynamic_slice(dx, (0, *low, 0), part.shape)
            dx = lax.dynamic_update_slice(dx, here + part, (0, *low, 0))
        else:
            dx = dx + lax.pad(part, jnp.zeros((), dx.dtype), _edges_of(low, part.shape[1:-1], strides, size))
    return (dx.astype(dy.dtype),)


def _edges_of(low: Sequence[int], out: Sequence[int], strides: Sequence[int], size: Sequence[int]) -> list[tuple]:
    """Computes the padding that places `out` pixels, `strides` apart and from `low` on, into maps of `size` pixels."""
    sides = zip(low, out, strides, size, strict=True)
    return [(0, 0, 0), *((a, n - a - (p - 1) * s - 1, s - 1) for a, p, s, n in sides), (0, 0, 0)]


_patches.defvjp(_patches_forward, _patches_backward)


def _taps(x: Array, window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> list[Array]:
    """Slices padded maps `x` into the part [b, p, q, c] that each kernel pixel multiplies, row by row."""
    taps = []
    for index in itertools.product(*map(range, window)):
        low = [i * r for i, r in zip(index, dilation, strict=True)]
        last = [n - 1 - (k - 1) * r for n, k, r in zip(x.shape[1:-1], window, dilation, strict=True)]
        high = [a + n // s * s + 1 for a, n, s in zip(low, last, strides, strict=True)]
        taps.append(lax.slice(x, (0, *low, 0), (x.shape[0], *high, x.shape[-1]), (1, *strides, 1)))
    return taps


def _wide(x: Array) -> Array:
    """Casts `x` to float32 or better."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, strides: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
    """Convolves each channel of padded maps `x` with its own kernel [kh, kw], in float32 or better."""
    taps = _taps(x, kernel.shape[:-1], strides, dilation)
    pairs = zip(taps, kernel.reshape(-1, kernel.shape[-1]), strict=True)
    return cast(Array, sum(_wide(tap) * _wide(k) for tap, k in pairs))


def _depthwise_forward(x: Array, kernel: Array, strides: tuple, dilation: tuple) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, strides, dilation), (x, kernel)


def _depthwise_backward(strides: tuple, dilation: tuple, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    # Autodiff would add up a padded array a tap, and sum over pixels by XLA's slow reduction: forward and backward at
    # [64, 32, 32, 16] with 3x3 kernels take 9 ms this way and 35 ms that way (one CPU core, inside `fori_loop`).
    x, kernel = kept
    axes = tuple(range(kernel.ndim - 1))
    reach = [(k - 1) * r for k, r in zip(kernel.shape[:-1], dilation, strict=True)]
    around = [n + a for n, a in zip(x.shape[1:-1], reach, strict=True)]
    around = lax.pad(dy, jnp.zeros((), dy.dtype), _edges_of(reach, dy.shape[1:-1], strides, around))
    dx = cast(Array, _depthwise(around, jnp.flip(kernel, axes), (1,) * len(axes), dilation))
    taps = _taps(x, kernel.shape[:-1], strides, dilation)
    dk = [_channel_sum(_wide(tap) * dy) for tap in taps]
    return dx.astype(x.dtype), jnp.stack(dk).reshape(kernel.shape).astype(kernel.dtype)


def _channel_sum(t: Array) -> Array:
    """Sums over all axes but the last: [b, ..., c] to [c]."""

    def product(t: Array) -> Array:
        # XLA's CPU backend writes a computed operand to memory before it sums; of four runs of pixels added up in the
        # loop that computes them, it writes a quarter. A product with ones then sums at the speed of the memory.
        n = t.shape[1]
        runs = max(k for k in (1, 2, 3, 4) if n % k == 0)
        t = cast(Array, sum(t[:, i * (n // runs) : (i + 1) * (n // runs)] for i in range(runs)))
        ones = jnp.ones(t.shape[:2], t.dtype)
        return lax.dot_general(ones, t, (((1,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST).sum(0)

    t = t.reshape(t.shape[0], -1, t.shape[-1])
    # Accelerators fuse a reduction with what computes its operand; for them the product would be a detour.
    return lax.platform_dependent(t, cpu=product, default=lambda t: t.sum((0, 1)))


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
