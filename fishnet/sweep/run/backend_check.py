"""Small programs with known answers: a backend that gets them wrong must not train anything."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fishnet.errors import UserError
from fishnet.host.machine import Device
from fishnet.nn.convolution import gemm


def check_backend(device: Device) -> None:
    """Runs the canaries on `device`.

    Raises:
        UserError: a result is wrong; the message says which, and how to proceed.
    """
    for name, canary in CANARIES.items():
        # Some accelerators round the factors of a product by default (to 10 bits or fewer): that is no mistake.
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            error = canary()
        if not error < 1e-4:
            raise UserError(
                f"jax {jax.__version__} gets a {name} wrong on {device.device_kind} (relative error {error:.1e}): "
                "nothing was trained. Install the versions in constraints.txt (pip install -c constraints.txt .) "
                "or choose another device with JAX_PLATFORMS"
            )


@functools.cache
def jit_reduction() -> Callable[[jax.Array], jax.Array]:
    """Jitted sums of squares over 32,769 rows; made once, so that a process compiles them once."""
    matrix = jnp.ones((32769, 8), jnp.float32)
    return jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))


def long_reduction() -> float:
    """A vectorised sum of squares over 32,769 rows, which jax 0.10.2 gets wrong on CPU."""
    sums = jit_reduction()(jnp.ones((2, 8), jnp.float32) * 64)
    expected = 32769 * (8 * 64.0) ** 2
    return float(np.max(np.abs(np.asarray(sums, np.float64) / expected - 1)))


@functools.cache
def jit_gradient() -> Callable[[np.ndarray, np.ndarray], jax.Array]:
    """Jitted kernel gradient of a convolution inside a loop; made once, so that a process compiles it once."""

    def loss(kernel, x):
        return 0.5 * jnp.square(gemm(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))).sum()

    def looped(kernel, x):
        return lax.fori_loop(0, 2, lambda i, total: total + jax.grad(loss)(kernel, x), jnp.zeros_like(kernel))

    return jax.jit(looped)


def convolution_gradient() -> float:
    """The kernel gradient of a convolution inside a loop, against the sum written out in NumPy."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(4, 9, 9, 3)).astype(np.float32), rng.normal(size=(3, 3, 3, 8)).astype(np.float32)
    got = np.asarray(jit_gradient()(kernel, x), np.float64)
    taps = np.stack([x[:, i : i + 7, j : j + 7] for i in range(3) for j in range(3)]).astype(np.float64)
    y = np.einsum("tbhwc,tcd->bhwd", taps, kernel.reshape(9, 3, 8))
    expected = 2 * np.einsum("tbhwc,bhwd->tcd", taps, y).reshape(kernel.shape)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


CANARIES = {"long vectorised reduction": long_reduction, "convolution gradient": convolution_gradient}
