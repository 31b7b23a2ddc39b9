"""3x3 convolutions by Winograd's minimal filtering: 16 products for 4 outputs where the plain form needs 36."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fishnet.nn.convolution import gemm, pad_maps

SMALLEST_CHANNELS = 16  # with fewer, the transforms cost more than the products save (benchmarks/README.md)


def winograd(
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
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "..."]:
    """Convolution by Winograd's F(2x2, 3x3) where it applies, else by `gemm`; for `nn.Conv(conv_general_dilated=)`.

        Y = A^T [ (G g G^T) * (B^T d B) ] A,   for each 4x4 tile d of the input, with products over channels

    It applies to 3x3 kernels at stride 1 without dilation or groups, from 16 input channels on. The relative error
    against the plain form is about 1e-6 in float32. The 16 products are separate matrix products: one batched product
    is slow on CPU.

    Args:
        lhs: maps [b, h, w, i].
        rhs: kernel [kh, kw, i, o].
        window_strides: a stride for each spatial axis, in pixels.
        padding: "SAME", "SAME_LOWER", "VALID", or (low, high) in pixels for each spatial axis.
        lhs_dilation: input dilation for each spatial axis.
        rhs_dilation: kernel dilation for each spatial axis.
        dimension_numbers: channels last, as `nn.Conv` passes them.
        feature_group_count: groups of channels that are convolved apart.
        batch_group_count: 1.
        precision: of the matrix products.
        preferred_element_type: dtype of the result; None for that of the inputs.

    Returns:
        Maps [b, p, q, o].

    Raises:
        UsageError: as `gemm`.

    Source: Lavin and Gray 2016, https://arxiv.org/abs/1509.09308
    """
    ones = (1, 1)
    applies = (
        lhs.ndim == 4
        and rhs.shape[:2] == (3, 3)
        and rhs.shape[2] >= SMALLEST_CHANNELS
        and tuple(window_strides) == ones
        and tuple(lhs_dilation or ones) == ones
        and tuple(rhs_dilation or ones) == ones
        and feature_group_count == batch_group_count == 1
    )
    if not applies:
        return gemm(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
            batch_group_count, precision, preferred_element_type,
        )  # fmt: skip
    x = pad_maps(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
        batch_group_count,
    )  # fmt: skip
    height, width = (n - 2 for n in x.shape[1:3])
    if height % 2 or width % 2:  # tiles step by two: one more row or column, whose outputs are dropped at the end
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    tiles = [_input_transform(row, axis=2) for row in _input_transform(x, axis=1)]
    kernels = [_kernel_transform(row, axis=1) for row in _kernel_transform(rhs, axis=0)]
    b, p, q, c = tiles[0][0].shape

    def product(tile: Array, kernel: Array) -> Array:
        dims = (((1,), (0,)), ((), ()))
        y = lax.dot_general(
            tile.reshape(-1, c), kernel[0, 0], dims, precision=precision, preferred_element_type=preferred_element_type
        )
        return y.reshape(b, p, q, -1)

    products = [[product(t, k) for t, k in zip(ts, ks, strict=True)] for ts, ks in zip(tiles, kernels, strict=True)]
    halves = [_output_transform(row) for row in products]
    left, right = (_output_transform([half[side] for half in halves]) for side in (0, 1))
    y = jnp.stack([jnp.stack(row, axis=3) for row in zip(left, right, strict=True)], axis=2)
    return y.reshape(b, 2 * p, 2 * q, -1)[:, :height, :width]


def _input_transform(x: Array, axis: int) -> list[Array]:
    """Applies B^T along one axis of length 2 p + 2: four arrays of length p, one for each row of B^T."""
    p = (x.shape[axis] - 2) // 2
    d = [lax.slice_in_dim(x, i, i + 2 * p - 1, 2, axis) for i in range(4)]
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _kernel_transform(g: Array, axis: int) -> list[Array]:
    """Applies G along one axis of length 3: four arrays of length 1."""
    left, middle, right = (lax.slice_in_dim(g, i, i + 1, 1, axis) for i in range(3))
    ends = 0.5 * (left + right)
    return [left, ends + 0.5 * middle, ends - 0.5 * middle, right]


def _output_transform(m: list[Array]) -> tuple[Array, Array]:
    """Applies A^T: two sums of four arrays."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
