"""Multi-layer perceptron on flattened images."""

import numpy as np
from jaxtyping import Array, Float, Num

from fishnet.errors import UsageError
from fishnet.models.network import Network


class MLP(Network):
    """Multi-layer perceptron: `depth` dense layers of each width, each with norm and activation, and a dense head.

        x = act(norm(W x)) a layer,   logits = W x + b

    Dropout comes before every dense layer but the first. `conv` and `pool` are not used. Fields as in
    `Network`. With norm "pre" and f features in, the parameters are the kernels f w_0 + w_0 w_1 + ... + w_n k, the
    norms' (2 w each, 1 w without norm), and k.

    It is self-normalizing, with norm "none", if `act` is selu, `kernel_init` is LeCun's and `dropout_kind` is alpha:
    mean 0 and variance 1 are an attracting fixed point of each layer.

    Source: self-normalizing: Klambauer et al., "Self-Normalizing Neural Networks", arXiv:1706.02515.
    """

    widths: tuple[int, ...] = (300, 100)

    def features(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Float[Array, "b *s f"]:
        """Backbone, see `Network.features`.

        Raises:
            UsageError: as `Network`, or squeeze-and-excitation is asked for.
        """
        if self.reduction():
            raise UsageError(f"se_reduction {self.reduction()}: squeeze-and-excitation gates maps, and an mlp has none")
        x = self.normalize_input(images, train)
        x = x.reshape(x.shape[0], -1)
        for site, width in enumerate(width for width in self.widths for _ in range(self.depth)):
            if site:
                x = self.apply_dropout(x, "dense", f"dropout_{site}", train)
            x = self.apply_norm_act(self.apply_dense(x, site, width), site, train)
        return x
