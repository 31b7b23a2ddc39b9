"""Base class of the models: their fields, and the layers that are made of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Num

from fishnet.errors import UsageError
from fishnet.nn.activations import relu
from fishnet.nn.cpu.deferred import DeferredConvolution, DeferredMaps, Maps, activate_maps, to_array
from fishnet.nn.dropout import Dropout, MixedDropout
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.norms import BatchNorm
from fishnet.nn.parametric import Activation, Parametric
from fishnet.nn.pooling import max_pool
from fishnet.nn.squeeze_excitation import SqueezeExcitation
from fishnet.nn.standardize import Standardize, to_float_images

NORM_POSITIONS = ("pre", "post")
INPUT_NORMS = ("standardize", "batch")


def pick_site(choices: Any, index: int) -> Any:
    """Picks the choice for site `index`: `choices` itself, or its entry if it is a sequence.

    Args:
        choices: one choice for all sites, or a sequence with one for each.
        index: number of the site, from 0.

    Raises:
        UsageError: the sequence is too short.
    """
    if not isinstance(choices, Sequence):
        return choices
    if index >= len(choices):
        raise UsageError(f"the model has a site {index}, but only {len(choices)} norms or activations were given")
    return choices[index]


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuses a value of a field that is not among `choices`.

    Raises:
        UsageError: it is not; the message lists the valid ones.
    """
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _with_kernel(linear: Callable, transform: Callable[[Array], Array] | None) -> Callable:
    """Wraps `linear(x, kernel, ...)` so that it applies to the transformed kernel."""
    if transform is None:
        return linear
    return lambda x, kernel, *args, **options: linear(x, transform(kernel), *args, **options)


class Network(nn.Module):
    """Image classifier, called as `model.apply(variables, images, train, rngs={"dropout": key})`.

    A *site* is a hidden layer (a convolution or a dense layer) with its norm and activation, numbered from 0 in the
    order in which the layers run; names are `conv_0` (or `dense_0`), `norm_0` and so on. Images are [b, h, w, c], uint8
    or floats in 0..255; the constants by which they are standardized are in the collection `constants`. Training
    updates the collection `batch_stats` (pass `mutable=["batch_stats"]`) and draws from the rng stream `dropout`.

    `monte_carlo` and `batch_statistics` are for measurements with `train=False`, and mean nothing with `train=True`.

    Args:
        classes: number of classes k.
        widths: features of the stages.
        depth: layers or blocks a stage.
        act: activation `f(x) -> y`, a `Parametric` or an `ActivationByIndex`, or a sequence with one a site.
        norm: factory of norms, called as `norm(name=...)`, or a sequence with one a site.
        conv: convolution lowering, called as `jax.lax.conv_general_dilated`.
        pool: `f(x [b, h, w, c]) -> [b, h // 2, w // 2, c]`.
        kernel_init: `f(key, shape, dtype) -> kernel` of all layers.
        dropout: probability of being dropped in [0, 1), possibly traced.
        dropping: whether `dropout` is above 0, which stays a branch where the rate is vectorized by `jax.vmap` and this
            is not; None: the rate itself is looked at.
        dropout_kind: index into `DROPOUTS`, possibly traced; None: plain.
        dropout_layers: where features are dropped: "dense" (before dense layers), "input", "blocks" (behind each stage,
            or each block of a residual network).
        stochastic_depth: probability that an example skips the last residual branch, possibly traced; it falls linearly
            to the first. None: no branch is skipped.
        se_reduction: factor by which squeeze-and-excitation reduces its channels; 0: none; None: the model's default.
        norm_position: "pre" (layer, norm, activation; the norm's shift is the only bias) or "post" (layer with a bias
            of its own, activation, norm).
        input_norm: "standardize", by constants of the training images, or "batch", a batch norm of the raw images with
            scale and shift, named `input_norm`.
        monte_carlo: dropout and stochastic depth (not activations) stay random in evaluation: passes with different
            keys are samples from an approximate posterior (Gal and Ghahramani, arXiv:1506.02142).
        batch_statistics: in evaluation, too, norms use the statistics of the batch at hand; they move the running ones
            only where `batch_stats` is mutable.
        frozen_norms: names of norms ("norm_0", "input_norm") that train as they evaluate, which matters to batch norm:
            its statistics stay and are used in training, too. Each with True, or with a traced bool.
        dtype: of the computation; parameters, statistics of norms and logits are float32.
        headless: the result is that of the backbone, without global mean and head.
        fused: whether compiled kernels for CPU compute convolutions, each with the norm and activation ahead of it, see
            `fishnet.nn.cpu.deferred`, where nothing needs the maps in between; `conv` is not used then. Not for second
            derivatives.

    Raises:
        UsageError: when called: images are not of rank 4, `norm_position` or `input_norm` is unknown, a norm does not
            fit its maps.
    """

    classes: int
    widths: tuple[int, ...] = (16, 32, 64)
    depth: int = 1
    act: Callable | ActivationByIndex | Sequence[Callable | ActivationByIndex] = relu
    norm: Callable | Sequence[Callable] = BatchNorm
    conv: Callable = lax.conv_general_dilated
    pool: Callable = max_pool
    kernel_init: Callable = INITIALIZERS["he_normal"]
    dropout: ArrayLike = 0.0
    dropping: ArrayLike | None = None
    dropout_kind: ArrayLike | None = None
    dropout_layers: tuple[str, ...] = ("dense",)
    stochastic_depth: ArrayLike | None = None
    se_reduction: int | None = None
    norm_position: str = "pre"
    input_norm: str = "standardize"
    monte_carlo: bool = False
    batch_statistics: bool = False
    frozen_norms: Mapping[str, ArrayLike] = FrozenDict()
    dtype: DTypeLike = jnp.float32
    headless: bool = False
    fused: bool = False

    own_se_reduction: ClassVar[int] = 0

    @staticmethod
    def head_modules(modules: Collection[str]) -> tuple[str, ...]:
        """Names of the modules that belong to the head, among the names of all modules (the keys of the parameters)."""
        return ("head",)

    @nn.compact
    def __call__(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Float[Array, "b *s k"]:
        """Classifies images [b, h, w, c], uint8 or floats in 0..255: logits [b, classes]; `features` if `headless`."""
        x = to_array(self.features(images, train))
        return x if self.headless else self.apply_head(x, train)

    def features(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Maps:
        """Backbone: the last maps [b, h, w, c] or features [b, f] of images [b, h, w, c]."""
        raise NotImplementedError

    def normalize_input(self, images: Num[Array | np.ndarray, "..."], train: bool) -> Float[Array, "b h w c"]:
        """Standardizes the images (or applies the batch norm of `input_norm`), casts to `dtype`, then input dropout.

        Raises:
            UsageError: `norm_position` or `input_norm` is unknown, or the images are not of rank 4.
        """
        check_choice("norm_position", self.norm_position, NORM_POSITIONS)
        check_choice("input_norm", self.input_norm, INPUT_NORMS)
        if self.input_norm == "batch":
            x = self._apply_norm(BatchNorm, "input_norm", to_float_images(images), train).astype(self.dtype)
        else:
            x = Standardize(self.dtype, name="standardize")(images)
        return self.apply_dropout(x, "input", "dropout_input", train)

    def apply_conv(self, x: Maps, site: int, width: int, size: int = 3, stride: int = 1, groups: int = 1) -> Maps:
        """Applies the convolution of a site, SAME padding, with a bias only if `norm_position` is "post".

        Args:
            x: maps [b, h, w, c].
            site: its number.
            width: channels out.
            size: side of the kernel in pixels.
            stride: in pixels.
            groups: number of groups of channels that are convolved separately.

        Returns:
            Maps [b, ceil(h / stride), ceil(w / stride), width].
        """
        deferred = DeferredConvolution(x) if self.defers() else None
        conv = nn.Conv(
            width,
            (size, size),
            strides=stride,
            feature_group_count=groups,
            use_bias=self.norm_position == "post",
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            conv_general_dilated=_with_kernel(deferred or self.conv, self.kernel_transform(site)),
            name=f"conv_{site}",
        )
        return deferred.result(conv(deferred.operand)) if deferred else conv(x)

    def defers(self) -> bool:
        """Whether norms and activations wait for the next layer: `fused`, and no layer needs the maps in between."""
        return (
            self.fused
            and self.norm_position == "pre"
            and self.dtype == jnp.float32
            and self.reduction() == 0
            and self.stochastic_depth is None
            and "blocks" not in self.dropout_layers
        )

    def apply_dense(self, x: Array, site: int, width: int) -> Float[Array, "b width"]:
        """Applies the dense layer of a site, with a bias only if `norm_position` is "post".

        Args:
            x: features [b, i].
            site: its number.
            width: features out.

        Returns:
            Features [b, width].
        """
        dense = nn.Dense(
            width,
            use_bias=self.norm_position == "post",
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            dot_general=_with_kernel(lax.dot_general, self.kernel_transform(site)),
            name=f"dense_{site}",
        )
        return dense(x)

    def kernel_transform(self, site: int) -> Callable[[Array], Array] | None:
        """Transform of the layer's kernel by the norm of a site; None for none."""
        norm = pick_site(self.norm, site)
        while isinstance(norm, partial):
            norm = norm.func
        return getattr(norm, "kernel", None)

    def apply_norm(self, x: Maps, site: int, train: bool) -> Maps:
        """Applies the norm of a site to maps [b, h, w, c] or features [b, c]."""
        return self._apply_norm(pick_site(self.norm, site), f"norm_{site}", x, train)

    def _apply_norm(self, norm: Callable, name: str, x: Maps, train: bool) -> Maps:
        if isinstance(x, DeferredMaps) and not x.is_measured:
            x = x.array()
        frozen = self.frozen_norms.get(name, False)
        if frozen is True:
            return norm(name=name)(x, False)
        module = norm(name=name) if frozen is False else norm(name=name, frozen=frozen)
        if train or not self.batch_statistics:
            return module(x, train)
        if self.is_mutable_collection("batch_stats"):
            return module(x, True)
        # In training a norm moves its running statistics, which Flax refuses here: those of a copy may move.
        own = {collection: tree[name] for collection, tree in self.variables.items() if name in tree}
        return module.apply(own, x, True, mutable=["batch_stats"])[0]

    def apply_norm_act(self, x: Maps, site: int, train: bool, suffix: str = "") -> Maps:
        """Applies norm and activation of a site to maps or features, in the order of `norm_position`."""
        if self.norm_position == "pre":
            return self.apply_act(self.apply_norm(x, site, train), site, train, suffix)
        return self.apply_norm(self.apply_act(x, site, train, suffix), site, train)

    def apply_act(self, x: Maps, site: int, train: bool, suffix: str = "") -> Maps:
        """Applies the activation of a site to maps or features; a second one at a site needs a `suffix`."""
        act, name = pick_site(self.act, site), f"act_{site}{suffix}"
        if isinstance(act, ActivationByIndex):
            return act.module(name)(x, train)
        return Activation(act, name=name)(x, train) if isinstance(act, Parametric) else activate_maps(x, act)

    def conv_norm_act(
        self, x: Maps, site: int, width: int, train: bool, size: int = 3, stride: int = 1, groups: int = 1
    ) -> Maps:
        """Applies convolution, norm and activation of a site; arguments as for `apply_conv` and `apply_norm_act`."""
        return self.apply_norm_act(self.apply_conv(x, site, width, size, stride, groups), site, train)

    def reduction(self) -> int:
        """Reduction of squeeze-and-excitation: `se_reduction` or the model's default; 0 for none."""
        return self.own_se_reduction if self.se_reduction is None else self.se_reduction

    def squeeze_excite(self, x: Maps, site: int, train: bool, channels: int | None = None) -> Maps:
        """Applies squeeze-and-excitation to maps [b, h, w, c] with the activation of a site, if the model has any.

        Args:
            x: maps.
            site: number of the preceding layer; the module is `se_{site}`.
            train: whether random activations are random.
            channels: number of channels that is reduced; None for c.
        """
        if self.reduction() == 0:
            return x
        gate = SqueezeExcitation(
            self.reduction(), pick_site(self.act, site), self.kernel_init, channels, name=f"se_{site}"
        )
        return gate(x, train)

    def apply_pool(self, x: Maps) -> Maps:
        """Pools maps [b, h, w, c] to [b, h // 2, w // 2, c], as long as they have two pixels a side."""
        if min(x.shape[1:3]) < 2:
            return x
        return x.max_pool() if isinstance(x, DeferredMaps) and self.pool is max_pool else self.pool(to_array(x))

    def apply_dropout(self, x: Maps, where: str, name: str, train: bool) -> Maps:
        """Applies dropout at rate `dropout`, in training (or `monte_carlo`), if `where` is one of `dropout_layers`."""
        if where not in self.dropout_layers:
            return x
        train = train or self.monte_carlo
        if self.dropout_kind is None:
            return Dropout(self.dropout, self.dropping, name=name)(x, train)
        return MixedDropout(self.dropout_kind, self.dropout, self.dropping, name=name)(x, train)

    def apply_head(self, x: Array, train: bool) -> Float[Array, "b k"]:
        """Applies the head in float32: global mean of maps, dropout, a dense layer; logits [b, classes]."""
        if x.ndim == 4:
            x = x.mean((1, 2), dtype=jnp.float32)
        x = self.apply_dropout(x, "dense", "dropout_head", train)
        return nn.Dense(self.classes, dtype=jnp.float32, kernel_init=self.kernel_init, name="head")(x)
