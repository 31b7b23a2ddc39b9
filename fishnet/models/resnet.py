"""Residual network of basic or pre-activation blocks."""

from itertools import count

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Num

from fishnet.errors import UsageError
from fishnet.models.network import Network, check_choice
from fishnet.nn.cpu.deferred import Maps
from fishnet.nn.stochastic_depth import StochasticDepth, linear_rates

BLOCKS = ("basic", "preactivation")
SHORTCUTS = ("identity", "none")


class ResNet(Network):
    """Residual network: 3x3 stem, `depth` residual blocks for each width, global mean, dense head.

        basic, pre:     y = act(norm(conv x)),  out = act(norm(conv y) + short x)
        basic, post:    y = norm(act(conv x)),  out = act(norm(act(conv y)) + short x)
        preactivation:  a = act(norm(x)),  out = conv(act(norm(conv a))) + short x,  the last out through act(norm(.))

    `short` is the identity, or a 1x1 convolution where the shape changes: in the first block of every stage but the
    first, whose stride is 2, and where the width changes. In a basic block it has a norm (and no activation), and the
    last activation follows the sum in both positions of the norm, so that the global mean depends on the image after an
    instance norm too. In a pre-activation block it is a linear map of a (`projection_{site}`),
    and the identity carries x itself, except that the first block takes the stem's activated maps for both.

    The stem has the first width. The order of sites is: stem, then for each block first convolution, second, and 1x1
    where it has a norm. The norm of a site follows its convolution, directly or, that of the second convolution of a
    pre-activation block, behind the sum: there it is the next block's first norm, or the final one, and a norm of the
    weights has its kernel ahead of the sum and its scale behind it.

    Args:
        stem_stride: stride of the stem in pixels.
        block: "basic" or "preactivation".
        shortcut: "identity" (`short` as above) or "none": the same layers in a row, nothing added and no 1x1
            convolution, to compare depths with and without skip connections.

    Other fields as in `Network`; squeeze-and-excitation, if any, stands at the end of each residual branch, before the
    sum. `pool` is not used.

    Raises:
        UsageError: when called: as `Network`; an unknown `block` or `shortcut`; `norm_position` "post" in a
            pre-activation block; stochastic depth without shortcuts.

    Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385; pre-activation: He et al.,
    "Identity Mappings in Deep Residual Networks", arXiv:1603.05027.
    """

    depth: int = 2
    stem_stride: int = 1
    block: str = "basic"
    shortcut: str = "identity"

    def features(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Maps:
        """Backbone, see `Network.features`."""
        self.check()
        basic = self.block == "basic"
        x, sites = self.normalize_input(images, train), count()
        highest = 0.0 if self.stochastic_depth is None else self.stochastic_depth
        rates = iter(linear_rates(highest, len(self.widths) * self.depth))
        site = next(sites)
        x = self.conv_norm_act(x, site, self.widths[0], train, stride=self.stem_stride)
        carried = x  # by the identity; x is what the next convolution sees
        for stage, width in enumerate(self.widths):
            for block in range(self.depth):
                stride = 2 if stage and not block else 1
                site = next(sites)
                y = self.conv_norm_act(x, site, width, train, stride=stride)
                last = next(sites)
                y = self.apply_conv(y, last, width)
                if basic:
                    y = self.apply_norm(
                        self.apply_act(y, last, train) if self.norm_position == "post" else y, last, train
                    )
                y = self.squeeze_excite(y, last, train)
                if self.stochastic_depth is not None:
                    y = StochasticDepth(next(rates), name=f"depth_{last}")(y, train or self.monte_carlo)
                if self.shortcut == "identity":
                    if carried.shape != y.shape:
                        carried = self.project_shortcut(x, next(sites) if basic else last, width, stride, train)
                    y = y + carried
                x = (
                    self.apply_act(y, last, train, suffix="_sum")
                    if basic
                    else self.apply_norm_act(y, last, train, "_sum")
                )
                x = self.apply_dropout(x, "blocks", f"dropout_{last}", train)
                carried = x if basic else y
        return x

    def project_shortcut(self, x: Maps, site: int, width: int, stride: int, train: bool) -> Maps:
        """Applies the shortcut's 1x1 convolution: a site with norm in a basic block, a linear map in the other."""
        if self.block == "basic":
            return self.apply_norm(self.apply_conv(x, site, width, size=1, stride=stride), site, train)
        conv = nn.Conv(
            width,
            (1, 1),
            strides=stride,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            conv_general_dilated=self.conv,
            name=f"projection_{site}",
        )
        return conv(x)

    def check(self) -> None:
        """Refuses unknown names and combinations of fields that contradict each other.

        Raises:
            UsageError: see the class.
        """
        check_choice("block", self.block, BLOCKS)
        check_choice("shortcut", self.shortcut, SHORTCUTS)
        if self.block == "preactivation" and self.norm_position == "post":
            raise UsageError("block preactivation with norm_position post: its norms stand ahead of the activations")
        if self.shortcut == "none" and self.stochastic_depth is not None:
            raise UsageError("shortcut none with stochastic depth: an example that skips a block has nothing left")
