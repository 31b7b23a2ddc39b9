"""Blocks of compiled code: norm + activation + convolution, pooling or a sum, as one pass over the maps.

A norm is three numbers for each image and channel, as in `fishnet.nn.moments.affine`: `(x - center) gain + shift`. The
convolutions also return the moments of their result, of which the next norm's numbers are made. Each block equals the
composition of the plain functions to rounding; `jax.grad` passes once (for second derivatives use the plain functions).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fishnet.nn.cpu.convolution import WINOGRAD_FROM, Window, output_shape

# As in kernels/activations.h.
ACTIVATION_NUMBERS = {
    name: number
    for number, name in enumerate(
        (
            "identity", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus",
            "hard_swish", "mish", "relu6", "exponential", "squareplus", "prelu",
        )
    )
}  # fmt: skip


class NormAct(NamedTuple):
    """Norm and activation: `y = act((x - center) gain + shift)`.

    Args:
        center, gain, shift: of the norm, [b, c].
        coefficient: of the activation, or the learned slope of prelu, [c].
        kind: number of the activation in `ACTIVATION_NUMBERS`, int32 [].
    """

    center: Float[Array, "b c"]
    gain: Float[Array, "b c"]
    shift: Float[Array, "b c"]
    coefficient: Float[Array, " c"]
    kind: Int[Array, ""]


def activation_number(act: object) -> int | None:
    """Number of an activation of `fishnet.nn.activations`; None for one that the blocks do not compute."""
    function = getattr(act, "function", act)
    if getattr(function, "__module__", "") not in ("fishnet.nn.activations", "fishnet.nn.parametric"):
        return None
    return ACTIVATION_NUMBERS.get(getattr(function, "__name__", "").removeprefix("_"))


class Measured(NamedTuple):
    """Maps with the mean and biased variance of each image and channel."""

    y: Float[Array, "b h w c"]
    mean: Float[Array, "b c"]
    var: Float[Array, "b c"]


def _call(name: str, shapes: list[tuple[int, ...]], *operands: Array, **options: object) -> Sequence[Array]:
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.ffi.ffi_call(f"fishnet_{name}", results, vmap_method="sequential")(*operands, **options)


def _options(window: Window, depthwise: bool) -> dict[str, object]:
    return {
        "window": np.array(window, np.int64), "depthwise": depthwise, "winograd_from": np.int64(WINOGRAD_FROM),
    }  # fmt: skip


def _moment_gradient(y: Array, mean: Array, d_mean: Array, d_var: Array) -> tuple[Array, ...]:
    """What moments add to the gradient of `y`: (y - mean) spread + level."""
    pixels = y.shape[1] * y.shape[2]
    return y, mean, 2 * d_var / pixels, d_mean / pixels


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def conv_moments(window: Window, depthwise: bool, x: Float[Array, "b h w i"], k: Array) -> Measured:
    """Convolves maps with a kernel [kh, kw, i, o]; see `fishnet.nn.cpu.convolution` for `window`."""
    shape = output_shape(window, x.shape, k.shape)
    numbers = shape[0], shape[3]
    return Measured(*_call("measured", [shape, numbers, numbers], x, k, **_options(window, depthwise)))


def _conv_moments_forward(window: Window, depthwise: bool, x: Array, k: Array) -> tuple[Measured, tuple]:
    result = cast(Measured, conv_moments(window, depthwise, x, k))
    return result, (x, k, result.y, result.mean)


def _conv_moments_backward(window: Window, depthwise: bool, kept: tuple, d: Measured) -> tuple[Array, Array]:
    x, k, y, mean = kept
    moments, options = _moment_gradient(y, mean, d.mean, d.var), _options(window, depthwise)
    (dx,) = _call("measured_input_gradient", [x.shape], d.y, *moments, k, **options)
    (dk,) = _call("measured_kernel_gradient", [k.shape], x, d.y, *moments, **options)
    return dx, dk


conv_moments.defvjp(_conv_moments_forward, _conv_moments_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def norm_act_conv(window: Window, depthwise: bool, x: Float[Array, "b h w i"], norm: NormAct, k: Array) -> Measured:
    """Convolves act(norm(x)) with a kernel [kh, kw, i, o]."""
    shape = output_shape(window, x.shape, k.shape)
    numbers = shape[0], shape[3]
    return Measured(*_call("norm_act_conv", [shape, numbers, numbers], x, *norm, k, **_options(window, depthwise)))


def _norm_act_conv_forward(window: Window, depthwise: bool, x: Array, norm: NormAct, k: Array):
    result = cast(Measured, norm_act_conv(window, depthwise, x, norm, k))
    return result, (x, norm, k, result.y, result.mean)


def _norm_act_conv_backward(window: Window, depthwise: bool, kept: tuple, d: Measured):
    x, norm, k, y, mean = kept
    dx, dk, *sums = _call(
        "norm_act_conv_gradient", [x.shape, k.shape, *[norm.gain.shape] * 3],
        d.y, *_moment_gradient(y, mean, d.mean, d.var), x, *norm, k, **_options(window, depthwise),
    )  # fmt: skip
    return dx, _norm_gradient(norm, *sums), dk


def _norm_gradient(norm: NormAct, d_gain: Array, d_shift: Array, d_coefficient: Array) -> NormAct:
    """Gradients of a norm's numbers from the sums over pixels."""
    nothing: Any = np.zeros((), jax.dtypes.float0)  # of an integer
    return NormAct(-norm.gain * d_shift, d_gain, d_shift, d_coefficient.sum(0), nothing)


norm_act_conv.defvjp(_norm_act_conv_forward, _norm_act_conv_backward)


@jax.custom_vjp
def norm_act_pool(x: Float[Array, "b h w c"], norm: NormAct) -> Float[Array, "b p q c"]:
    """Pools act(norm(x)): the maximum over windows of 2x2; a last odd row or column is left out."""
    b, h, w, c = x.shape
    return _call("norm_act_pool", [(b, h // 2, w // 2, c)], x, *norm)[0]


def _backward_of(name: str) -> Callable[[tuple[Array, NormAct], Array], tuple[Array, NormAct]]:
    """Backward rule of a block with maps and a norm alone, by the handler `<name>_gradient`."""

    def backward(kept: tuple[Array, NormAct], dy: Array) -> tuple[Array, NormAct]:
        x, norm = kept
        dx, *sums = _call(f"{name}_gradient", [x.shape, *[norm.gain.shape] * 3], dy, x, *norm)
        return dx, _norm_gradient(norm, *sums)

    return backward


norm_act_pool.defvjp(lambda x, norm: (norm_act_pool(x, norm), (x, norm)), _backward_of("norm_act_pool"))


@jax.custom_vjp
def norm_act(x: Float[Array, "b h w c"], norm: NormAct) -> Float[Array, "b h w c"]:
    """Activates norm(x)."""
    return _call("norm_act", [x.shape], x, *norm)[0]


norm_act.defvjp(lambda x, norm: (norm_act(x, norm), (x, norm)), _backward_of("norm_act"))


@jax.custom_vjp
def norm_add_act(x: Float[Array, "b h w c"], norm: NormAct, added: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Activates norm(x) + added."""
    return _call("norm_add_act", [x.shape], *_with_added(x, norm, added))[0]


def _with_added(x: Array, norm: NormAct, added: Array) -> tuple[Array, ...]:
    return x, norm.center, norm.gain, norm.shift, added, norm.coefficient, norm.kind


def _norm_add_act_backward(kept: tuple[Array, NormAct, Array], dy: Array) -> tuple[Array, NormAct, Array]:
    x, norm, added = kept
    shapes = [x.shape, x.shape, *[norm.gain.shape] * 3]
    dx, d_added, *sums = _call("norm_add_act_gradient", shapes, dy, *_with_added(x, norm, added))
    return dx, _norm_gradient(norm, *sums), d_added


norm_add_act.defvjp(lambda *arguments: (norm_add_act(*arguments), arguments), _norm_add_act_backward)
