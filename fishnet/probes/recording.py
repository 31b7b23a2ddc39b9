"""Recording of a forward pass: outputs of layers, inputs and outputs of activations, features before the head."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array

from fishnet.models.network import Network, pick_site
from fishnet.nn.cpu.deferred import to_array
from fishnet.nn.mixed_activation import ActivationByIndex

HEAD = "head"  # the layer whose input is called the features


class Site(NamedTuple):
    """Activation with its inputs, outputs and parameters in a forward pass."""

    x: Array  # [b, ..., c], inputs
    y: Array  # [b, ..., c], outputs
    act: Callable | ActivationByIndex
    params: Mapping[str, Array]  # a learned slope [c], or nothing


class ForwardRecord(NamedTuple):
    """Record of a forward pass by `record_forward`; dictionaries in order of execution."""

    result: Any  # of the pass
    outputs: dict[str, Any]  # of each layer, by its name
    sites: dict[str, Site]  # by the activation's name
    features: Array | None  # [b, f], inputs of the head; None without a head


def record_forward(run: Callable[[], Any]) -> ForwardRecord:
    """Runs a forward pass and records the outputs of its layers and activations.

    A layer is a module with parameters of its own, named by its path, parts joined by "/" ("conv_0", "se_1/reduce").
    Sites are the activations of a `Network`, called as its modules are ("act_0"), those inside squeeze-and-excitation
    left out; other Linen modules have layers only. Pure, also inside a gradient, as long as nothing recorded leaves it
    but through its results. Of a module that runs several times the last output is kept.

    Args:
        run: applies a Linen module, such as `lambda: model.apply(variables, images, train=False)`.
    """
    outputs, sites, features = {}, {}, []

    def record(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        y = method(*args, **kwargs)
        module, name = context.module, "/".join(context.module.path)

        def record_site(x: Array, site: int, train: bool, suffix: str = "") -> None:
            name = f"act_{site}{suffix}"
            sites[name] = Site(
                to_array(x), to_array(y), pick_site(module.act, site), module.variables.get("params", {}).get(name, {})
            )

        if isinstance(module, Network) and context.method_name == Network.apply_act.__name__:
            record_site(*args, **kwargs)
        elif context.method_name == "__call__":
            if name == HEAD:
                features.append(to_array(args[0]))
            if any(not isinstance(leaf, Mapping) for leaf in module.variables.get("params", {}).values()):
                outputs[name] = to_array(y)
        return y

    with nn.intercept_methods(record):
        result = run()
    return ForwardRecord(result, outputs, sites, features[-1] if features else None)


def layer_names(run: Callable[[], Any]) -> tuple[str, ...]:
    """Names of the layers in `record_forward(run)`, in order of execution, without computing anything.

    Args:
        run: as for `record_forward`.
    """
    return _names(run, lambda seen: seen.outputs)


def site_names(run: Callable[[], Any]) -> tuple[str, ...]:
    """Names of the sites in `record_forward(run)`, in order of execution, without computing anything.

    Args:
        run: as for `record_forward`.
    """
    return _names(run, lambda seen: seen.sites)


def _names(run: Callable[[], Any], part: Callable[[ForwardRecord], Mapping[str, Any]]) -> tuple[str, ...]:
    # JAX sorts dictionaries by name wherever they pass through one of its transformations.
    names: list[str] = []
    jax.eval_shape(lambda: names.extend(part(record_forward(run))))
    return tuple(names)
