"""Gradients of vectorised lanes as the gradient of the sum of their losses.

`vmap` of `grad` and `grad` of the sum of `vmap` give the same numbers, as lanes do not depend on each other, but lower
to other convolutions: the first batches the convolution that a kernel's gradient is, the second differentiates the
grouped convolution that all lanes together are. Which is faster hangs on the accelerator.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap


def summed_value_and_grad(objective: Callable[[Any], tuple[jax.Array, Any]]) -> Callable[[Any], tuple[Any, Any]]:
    """`jax.value_and_grad(objective, has_aux=True)`, which under one `jax.vmap` differentiates the sum over its axis.

    Args:
        objective: `f(params) -> (loss [], aux)`; it may close over values that are vectorised.

    Returns:
        `f(params) -> ((loss, aux), grads)`.
    """

    def value_and_grad(params: Any) -> tuple[Any, Any]:
        closed, shapes = jax.make_jaxpr(objective, return_shape=True)(params)
        result = jax.tree.structure(shapes)

        def evaluate(params: Any, constants: list) -> tuple[jax.Array, Any]:
            return result.unflatten(jax.core.eval_jaxpr(closed.jaxpr, constants, *jax.tree.leaves(params)))

        @custom_vmap
        def both(params: Any, constants: list) -> tuple[Any, Any]:
            return jax.value_and_grad(evaluate, has_aux=True)(params, constants)

        @both.def_vmap
        def together(lanes: int, batched: list, params: Any, constants: list) -> tuple[Any, Any]:
            axes = jax.tree.map(lambda own: 0 if own else None, tuple(batched))

            def total(params: Any) -> tuple[jax.Array, Any]:
                losses, aux = jax.vmap(evaluate, in_axes=axes, axis_size=lanes)(params, constants)
                return losses.sum(), (losses, aux)

            (_, found), grads = jax.value_and_grad(total, has_aux=True)(params)
            return (found, grads), jax.tree.map(lambda _: True, (found, grads))

        return both(params, closed.consts)

    return value_and_grad
