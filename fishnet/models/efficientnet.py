"""Small EfficientNet: inverted bottlenecks with squeeze-and-excitation, scaled in width, depth and resolution."""

from collections.abc import Iterator, Sequence
from itertools import count
from math import ceil, isfinite
from typing import ClassVar

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Num

from fishnet.errors import UsageError
from fishnet.models.network import Network
from fishnet.nn.cpu.deferred import Maps
from fishnet.nn.stochastic_depth import StochasticDepth, linear_rates

EXPANSION = 4  # of the blocks; 6 in the paper, for networks a hundred times larger
HEAD = 2  # channels of the last convolution over the last width; 4 in the paper
MULTIPLE = 8  # scaled widths are multiples of it


class EfficientNet(Network):
    """EfficientNet: 3x3 stem, `depth` MBConv blocks a width, 1x1 convolution to twice the last width, dense head.

        y = act(norm(expand x)),  z = se(act(norm(depthwise y))),  out = norm(project z) [+ x where the shape is kept]

    `expand` is 1x1 to four times the channels (left out in the first stage), `depthwise` 3x3 with stride 2 in the first
    block of every stage but the first, `project` 1x1 to the width, without activation. Squeeze-and-excitation divides
    the channels of the block's input, by 4 unless `se_reduction` says otherwise. Stochastic depth acts on blocks whose
    shape is kept. The stem has the first width. The order of sites is: stem, then expand, depthwise and project of each
    block, last convolution. The paper's activation is silu. `pool` is not used.

    Args:
        compound: phi, 0 or more, by which all widths and the depth are scaled, see `compound_widths` and
            `compound_depth`; `compound_resolution` says which image size goes with it.
        stem_stride: stride of the stem in pixels.

    Other fields as in `Network`. See `fishnet.models.Separable` on initializers by the average fan.

    Raises:
        UsageError: when called: as `Network`, or `compound` is below 0.

    Source: Tan and Le, "EfficientNet", arXiv:1905.11946; blocks: Sandler et al., "MobileNetV2", arXiv:1801.04381.
    """

    compound: float = 0.0
    stem_stride: int = 1

    own_se_reduction: ClassVar[int] = 4

    def features(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Maps:
        """Backbone, see `Network.features`."""
        widths, depth = compound_widths(self.widths, self.compound), compound_depth(self.depth, self.compound)
        x, sites = self.normalize_input(images, train), count()
        highest = 0.0 if self.stochastic_depth is None else self.stochastic_depth
        rates = iter(linear_rates(highest, len(widths) * depth))
        site = next(sites)
        x = self.conv_norm_act(x, site, widths[0], train, stride=self.stem_stride)
        for stage, width in enumerate(widths):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                x = self.bottleneck(x, sites, EXPANSION if stage else 1, width, stride, next(rates), train)
        site = next(sites)
        return self.conv_norm_act(x, site, HEAD * widths[-1], train, size=1)

    def bottleneck(
        self, x: Maps, sites: Iterator[int], expansion: int, width: int, stride: int, rate: ArrayLike, train: bool
    ) -> Maps:
        """Applies one MBConv block.

        Args:
            x: maps [b, h, w, c].
            sites: iterator over the numbers of the next sites.
            expansion: of the channels within.
            width: channels out.
            stride: in pixels.
            rate: of stochastic depth.
            train: whether in training.

        Returns:
            Maps [b, ceil(h / stride), ceil(w / stride), width].
        """
        y, c = x, x.shape[-1]
        if expansion > 1:
            site = next(sites)
            y = self.conv_norm_act(y, site, expansion * c, train, size=1)
        site = next(sites)
        y = self.apply_norm_act(
            self.apply_conv(y, site, expansion * c, stride=stride, groups=expansion * c), site, train
        )
        y = self.squeeze_excite(y, site, train, channels=c)
        site = next(sites)
        y = self.apply_norm(self.apply_conv(y, site, width, size=1), site, train)
        if stride == 1 and c == width:
            if self.stochastic_depth is not None:
                y = StochasticDepth(rate, name=f"depth_{site}")(y, train or self.monte_carlo)
            y = y + x
        return self.apply_dropout(y, "blocks", f"dropout_{site}", train)


def compound_widths(widths: Sequence[int], phi: float) -> tuple[int, ...]:
    """Compound widths: widths times 1.1^phi, rounded to multiples of 8 but not below 90 %; unchanged at phi 0.

    Args:
        widths: channels of the stages.
        phi: 0 or more.

    Returns:
        Channels of the stages.

    Raises:
        UsageError: `phi` is below 0 or not finite.

    Source: Tan and Le, arXiv:1905.11946, equation 3.
    """
    check_phi(phi)

    def scaled(width: int) -> int:
        exact = width * 1.1**phi
        nearest = max(MULTIPLE, int(exact + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
        return nearest + MULTIPLE if nearest < 0.9 * exact else nearest

    return tuple(map(scaled, widths)) if phi else tuple(widths)


def compound_depth(depth: int, phi: float) -> int:
    """Compound depth, blocks a stage: `depth` times 1.2^phi, rounded up; errors and source as for `compound_widths`."""
    check_phi(phi)
    return ceil(round(depth * 1.2**phi, 9))  # 25 x 1.2^2 is 36, whatever the floats say


def compound_resolution(size: int, phi: float) -> int:
    """Compound resolution in pixels: `size` times 1.15^phi, rounded; errors and source as for `compound_widths`."""
    check_phi(phi)
    return round(size * 1.15**phi)


def check_phi(phi: float) -> None:
    """Refuses a compound coefficient below 0.

    Raises:
        UsageError: `phi` is below 0 or not finite.
    """
    if not (phi >= 0 and isfinite(phi)):
        raise UsageError(f"compound must be 0 or more, got {phi}")
