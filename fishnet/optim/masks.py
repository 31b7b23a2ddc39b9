"""Mask of the kernels among parameters, and norms of the weights of each unit.

Weight decay, adaptive clipping, max-norm and the penalties of the loss all use these two.
"""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from fishnet.errors import UsageError

# Named because their rank alone can mislead: attention's biases have rank 2.
NEVER_KERNELS = ("bias", "scale")

BLOCKS, SMALLEST_BLOCK = 8, 1024  # number of blocks in which squares are summed; fewest entries of a block


def kernel_mask(params: optax.Params) -> optax.Params:
    """Mask of the kernels: parameters of rank 2 or more that are neither bias nor scale.

    Args:
        params: a tree of floating-point arrays of one network (no lane axis).

    Returns:
        A tree like `params` of Python booleans.

    Raises:
        UsageError: no rule covers a leaf: it is not a floating-point array, or is called "kernel" with a rank below 2.

    Example:
        >>> params = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
        >>> kernel_mask(params)
        {'dense': {'bias': False, 'kernel': True}}
    """

    def kernel(path: tuple, leaf: ArrayLike) -> bool:
        name = (path_names(path) or ("",))[-1]
        rank, floating = jnp.ndim(leaf), jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        if not floating or (name == "kernel" and rank < 2):
            raise UsageError(
                f"kernel or not: there is no rule for parameter {jax.tree_util.keystr(path)} "
                f"(shape {jnp.shape(leaf)}, {jnp.result_type(leaf)})"
            )
        return rank >= 2 and name not in NEVER_KERNELS

    return jax.tree_util.tree_map_with_path(kernel, params)


def path_names(path: tuple) -> tuple[str, ...]:
    """Converts a key path of JAX to names, outermost first: ("conv_0", "kernel")."""
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)


def unit_norms(leaf: jax.Array, kernel: bool) -> jax.Array:
    """Euclidean norms `|w_u|` of the weights into each unit, over all axes of a kernel but the last.

    That is over i of a dense kernel [i, o] and over kh, kw, i of a convolution's [kh, kw, i, o], depthwise ones
    ([kh, kw, 1, o]) included. A leaf that is no kernel is one unit.

    Args:
        leaf: [...] weights, or their gradients.
        kernel: whether the leaf is a kernel, from `kernel_mask`.

    Returns:
        Norms [1, ..., 1, o] or [1, ..., 1], of the leaf's rank.
    """
    return jnp.sqrt(jnp.sum(jnp.square(leaf), axis=tuple(range(leaf.ndim - kernel)), keepdims=True))


def global_norm(tree: optax.Updates) -> jax.Array:
    """Euclidean norm over all entries of a tree, `sqrt(sum_leaf sum_i x_i^2)`, [] in the leaves' type.

    The squares of a large leaf are added up in blocks first, entry by entry: XLA vectorizes that on CPU, while it makes
    a copy for the reduction of a large array to a scalar (784 x 300 entries: 2 against 53 microseconds).

    Args:
        tree: of arrays [...].
    """
    return jnp.sqrt(sum(_sum_of_squares(x.reshape(-1)) for x in jax.tree.leaves(tree)))


def _sum_of_squares(x: jax.Array) -> jax.Array:
    size = x.size // BLOCKS
    if size < SMALLEST_BLOCK:
        return jnp.sum(jnp.square(x))
    parts = [jnp.square(x[i * size : (i + 1) * size]) for i in range(BLOCKS)]
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return jnp.sum(parts[0]) + jnp.sum(jnp.square(x[BLOCKS * size :]))
