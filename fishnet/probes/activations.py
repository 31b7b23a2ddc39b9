"""Probes of activations: moments of their outputs, saturation, dead units."""

from collections.abc import Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.parametric import Activation, Parametric
from fishnet.probes.recording import Site

FLAT = 0.1  # of the steepest slope, at or below which a function counts as flat
SPAN, POINTS = 8.0, 129  # grid on which the steepest slope is searched: from -8 to 8 in steps of 1/8


def slope(site: Site, x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
    """Derivative of an activation `f'(x)` in evaluation, where a random slope has its mean.

    Args:
        site: the activation at work.
        x: pre-activations, their last axis the channels of the site.

    Returns:
        [b, ..., c] float32.
    """
    act, variables = site.act, {"params": site.params}

    def f(x: Array) -> Array:
        if isinstance(act, ActivationByIndex):
            return cast(Array, act.module().apply(variables, x, False))
        return cast(Array, Activation(act).apply(variables, x, False)) if isinstance(act, Parametric) else act(x)

    x = x.astype(jnp.float32)
    return jax.vjp(f, x)[1](jnp.ones_like(x))[0]


def max_slope(site: Site) -> Float[Array, " c"]:
    """Largest slope of an activation, `max |f'(x)|` over -8 <= x <= 8, for each channel.

    1 for relu and tanh, 1/4 for sigmoid. NaN for a function that grows ever steeper, as the exponential does: it has no
    flat parts next to steep ones.

    Args:
        site: the activation at work.

    Returns:
        [c] float32, to 3 % (where it peaks at a corner, as hard_swish does; elsewhere to 1 %).
    """
    c = site.x.shape[-1]

    def largest(points: Array) -> Array:
        return jnp.abs(slope(site, jnp.broadcast_to(points[:, None], (len(points), c)))).max(0)

    near, far = largest(jnp.linspace(-SPAN, SPAN, POINTS)), largest(jnp.array([-2 * SPAN, 2 * SPAN]))
    return jnp.where(far <= 2 * near, near, jnp.nan)


def is_saturated(site: Site, share: float = FLAT) -> Bool[Array, "b *s c"]:
    """Mask of the saturated entries, where the activation is nearly flat and hardly any gradient passes.

        |f'(x)| <= share max |f'|

    At the default of a tenth, by output: tanh beyond +-0.949, sigmoid below 0.026 or above 0.974. By input: relu at or
    below 0, relu6 also from 6 on, leaky_relu (slope 0.01) below 0, elu below -2.3, silu below -0.88, gelu below -1.73
    and from -1.16 to -0.53; prelu where its slope is a tenth or less; identity and the exponential nowhere.

    Args:
        site: the activation and what goes into it.
        share: of the steepest slope, 0 or more.

    Returns:
        [b, ..., c]; False where x is not finite.
    """
    return jnp.abs(slope(site, site.x)) <= share * max_slope(site)


def saturation(site: Site, share: float = FLAT) -> Float[Array, ""]:
    """Saturation, the fraction of entries on flat parts of the activation: `mean of [|f'(x)| <= share max |f'|]`.

    Args:
        site, share: as for `is_saturated`.

    Returns:
        [] in [0, 1]; NaN for an activation that grows ever steeper.

    Source: Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", AISTATS
    2010, section 3.
    """
    fraction = is_saturated(site, share).mean(dtype=jnp.float32)
    return jnp.where(jnp.isfinite(max_slope(site)).all(), fraction, jnp.nan)


def moments(y: Float[Array, "..."]) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Mean, standard deviation and kurtosis over all entries.

        mean = E y,   std = sqrt(E (y - mean)^2),   kurtosis = E (y - mean)^4 / std^4

    Args:
        y: of any shape.

    Returns:
        Three [] float32; the kurtosis is 3 for normal values and NaN for constant ones.
    """
    y = y.astype(jnp.float32)
    mean = y.mean()
    std = jnp.sqrt(jnp.square(y - mean).mean())
    return mean, std, (((y - mean) / std) ** 4).mean()


def activation_metrics(sites: Mapping[str, Site], share: float = FLAT) -> dict[str, Array]:
    """Mean, standard deviation and kurtosis of each activation's outputs, and the fraction that is saturated.

        mean = E y,   std = sqrt(E (y - mean)^2),   kurtosis = E (y - mean)^4 / std^4,
        saturation = fraction of the entries with |f'(x)| <= 0.1 max |f'|

    Over all entries of a batch: images, pixels and channels.

    Args:
        sites: of a forward pass, see `fishnet.probes.recording.record_forward`.
        share: see `is_saturated`.

    Returns:
        `activation_mean`, `activation_std`, `activation_kurtosis` and `saturation`, each [site].

    Source: Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", AISTATS
    2010, section 3.
    """
    statistics = [(*moments(site.y), saturation(site, share)) for site in sites.values()]
    names = ("activation_mean", "activation_std", "activation_kurtosis", "saturation")
    return {name: jnp.stack(values) for name, values in zip(names, zip(*statistics, strict=True), strict=True)}


def active_units(sites: Mapping[str, Site], share: float = FLAT) -> dict[str, Bool[Array, " c"]]:
    """Mask of the active units: those that are not saturated for some image of a batch, at some pixel.

    Merge masks of batches with `merge_active`; `dead_fraction` takes the result.

    Args:
        sites: of a forward pass, see `fishnet.probes.recording.record_forward`.
        share: see `is_saturated`.

    Returns:
        [c] for each site.
    """
    return {
        name: jnp.any(~is_saturated(site, share), axis=tuple(range(site.x.ndim - 1))) for name, site in sites.items()
    }


def merge_active(active: Mapping[str, Array], more: Mapping[str, Array]) -> dict[str, Array]:
    """Merges two results of `active_units`: units that are active in one of two sets of images."""
    return {name: units | more[name] for name, units in active.items()}


def dead_fraction(active: Mapping[str, Bool[Array, " c"]], sites: Sequence[str]) -> Float[Array, " site"]:
    """Fraction of dead units at each site, which were active for none of the images.

        dead = #{channels c: |f'(x)| <= 0.1 max |f'| for all images and pixels} / channels

    For relu: channels that are never above 0; no gradient reaches their weights, and they learn no more. For others at
    most a tenth of the steepest slope passes: a leaky_relu that is never above 0 counts as dead, and learns slowly.

    Args:
        active: [c] for each site, over all images, as from `active_units`.
        sites: their names, in the order of the result.

    Returns:
        [site] in [0, 1].

    Source: Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", ICML 2013; Lu et
    al., "Dying ReLU and Initialization", arXiv:1903.06733.
    """
    return jnp.stack([1 - units.mean(dtype=jnp.float32) for units in (active[name] for name in sites)])
