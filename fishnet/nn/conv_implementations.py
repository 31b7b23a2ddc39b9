"""Implementations of the convolution, by name."""

from collections.abc import Callable

from jax import lax
from jaxtyping import Array

from fishnet.lookup import Table
from fishnet.nn.convolution import gemm
from fishnet.nn.cpu.convolution import cpu_kernels
from fishnet.nn.cpu.library import missing_kernels
from fishnet.nn.winograd import winograd

FUSED = ("cpu_kernels",)  # lowerings whose norms and activations are computed with the convolution, `Network.fused`
DEFAULT_LOWERING = {"cpu": "cpu_kernels", "gpu": "native", "tpu": "native"}  # by backend
WITHOUT_KERNELS = "winograd"  # default on a CPU where the compiled kernels cannot be had
LOWERINGS: Table[Callable[..., Array]] = Table(
    {
        "gemm": gemm,
        "winograd": winograd,
        "native": lax.conv_general_dilated,
        "cpu_kernels": cpu_kernels,
    }
)


def default_lowering(backend: str, convolves: bool = True) -> str:
    """Name of the lowering that is used unless another is asked for.

    On CPU it loads the compiled kernels, which takes a compiler some 20 seconds the first time.

    Args:
        backend: "cpu", "gpu" or "tpu".
        convolves: whether there are convolutions; without them no kernels are compiled.
    """
    name = DEFAULT_LOWERING[backend]
    return WITHOUT_KERNELS if name in FUSED and (not convolves or missing_kernels()) else name
