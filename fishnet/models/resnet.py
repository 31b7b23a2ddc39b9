"""A residual network of basic blocks."""

from itertools import count

import numpy as np
from jaxtyping import Array, Float, Num

from fishnet.models.network import Network
from fishnet.nn.stochastic_depth import StochasticDepth, linear_rates


class ResNet(Network):
    """A 3x3 stem, `depth` basic blocks a width, global mean and a dense head.

        pre:  y = act(norm(conv x)),  out = act(norm(conv y) + short x)
        post: y = norm(act(conv x)),  out = act(norm(act(conv y)) + short x)

    `short` is the identity, or a 1x1 convolution with norm (and no activation) where the shape changes: in the first
    block of every stage but the first, whose stride is 2, and where the width changes. The last activation stands
    behind the sum in both, so that behind an instance norm, too, the global mean sees something of the image.

    Fields as in `Network`, and `stem_stride`, the stride of the stem in pixels. The stem has the first width. The order
    of sites is: stem, then for each block first convolution, second, 1x1. `pool` has nothing to do here.

    Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
    """

    depth: int = 2
    stem_stride: int = 1

    def features(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Float[Array, "b *s f"]:
        """See `Network.features`."""
        x, sites = self.standardised(images, train), count()
        last = 0.0 if self.stochastic_depth is None else self.stochastic_depth
        rates = iter(linear_rates(last, len(self.widths) * self.depth))
        site = next(sites)
        x = self.activated(self.convolved(x, site, self.widths[0], stride=self.stem_stride), site, train)
        for stage, width in enumerate(self.widths):
            for block in range(self.depth):
                stride = 2 if stage and not block else 1
                site = next(sites)
                y = self.activated(self.convolved(x, site, width, stride=stride), site, train)
                site = next(sites)
                y, last = self.convolved(y, site, width), site
                y = self.normed(self.acted(y, site, train) if self.norm_position == "post" else y, site, train)
                if x.shape != y.shape:
                    site = next(sites)
                    x = self.normed(self.convolved(x, site, width, size=1, stride=stride), site, train)
                if self.stochastic_depth is not None:
                    y = StochasticDepth(next(rates), name=f"depth_{last}")(y, train)
                x = self.dropped(self.acted(y + x, last, train, suffix="_sum"), "blocks", f"dropout_{last}", train)
        return x
