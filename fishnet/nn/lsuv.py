"""Layer-sequential unit-variance initialization (LSUV): rescales kernels until layer outputs have variance 1."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array

from fishnet.checks.traced import violates
from fishnet.errors import UsageError


def lsuv(
    forward: Callable[[dict[str, Any]], dict[str, Array]],
    params: Mapping[str, Any],
    layers: Sequence[str],
    tolerance: ArrayLike = 0.01,
    rounds: ArrayLike = 10,
) -> dict[str, Any]:
    """Rescales kernels one after the other, so that each layer's output has unit variance.

        for each layer: kernel <- kernel / sqrt(v), v = variance of all entries of the layer's output,
        until |v - 1| <= tolerance, at most `rounds` times

    The paper begins with orthogonal kernels. A layer whose output is constant or not finite is left as it is. All of
    `forward` is compiled once and runs two or three times a layer; under `jax.jit` and `jax.vmap` too.

    Args:
        forward: `f(params) -> outputs`, the output of each layer (of the convolution itself, before norm and
            activation) on one batch, by the layer's name; see `layer_outputs`.
        params: nested, with a leaf `kernel` under each layer's name.
        layers: names in order of execution, parts joined by "/"; see `layer_order`.
        tolerance: 0 or more, possibly traced.
        rounds: 0 or more, possibly traced; 0 leaves all parameters as they are, without a run of `forward`.

    Returns:
        The parameters, with other kernels for the named layers.

    Raises:
        UsageError: a layer without kernel or without output, or a negative number that is known.

    Source: Mishkin and Matas, "All You Need Is a Good Init", arXiv:1511.06422, algorithm 1.
    """
    for name, value in {"tolerance": tolerance, "rounds": rounds}.items():
        if violates(value, lambda value: value >= 0):
            raise UsageError(f"{name} of lsuv must be 0 or more, got {value}")
    leaves = flatten_dict(params, keep_empty_nodes=True, sep="/")
    for layer in layers:
        if f"{layer}/kernel" not in leaves:
            raise UsageError(f"lsuv: {layer!r} has no kernel; parameters are {', '.join(leaves)}")

    def variances(leaves: dict[str, Array]) -> Array:
        outputs = forward(unflatten_dict(leaves, sep="/"))
        for layer in layers:
            if layer not in outputs:
                raise UsageError(f"lsuv: no output of {layer!r}; there are {', '.join(outputs)}")
        return jnp.stack([jnp.var(outputs[layer].astype(jnp.float32)) for layer in layers])

    def unfinished(state: tuple) -> Array:
        return state[1] < len(layers)

    def improve(state: tuple) -> tuple:
        leaves, index, done = state
        v = variances(leaves)[index]
        usable = jnp.isfinite(v) & (v > 0)
        leave = (jnp.abs(v - 1) <= tolerance) | (done >= rounds) | ~usable
        factor = jnp.where(leave, 1.0, lax.rsqrt(jnp.where(usable, v, 1.0)))
        scaled = dict(leaves)
        for i, layer in enumerate(layers):
            kernel = leaves[f"{layer}/kernel"]
            scaled[f"{layer}/kernel"] = kernel * jnp.where(i == index, factor, 1.0).astype(kernel.dtype)
        return scaled, index + leave.astype(jnp.int32), jnp.where(leave, 0, done + 1)

    if layers:
        first = jnp.where(jnp.asarray(rounds) > 0, 0, len(layers)).astype(jnp.int32)
        leaves = lax.while_loop(unfinished, improve, (leaves, first, jnp.int32(0)))[0]
    return unflatten_dict(leaves, sep="/")


def layer_outputs(run: Callable[[], object]) -> dict[str, Array]:
    """Outputs of all layers with a kernel that `run` applies, in order of execution.

    Args:
        run: applies a Linen module, such as `lambda: model.apply({"params": params}, images, False)`.

    Returns:
        Outputs by the layer's path, its parts joined by "/"; the last output of a layer that runs several times.
    """
    outputs = {}

    def record(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> object:
        y = method(*args, **kwargs)
        if context.method_name == "__call__" and context.module.has_variable("params", "kernel"):
            outputs["/".join(context.module.path)] = y
        return y

    with nn.intercept_methods(record):
        run()
    return outputs


def layer_order(run: Callable[[], object]) -> tuple[str, ...]:
    """Names of the layers in `layer_outputs(run)`, without computing anything.

    JAX sorts dictionaries by name wherever they pass through one of its transformations; this keeps the order in which
    the layers run.

    Args:
        run: as for `layer_outputs`.
    """
    names: list[str] = []
    jax.eval_shape(lambda: names.extend(layer_outputs(run)))
    return tuple(names)
