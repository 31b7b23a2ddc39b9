"""Prints a hash of what all blocks compute, with the variant that FISHNET_CPU_KERNELS names."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.nn.cpu.blocks import ACTIVATION_NUMBERS, NormAct, conv_moments, norm_act_conv, norm_act_pool, norm_add_act
from fishnet.nn.cpu.library import require_kernels

require_kernels()
rng, digest = np.random.default_rng(0), hashlib.sha256()


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def add(block, *arguments) -> None:
    y, pull = jax.vjp(block, *arguments)
    for leaf in (*jax.tree.leaves(y), *pull(jax.tree.map(jnp.ones_like, y))):
        digest.update(np.asarray(leaf).tobytes())


for number in ACTIVATION_NUMBERS.values():
    for stride, side, depthwise, c, out in ((1, 3, False, 35, 33), (2, 3, False, 16, 8), (2, 5, True, 24, 24)):
        x, k = draw(3, 9, 8, c), draw(side, side, 1 if depthwise else c, out)
        norm = NormAct(draw(3, c), draw(3, c), draw(3, c), draw(c), jnp.int32(number))
        low = (side - 1) // 2
        window = (stride, stride, low, low, low, low)
        add(lambda x, k: tuple(norm_act_conv(window, depthwise, x, norm, k)), x, k)  # noqa: B023
        add(lambda x, k: tuple(conv_moments(window, depthwise, x, k)), x, k)  # noqa: B023
        add(lambda x: norm_act_pool(x, norm), x)  # noqa: B023
        add(lambda x, added: norm_add_act(x, norm, added), x, draw(3, 9, 8, c))  # noqa: B023
print(digest.hexdigest())
