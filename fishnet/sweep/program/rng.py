"""Random numbers come from (seed, stream name, step): never from a lane's position or from its neighbours."""

import zlib
from collections.abc import Sequence

import jax
import numpy as np

STREAMS = ("init", "order", "augment", "dropout", "activation", "mix", "sample", "pretrain", "pretrain_order")


def stream_keys(seeds: Sequence[int]) -> np.ndarray:
    """Keys of each random stream of runs, [run, stream, 2] uint32: threefry key data.

    Each is the seed's key with the CRC-32 of the stream's name folded in: a new stream leaves the others as they were.
    """
    different, of_run = np.unique(np.asarray(seeds, np.uint32), return_inverse=True)
    # Filled up to a power of two, so that few programs serve any number of seeds.
    filled = np.resize(different, 2 ** int(np.ceil(np.log2(len(different)))))
    names = np.array([zlib.crc32(name.encode()) for name in STREAMS], np.uint32)
    return np.asarray(_folded(filled, names))[of_run]


@jax.jit
def _folded(seeds: jax.Array, names: jax.Array) -> jax.Array:
    """[seed, stream, 2] uint32."""

    def key(seed: jax.Array, name: jax.Array) -> jax.Array:
        return jax.random.key_data(jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), name))

    return jax.vmap(jax.vmap(key, (None, 0)), (0, None))(seeds, names)


def stream_key(keys: jax.Array, name: str, step: jax.Array | int = 0) -> jax.Array:
    """Key of the draw of a step or epoch from one of `STREAMS`: equal on every backend and under `vmap`.

    `keys` [stream, 2] uint32 are those of a run, see `stream_keys`.
    """
    key = jax.random.wrap_key_data(keys[STREAMS.index(name)], impl="threefry2x32")
    return jax.random.fold_in(key, step)
