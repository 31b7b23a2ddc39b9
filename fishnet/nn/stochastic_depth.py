"""Stochastic depth: drops residual branches of single examples in training."""

from functools import partial

import flax.linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fishnet.errors import UsageError
from fishnet.nn.dropout import apply_in_training, broadcast_dropout, check_rate


def linear_rates(last: ArrayLike, blocks: int) -> tuple[ArrayLike, ...]:
    """Drop rates that grow linearly with depth, because all later blocks need early features.

        rate of block l = last l / blocks, l = 1 ... blocks

    Args:
        last: rate of the last block in [0, 1), possibly traced.
        blocks: number of residual blocks, 1 or more.

    Returns:
        A rate for each block, Python numbers if `last` is one.

    Raises:
        UsageError: a known `last` outside [0, 1), or fewer than one block.

    Example:
        >>> linear_rates(0.5, blocks=4)
        (0.125, 0.25, 0.375, 0.5)

    Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv:1603.09382, equation 4.
    """
    if blocks < 1:
        raise UsageError(f"stochastic depth needs a block or more, got {blocks}")
    check_rate(last, "rate of stochastic depth")
    return tuple(last * (block / blocks) for block in range(1, blocks + 1))


def stochastic_depth(key: Array, branch: Float[Array, "b ..."], rate: ArrayLike) -> Float[Array, "b ..."]:
    """Zeroes the whole branch of an example with probability `rate` and scales the others, so that the mean stays.

        y = branch m / (1 - rate), m[b] ~ Bernoulli(1 - rate)

    The paper draws once a batch and scales in evaluation instead.

    Args:
        key: a random key.
        branch: residual branch, [b, ...].
        rate: probability of zero in [0, 1), possibly traced.

    Returns:
        Shape and dtype of `branch`.

    Raises:
        UsageError: a known rate outside [0, 1).

    Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv:1603.09382.
    """
    return broadcast_dropout((branch.shape[0], *(1 for _ in branch.shape[1:])), key, branch, rate)


class StochasticDepth(nn.Module):
    """Stochastic depth module: `stochastic_depth` in training, the identity in evaluation; rng stream "dropout".

    A rate of 0 is exactly the identity, see `fishnet.nn.dropout.apply_in_training`.

    Args:
        rate: probability that an example skips the branch, in [0, 1), a Python number or a traced scalar.

    Raises:
        UsageError: a known rate outside [0, 1), when called.
    """

    rate: ArrayLike

    @nn.compact
    def __call__(self, branch: Float[Array, "b ..."], train: bool) -> Float[Array, "b ..."]:
        """Drops the branch [b, ...], which is then added to the skip connection."""
        return apply_in_training(stochastic_depth, self.rate, partial(self.make_rng, "dropout"), branch, train)
