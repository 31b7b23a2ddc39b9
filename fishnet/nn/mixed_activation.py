"""Activation chosen among several by an index that may be traced."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array

from fishnet.checks.traced import is_whole_in, violates
from fishnet.errors import UsageError
from fishnet.nn.cpu.blocks import activation_number
from fishnet.nn.cpu.deferred import DeferredMaps, Maps, to_array
from fishnet.nn.parametric import Activation, Parametric, coefficient_or_default


class MixedActivation(nn.Module):
    """Activation module `functions[index]` for an index that may be traced, called as `module(x, train)`.

    If any of the functions learns a slope, there is a parameter `slope` [c]. It begins as the chosen function has it,
    or at 0, and its gradient is exactly zero if the chosen function has none. If any is random, training needs the rng
    stream "activation". Variables and key outside the branches, which are pure functions; the choice is a real branch
    unless the index is vectorized by `jax.vmap`.

    Args:
        functions: to choose among, each `f(x) -> y` or a `Parametric`.
        index: position in `functions`, an int or a traced int32 scalar.
        coefficient: in place of the chosen function's own, possibly traced; None or NaN for its own. It gets no
            gradient, and means nothing to a function that has none.

    Raises:
        UsageError: when called: a known coefficient that is infinite, or a known index that is no position.

    Example:
        >>> act = MixedActivation((jax.nn.relu, jnp.tanh), index=jnp.int32(1))
        >>> act.apply({}, jnp.zeros((1, 2)), train=False).shape
        (1, 2)
    """

    functions: tuple[Callable, ...]
    index: ArrayLike
    coefficient: ArrayLike | None = None

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Activates `x` [b, h, w, c] or [b, c]."""
        if violates(self.index, is_whole_in(0, len(self.functions))):
            raise UsageError(f"index {self.index} is no position among {len(self.functions)} activations")
        index = jnp.asarray(self.index, jnp.int32)

        def own(field: str) -> Array | None:
            """Value of `field` of the chosen function; None if no function has one."""
            values = [getattr(f, field) if isinstance(f, Parametric) else None for f in self.functions]
            if all(value is None for value in values):
                return None
            return jnp.array([0.0 if value is None else value for value in values], jnp.float32)[index]

        slope, coefficient, key = own("slope"), coefficient_or_default(self.coefficient, own("coefficient")), None
        if slope is not None:
            slope = self.param("slope", lambda key, c, start=slope: jnp.full(c, start), x.shape[-1])
        if train and any(isinstance(f, Parametric) and f.random for f in self.functions):
            key = self.make_rng("activation")
        numbers = [activation_number(f) for f in self.functions]
        if isinstance(x, DeferredMaps) and x.act is None and None not in numbers:
            # One array for both: a learned slope, where a function has one, else the coefficient, which learns nothing.
            learns = jnp.array([isinstance(f, Parametric) and f.slope is not None for f in self.functions])[index]
            fixed = jnp.float32(0 if coefficient is None else coefficient)
            return x.activate(jnp.array(numbers)[index], fixed if slope is None else jnp.where(learns, slope, fixed))
        functions = tuple(_pure(f, train) for f in self.functions)
        return _switch(functions)(index, to_array(x), slope, coefficient, key)


@dataclass(frozen=True)
class ActivationByIndex:
    """Factory of `MixedActivation`, one module for each site; arguments as there."""

    functions: tuple[Callable, ...]
    index: ArrayLike
    coefficient: ArrayLike | None = None

    def module(self, name: str | None = None) -> MixedActivation:
        """Builds the module for one site."""
        return MixedActivation(self.functions, self.index, self.coefficient, name=name)


def activate(act: Callable | ActivationByIndex, x: Array, train: bool, name: str) -> Array:
    """Applies an activation of any form, for use inside a compact method of a module.

    Args:
        act: `f(x) -> y`, a `Parametric` or an `ActivationByIndex`.
        x: pre-activations [b, h, w, c] or [b, c].
        train: whether random slopes are drawn.
        name: of the module that holds the variables, if there are any.

    Returns:
        Activations, shape and dtype of `x`.
    """
    if isinstance(act, ActivationByIndex):
        return act.module(name)(x, train)
    return Activation(act, name=name)(x, train) if isinstance(act, Parametric) else act(x)


def _pure(f: Callable, train: bool) -> Callable:
    """Wraps `f` as a pure function of (x, slope, coefficient, key)."""
    if isinstance(f, Parametric):
        return lambda x, slope, coefficient, key: f.function(x, slope, coefficient, key, train)
    return lambda x, slope, coefficient, key: f(x)


def _switch(functions: tuple[Callable, ...]) -> Callable:
    """Builds `functions[index](x, slope, coefficient, key)` whose gradient keeps the arguments alone as residuals.

    Plain autodiff of `lax.switch` keeps the residuals of every branch, zero-filled for those not taken; here the
    backward pass recomputes the chosen function's derivatives by x and slope from the arguments.
    """

    @jax.custom_vjp
    def act(index: Array, *arguments: Array | None) -> Array:
        return lax.switch(index, functions, *arguments)

    def forward(index: Array, *arguments: Array | None) -> tuple[Array, tuple]:
        return act(index, *arguments), (index, *arguments)

    def pullback(f: Callable) -> Callable:
        def apply(dy: Array, x: Array, slope: Array | None, coefficient: Array | None, key: Array | None):
            return jax.vjp(lambda x, slope: f(x, slope, coefficient, key), x, slope)[1](dy)

        return apply

    def backward(kept: tuple, dy: Array) -> tuple:
        index, *arguments = kept
        dx, d_slope = lax.switch(index, [pullback(f) for f in functions], dy, *arguments)
        return None, dx, d_slope, None, None

    act.defvjp(forward, backward)
    return act
