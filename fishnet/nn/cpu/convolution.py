"""Convolution by the compiled kernels of this folder: a lowering for CPU, closed under reverse-mode differentiation.

The three products of a convolution (with a kernel, of a gradient with a kernel, of maps with a gradient) are each a
call of compiled code, and the gradient of each is made of the other two: so gradients of gradients work to any order.
`jax.jvp` does not pass, as in the other lowerings with rules of their own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fishnet.nn.cpu.library import require_kernels
from fishnet.nn.winograd import winograd

WINOGRAD_FROM = 16  # channels on either side, from which the products that are saved outweigh the transforms
Window = tuple[int, int, int, int, int, int]  # stride (h, w), padding (top, bottom, left, right)


def cpu_kernels(
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
    """Convolution by compiled kernels where they apply, else by `winograd`; for `nn.Conv(conv_general_dilated=...)`.

        y[b, p, q, o] = sum over i, j, c of x[b, s p + i - top, s q + j - left, c] k[i, j, c, o]

    The kernels are compiled at first use, see `fishnet.nn.cpu.library`. They apply to float32 maps of two spatial axes,
    strides of 1 and 2, padding that is narrower than the kernel, without dilation, and to one group of channels or as
    many groups as channels (depthwise).

    Args:
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
            batch_group_count, precision, preferred_element_type: as for `fishnet.nn.convolution.gemm`.

    Returns:
        Maps [b, p, q, o].

    Raises:
        UserError: the kernels cannot be had here: the message says why.
        UsageError: as `gemm`.

    Source: Winograd's form, of 3x3 kernels from 16 channels on: Lavin and Gray, arXiv:1509.09308.
    """
    window = window_of(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
        batch_group_count, preferred_element_type,
    )  # fmt: skip
    if window is None:
        return winograd(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
            batch_group_count, precision, preferred_element_type,
        )  # fmt: skip
    require_kernels()
    return _forward(window, feature_group_count > 1, jnp.asarray(lhs), jnp.asarray(rhs))


def window_of(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    dimension_numbers: object,
    feature_group_count: int,
    batch_group_count: int,
    preferred_element_type: DTypeLike | None,
) -> Window | None:
    """Strides and padding, if the compiled kernels apply to this convolution; None if they do not."""
    if lhs.ndim != 4 or rhs.ndim != 4 or lhs.size == 0 or rhs.size == 0:
        return None
    channels_last = lax.conv_dimension_numbers(lhs.shape, rhs.shape, ("NHWC", "HWIO", "NHWC"))
    groups, c, d = feature_group_count, lhs.shape[3], rhs.shape[3]
    applies = (
        lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == channels_last
        and lhs.dtype == rhs.dtype == jnp.float32
        and preferred_element_type in (None, jnp.float32)
        and set(window_strides) <= {1, 2}
        and set(lhs_dilation or (1,)) == {1} == set(rhs_dilation or (1,))
        and batch_group_count == 1
        and (groups == 1 or groups == c == d)
        and rhs.shape[2] * groups == c
    )
    if not applies or (isinstance(padding, str) and padding.upper() not in ("SAME", "SAME_LOWER", "VALID")):
        return None
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    (top, bottom), (left, right) = padding
    for low, high, n, k in zip((top, left), (bottom, right), lhs.shape[1:3], rhs.shape[:2], strict=True):
        if min(low, high) < 0 or max(low, high) >= k or n + low + high < k:
            return None
    return window_strides[0], window_strides[1], int(top), int(bottom), int(left), int(right)


def output_shape(window: Window, maps: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Shape (b, p, q, o) of the convolution of maps (b, h, w, i) with a kernel (kh, kw, i, o)."""
    (b, h, w, _), (kh, kw, _, o) = maps, kernel
    sh, sw, top, bottom, left, right = window
    return b, (h + top + bottom - kh) // sh + 1, (w + left + right - kw) // sw + 1, o


def _call(name: str, shape: tuple[int, ...], window: Window, depthwise: bool, *operands: Array) -> Array:
    call = jax.ffi.ffi_call(
        f"fishnet_convolution{name}",
        jax.ShapeDtypeStruct(shape, jnp.float32),
        vmap_method="sequential",
    )
    numbers = np.array(window, np.int64)
    return call(*operands, window=numbers, depthwise=depthwise, winograd_from=np.int64(WINOGRAD_FROM))


def _with_own_gradient(*static: int) -> Callable[[Callable], Any]:
    return partial(jax.custom_vjp, nondiff_argnums=static)


@_with_own_gradient(0, 1)
def _forward(window: Window, depthwise: bool, x: Array, k: Array) -> Array:
    """Maps [b, p, q, o] of maps [b, h, w, i] and a kernel [kh, kw, i, o]."""
    return _call("", output_shape(window, x.shape, k.shape), window, depthwise, x, k)


@_with_own_gradient(0, 1, 2)
def _input_gradient(window: Window, depthwise: bool, size: tuple[int, int], dy: Array, k: Array) -> Array:
    """Gradient of maps of `size` (h, w), from that of the result and the kernel."""
    channels = k.shape[3] if depthwise else k.shape[2]
    return _call("_input_gradient", (dy.shape[0], *size, channels), window, depthwise, dy, k)


@_with_own_gradient(0, 1, 2)
def _kernel_gradient(window: Window, depthwise: bool, shape: tuple[int, ...], x: Array, dy: Array) -> Array:
    """Gradient of a kernel of `shape`, from the maps and the gradient of the result."""
    return _call("_kernel_gradient", shape, window, depthwise, x, dy)


def _keep(product: Callable) -> Callable:
    """Forward pass of a product, whose gradients need its two operands and nothing else."""
    return lambda *arguments: (product(*arguments), arguments[-2:])


def _forward_backward(window: Window, depthwise: bool, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, k = kept
    dx = _input_gradient(window, depthwise, x.shape[1:3], dy, k)
    return dx, _kernel_gradient(window, depthwise, k.shape, x, dy)


def _input_gradient_backward(
    window: Window, depthwise: bool, size: tuple[int, int], kept: tuple[Array, Array], d_dx: Array
) -> tuple[Array, Array]:
    dy, k = kept
    return _forward(window, depthwise, d_dx, k), _kernel_gradient(window, depthwise, k.shape, d_dx, dy)


def _kernel_gradient_backward(
    window: Window, depthwise: bool, shape: tuple[int, ...], kept: tuple[Array, Array], d_dk: Array
) -> tuple[Array, Array]:
    x, dy = kept
    return _input_gradient(window, depthwise, x.shape[1:3], dy, d_dk), _forward(window, depthwise, x, d_dk)


_forward.defvjp(_keep(_forward), _forward_backward)
_input_gradient.defvjp(_keep(_input_gradient), _input_gradient_backward)
_kernel_gradient.defvjp(_keep(_kernel_gradient), _kernel_gradient_backward)
