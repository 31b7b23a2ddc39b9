"""Activations with a coefficient, a learned slope or a random slope."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fishnet.checks.traced import violates
from fishnet.errors import UsageError
from fishnet.nn.cpu.deferred import Maps, activate_maps

LOWEST, HIGHEST = 1 / 8, 1 / 3  # the slopes between which rrelu draws


@dataclass(frozen=True)
class Parametric:
    """Activation `function(x, slope, coefficient, key, train) -> y`, callable with x alone too.

    Every entry takes all arguments and ignores those that it does not use, so that entries can share a switch.

    Args:
        function: pure and elementwise; `slope` is [c] or a number, `coefficient` a number, `key` a random key or None.
        slope: initial value of a slope that is learned for each channel, the last axis; None if nothing is learned.
        coefficient: default of a coefficient that is fixed but may be traced; None if there is none.
        random: whether `function` draws from `key` in training.
    """

    function: Callable
    slope: float | None = None
    coefficient: float | None = None
    random: bool = False

    def __call__(
        self,
        x: Float[Array, "..."],
        slope: ArrayLike | None = None,
        coefficient: ArrayLike | None = None,
        key: Array | None = None,
        train: bool = False,
    ) -> Float[Array, "..."]:
        """Applies the function; arguments that are left out have their defaults, and only training is random.

        Raises:
            UsageError: a random entry without a key in training.
        """
        if self.random and train and key is None:
            raise UsageError("an activation that is random in training needs a key there")
        slope = self.slope if slope is None else slope
        return self.function(x, slope, coefficient_or_default(coefficient, self.coefficient), key, train)


def coefficient_or_default(coefficient: ArrayLike | None, default: ArrayLike | None) -> ArrayLike | None:
    """Returns `coefficient`, or `default` where it is None or NaN.

    Args:
        coefficient: a number, possibly traced.
        default: a number, possibly traced; None for an entry without coefficient.

    Returns:
        A number through which no gradient flows.

    Raises:
        UsageError: a known number that is infinite.
    """
    if default is None or coefficient is None:
        return default
    if violates(coefficient, lambda coefficient: abs(coefficient) != math.inf):
        raise UsageError(f"the coefficient of an activation must be finite, got {coefficient}")
    if isinstance(coefficient, int | float):
        return default if math.isnan(coefficient) else coefficient
    return lax.stop_gradient(jnp.where(jnp.isnan(coefficient), default, coefficient))


class Activation(nn.Module):
    """Activation module for a function or a `Parametric`, called as `module(x, train)`.

    A learned slope is the parameter `slope` [c], float32. Random slopes come from the rng stream "activation", which is
    needed in training only.

    Args:
        function: `f(x) -> y`, or a `Parametric`.
        coefficient: in place of the function's own, possibly traced; None or NaN for its own. It gets no gradient.

    Raises:
        UsageError: when called: a Python number as coefficient of a function that has none, or an infinite one.

    Example:
        >>> layer, x = Activation(prelu), jnp.array([[-2.0, 4.0]])
        >>> variables = layer.init(jax.random.key(0), x, train=False)
        >>> print(variables["params"]["slope"], layer.apply(variables, x, train=False))
        [0.25 0.25] [[-0.5  4. ]]
    """

    function: Callable
    coefficient: ArrayLike | None = None

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Activates `x` [b, h, w, c] or [b, c]."""
        f = self.function
        given = isinstance(self.coefficient, int | float) and not math.isnan(self.coefficient)
        if given and (not isinstance(f, Parametric) or f.coefficient is None):
            name = getattr(getattr(f, "function", f), "__name__", "this activation").lstrip("_")
            raise UsageError(f"{name} has no coefficient, got {self.coefficient}")
        if not isinstance(f, Parametric):
            return activate_maps(x, f)
        slope = None
        if f.slope is not None:
            slope = self.param("slope", nn.initializers.constant(f.slope), (x.shape[-1],), jnp.float32)
        key = self.make_rng("activation") if f.random and train else None
        number = slope if slope is not None else coefficient_or_default(self.coefficient, f.coefficient)
        return activate_maps(x, f, number, lambda x: f(x, slope, self.coefficient, key, train))


def _leaky_relu(x: Array, slope: object, coefficient: ArrayLike, key: object, train: bool) -> Array:
    """Rectified linear unit with a small slope on the left, so that no unit is ever without a gradient.

        y = x for x >= 0, coefficient x for x < 0

    Args:
        x: pre-activations, any shape.
        slope: ignored.
        coefficient: the slope on the left, usually 0.01.
        key: ignored.
        train: ignored.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", ICML 2013.
    """
    return jax.nn.leaky_relu(x, jnp.asarray(coefficient, x.dtype))


def _elu(x: Array, slope: object, coefficient: ArrayLike, key: object, train: bool) -> Array:
    """Exponential linear unit.

        y = x for x > 0, coefficient (exp(x) - 1) for x <= 0

    Args:
        x: pre-activations, any shape.
        slope: ignored.
        coefficient: minus the limit on the left, usually 1.
        key: ignored.
        train: ignored.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Clevert, Unterthiner and Hochreiter, arXiv:1511.07289.
    """
    return jax.nn.elu(x, jnp.asarray(coefficient, x.dtype))


def _prelu(x: Array, slope: ArrayLike, coefficient: object, key: object, train: bool) -> Array:
    """Rectified linear unit whose slope on the left is learned for each channel.

        y = x for x >= 0, slope[c] x for x < 0

    Args:
        x: pre-activations [b, h, w, c] or [b, c]; any shape with a single slope.
        slope: [c], or a number.
        coefficient: ignored.
        key: ignored.
        train: ignored.

    Returns:
        Activations, shape and dtype of `x`.

    Source: He et al., arXiv:1502.01852.
    """
    slope = jnp.asarray(slope, jnp.promote_types(x.dtype, jnp.float32))
    if slope.ndim == 0:
        return jnp.where(x >= 0, x, (slope * x).astype(x.dtype))
    # A slope for each example, so that its gradient is summed over pixels first and then over examples: XLA's CPU
    # backend vectorizes sums over one axis, and two short sums round less than a long one.
    rows = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    slopes = jnp.broadcast_to(slope, (x.shape[0], x.shape[-1]))[:, None]
    return jnp.where(rows >= 0, rows, (slopes * rows).astype(x.dtype)).reshape(x.shape)


def _rrelu(x: Array, slope: object, coefficient: object, key: Array | None, train: bool) -> Array:
    """Rectified linear unit with a random slope on the left, drawn anew for each element.

        y = x for x >= 0, a x for x < 0;   training: a ~ U(1/8, 1/3);   evaluation: a = 11/48, the mean

    Args:
        x: pre-activations, any shape.
        slope: ignored.
        coefficient: ignored.
        key: a random key; may be None in evaluation.
        train: whether to draw.

    Returns:
        Activations, shape and dtype of `x`.

    Source: Xu et al., "Empirical Evaluation of Rectified Activations in Convolutional Network", arXiv:1505.00853.
    """
    if not train:
        return jax.nn.leaky_relu(x, jnp.asarray((LOWEST + HIGHEST) / 2, x.dtype))
    wide = jnp.promote_types(x.dtype, jnp.float32)
    assert key is not None, "a random activation needs a key in training"
    # Drawn in a row, for XLA's CPU backend takes seconds to compile draws over several axes.
    slopes = jax.random.uniform(key, (x.size,), wide, LOWEST, HIGHEST).reshape(x.shape)
    return jnp.where(x >= 0, x, (slopes * x).astype(x.dtype))


leaky_relu = Parametric(_leaky_relu, coefficient=0.01)
elu = Parametric(_elu, coefficient=1.0)
prelu = Parametric(_prelu, slope=0.25)
rrelu = Parametric(_rrelu, random=True)
