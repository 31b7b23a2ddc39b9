"""Plain convolutional network."""

from itertools import count

import numpy as np
from jaxtyping import Array, Num

from fishnet.models.network import Network
from fishnet.nn.cpu.deferred import Maps


class CNN(Network):
    """Convolutional network: `depth` 3x3 convolutions with norm and activation a width, pooling, dense head.

    The maps are halved after each stage, as long as they have two pixels a side, and averaged before the head. Fields
    as in `Network`; squeeze-and-excitation, if any, comes at the end of each stage, before pooling.
    """

    def features(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Maps:
        """Backbone, see `Network.features`."""
        x, sites = self.normalize_input(images, train), count()
        for width in self.widths:
            for _ in range(self.depth):
                site = next(sites)
                x = self.conv_norm_act(x, site, width, train)
            x = self.squeeze_excite(x, site, train)
            x = self.apply_dropout(self.apply_pool(x), "blocks", f"dropout_{site}", train)
        return x
