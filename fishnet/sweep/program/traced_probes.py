"""Probes inside a program: of steps, of networks at the end of an epoch, and of where a step went wrong."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fishnet.models.network import Network
from fishnet.probes import Batches, Net, Probe, Recorded, Step, layer_names, recorded, site_names
from fishnet.probes.failures import finite_outputs, first_failure
from fishnet.probes.layers import all_finite, with_kernel
from fishnet.sweep.program.state import DeviceData, LaneState, ProbeState, ProgramConfig


class Axes(NamedTuple):
    """The names that the figures of a network's probes go by, in order of execution."""

    layer: tuple[str, ...]  # modules with parameters
    kernel: tuple[str, ...]  # those of them with a kernel
    site: tuple[str, ...]  # activations
    classes: int

    def shape(self, axis: str) -> tuple[int, ...]:
        """Of a figure over an axis of `fishnet.probes.table.AXES`."""
        if axis == "run":
            return ()
        return (self.classes if axis == "class" else len(getattr(self, axis)),)


def axes_of(shape: ProgramConfig, model: Network) -> Axes:
    """The axes of the figures of a network; nothing is computed.

    Args:
        shape: what is static.
        model: of a lane; which numbers it holds does not matter.
    """
    images = jnp.zeros((1, *shape.image_shape), jnp.uint8)

    def run() -> Any:
        return model.init(jax.random.key(0), images, train=False)

    layers = layer_names(run)
    return Axes(layers, with_kernel(jax.eval_shape(run)["params"], layers), site_names(run), shape.classes)


def nothing_probed(shape: ProgramConfig, model: Network, params: Any) -> ProbeState | tuple[()]:
    """What a run has probed before its first step; () where no probe looks at steps.

    Args:
        shape: what is static.
        model: of the lane.
        params: of the lane.
    """
    probes = shape.probes("step")
    if not probes and not shape.probes("failure"):
        return ()
    return ProbeState(
        steps={
            figure: jnp.full((shape.measurements, *size), jnp.nan, jnp.float32)
            for figure, size in figure_shapes(probes, axes_of(shape, model)).items()
        },
        before=jax.tree.map(jnp.zeros_like, params) if wanted(probes, "before") else (),
        failure=jnp.full((2,), -1, jnp.int32) if shape.probes("failure") else (),
    )


def figure_shapes(probes: dict[str, Probe], axes: Axes) -> dict[str, tuple[int, ...]]:
    """Figure -> its shape, of all figures of some probes."""
    return {figure: axes.shape(of.axis) for probe in probes.values() for figure, of in probe.gives.items()}


def wanted(probes: dict[str, Probe], what: str) -> bool:
    """Whether some of the probes need a field of a `Step` to be made for them."""
    return any(what in probe.needs for probe in probes.values())


def new_epoch(probed: Any, fresh: jax.Array) -> Any:
    """What has been probed, without the measurements of the epoch before if a new one begins.

    Args:
        probed: of a lane.
        fresh: [] bool.
    """
    if not isinstance(probed, ProbeState):
        return probed
    return probed.replace(steps=jax.tree.map(lambda values: jnp.where(fresh, jnp.nan, values), probed.steps))


def with_step(
    shape: ProgramConfig,
    layers: tuple[str, ...],
    lane: LaneState,
    i: jax.Array,
    grads: Any,
    after: Any,
    run: Callable[[], Any],
) -> Any:
    """What has been probed after a step; in most steps there is nothing to do.

    Args:
        shape: what is static.
        layers: the network's.
        lane: its state before the step, without the lane axis.
        i: [] int32, number of the step.
        grads: before clipping.
        after: parameters after the step.
        run: the forward pass of the step once more.
    """
    probed, probes = lane.probed, shape.probes("step")
    if not probes:
        return probed
    every, of_epoch = shape.recipe.probe_every, i % shape.steps_per_epoch

    def probe_step() -> dict[str, jax.Array]:
        seen: Recorded | None = recorded(run) if wanted(probes, "seen") else None
        step = Step(layers, lane.params, grads, probed.before, after, seen)
        found = {name: value for probe in probes.values() for name, value in probe.measure(step).items()}
        return {name: values.at[of_epoch // every].set(found[name]) for name, values in probed.steps.items()}

    # Of its own name, by which its cost is told from that of every step.
    steps = lax.cond(of_epoch % every == 0, jax.jit(probe_step), lambda: probed.steps)
    before = probed.before
    if wanted(probes, "before"):
        due = (i + 1) % shape.steps_per_epoch % every == 0
        before = lax.cond(due, lambda: grads, lambda: probed.before)
    return probed.replace(steps=steps, before=before)


def with_failure(
    lane: LaneState, start: jax.Array, layers: tuple[str, ...], again: Callable[[jax.Array, Callable], tuple]
) -> LaneState:
    """A run that has just gone non-finite, with the layer and phase in which that began.

    The bad step is made once more, as the state before it has been kept.

    Args:
        lane: its state after the steps of a call, without the lane axis.
        start: [] int32, the first of them.
        layers: the network's.
        again: `f(step, watch) -> (loss, what watch gave, gradients)`, the forward and backward pass of a step;
            `watch(run)` calls `run` and returns its result and something of its own.
    """
    sound = all_finite(lane.params)
    just = (lane.first_bad_step >= start) | (~sound & (lane.first_bad_step < 0))

    def probe_failure() -> jax.Array:
        def watch(run: Callable[[], Any]) -> tuple[Any, jax.Array]:
            seen = recorded(run)
            return seen.result, finite_outputs(seen.outputs, layers)

        loss, outputs, grads = again(jnp.maximum(lane.first_bad_step, 0), watch)
        return jnp.stack(first_failure(lane.params, outputs, loss, grads, layers))

    missing = lane.probed.failure[0] < 0
    failure = lax.cond(just & missing, jax.jit(probe_failure), lambda: lane.probed.failure)
    return lane.replace(probed=lane.probed.replace(failure=failure))


def probe_network(shape: ProgramConfig, net: Net, pixels: DeviceData, positions: jax.Array) -> dict[str, jax.Array]:
    """All figures of the probes of an epoch, of one run.

    Args:
        shape: what is static.
        net: the run's network, with its loss.
        pixels: the data.
        positions: [batch, image] int32, which images.
    """
    batches = Batches(pixels.images, pixels.labels, positions)
    found = {}
    for probe in shape.probes("epoch").values():
        found |= probe.measure(net, batches)
    return found
