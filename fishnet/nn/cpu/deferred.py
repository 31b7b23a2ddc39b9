"""Maps whose norm and activation are still to be computed: by the compiled block that they end in.

A convolution's result is written once; the moments of it come along. `fishnet.nn.moments.moments` and `affine`, of
which the norms are made, take such maps as they take arrays: the norm's three numbers are noted, so is an activation,
and the next convolution, pooling or sum does it all in one pass. Everything else sees the array.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fishnet.nn.cpu.blocks import (
    ACTIVATION_NUMBERS,
    Measured,
    NormAct,
    activation_number,
    conv_moments,
    norm_act,
    norm_act_conv,
    norm_act_pool,
    norm_add_act,
)
from fishnet.nn.cpu.convolution import cpu_kernels, window_of
from fishnet.nn.cpu.library import require_kernels
from fishnet.nn.pooling import max_pool

IDENTITY = ACTIVATION_NUMBERS["identity"]


class DeferredMaps:
    """Maps [b, h, w, c], float32: `act((y - center) gain + shift)` with what has been noted so far.

    Args:
        measured: result of a convolution, with its moments.
        norm: center, gain and shift [b, c]; None: there is no norm yet.
        act: coefficient [c] and number of the activation; None: there is none yet.
    """

    def __init__(
        self,
        measured: Measured,
        norm: tuple[Array, Array, Array] | None = None,
        act: tuple[Array, ArrayLike] | None = None,
        added: Array | None = None,
    ):
        self.measured, self.norm, self.act, self.added = measured, norm, act, added

    shape = property(lambda self: self.measured.y.shape)
    ndim = property(lambda self: self.measured.y.ndim)
    dtype = property(lambda self: self.measured.y.dtype)

    @property
    def is_measured(self) -> bool:
        """Whether nothing has been noted, so that the moments are those of the maps."""
        return self.norm is None and self.act is None and self.added is None

    def moments(self) -> tuple[Array, Array]:
        """Mean and biased variance of each image and channel, [b, c] each."""
        assert self.is_measured, "moments of what is not measured: take the array"
        return self.measured.mean, self.measured.var

    def normalize(self, center: Array, gain: Array, shift: Array) -> Any:
        """Notes a norm."""
        assert self.is_measured, "a norm of what is not measured: take the array"
        return DeferredMaps(self.measured, (center, gain, shift))

    def activate(self, number: ArrayLike, coefficient: ArrayLike = 0.0) -> Any:
        """Notes an activation by its number; behind a sum it is computed at once, as several layers read its result."""
        assert self.act is None, "one activation after the other is not fused: take the array"
        c = self.shape[-1]
        act = jnp.broadcast_to(jnp.asarray(coefficient, jnp.float32), (c,)), number
        if self.added is not None:
            return norm_add_act(self.measured.y, self._norm_act(act), self.added)
        return DeferredMaps(self.measured, self.norm, act)

    def convolve(self, window: tuple, depthwise: bool, kernel: Array) -> Any:
        """Convolves the maps; `window` as in `fishnet.nn.cpu.convolution`."""
        if self.added is not None:
            return conv_moments(window, depthwise, self.array(), kernel)
        if self.is_measured:
            return conv_moments(window, depthwise, self.measured.y, kernel)
        return norm_act_conv(window, depthwise, self.measured.y, self._norm_act(self.act), kernel)

    def max_pool(self) -> Float[Array, "b p q c"]:
        """Pools the maps over windows of 2x2."""
        if self.added is not None:
            return max_pool(self.array())
        return norm_act_pool(self.measured.y, self._norm_act(self.act))

    def array(self) -> Float[Array, "b h w c"]:
        """Computes the maps."""
        if self.added is not None:
            return self.activate(IDENTITY)
        if self.is_measured:
            return self.measured.y
        return norm_act(self.measured.y, self._norm_act(self.act))

    def _norm_act(self, act: tuple[Array, ArrayLike] | None) -> NormAct:
        b, c = self.measured.mean.shape
        norm = (jnp.zeros((b, c)), jnp.ones((b, c)), jnp.zeros((b, c))) if self.norm is None else self.norm
        coefficient, number = (jnp.zeros(c), IDENTITY) if act is None else act
        return NormAct(*norm, coefficient, jnp.asarray(number, jnp.int32))

    def __add__(self, other: Any) -> Any:
        if self.act is None and self.added is None and getattr(other, "shape", None) == self.shape:
            return DeferredMaps(self.measured, self.norm, None, to_array(other))
        return self.array() + other

    __radd__ = __add__

    def __mul__(self, other: Any) -> Array:
        return self.array() * other

    __rmul__ = __mul__

    def __jax_array__(self) -> Array:
        return self.array()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.array(), name)


class DeferredConvolution:
    """Convolution for `nn.Conv(conv_general_dilated=...)` that takes in what deferred maps have noted.

    It is called with their unfinished array; afterwards `measured` is its result with moments.
    """

    def __init__(self, x: Array | DeferredMaps):
        self.x = x
        self.measured: Measured | None = None

    @property
    def operand(self) -> Array:
        """Array that the layer is to be called with."""
        return self.x.measured.y if isinstance(self.x, DeferredMaps) else self.x

    def __call__(self, lhs: Array, rhs: Array, window_strides: Any, padding: Any, **options: Any) -> Array:
        """Convolves; arguments as for `jax.lax.conv_general_dilated`."""
        groups = options.get("feature_group_count", 1)
        window = window_of(
            lhs, rhs, window_strides, padding, options.get("lhs_dilation"), options.get("rhs_dilation"),
            options.get("dimension_numbers"), groups, 1, options.get("preferred_element_type"),
        )  # fmt: skip
        if window is None:
            return cpu_kernels(to_array(self.x), rhs, window_strides, padding, **options)
        require_kernels()
        if isinstance(self.x, DeferredMaps):
            measured = self.x.convolve(window, groups > 1, rhs)
        else:
            measured = cast(Measured, conv_moments(window, groups > 1, lhs, rhs))
        self.measured = measured
        return measured.y

    def result(self, y: Array) -> Any:
        """Maps behind the layer, which has returned `y`."""
        return y if self.measured is None else DeferredMaps(self.measured)


# Maps or values that may be deferred. To type checkers they are arrays: that is what all but norms and activations see.
if TYPE_CHECKING:
    Maps = Array
else:
    Maps = Float[Array, "..."] | DeferredMaps


def to_array(x: Array | DeferredMaps) -> Array:
    """Computes maps if they are deferred."""
    return x.array() if isinstance(x, DeferredMaps) else x


def activate_maps(x: Maps, act: Callable, coefficient: ArrayLike | None = None, plain: Callable | None = None) -> Maps:
    """Applies an activation to maps, deferred ones included.

    Args:
        x: maps or values.
        act: what is applied.
        coefficient: the one that it has, or its learned slope [c]; None: it has none.
        plain: `f(x) -> y` for arrays; None: `act` itself.
    """
    if isinstance(x, DeferredMaps) and x.act is None and (number := activation_number(act)) is not None:
        return x.activate(number, 0.0 if coefficient is None else coefficient)
    return (act if plain is None else plain)(to_array(x))
