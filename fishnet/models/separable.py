"""Network of depthwise-separable convolutions."""

from itertools import count

import numpy as np
from jaxtyping import Array, Num

from fishnet.models.network import Network
from fishnet.nn.cpu.deferred import Maps


class Separable(Network):
    """Separable network: 3x3 stem, `depth` pairs of depthwise and pointwise convolution for each width, pooling, head.

    Every convolution has its norm and activation; the stem has the first width. The maps are halved after each stage,
    as long as they have two pixels a side. Fields as in `Network`; squeeze-and-excitation, if any, follows the
    activation of each pointwise convolution. An initializer by the average fan (`glorot_*`) makes depthwise kernels too
    small, because their nominal fan-out is not what one channel sees: prefer `he_*` or `lecun_*`.

    Source: Howard et al., "MobileNets", arXiv:1704.04861.
    """

    def features(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Maps:
        """Backbone, see `Network.features`."""
        x, sites = self.normalize_input(images, train), count()
        site = next(sites)
        x = self.conv_norm_act(x, site, self.widths[0], train)
        for width in self.widths:
            for _ in range(self.depth):
                site = next(sites)
                x = self.conv_norm_act(x, site, x.shape[-1], train, groups=x.shape[-1])
                site = next(sites)
                x = self.squeeze_excite(self.conv_norm_act(x, site, width, train, size=1), site, train)
            x = self.apply_dropout(self.apply_pool(x), "blocks", f"dropout_{site}", train)
        return x
