"""The sum over pixels, which norms, biases and depthwise convolutions need forwards or backwards, done fast on CPU.

XLA's CPU backend does not vectorise a reduction over pixels with the channels innermost. A product with a vector of
ones is the same sum at the speed of the memory; since its operand cannot be fused with the elementwise work that makes
it, runs of pixels are added up first, in the fused loop: what goes through memory is up to 8 times smaller.
"""

from math import prod

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def wide(x: Array) -> Array:
    """`x` in float32 or better: what sums are computed in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def pixels(x: Array) -> Array:
    """[b, ..., c] to [b, n, c] with n = the number of pixels."""
    return x.reshape(x.shape[0], prod(x.shape[1:-1]), x.shape[-1])


def pixel_sum(t: Float[Array, "b n c"], computed: bool) -> Float[Array, "b c"]:
    """The sum of each sample and channel over all pixels, in full float32 or better.

        y[b, c] = sum over n of t[b, n, c]

    Args:
        t: [b, n, c].
        computed: `t` is the result of elementwise work, rather than an array that lies in memory anyway.

    Returns:
        [b, c].
    """
    t = wide(t)

    def product(t: Array) -> Array:
        n = t.shape[1]
        runs = max(k for k in range(1, 9) if n % k == 0) if computed else 1
        if runs > 1:
            t = sum(t[:, i * (n // runs) : (i + 1) * (n // runs)] for i in range(runs))
        ones = jnp.ones(t.shape[:2], t.dtype)
        return lax.dot_general(ones, t, (((1,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)

    # Accelerators fuse a reduction with what makes its operand; for them the product would be a detour.
    return lax.platform_dependent(t, cpu=product, default=lambda t: t.sum(1))
