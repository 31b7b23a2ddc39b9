"""Random numbers come from (seed, stream name, step): never from a lane's position or from its neighbours."""

import zlib
from functools import lru_cache

import jax
import numpy as np

STREAMS = ("init", "order", "augment", "dropout", "activation", "mix", "sample", "pretrain", "pretrain_order")


@lru_cache(maxsize=4096)
def stream_keys(seed: int) -> np.ndarray:
    """The key of each stream of a run.

    Args:
        seed: the run's seed, 0 or more, below 2^32.

    Returns:
        [stream, 2] uint32, threefry key data: the seed's key with the CRC-32 of the stream's name folded in, so that a
        new stream leaves the others as they were.
    """
    key = jax.random.key(np.uint32(seed), impl="threefry2x32")
    keys = [jax.random.fold_in(key, zlib.crc32(name.encode())) for name in STREAMS]
    return np.stack([np.asarray(jax.random.key_data(key)) for key in keys])


def draw(keys: jax.Array, name: str, step: jax.Array | int = 0) -> jax.Array:
    """The key of one draw from one stream: equal on every backend and under `vmap`.

    Args:
        keys: [stream, 2] uint32, see `stream_keys`.
        name: one of `STREAMS`.
        step: [] int32, the step or epoch of the draw.
    """
    key = jax.random.wrap_key_data(keys[STREAMS.index(name)], impl="threefry2x32")
    return jax.random.fold_in(key, step)
