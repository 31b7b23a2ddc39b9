"""Implementations of the convolution, by name."""

from collections.abc import Callable

from jax import lax
from jaxtyping import Array

from fishnet.lookup import Table
from fishnet.nn.convolution import gemm
from fishnet.nn.cpu.convolution import cpu_kernels
from fishnet.nn.winograd import winograd

FUSED = ("cpu_kernels",)  # lowerings whose norms and activations are computed with the convolution, `Network.fused`
DEFAULT_LOWERING = {"cpu": "winograd", "gpu": "native", "tpu": "native"}  # by backend
LOWERINGS: Table[Callable[..., Array]] = Table(
    {
        "gemm": gemm,
        "winograd": winograd,
        "native": lax.conv_general_dilated,
        "cpu_kernels": cpu_kernels,
    }
)
