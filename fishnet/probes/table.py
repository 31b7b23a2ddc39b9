"""Table of all probes: what each measures, with axes, units and cost."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fishnet.lookup import Table
from fishnet.probes.activations import activation_metrics
from fishnet.probes.classes import class_metrics
from fishnet.probes.context import Step
from fishnet.probes.epoch import dead_units, features, gradient_noise, sharpness
from fishnet.probes.failures import first_failure
from fishnet.probes.gradients import gradient_cosines, gradient_metrics
from fishnet.probes.norm_gap import norm_gap
from fishnet.probes.weights import sparsity_metrics, update_metrics

AXES = ("run", "layer", "kernel", "site", "class")  # a probe has one value for each of these; "run" for a single value


@dataclass(frozen=True)
class Measure:
    """Axis and unit of one metric of a probe."""

    axis: str  # one of AXES
    unit: str  # "1" for a fraction, a ratio or a count


@dataclass(frozen=True)
class Probe:
    """Probe: a measurement inside training.

    Args:
        kind: "step", measured within a training step as `measure(Step) -> {name: array}`; "epoch", measured at the end
            of an epoch as `measure(Net, Batches) -> {name: array}`; "failure", looked for once, in the step that was
            not finite.
        function: the function that measures, whose docstring describes the probe.
        measure: what the engine calls; None for a failure, whose function takes other arguments.
        gives: its metrics by name, each an array over its axis.
        cost: as a phrase, such as "a forward pass of the batch".
        passes: cost in forward passes, of a batch for a step measured, or of the images for an epoch measured.
        fixed: additional cost in forward passes of a single batch, for an epoch measured.
        needs: fields of a `Step` that must be computed for it: "before", "seen".
    """

    kind: str
    function: Callable
    measure: Any  # called as `kind` says; None for a failure
    gives: Mapping[str, Measure]
    cost: str
    passes: float = 0.0
    fixed: float = 0.0
    needs: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Description of what it measures, in one line."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]


def _each(axis: str, **units: str) -> dict[str, Measure]:
    """Makes measures over one axis, with their units."""
    return {name: Measure(axis, unit) for name, unit in units.items()}


def _gradients(step: Step) -> dict[str, Any]:
    return gradient_metrics(step.params, step.grads, step.layers)


def _cosines(step: Step) -> dict[str, Any]:
    return gradient_cosines(step.grads, step.before, step.layers)


def _updates(step: Step) -> dict[str, Any]:
    return update_metrics(step.params, step.after, step.layers)


def _sparsity(step: Step) -> dict[str, Any]:
    return sparsity_metrics(step.after, step.layers)


def _activations(step: Step) -> dict[str, Any]:
    assert step.seen is not None, "needed, see `Probe.needs`"
    return activation_metrics(step.seen.sites)


PROBES: Table[Probe] = Table(
    {
        "gradients": Probe(
            "step",
            gradient_metrics,
            _gradients,
            _each("layer", gradient_norm="loss / weight", gradient_rms="loss / weight")
            | _each("run", gradient_ratio="1"),
            "two passes over the gradient",
        ),
        "gradient_cosine": Probe(
            "step",
            gradient_cosines,
            _cosines,
            _each("run", gradient_cosine="1") | _each("layer", layer_gradient_cosine="1"),
            "a few passes over two gradients, and the memory of one",
            needs=("before",),
        ),
        "updates": Probe(
            "step",
            update_metrics,
            _updates,
            _each("layer", parameter_norm="weight", update_norm="weight", update_ratio="1"),
            "two passes over the parameters",
        ),
        "activations": Probe(
            "step",
            activation_metrics,
            _activations,
            _each("site", activation_mean="activation", activation_std="activation", activation_kurtosis="1")
            | _each("site", saturation="1"),
            "a forward pass of the batch",
            passes=1.5,
            needs=("seen",),
        ),
        "sparsity": Probe(
            "step",
            sparsity_metrics,
            _sparsity,
            _each("kernel", zero_weights="1", small_weights="1"),
            "a few passes over the parameters",
        ),
        "first_bad": Probe(
            "failure",
            first_failure,
            None,
            {},
            "once a run that diverges: its bad step again",
        ),
        "dead_units": Probe(
            "epoch",
            dead_units,
            dead_units,
            _each("site", dead_units="1"),
            "a forward pass of the images",
            passes=1.3,
        ),
        "features": Probe(
            "epoch",
            features,
            features,
            _each("run", effective_rank="1", stable_rank="1", within_variance="feature^2", between_variance="feature^2")
            | _each("run", collapse="1")
            | _each("class", nearest_class_cosine="1"),
            "a forward pass of the images, and two eigenvalue problems of the features' size",
            passes=1.1,
        ),
        "classes": Probe(
            "epoch",
            class_metrics,
            class_metrics,
            _each("class", class_margin="logit", class_loss="loss", class_gradient_norm="loss / weight")
            | _each("class", class_gradient_share="1", class_gradient_variance="(loss / weight)^2"),
            "a forward and two backward passes of the images; a batch more a class",
            passes=5.0,
        ),
        "noise_scale": Probe(
            "epoch",
            gradient_noise,
            gradient_noise,
            _each(
                "run", noise_scale="examples", gradient_trace="(loss / weight)^2", gradient_square="(loss / weight)^2"
            ),
            "a forward and a backward pass of the images, and the memory of a gradient",
            passes=3.0,
        ),
        "sharpness": Probe(
            "epoch",
            sharpness,
            sharpness,
            _each("run", sharpness="loss / weight^2", sharpness_error="loss / weight^2", two_over_lr="loss / weight^2"),
            "16 products with the Hessian on one batch, each of two gradients",
            fixed=96.0,
        ),
        "norm_gap": Probe(
            "epoch",
            norm_gap,
            norm_gap,
            _each("run", loss_batch="loss", loss_running="loss", loss_precise="loss")
            | _each("run", accuracy_batch="1", accuracy_running="1", accuracy_precise="1")
            | _each("run", logit_gap_running="logit", logit_gap_precise="logit"),
            "four forward passes of the images",
            passes=4.0,
        ),
    }
)
