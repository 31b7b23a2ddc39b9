"""What a training step costs, from its operations: enough to tell a user how long a sweep will take."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import numpy as np

# Measured on 2 CPU cores (see benchmarks/README.md): what a step gets out of one device of each kind.
MULTIPLICATIONS_A_SECOND = {"cpu": 45e9, "gpu": 10e12, "tpu": 20e12}
ELEMENTS_A_SECOND = {"cpu": 0.35e9, "gpu": 100e9, "tpu": 100e9}
OVERHEAD = {"cpu": 2e-4, "gpu": 3e-4, "tpu": 3e-4}


@dataclass(frozen=True)
class Cost:
    """A forward pass over one batch."""

    multiplications: float  # multiply-adds of convolutions and dense layers
    elements: float  # outputs of convolutions and dense layers, which norms and activations pass over again


def forward_cost(model: nn.Module, batch: int, image_shape: tuple[int, ...]) -> Cost:
    """Counts the multiply-adds and outputs of every linear layer, without running the model.

    Args:
        model: with static components.
        batch: images a step.
        image_shape: (h, w, c).
    """
    images = jax.ShapeDtypeStruct((batch, *image_shape), np.uint8)
    jaxpr = jax.make_jaxpr(lambda i: model.init_with_output(jax.random.key(0), i, train=False)[0])(images)
    multiplications = elements = 0.0

    def visit(jaxpr) -> None:
        nonlocal multiplications, elements
        for equation in jaxpr.eqns:
            out = equation.outvars[0].aval
            if equation.primitive.name == "conv_general_dilated":
                kernel = equation.invars[1].aval
                taps = kernel.size / kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
                multiplications += out.size * taps
                elements += out.size
            elif equation.primitive.name == "dot_general":
                (contract, _), _ = equation.params["dimension_numbers"]
                multiplications += out.size * np.prod([equation.invars[0].aval.shape[d] for d in contract])
                elements += out.size
            for value in equation.params.values():
                if hasattr(value, "jaxpr"):
                    visit(value.jaxpr)
                elif hasattr(value, "eqns"):
                    visit(value)

    visit(jaxpr.jaxpr)
    return Cost(multiplications, elements)


def step_seconds(cost: Cost, devices: int) -> float:
    """Seconds a training step and run: three passes of multiply-adds, and the memory traffic of the elements.

    Args:
        cost: of one forward pass of a batch.
        devices: that work side by side; CPU devices share the cores, so their number changes nothing.
    """
    platform = jax.default_backend() if jax.default_backend() in OVERHEAD else "gpu"
    compute = 3 * cost.multiplications / MULTIPLICATIONS_A_SECOND[platform]
    memory = cost.elements / ELEMENTS_A_SECOND[platform]
    return (compute + memory + OVERHEAD[platform]) / (1 if platform == "cpu" else devices)
