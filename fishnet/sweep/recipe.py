"""What determines one training run, and how a grid of such recipes is written down."""

import dataclasses
import hashlib
import itertools
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fishnet.errors import UsageError
from fishnet.lookup import unknown
from fishnet.sweep.source import source_of

SELECTABLE = ("val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_auc", "val_macro_f1", "val_ece")
Auto = Literal["auto"]
All = Literal["all"]


@dataclass(frozen=True)
class Recipe:
    """Everything that determines one training run, as plain values.

    A recipe holds names, never objects; `fishnet.sweep.components` turns them into objects. Values are checked by
    `fishnet.sweep.validate.check_recipe`, not here, so that a recipe can be built in steps.
    """

    task: str = "reef"
    """reef, mnist, mnist-mini, synthetic, or folder:PATH with a sub-folder a class"""
    image_size: int | Auto = "auto"
    """side of the square images in pixels; auto: 32 for photographs, 28 for MNIST, 16 for synthetic"""
    model: str = "cnn"
    """mlp, cnn, resnet, separable, efficientnet, or hybrid: a cnn with an expert head for hard_classes"""
    widths: tuple[int, ...] = (16, 32, 64)
    """channels (or hidden units) of each stage, joined with hyphens: 16-32-64"""
    depth: int = 1
    """convolutions, blocks or hidden layers a stage"""
    stem_stride: int = 1
    """stride of the first convolution of a resnet or efficientnet, in pixels: 2 looks at large photographs at a quarter
    of the cost"""
    block: str = "basic"
    """residual block of a resnet: basic or preactivation"""
    shortcut: str = "identity"
    """identity, or none: a resnet without its skip connections, so that depth can be compared"""
    se_reduction: int | Auto = "auto"
    """squeeze-and-excitation behind each block, with so many times fewer hidden units than channels; 0: none; auto:
    none, but 4 in efficientnet"""
    compound: float = 0.0
    """compound coefficient of efficientnet: widths grow by 1.1, depth by 1.2, an image_size of auto by 1.15 to its
    power"""
    activation: str = "relu"
    """the non-linearity after every norm"""
    act_coefficient: float | Auto = "auto"
    """slope of leaky_relu on the left, limit of elu; auto: 0.01 and 1"""
    norm: str = "batch"
    """normalisation of activations (batch layer layer_channel group instance rms), of weights (weight
    weight_standardised), or none"""
    norm_position: str = "pre"
    """pre: before the activation; post: after it"""
    norm_layers: tuple[int, ...] | All = "all"
    """which layers are normalised, counted from 1 in order of execution: all, or 1-3; the others get norm none"""
    ghost_batch: int = 0
    """batch norm takes its statistics over so many images of a batch at a time; 0: over the whole batch"""
    input_norm: str = "standardize"
    """what the pixels go through first: standardize (by the training split's mean and deviation), or batch norm"""
    eval_statistics: str = "running"
    """what batch norm is evaluated with: running averages, those of the batch at hand, or precise ones, estimated anew
    on the training images at the end of each epoch"""
    init: str = "he_normal"
    """initialiser of the kernels: he, glorot or lecun, _normal or _uniform; orthogonal, lsuv (orthogonal, then scaled
    on images to outputs of variance 1), normal, uniform, truncated (all 0.05), constant"""
    init_gain: float = 1.0
    """multiplies the initial standard deviation of every kernel"""
    init_bias: float = 0.0
    """initial bias (or shift of the norm) of every hidden layer"""
    optimizer: str = "momentum"
    """sgd momentum nesterov adagrad rmsprop adam nadam adamw lamb lion muon sam schedule_free"""
    lr: float | Auto = "auto"
    """peak learning rate, per step; auto: the documented default of the optimizer"""
    momentum: float = 0.9
    """fraction of the velocity kept (momentum, nesterov) or beta 1 (adam and kin)"""
    rho: float = 0.05
    """radius in which sam looks for the steepest point"""
    weight_decay: float = 0.0
    """L2 pull on the kernels, added to the gradient; decoupled from it in adamw"""
    clip: float = 0.0
    """largest gradient, see clip_by; 0: no clipping"""
    clip_by: str = "norm"
    """norm: of all gradients together; value: of each entry; adaptive: of each unit, relative to its weights"""
    l1: float = 0.0
    """factor of the sum of absolute weights in the loss"""
    l2: float = 0.0
    """factor of half the sum of squared weights in the loss"""
    max_norm: float = 0.0
    """largest length of the weights that lead into a unit; 0: any"""
    max_norm_layers: tuple[int, ...] | All = "all"
    """which layers max_norm holds for, counted from 1 in order of execution, the head last: all, or 1-3"""
    ema: float = 0.0
    """evaluates an exponential moving average of the weights of which a step keeps this fraction; 0: the weights"""
    schedule: str = "cosine"
    """learning rate over the run: constant step exponential polynomial cosine warmup_cosine onecycle cyclic_triangular
    cyclic_sine, or plateau, which follows the validation loss"""
    lr_min: float = 0.0
    """lowest learning rate: the schedule runs between it and lr"""
    cycles: float = 4.0
    """how often the cyclic schedules rise and fall in a run"""
    plateau_factor: float = 0.1
    """what plateau multiplies the learning rate by"""
    plateau_patience: int = 3
    """epochs without a lower validation loss that plateau bears"""
    warmup: float = 0.0
    """fraction of the run in which the rate rises linearly from 0, before the schedule starts"""
    trunk: str = "none"
    """FOLDER:RUN of an earlier sweep: everything but the head starts from that run; none: from init"""
    freeze: str = "none"
    """parameters that never change: trunk, or layers by name (conv_0, norm_*), several joined with +"""
    unfreeze: tuple[int, ...] = (0,)
    """epochs, counted from 0, at which another block of layers begins to learn, the one next to the head first: 2-4 is
    the head alone for two epochs, its half of the layers for two more, then all; 0: all from the start"""
    unfreeze_rates: tuple[float, ...] = (1.0,)
    """factors on the learning rate in the stages of unfreeze, the head's own first: 1-0.3-0.1; one: for all"""
    layer_rate: float = 1.0
    """discriminative rates: each layer learns at this fraction of the rate of the layer behind it, the head at lr"""
    pretrain: str = "none"
    """what the trunk learns first, without labels: autoencoder, denoising, rotation, contrastive (SimCLR) or gan"""
    pretrain_epochs: int = 10
    """passes over the training images without labels"""
    pretrain_lr: float = 0.001
    """peak learning rate of pretraining, with adam along a cosine"""
    loss: str = "cross_entropy"
    """cross_entropy class_weighted focal class_balanced_focal ldam logit_adjusted poly1 one_vs_rest mse hinge"""
    focal_gamma: float = 2.0
    """exponent of (1 - p) in the focal losses"""
    poly_epsilon: float = 1.0
    """factor of (1 - p) in poly1"""
    ldam_margin: float = 0.5
    """margin of the rarest class in ldam"""
    ldam_scale: float = 1.0
    """factor on the logits in ldam"""
    logit_tau: float = 1.0
    """factor of the log frequency of a class in logit_adjusted"""
    class_weighting: str = "none"
    """none; inverse: a class weighs in inverse proportion to its images; effective: to their effective number"""
    reweight_from: float = 0.0
    """fraction of the run after which class weights hold (deferred re-weighting)"""
    class_sampling: float = 0.0
    """0: an epoch shows each image once; 1: it draws images so that classes come equally often; or in between"""
    hard_classes: str = "none"
    """classes that hard_augment, hard_sampling and the hybrid model are for, by name, joined with +"""
    hard_augment: str = "same"
    """augmentation of the images of hard_classes; same: as all others"""
    hard_sampling: float = 1.0
    """how many times as often as otherwise an image of hard_classes is drawn"""
    label_smoothing: float = 0.0
    """probability mass taken from the true class and spread evenly over all classes"""
    dropout: float = 0.0
    """fraction of the features dropped in training"""
    dropout_kind: str = "plain"
    """plain: single features; spatial: whole channels; alpha: keeps mean and variance, for selu"""
    dropout_layers: str = "dense"
    """where features are dropped: dense (before dense layers), input, blocks; several joined with +"""
    stochastic_depth: float = 0.0
    """probability that an example skips the last block of a resnet; it falls linearly to the first"""
    mixup: float = 0.0
    """parameter of the beta distribution of mixup's shares; 0: no mixup"""
    cutmix: float = 0.0
    """parameter of the beta distribution of cutmix's shares; 0: no cutmix"""
    cutout: int = 0
    """side in pixels of a square that is painted over; 0: none"""
    augment: str = "auto"
    """none, flip, shift, flip_shift or strong; auto: flip_shift for photographs, none elsewhere"""
    batch_size: int = 64
    """images a step"""
    epochs: int = 8
    """passes over the training split"""
    patience: int = 0
    """epochs without a better `select_by` after which a run ends; 0: never"""
    select_by: str = "val_loss"
    """validation figure that chooses the reported epoch and drives patience"""
    pool: str = "max"
    """max or mean pooling"""
    precision: str = "float32"
    """float32, or bfloat16 arithmetic with float32 parameters"""
    seed: int = 0
    """draws the initial weights, the order of the images, augmentation and dropout"""


FIELDS: dict[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(Recipe)}
TYPES: dict[str, Any] = typing.get_type_hints(Recipe)


def parse_value(name: str, text: str) -> Any:
    """The value of recipe field `name` written as `text`: numbers, names, lists joined with hyphens, auto, all.

    Raises:
        UsageError: unknown field, or a text that is not of the field's type; the message repeats it as typed.
    """
    if name not in FIELDS:
        raise unknown("recipe field", name, FIELDS)
    text = text.strip()
    alternatives = _alternatives(TYPES[name])
    for kind in alternatives:
        try:
            return _parse_as(kind, text)
        except ValueError:
            continue
    raise UsageError(f"{name}: {text!r} is not {' or '.join(map(_describe, alternatives))}")


def coerce(name: str, value: Any) -> Any:
    """`value` as the type of field `name`: lists become tuples, whole numbers floats where the field is a float.

    Raises:
        UsageError: the value is of another type.
    """
    if name not in FIELDS:
        raise unknown("recipe field", name, FIELDS)
    alternatives = _alternatives(TYPES[name])
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()  # a NumPy scalar
    for kind in alternatives:
        if typing.get_origin(kind) is Literal and isinstance(value, str) and value in typing.get_args(kind):
            return value
        if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)) and value:
            entry = typing.get_args(kind)[0]
            allowed = int if entry is int else (int, float)
            if all(isinstance(v, allowed) and not isinstance(v, bool) for v in value):
                return tuple(map(entry, value))
            continue
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if kind is str and isinstance(value, str):
            return value
    raise UsageError(f"{name}: {value!r} is not {' or '.join(map(_describe, alternatives))}")


def _alternatives(annotation: Any) -> list[Any]:
    return (
        list(typing.get_args(annotation))
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
        else [annotation]
    )


def _parse_as(kind: Any, text: str) -> Any:
    if typing.get_origin(kind) is Literal:
        if text in typing.get_args(kind):
            return text
        raise ValueError
    if typing.get_origin(kind) is tuple:
        entry = typing.get_args(kind)[0]
        return tuple(_parse_as(entry, part) for part in re.split(r"(?<!e)-", text))
    if kind is float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError
        return value
    return kind(text)


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        if typing.get_args(kind)[0] is float:
            return "numbers joined with hyphens (1-0.3-0.1)"
        return "whole numbers joined with hyphens (16-32-64)"
    return {int: "a whole number", float: "a number", str: "a name"}[kind]


def format_value(value: Any) -> str:
    """A recipe value as it is written on the command line: (16, 32) as 16-32, 0.001 as 0.001."""
    if isinstance(value, (tuple, list)):
        return "-".join(map(format_value, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


@dataclass(frozen=True)
class Sweep:
    """A base recipe, the axes to vary and the seeds: the grid of all combinations, each with every seed.

    Args:
        recipe: what all runs share; its `seed` is not used.
        axes: recipe field -> the values to try, in the order of the table's rows.
        seeds: how many (seeds 0 to n - 1), or the seeds themselves.

    Raises:
        UsageError: unknown field, a value of the wrong type, an empty or repeated value, `seed` as an axis, no seeds.
    """

    recipe: Recipe = field(default_factory=Recipe)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: int | Sequence[int] = 3

    def __post_init__(self) -> None:
        for name in FIELDS:
            object.__setattr__(self.recipe, name, coerce(name, getattr(self.recipe, name)))
        axes = {}
        for name, values in self.axes.items():
            if name == "seed":
                raise UsageError("axis 'seed' is refused: seeds are given with --seeds (seeds=...)")
            if name not in FIELDS:
                raise unknown("axis", name, [f for f in FIELDS if f != "seed"])
            values = values.tolist() if hasattr(values, "tolist") else values  # NumPy's
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise UsageError(f"axis {name}: {values!r} is not a list of values")
            axes[name] = tuple(coerce(name, value) for value in values)
            if not axes[name]:
                raise UsageError(f"axis {name} has no values")
            for value in axes[name]:
                if axes[name].count(value) > 1:
                    raise UsageError(f"axis {name} has the value {format_value(value)!r} twice")
        object.__setattr__(self, "axes", types.MappingProxyType(axes))
        object.__setattr__(self, "seeds", _seeds(self.seeds))

    def __reduce__(self):
        return Sweep, (self.recipe, dict(self.axes), self.seeds)

    def arms(self) -> list[dict[str, Any]]:
        """One dictionary of axis values an arm, the last axis changing fastest."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def runs(self) -> list["Run"]:
        """Every arm with every seed, arm by arm, numbered from 0."""
        pairs = itertools.product(self.arms(), self.seeds)
        return [
            Run(i, arm_name(arm), arm, dataclasses.replace(self.recipe, **arm, seed=seed))
            for i, (arm, seed) in enumerate(pairs)
        ]

    def spec(self) -> dict[str, Any]:
        """The sweep as plain JSON values: recipe, axes, seeds and the sources of the user's own functions."""
        recipe = {k: _plain(v) for k, v in dataclasses.asdict(self.recipe).items() if k != "seed"}
        return {
            "recipe": recipe,
            "axes": {k: [_plain(v) for v in values] for k, values in self.axes.items()},
            "seeds": list(self.seeds),
        }

    def hash(self, functions: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None) -> str:
        """sha256 of the specification.

        Args:
            functions: the user's own, hashed by qualified name and source.
            options: how data are read, where it is not the default.
        """
        sources = {name: source_of(function) for name, function in (functions or {}).items()}
        spec = self.spec() | {"functions": sources, "options": dict(options or {})}
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """An arm with a seed, and its number in the sweep."""

    index: int
    arm: str
    values: Mapping[str, Any]  # the axis values of its arm
    recipe: Recipe


def arm_name(values: Mapping[str, Any]) -> str:
    """`activation=relu norm=batch`; a sweep without axes has the one arm `base`."""
    return " ".join(f"{k}={format_value(v)}" for k, v in values.items()) or "base"


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    seeds = seeds.tolist() if hasattr(seeds, "tolist") else seeds  # NumPy's
    if isinstance(seeds, bool) or not isinstance(seeds, (int, Sequence)) or isinstance(seeds, str):
        raise UsageError(f"seeds: {seeds!r} is neither a number of seeds nor a list of seeds")
    if isinstance(seeds, int):
        if seeds < 1:
            raise UsageError(f"seeds: {seeds} is not at least 1")
        return tuple(range(seeds))
    result = tuple(coerce("seed", seed) for seed in seeds)
    if not result:
        raise UsageError("seeds: the list is empty")
    for seed in result:
        if not 0 <= seed < 2**32:
            raise UsageError(f"seeds: {seed} is not between 0 and 4294967295")
        if result.count(seed) > 1:
            raise UsageError(f"seeds: {seed} is given twice")
    return result


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
