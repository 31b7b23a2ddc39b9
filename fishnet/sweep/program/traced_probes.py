"""Probes inside a program: measurements of steps, and where a step went non-finite."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fishnet.models.network import Network
from fishnet.probes import ForwardRecord, Probe, Step, layer_names, record_forward, site_names
from fishnet.probes.failures import finite_outputs, first_failure
from fishnet.probes.layers import all_finite, kernel_layers
from fishnet.sweep.program.config import ProgramConfig
from fishnet.sweep.program.state import LaneState, ProbeState, TrainingLane


class Axes(NamedTuple):
    """Names along the axes of a network's probe measurements, in order of execution."""

    layer: tuple[str, ...]  # modules with parameters
    kernel: tuple[str, ...]  # those of them with a kernel
    site: tuple[str, ...]  # activations
    classes: int

    def shape(self, axis: str) -> tuple[int, ...]:
        """Shape of a measure over an axis of `fishnet.probes.table.AXES`."""
        if axis == "run":
            return ()
        return (self.classes if axis == "class" else len(getattr(self, axis)),)


def find_axes(config: ProgramConfig, model: Network) -> Axes:
    """Axes of the probe measurements of a network; nothing is computed.

    Args:
        model: of a lane; which numbers it holds does not matter.
    """
    images = jnp.zeros((1, *config.image_shape), jnp.uint8)

    def run() -> Any:
        return model.init(jax.random.key(0), images, train=False)

    layers = layer_names(run)
    return Axes(layers, kernel_layers(jax.eval_shape(run)["params"], layers), site_names(run), config.classes)


def measure_shapes(probes: dict[str, Probe], axes: Axes) -> dict[str, tuple[int, ...]]:
    """Shapes of all measures of some probes, by name."""
    return {name: axes.shape(measure.axis) for probe in probes.values() for name, measure in probe.gives.items()}


def needs(probes: dict[str, Probe], what: str) -> bool:
    """Tells whether some of the probes need a field of a `Step`."""
    return any(what in probe.needs for probe in probes.values())


def init_probes(config: ProgramConfig, model: Network, params: Any) -> ProbeState | tuple[()]:
    """Probe state of a run before its first step; () where no probe looks at steps."""
    probes = config.probes("step")
    if not probes and not config.probes("failure"):
        return ()
    return ProbeState(
        steps={
            name: jnp.full((config.measurements, *size), jnp.nan, jnp.float32)
            for name, size in measure_shapes(probes, find_axes(config, model)).items()
        },
        before=jax.tree.map(jnp.zeros_like, params) if needs(probes, "before") else (),
        failure=jnp.full((2,), -1, jnp.int32) if config.probes("failure") else (),
    )


def clear_probes(probed: Any, fresh: jax.Array) -> Any:
    """Probe state of a lane without the measurements of the last epoch if a new one begins (`fresh`, [] bool)."""
    if not isinstance(probed, ProbeState):
        return probed
    return probed.replace(steps=jax.tree.map(lambda values: jnp.where(fresh, jnp.nan, values), probed.steps))


def measure_step(
    lane: TrainingLane, state: LaneState, step: jax.Array, grads: Any, after: Any, run: Callable[[], Any]
) -> Any:
    """Probe state after a step, of which `run` makes the forward pass once more; most steps are not measured.

    `grads` are those before clipping, `after` the parameters after the step.
    """
    config, probed = lane.config, state.probed
    probes = config.probes("step")
    if not probes:
        return probed
    every, of_epoch = config.recipe.probe_every, step % config.steps_per_epoch

    def probe_step() -> dict[str, jax.Array]:
        seen: ForwardRecord | None = record_forward(run) if needs(probes, "seen") else None
        inputs = Step(lane.layers, state.params, grads, probed.before, after, seen)
        found = {name: value for probe in probes.values() for name, value in probe.measure(inputs).items()}
        return {name: values.at[of_epoch // every].set(found[name]) for name, values in probed.steps.items()}

    # Compiled as a function of its own, by whose name its cost is told from that of every step.
    steps = lax.cond(of_epoch % every == 0, jax.jit(probe_step), lambda: probed.steps)
    before = probed.before
    if needs(probes, "before"):
        due = (step + 1) % config.steps_per_epoch % every == 0
        before = lax.cond(due, lambda: grads, lambda: probed.before)
    return probed.replace(steps=steps, before=before)


def locate_failure(
    lane: TrainingLane, state: LaneState, start: jax.Array, repeat: Callable[[jax.Array, Callable], tuple]
) -> LaneState:
    """State of a run with the layer and phase in which it has just gone non-finite, if it has.

    The bad step is made once more, as the state before it has been kept.

    Args:
        state: after the steps of a call, without the lane axis.
        start: [] int32, the first of them.
        repeat: `f(step, watch) -> (loss, what watch gave, gradients)`, the forward and backward pass of a step;
            `watch(run)` calls `run() -> (logits, changed)` and returns the logits and something of its own.
    """
    sound = all_finite(state.params)
    just = (state.first_bad_step >= start) | (~sound & (state.first_bad_step < 0))

    def probe_failure() -> jax.Array:
        def watch(run: Callable[[], Any]) -> tuple[jax.Array, jax.Array]:
            seen = record_forward(run)
            return seen.result[0], finite_outputs(seen.outputs, lane.layers)

        loss, outputs, grads = repeat(jnp.maximum(state.first_bad_step, 0), watch)
        return jnp.stack(first_failure(state.params, outputs, loss, grads, lane.layers))

    missing = state.probed.failure[0] < 0
    failure = lax.cond(just & missing, jax.jit(probe_failure), lambda: state.probed.failure)
    return state.replace(probed=state.probed.replace(failure=failure))
