"""Convolution lowerings: drop-in values for `nn.Conv(conv_general_dilated=...)`, channels last."""

import itertools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fishnet.errors import UsageError


def gemm(
    lhs: Float[Array, "..."],
    rhs: Float[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: object = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: object = None,
) -> Float[Array, "..."]:
    """Convolution as one matrix product: pad, take a strided slice a tap, concatenate on channels, multiply.

        y[b, p, q, o] = sum over i, j, c of x[b, s p + i, s q + j, c] k[i, j, c, o]

    XLA's own convolution falls to a naive loop inside `scan`, `map` and `while` on CPU (17 times slower); this form
    does not. A kernel of one pixel needs no patches, a depthwise one is a sum over taps of elementwise products.

    Args:
        lhs: maps [b, h, w, i], or with one or three spatial axes.
        rhs: kernel [kh, kw, i / feature_group_count, o].
        window_strides: a stride for each spatial axis, in pixels.
        padding: "SAME", "SAME_LOWER", "VALID", or (low, high) in pixels for each spatial axis.
        lhs_dilation: input dilation for each spatial axis.
        rhs_dilation: kernel dilation for each spatial axis.
        dimension_numbers: channels last, as `nn.Conv` passes them.
        feature_group_count: groups of channels that are convolved apart; i for a depthwise convolution.
        batch_group_count: 1.
        precision: of the matrix product, as for `jax.lax.dot_general`.
        preferred_element_type: dtype of the result; None for that of the inputs.

    Returns:
        Maps [b, p, q, o].

    Raises:
        UsageError: another layout than channels last, batch groups, or shapes that do not fit.
    """
    spatial = lhs.ndim - 2
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    last = (0, spatial + 1, *range(1, spatial + 1))
    if numbers.lhs_spec != last or numbers.out_spec != last or numbers.rhs_spec != (spatial + 1, spatial, *range(spatial)):
        raise UsageError(f"the gemm lowering needs channels last (NHWC, HWIO, NHWC), got {dimension_numbers}")
    if batch_group_count != 1:
        raise UsageError(f"the gemm lowering has no batch groups, got batch_group_count={batch_group_count}")
    groups, c, d = feature_group_count, lhs.shape[-1], rhs.shape[-1]
    if c != groups * rhs.shape[-2] or d % groups:
        raise UsageError(f"{c} channels in {groups} groups do not fit a kernel of shape {rhs.shape}")
    window = rhs.shape[:spatial]
    lhs_dilation = tuple(lhs_dilation or (1,) * spatial)
    rhs_dilation = tuple(rhs_dilation or (1,) * spatial)
    reach = [(k - 1) * r + 1 for k, r in zip(window, rhs_dilation, strict=True)]
    if isinstance(padding, str):
        if set(lhs_dilation) != {1}:
            raise UsageError(f"input dilation {lhs_dilation} needs explicit padding, got {padding!r}")
        padding = lax.padtype_to_pads(lhs.shape[1:-1], reach, window_strides, padding)
    edges = [(int(lo), int(hi), g - 1) for (lo, hi), g in zip(padding, lhs_dilation, strict=True)]
    if any(edge != (0, 0, 0) for edge in edges):
        lhs = lax.pad(lhs, jnp.zeros((), lhs.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    out = [max(0, (n - k) // s + 1) for n, k, s in zip(lhs.shape[1:-1], reach, window_strides, strict=True)]

    def tap(index: tuple[int, ...]) -> Array:
        low = [i * r for i, r in zip(index, rhs_dilation, strict=True)]
        high = [a + s * (n - 1) + 1 if n else a for a, s, n in zip(low, window_strides, out, strict=True)]
        return lax.slice(lhs, (0, *low, 0), (lhs.shape[0], *high, c), (1, *window_strides, 1))

    indices = list(itertools.product(*map(range, window)))
    result = preferred_element_type or jnp.result_type(lhs, rhs)
    if groups == c and groups > 1:
        return _depthwise([tap(i) for i in indices], [rhs[i] for i in indices], d // c).astype(result)

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

    taps = [tap(i) for i in indices]
    if groups == 1:
        return product(taps, rhs)
    i, o = c // groups, d // groups
    parts = [product([t[..., g * i : (g + 1) * i] for t in taps], rhs[..., g * o : (g + 1) * o]) for g in range(groups)]
    return jnp.concatenate(parts, axis=-1)


def _depthwise(taps: list[Array], kernels: list[Array], multiplier: int) -> Array:
    """Each channel with kernels of its own: `taps` of [b, p, q, c], `kernels` of [1, c * multiplier]."""
    total = None
    for tap, kernel in zip(taps, kernels, strict=True):
        if multiplier > 1:
            tap = jnp.repeat(tap, multiplier, axis=-1)
        term = tap.astype(jnp.promote_types(tap.dtype, jnp.float32)) * kernel[0].astype(jnp.float32)
        total = term if total is None else total + term
    return total


LOWERINGS: dict[str, Callable[..., Array]] = {"gemm": gemm, "native": lax.conv_general_dilated}
