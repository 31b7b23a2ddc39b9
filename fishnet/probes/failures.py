"""Location of the first non-finite value of a training step: layer, and forward pass, backward pass or update."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fishnet.probes.layers import all_finite, finite_layers, layer_norms

PHASES = ("update", "forward", "loss", "backward")  # in the order in which `first_failure` looks


class Failure(NamedTuple):
    """First value of a step that is not finite."""

    phase: Array  # [] int32, position in PHASES; -1: everything is finite
    layer: Array  # [] int32, position in the layers; -1: none, or the loss


def finite_outputs(outputs: Mapping[str, Any], layers: Sequence[str]) -> Bool[Array, " layer"]:
    """Whether all outputs of each layer are finite.

    Args:
        outputs: of a forward pass, see `fishnet.probes.recording.record_forward`.
        layers: their names, in order of execution; True for one that did not run.
    """
    return jnp.stack([all_finite(outputs.get(name, ())) for name in layers])


def first_failure(
    params: Mapping[str, Any],
    outputs: Bool[Array, " layer"],
    loss: Float[Array, ""],
    grads: Mapping[str, Any],
    layers: Sequence[str],
) -> Failure:
    """Finds the first non-finite value of a step, in order of execution, if there is any.

        update: parameters, first layer first, as the step before left them
        forward: outputs, first layer first;   loss;   backward: gradients, last layer first

    A layer's gradient counts as non-finite too when its length is not a float any more. If only the length of the whole
    gradient is none, it is the layer with the longest one.

    Args:
        params: with which the step began, a tree of arrays.
        outputs: whether each layer's outputs are finite, see `finite_outputs`.
        loss: [].
        grads: a tree like `params`.
        layers: names of all layers in order of execution.

    Returns:
        Phase and layer, as positions in `PHASES` and in `layers`.

    Raises:
        UsageError: a leaf that belongs to none of the layers, or a layer without leaves.
    """
    norms = layer_norms(grads, layers)
    last = len(layers) - 1
    bad = jnp.stack(
        [
            ~finite_layers(params, layers),
            ~outputs,
            jnp.broadcast_to(~jnp.isfinite(loss), outputs.shape),
            ~jnp.isfinite(norms)[::-1],
        ]
    )
    phase = jnp.argmax(bad.any(1)).astype(jnp.int32)
    first = jnp.argmax(bad[phase]).astype(jnp.int32)
    backward = PHASES.index("backward")
    layer = jnp.where(phase == backward, last - first, jnp.where(phase == PHASES.index("loss"), -1, first))
    overflow = ~jnp.isfinite(jnp.sqrt(jnp.sum(jnp.square(norms))))
    otherwise = jnp.where(overflow, jnp.array([backward, jnp.argmax(norms)]), -1)
    found = jnp.where(bad.any(), jnp.stack([phase, layer]), otherwise).astype(jnp.int32)
    return Failure(found[0], found[1])


def failure_text(phase: int, layer: int, layers: Sequence[str]) -> tuple[str | None, str | None]:
    """Phase and layer of a failure in words; None where there is none.

    Args:
        phase, layer: of a `Failure`, on the host.
        layers: their names.
    """
    return PHASES[phase] if phase >= 0 else None, layers[layer] if layer >= 0 else None
