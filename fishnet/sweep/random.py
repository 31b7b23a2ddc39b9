"""Random numbers come from (seed, stream name, step): never from a lane's position or from its neighbours."""

import zlib

import jax


def stream(seed: jax.Array, name: str, step: jax.Array | int = 0) -> jax.Array:
    """The key of one draw of one purpose in one run.

    Args:
        seed: [] uint32, the run's seed.
        name: the purpose ("init", "order", "augment", "dropout"), hashed stably with CRC-32.
        step: [] int32, the step or epoch of the draw.

    Returns:
        A threefry key: equal on every backend and under `vmap`.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), step)
