"""What a forward pass leaves on its way: outputs of layers, what goes into activations and out, the head's features."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array

from fishnet.models.network import Network, pick_site
from fishnet.nn.mixed_activation import ActivationByIndex

HEAD = "head"  # the layer whose input is called the features


class Site(NamedTuple):
    """One activation at work."""

    x: Array  # [b, ..., c], what goes in
    y: Array  # [b, ..., c], what comes out
    act: Callable | ActivationByIndex
    params: Mapping[str, Array]  # its own: a slope [c] that is learned, or nothing


class ForwardRecord(NamedTuple):
    """What `record_forward` has seen; dictionaries in order of execution."""

    result: Any  # what the pass returned
    outputs: dict[str, Any]  # of each layer, by its name
    sites: dict[str, Site]  # by the activation's name
    features: Array | None  # [b, f], what goes into the head; None without one


def record_forward(run: Callable[[], Any]) -> ForwardRecord:
    """Runs a forward pass and keeps what its layers and activations give.

    A layer is a module with parameters of its own, named by its path, parts joined by "/" ("conv_0", "se_1/reduce").
    Sites are the activations of a `Network`, called as its modules are ("act_0"), those inside squeeze-and-excitation
    left out; other Linen modules have layers only. Pure, also inside a gradient, as long as nothing recorded leaves it
    but through its results. Of what runs several times the last is kept.

    Args:
        run: applies a Linen module, such as `lambda: model.apply(variables, images, train=False)`.
    """
    outputs, sites, features = {}, {}, []

    def record(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        y = method(*args, **kwargs)
        module, name = context.module, "/".join(context.module.path)

        def record_site(x: Array, site: int, train: bool, suffix: str = "") -> None:
            name = f"act_{site}{suffix}"
            sites[name] = Site(x, y, pick_site(module.act, site), module.variables.get("params", {}).get(name, {}))

        if isinstance(module, Network) and context.method_name == Network.apply_act.__name__:
            record_site(*args, **kwargs)
        elif context.method_name == "__call__":
            if name == HEAD:
                features.append(args[0])
            if any(not isinstance(leaf, Mapping) for leaf in module.variables.get("params", {}).values()):
                outputs[name] = y
        return y

    with nn.intercept_methods(record):
        result = run()
    return ForwardRecord(result, outputs, sites, features[-1] if features else None)


def layer_names(run: Callable[[], Any]) -> tuple[str, ...]:
    """The names of the layers in `record_forward(run)`, in order of execution, without computing anything.

    Args:
        run: as for `record_forward`.
    """
    return _names(run, lambda seen: seen.outputs)


def site_names(run: Callable[[], Any]) -> tuple[str, ...]:
    """The names of the sites in `record_forward(run)`, in order of execution, without computing anything.

    Args:
        run: as for `record_forward`.
    """
    return _names(run, lambda seen: seen.sites)


def _names(run: Callable[[], Any], part: Callable[[ForwardRecord], Mapping[str, Any]]) -> tuple[str, ...]:
    # JAX sorts dictionaries by name wherever they pass through one of its transformations.
    names: list[str] = []
    jax.eval_shape(lambda: names.extend(part(record_forward(run))))
    return tuple(names)
