"""Convolutional network with an extra expert for hard classes."""

from collections.abc import Collection

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fishnet.errors import UsageError
from fishnet.models.cnn import CNN
from fishnet.nn.cpu.deferred import Maps


class Hybrid(CNN):
    """Backbone and head of `CNN`, and an expert that corrects the logits of the hard classes.

        logits_i = head_i(mean x) + [i is hard] expert_i(mean act(norm(conv x))), x the last maps of the backbone

    The expert is one more 3x3 convolution on the backbone's last maps, of their width, whose site is the last, then
    global mean, dropout and a dense layer `expert_head`. It does not change other classes' logits; the backbone learns
    from both.

    Args:
        experts: positions of the hard classes.

    Other fields as in `Network`.

    Raises:
        UsageError: when called: as `Network`; `experts` is empty, repeats a class or has one that does not exist.

    Source: Ahmed, Baig and Torresani, "Network of Experts for Large-Scale Image Categorization", arXiv:1604.06119.
    """

    experts: tuple[int, ...] = ()

    @staticmethod
    def head_modules(modules: Collection[str]) -> tuple[str, ...]:
        """Names of the modules of head and expert; the expert's convolution is the last site."""
        last = sum(name.startswith("norm_") for name in modules) - 1
        return ("head", "expert_head", *(f"{part}_{last}" for part in ("conv", "norm", "act")))

    def features(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Maps:
        """Backbone, see `Network.features`; the same as those of `CNN`."""
        check_experts(self.experts, self.classes)
        return super().features(images, train)

    def apply_head(self, x: Array, train: bool) -> Float[Array, "b k"]:
        """Applies head and expert to maps [b, h, w, c]: logits [b, classes], the expert's added."""
        logits = super().apply_head(x, train)
        site = len(self.widths) * self.depth
        x = self.conv_norm_act(x, site, x.shape[-1], train).mean((1, 2), dtype=jnp.float32)
        x = self.apply_dropout(x, "dense", "dropout_expert", train)
        head = nn.Dense(len(self.experts), dtype=jnp.float32, kernel_init=self.kernel_init, name="expert_head")
        return logits.at[:, np.array(self.experts)].add(head(x))


def check_experts(experts: tuple[int, ...], classes: int) -> None:
    """Refuses an empty list of hard classes, and classes that do not exist.

    Args:
        experts: positions of the hard classes.
        classes: how many classes there are.

    Raises:
        UsageError: `experts` is empty, repeats a class or has one outside 0 to classes - 1.
    """
    if not experts:
        raise UsageError("hybrid needs an expert for one class or more, got none")
    for position in experts:
        if not 0 <= position < classes:
            raise UsageError(f"expert for class {position}, but classes are numbered 0 to {classes - 1}")
        if experts.count(position) > 1:
            raise UsageError(f"expert for class {position} is given twice")
