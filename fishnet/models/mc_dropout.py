"""Predictive uncertainty by Monte-Carlo dropout: predictive entropy and mutual information.

Entropy measures how spread the prediction is. Mutual information is the part of it that comes from disagreement of the
sub-networks, which more training data would reduce; the rest comes from ambiguous images.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num, PRNGKeyArray

from fishnet.checks.arguments import check_type
from fishnet.checks.traced import is_whole_in, violates
from fishnet.errors import UsageError
from fishnet.models.network import Network


class MonteCarlo(NamedTuple):
    """Combined prediction of several passes; 0 <= mutual information <= entropy <= log k."""

    probabilities: Array  # [b, k], mean over the passes
    entropy: Array  # [b] nats, of the mean probabilities probabilities
    mutual_information: Array  # [b] nats


def mc_dropout(
    model: Network,
    variables: Any,
    images: Num[Array | np.ndarray, "b h w c"],
    key: PRNGKeyArray,
    passes: ArrayLike,
) -> MonteCarlo:
    """Monte-Carlo dropout: the combined prediction of T sub-networks, drawn by dropout as in training.

        p_t = softmax(f(x; mask_t)),   p = (1/T) sum_t p_t,   H(p) = -sum_j p_j log p_j
        mutual information = H(p) - (1/T) sum_t H(p_t)

    One loop of one compiled program adds up the passes, so memory does not grow with T. Pass t draws one sub-network
    for all images, from `fold_in(key, t)`: so an image's prediction does not depend on the others. Norms use their
    running statistics, also those of a model that is evaluated with the statistics of a batch. `jax.jit` it where it is
    called more than once; XLA's own convolution is slow in loops on CPU, so give the model another lowering there
    (`model.clone(conv=gemm)`).

    Args:
        model: trained with dropout (or stochastic depth, which stays random too).
        variables: its variables.
        images: [b, h, w, c], uint8 or floats in 0..255.
        key: a random key.
        passes: T, a whole number from 1, possibly traced.

    Returns:
        Mean probabilities [b, k], their entropy [b] and the mutual information [b] of prediction and network, nats.

    Raises:
        UsageError: `passes` is known, and not whole or below 1; the model drops nothing.

    Source: Gal and Ghahramani, arXiv:1506.02142; the decomposition: Houlsby et al., arXiv:1112.5745.
    """
    check_passes(passes)
    check_dropout(model)
    network = model.clone(monte_carlo=True, batch_statistics=False)

    def answer(key: PRNGKeyArray, image: Array | np.ndarray) -> tuple[Array, Array]:
        logits = network.apply(variables, image[None], train=False, rngs={"dropout": key})[0]
        p = jax.nn.softmax(logits)
        return p, entropy(p)

    def add(t: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        # The key is not vectorized: every image meets the same masks.
        new = jax.vmap(answer, in_axes=(None, 0))(jax.random.fold_in(key, t), images)
        return jax.tree.map(jnp.add, sums, new)

    images = jnp.asarray(images)
    passes = int(passes) if isinstance(passes, float) else passes
    shapes = jax.eval_shape(add, jnp.int32(0), (0.0, 0.0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    p, h = jax.tree.map(lambda total: total / passes, lax.fori_loop(0, passes, add, zeros))
    return _summarize(p, h)


def summarize(probabilities: Float[Array | np.ndarray, "t b k"]) -> MonteCarlo:
    """Combines several predictions for the same images, such as those of an ensemble of networks.

        p = (1/T) sum_t p_t,   mutual information = H(p) - (1/T) sum_t H(p_t)

    Args:
        probabilities: p_t [T, b, k], T predictions, T from 1.

    Returns:
        As `mc_dropout`.

    Raises:
        UsageError: there is no prediction.
    """
    if not len(probabilities):
        raise UsageError("there must be at least one prediction to combine, got none")
    probabilities = jnp.asarray(probabilities)
    return _summarize(probabilities.mean(0), entropy(probabilities).mean(0))


def entropy(p: Float[Array | np.ndarray, "*b k"]) -> Float[Array, "*b"]:
    """Shannon entropy in nats: `H(p) = -sum_j p_j log p_j`, where 0 log 0 is 0.

    Args:
        p: probabilities [..., k].

    Returns:
        [...], from 0 to log k.
    """
    return jnp.clip(jax.scipy.special.entr(p).sum(-1), 0.0, jnp.log(p.shape[-1]))


def check_passes(passes: ArrayLike) -> None:
    """Refuses a known number of passes that is not a whole number from 1.

    Raises:
        UsageError: `passes` is below 1 or not whole.
    """
    check_type("passes", passes, (int, float, np.number, np.ndarray, jax.Array), "a whole number of at least 1")
    if violates(passes, is_whole_in(1, 2**31)):
        raise UsageError(f"Monte-Carlo dropout needs 1, 2, ... passes, got {passes}")


def check_dropout(model: Network) -> None:
    """Refuses a model without dropout and stochastic depth.

    Raises:
        UsageError: its dropout is a Python 0 or applies to no layer, and no residual branch is dropped either.
    """
    check_type("model", model, Network, "a network, as `load_run` gives it")
    features = model.dropout_layers and not (isinstance(model.dropout, int | float) and not model.dropout)
    depth = model.stochastic_depth
    branches = depth is not None and not (isinstance(depth, int | float) and not depth)
    if not (features or branches):
        raise UsageError("Monte-Carlo dropout needs a model with dropout: without it all passes are alike")


def _summarize(p: Array, mean_entropy: Array) -> MonteCarlo:
    h = entropy(p)
    # Rounding may put the mean of entropies above the entropy of the mean.
    return MonteCarlo(p, h, jnp.maximum(h - mean_entropy, 0.0))
