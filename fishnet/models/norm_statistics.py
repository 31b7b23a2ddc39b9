"""Statistics of batch norm in evaluation: running, batch and precise ones, and a comparison of the three.

Batch norm normalizes with the current batch in training, and with running averages in evaluation. Running averages lag
behind weights that still change; precise statistics are those of the population for the current weights.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num

from fishnet.errors import UsageError
from fishnet.lookup import Table, lookup
from fishnet.losses import cross_entropy
from fishnet.models.network import Network
from fishnet.nn.norms import BATCH_NORM_MOMENTUM

# Start value of a statistic when the moments of a batch are read off. It is so small that nothing of it is left in the
# result, and not zero, so that an unchanged statistic (of another kind of norm) differs from one that became zero.
START = 2.0**-100


class Population(NamedTuple):
    """Moments of the images so far, a carry for `fori_loop` and `scan`."""

    moments: Any  # a tree like `batch_stats`: `mean` and `var` of each norm
    weight: Array  # [] float32, number of batches so far, or the sum of their weights


def batch_moments(model: Network, variables: Any, images: Num[Array | np.ndarray, "b h w c"]) -> Any:
    """Mean and variance of a batch at each batch norm, when all of them normalize with these.

    Pure, so that it can be called in a compiled loop. Dropout is off. Norms of other kinds, and the model's
    `frozen_norms`, keep their statistics. Ghost batch norm gives the mean of the moments of its sub-batches, as in
    training. That leaves out the spread between them, so use batches of the sub-batches' size for the population.

    Args:
        model: any model.
        variables: its variables.
        images: the batch [b, h, w, c], uint8 or floats in 0..255.

    Returns:
        A tree like `variables["batch_stats"]`, empty if there is none; the variances are biased (divided by the count).
    """
    statistics = variables.get("batch_stats", {})
    if not statistics:
        return {}
    statistics = _plain(statistics)
    held = {name: model.frozen_norms.get(name, False) for name in statistics}
    start = {
        name: jax.tree.map(lambda leaf, name=name: jnp.where(held[name], leaf, START), own)
        for name, own in statistics.items()
    }
    moved = model.clone(batch_statistics=True).apply(
        {**variables, "batch_stats": start}, images, train=False, mutable=["batch_stats"]
    )[1]["batch_stats"]

    def own(held: ArrayLike, old: Array, new: Array) -> Array:
        return jnp.where(held | (new == START), old, (new - BATCH_NORM_MOMENTUM * START) / (1 - BATCH_NORM_MOMENTUM))

    moved = _plain(moved)
    return {name: jax.tree.map(partial(own, held[name]), old, moved[name]) for name, old in statistics.items()}


def empty_population(variables: Any) -> Population:
    """Initial population, before the first batch.

    Args:
        variables: of the model.
    """
    return Population(jax.tree.map(jnp.zeros_like, _plain(variables.get("batch_stats", {}))), jnp.float32(0))


def add_batch(population: Population, moments: Any, weight: ArrayLike = 1.0) -> Population:
    """Adds one batch to the population.

        mean = average of batch means,   var = average of (batch var + batch mean^2) - mean^2

    With a batch that is the fraction s of all: `mean' = mean + s d`, `d = batch mean - mean`, and
    `var' = var + s (batch var - var) + s (1 - s) d^2`: the same, but nothing cancels, var is never negative, and what
    all batches agree in stays as it is, bit for bit.

    Args:
        population: so far.
        moments: of the batch, as from `batch_moments`.
        weight: of the batch, above 0, possibly traced: 1 if all batches have one size, else the number of its images.

    Returns:
        The population whose `moments` are the precise statistics so far.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3.1; the sums one at a time:
    Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", 1983.
    """
    total = population.weight + weight
    s = weight / total
    old: dict[tuple[str, ...], Any] = flatten_dict(population.moments)
    new: dict[tuple[str, ...], Any] = flatten_dict(moments)
    merged = {}
    for path, mean in old.items():
        if path[-1] != "mean":
            continue
        spread = (*path[:-1], "var")
        d = new[path] - mean
        merged[path] = mean + s * d
        merged[spread] = old[spread] + s * (new[spread] - old[spread]) + s * (1 - s) * jnp.square(d)
    return Population(unflatten_dict(merged), total)


def precise_statistics(
    model: Network, variables: Any, batches: Iterable[Num[Array | np.ndarray, "b h w c"]]
) -> dict[str, Any]:
    """Re-estimates the running statistics as those of the population (PreciseBN).

    The weights stay. Each batch is normalized with its own statistics, and batches are weighted by their numbers of
    images. A model without batch norm is returned unchanged, without reading a batch. Batches of one shape need one
    compilation.

    Args:
        model: any model.
        variables: its variables.
        batches: of training images, each [b, h, w, c] and as large as in training; or an array [n, b, h, w, c].

    Returns:
        The variables with other `batch_stats`.

    Raises:
        UsageError: there is no batch.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3.1.
    """
    if not variables.get("batch_stats"):
        return dict(variables)

    @jax.jit
    def add(population: Population, variables: Any, images: Array) -> Population:
        return add_batch(population, batch_moments(model, variables, images), images.shape[0])

    population = empty_population(variables)
    for images in batches:
        population = add(population, variables, images)
    if not population.weight:
        raise UsageError("precise statistics need at least one batch of training images, got none")
    return {**variables, "batch_stats": population.moments}


def logits_with(
    model: Network, variables: Any, images: Num[Array | np.ndarray, "b h w c"], statistics: str
) -> Float[Array, "b k"]:
    """Logits in evaluation with running or batch statistics.

    Args:
        model: any model.
        variables: its variables; for precise statistics those from `precise_statistics`, with "running".
        images: [b, h, w, c], uint8 or floats in 0..255; with "batch" they are the batch.
        statistics: "running", those in the variables, or "batch", those of the images.

    Returns:
        [b, k].

    Raises:
        UsageError: `statistics` is unknown.
    """
    return cast(Array, lookup(STATISTICS, statistics, "statistics")(model).apply(variables, images, train=False))


def normalization_gap(
    model: Network,
    variables: Any,
    images: Num[Array | np.ndarray, "b h w c"],
    labels: Int[Array | np.ndarray, " b"],
    train_batches: Iterable[Num[Array | np.ndarray, "b h w c"]],
) -> dict[str, dict[str, float]]:
    """Compares statistics of batch norm: loss and accuracy with running, batch and precise ones.

    Args:
        model: any model.
        variables: its variables.
        images: to evaluate on, [b, h, w, c], all as one batch.
        labels: [b] integers in [0, k).
        train_batches: as for `precise_statistics`.

    Returns:
        `loss` (mean cross-entropy, nats) and `accuracy` for each of "running", "batch" and "precise".

    Raises:
        UsageError: as `precise_statistics`.
    """

    @partial(jax.jit, static_argnums=0)
    def evaluate(statistics: str, variables: Any, images: Array, labels: Array) -> dict[str, Array]:
        logits = logits_with(model, variables, images, statistics)
        return {"loss": cross_entropy(logits, labels).mean(), "accuracy": (logits.argmax(-1) == labels).mean()}

    precise = precise_statistics(model, variables, train_batches)
    found = {
        "running": evaluate("running", variables, images, labels),
        "batch": evaluate("batch", variables, images, labels),
        "precise": evaluate("running", precise, images, labels),
    }
    return {name: {metric: float(value) for metric, value in row.items()} for name, row in found.items()}


def _plain(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a tree, frozen or not, to nested dictionaries."""
    return {name: _plain(node) if isinstance(node, Mapping) else node for name, node in tree.items()}


STATISTICS: Table[Callable[[Network], Network]] = Table(
    {
        "running": lambda model: model.clone(batch_statistics=False),
        "batch": lambda model: model.clone(batch_statistics=True),
    }
)
