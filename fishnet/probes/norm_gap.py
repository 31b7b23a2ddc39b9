"""Comparison of batch norm's batch, running and precise statistics on the same network and images."""

import jax.numpy as jnp
from jaxtyping import Array

from fishnet.models.norm_statistics import add_batch, batch_moments, empty_population
from fishnet.probes.context import Batches, Net

NAMES = ("batch", "running", "precise")


def norm_gap(net: Net, batches: Batches) -> dict[str, Array]:
    """Loss, accuracy and logits in evaluation with the batch's statistics, with running and with precise ones.

        logit_gap_s = sqrt(mean over images and classes of (logits_s - logits_batch)^2), s = running or precise

    Batch statistics are what training sees. If running ones do worse and precise ones do not, the running averages lag
    behind the weights; if both do worse, batches are too small or too unlike each other. Without batch norm all three
    agree. Loss and accuracy are those of the training images, without augmentation and dropout.

    Args:
        net: the network.
        batches: of the training's size; precise statistics are estimated on the same images.

    Returns:
        `loss_s` (mean training loss) and `accuracy_s` for s in batch, running, precise, and `logit_gap_running` and
        `logit_gap_precise`, each [].

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3.
    """
    exact = net
    if net.variables.get("batch_stats"):
        population = batches.fold(
            lambda so_far, images, labels: add_batch(so_far, batch_moments(net.model, net.variables, images)),
            empty_population(net.variables),
        )
        exact = net._replace(variables={**net.variables, "batch_stats": population.moments})

    def add(sums: dict[str, Array], images: Array, labels: Array) -> dict[str, Array]:
        logits = {
            "batch": net.logits(images, as_trained=True),
            "running": net.logits(images),
            "precise": exact.logits(images),
        }
        found = {f"loss_{name}": net.losses(value, labels).mean() for name, value in logits.items()}
        found |= {f"accuracy_{name}": (value.argmax(-1) == labels).mean() for name, value in logits.items()}
        for name in NAMES[1:]:
            found[f"logit_gap_{name}"] = jnp.square(logits[name] - logits["batch"]).mean()
        return {name: sums[name] + value for name, value in found.items()}

    metrics = ("loss", "accuracy", "logit_gap")
    names = [f"{metric}_{name}" for metric in metrics for name in NAMES[metric == "logit_gap" :]]
    sums = batches.fold(add, {name: jnp.float32(0) for name in names})
    means = {name: sums[name] / len(batches.positions) for name in names}
    return {name: jnp.sqrt(mean) if name.startswith("logit_gap") else mean for name, mean in means.items()}
