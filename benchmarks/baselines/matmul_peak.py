"""Matrix-product peak: the speed limit of the machine."""

import jax
import jax.numpy as jnp

from benchmarks.baselines.baseline import Baseline

SIDE = 2048


class Peak(Baseline):
    """A product of two matrices [2048, 2048] float32 in place of a step."""

    def prepare(self) -> int:
        """See `Baseline.prepare`; there are no parameters."""
        self.a = jax.random.normal(jax.random.key(0), (SIDE, SIDE))
        self.product = jax.jit(lambda a, b: jnp.dot(a, b) / SIDE)
        self.train(1)
        return 0

    def train(self, steps: int) -> None:
        """See `Baseline.train`."""
        b = self.a
        for _ in range(steps):
            b = self.product(self.a, b)
        b.block_until_ready()
