"""Initial values of the parameters of a `Network` that depend on more than their own layer."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fishnet.nn.norm_formulas import KINDS, WEIGHT_KINDS
from fishnet.nn.weight_norms import initial_scale


def shift_biases(params: Any, shift: ArrayLike) -> Any:
    """Adds `shift` [] to the biases of the hidden layers; those of heads, gates and input norms stay as they are."""

    def start(path: tuple, leaf: jax.Array) -> jax.Array:
        hidden = path[-1].key == "bias" and path[0].key.startswith(("conv_", "dense_", "norm_"))
        return leaf + shift if hidden else leaf

    return jax.tree_util.tree_map_with_path(start, params)


def match_scales(params: Mapping[str, Any], kinds: jax.Array) -> dict[str, Any]:
    """Sets the scales of weight norms to the lengths of the kernels, so that a network begins as if it had no norm.

    Args:
        params: of a `Network`.
        kinds: [site] int32, position in `KINDS` of the norm after each layer; other norms keep their scales.
    """
    params = dict(params)
    for site in range(kinds.shape[-1]):
        layer = next((name for name in (f"conv_{site}", f"dense_{site}") if name in params), None)
        if layer is None:  # a norm behind a sum has no kernel ahead of it
            continue
        kernel = params[layer]["kernel"]
        scale = params[f"norm_{site}"]["scale"]
        for kind in WEIGHT_KINDS:
            scale = jnp.where(kinds[site] == KINDS.index(kind), initial_scale(kind, kernel), scale)
        params[f"norm_{site}"] = params[f"norm_{site}"] | {"scale": scale}
    return params
