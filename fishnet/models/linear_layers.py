"""Memory and multiply-adds of the linear layers of a model: convolutions and dense layers."""

import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr


def measure_linear_layers(model: nn.Module, batch: int, image_shape: tuple[int, ...]) -> tuple[int, int, Any]:
    """Bytes of the outputs and multiply-adds of the linear layers of `model`, and the shapes of its parameters.

    Args:
        model: with static components.
        batch: images a step, forward.
        image_shape: (h, w, c).
    """
    images = jax.ShapeDtypeStruct((batch, *image_shape), np.uint8)
    forward = jax.make_jaxpr(
        lambda images: model.init_with_output(jax.random.key(0), images, train=False), return_shape=True
    )
    jaxpr, (_, variables) = forward(images)
    nbytes = products = 0
    for equation in _equations(jaxpr):
        name, (output, *_) = equation.primitive.name, equation.outvars
        if name in ("dot_general", "conv_general_dilated"):
            left, right = (operand.aval for operand in equation.invars[:2])
            nbytes += output.aval.size * output.aval.dtype.itemsize
            if name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                terms = math.prod(left.shape[axis] for axis in contracted)
            else:
                terms = right.size // right.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            products += output.aval.size * terms
    return nbytes, products, variables["params"]


def _equations(program: ClosedJaxpr | Jaxpr) -> Iterator[Any]:
    """Equations of a traced program; those of its loops, branches and inner functions once each."""
    for equation in getattr(program, "jaxpr", program).eqns:
        inner = [
            value
            for values in equation.params.values()
            for value in (values if isinstance(values, tuple | list) else [values])
            if isinstance(value, ClosedJaxpr | Jaxpr)
        ]
        for part in inner:
            yield from _equations(part)
        if not inner and equation.outvars:
            yield equation
