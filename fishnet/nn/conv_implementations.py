"""The ways in which a convolution can be computed, by name."""

from collections.abc import Callable
from typing import Any

from jax import lax
from jaxtyping import Array

from fishnet.lookup import Table
from fishnet.nn.convolution import gemm
from fishnet.nn.winograd import winograd

SUMMED = "native_summed"


def native_summed(*arguments: Any, **options: Any) -> Array:
    """XLA's own convolution, in a sweep with gradients as those of the sum of vectorised lanes' losses."""
    return lax.conv_general_dilated(*arguments, **options)


LOWERINGS: dict[str, Callable[..., Array]] = Table(
    {
        "gemm": gemm,
        "winograd": winograd,
        "native": lax.conv_general_dilated,
        SUMMED: native_summed,
    }
)
