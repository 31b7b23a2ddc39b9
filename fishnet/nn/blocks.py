"""What every model is assembled from: a site, that is a linear layer with its norm and activation."""

from collections.abc import Callable, Sequence

from jaxtyping import Array, Float

from fishnet.errors import UsageError

NORM_POSITIONS = ("pre", "post")


def at(factories: Callable | Sequence[Callable], index: int) -> Callable:
    """The callable for site `index`: `factories` itself, or its entry when it holds one a site.

    Args:
        factories: a callable for all sites, or a sequence of callables.
        index: number of the site, from 0 in order of the linear layers.

    Raises:
        UsageError: a sequence with fewer entries than there are sites.
    """
    if callable(factories):
        return factories
    if index >= len(factories):
        raise UsageError(f"{len(factories)} norms or activations were given, but the model has a site {index}")
    return factories[index]


def own_bias(norm_position: str) -> bool:
    """Whether a linear layer with a norm keeps a bias of its own: not when the norm's shift follows at once.

    Raises:
        UsageError: neither "pre" nor "post".
    """
    if norm_position not in NORM_POSITIONS:
        raise UsageError(f"norm_position must be one of {', '.join(NORM_POSITIONS)}, got {norm_position!r}")
    return norm_position == "post"


def site(x: Float[Array, "..."], norm: Callable, act: Callable, norm_position: str, train: bool) -> Float[Array, "..."]:
    """Norm and activation behind a linear layer.

        pre: act(norm(x));   post: norm(act(x))

    Args:
        x: output of the linear layer, [b, h, w, c] or [b, c].
        norm: a module called as `norm(x, train)`.
        act: `f(x) -> y`.
        norm_position: "pre" (the norm before the activation) or "post".
        train: whether this is a training step.

    Returns:
        Shape of `x`.
    """
    return act(norm(x, train)) if norm_position == "pre" else norm(act(x), train)
