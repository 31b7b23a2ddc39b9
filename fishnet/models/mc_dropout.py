"""How unsure a network is of an image: Monte-Carlo dropout, predictive entropy and mutual information.

Entropy says how spread the answer is; mutual information how much of that is because the sub-networks disagree, which
more training data would settle, and not because the image is ambiguous.
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
    """What several answers to the same images come to; 0 <= mutual information <= entropy <= log k."""

    probabilities: Array  # [b, k], the mean over the answers
    entropy: Array  # [b] nats, of the mean
    mutual_information: Array  # [b] nats


def mc_dropout(
    model: Network,
    variables: Any,
    images: Num[Array | np.ndarray, "b h w c"],
    key: PRNGKeyArray,
    passes: ArrayLike,
) -> MonteCarlo:
    """Monte-Carlo dropout: the answers of T sub-networks, drawn by dropout as in training, taken together.

        p_t = softmax(f(x; mask_t)),   p = (1/T) sum_t p_t,   H(p) = -sum_j p_j log p_j
        mutual information = H(p) - (1/T) sum_t H(p_t)

    One loop of one compiled program that adds up as it goes: memory does not grow with T. Pass t draws one sub-network
    for all images, from `fold_in(key, t)`: what is said of an image does not depend on those beside it. Norms use their
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
        Mean probabilities [b, k], their entropy [b] and the mutual information [b] of answer and sub-network, nats.

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
        # The key is not vectorised: every image meets the same masks.
        new = jax.vmap(answer, in_axes=(None, 0))(jax.random.fold_in(key, t), images)
        return jax.tree.map(jnp.add, sums, new)

    images = jnp.asarray(images)
    passes = int(passes) if isinstance(passes, float) else passes
    shapes = jax.eval_shape(add, jnp.int32(0), (0.0, 0.0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    p, h = jax.tree.map(lambda total: total / passes, lax.fori_loop(0, passes, add, zeros))
    return _summarize(p, h)


def summarize(probabilities: Float[Array | np.ndarray, "t b k"]) -> MonteCarlo:
    """Several answers to the same images taken together, such as those of an ensemble of networks.

        p = (1/T) sum_t p_t,   mutual information = H(p) - (1/T) sum_t H(p_t)

    Args:
        probabilities: p_t [T, b, k], T answers, T from 1.

    Returns:
        As `mc_dropout`.

    Raises:
        UsageError: there is no answer.
    """
    if not len(probabilities):
        raise UsageError("there must be at least one answer to take together, got none")
    probabilities = jnp.asarray(probabilities)
    return _summarize(probabilities.mean(0), entropy(probabilities).mean(0))


def entropy(p: Float[Array | np.ndarray, "*b k"]) -> Float[Array, "*b"]:
    """Shannon's entropy in nats: `H(p) = -sum_j p_j log p_j`, where 0 log 0 is 0.

    Args:
        p: probabilities [..., k].

    Returns:
        [...], from 0 to log k.
    """
    return jnp.clip(jax.scipy.special.entr(p).sum(-1), 0.0, jnp.log(p.shape[-1]))


def check_passes(passes: ArrayLike) -> None:
    """Refuses a known number of passes from which no mean can be taken.

    Raises:
        UsageError: `passes` is below 1 or not whole.
    """
    check_type("passes", passes, (int, float, np.number, np.ndarray, jax.Array), "a whole number of at least 1")
    if violates(passes, is_whole_in(1, 2**31)):
        raise UsageError(f"Monte-Carlo dropout needs 1, 2, ... passes, got {passes}")


def check_dropout(model: Network) -> None:
    """Refuses a model that drops nothing.

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
