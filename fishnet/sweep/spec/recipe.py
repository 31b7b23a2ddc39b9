"""Recipe of one training run: every field with its default, valid values, meaning and use."""

# ruff: noqa: RUF009 - the calls in the class body are field declarations, made once

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from fishnet.checks.valid_values import Each, Names, between, named, one_of
from fishnet.data import default_image_size
from fishnet.data.corruption_spec import normalize_task, split_name
from fishnet.lookup import RENAMED
from fishnet.sweep.spec.fields import (
    Field,
    component,
    declared_fields,
    given,
    host,
    not_given,
    scalar,
    static,
    traced,
    when,
)
from fishnet.sweep.spec.trunk import normal_trunk

Auto = Literal["auto"]
All = Literal["all"]
MOST_WIDTH = 2**16  # channels or units of a layer
SELECTABLE = ("val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_auc", "val_macro_f1", "val_ece")
PHOTOGRAPHS = ("reef", "folder")
AUTO_AUGMENT = ("flip_shift", "none")  # of photographs, of all else

ACTIVATION = named("fishnet.nn.activations:ACTIVATIONS")
INITIALIZER = named("fishnet.nn.initializers:INITIALIZERS")
OPTIMIZER = named("fishnet.optim.optimizers:OPTIMIZERS")
PROBE = named("fishnet.probes:PROBES", noun="probe")
AUGMENTATIONS = "fishnet.augment.images:AUGMENTATIONS"
LAYERS = Each(between(1, 10**6))  # counted from 1

HAS_COEFFICIENT = component("activation", ACTIVATION, lambda a: getattr(a, "coefficient", None) is not None)
HAS_MOMENTUM = component("optimizer", OPTIMIZER, lambda optimizer: optimizer.uses_momentum)
KEEPS_GAIN = component("init", INITIALIZER, lambda init: not init.unit_variance)
ANY_BATCH_NORM = given("norm", "batch") | given("input_norm", "batch")
WEIGHTS_CLASSES = not_given("class_weighting", "none") | given("loss", "class_weighted", "class_balanced_focal")
HARD_CLASSES = not_given("hard_classes", "none")
TREATS_HARD_CLASSES = given("model", "hybrid") | not_given("hard_augment", "same") | not_given("hard_sampling", 1)
DROPS_OTHERWISE = when(
    lambda r: r.dropout > 0 and (r.dropout_kind == "alpha" or r.dropout_layers != "dense"),
    "dropout above 0, and spatial dropout with dropout_layers input or blocks",
)
PLATEAU = when(
    lambda r: r.schedule == "plateau" and r.epochs >= r.plateau_patience + 3,
    "schedule plateau, with epochs at least plateau_patience + 3: the best one, patience + 1, and a slower one",
)
PRETRAINED = not_given("pretrain", "none")
STEP_PROBES = component("probes", PROBE, lambda probe: probe.kind == "step")
EPOCH_PROBES = component("probes", PROBE, lambda probe: probe.kind == "epoch")


def own_image_size(recipe: "Recipe") -> int:
    """The image size that a recipe leaves to its task and, in compound scaling, to its model."""
    size = default_image_size(recipe.task)
    if recipe.model != "efficientnet":
        return size
    from fishnet.models.efficientnet import compound_resolution  # brings in jax

    return compound_resolution(size, recipe.compound)


def default_lr(recipe: "Recipe") -> float:
    """The documented learning rate of a recipe's optimizer."""
    return OPTIMIZER.entry(recipe.optimizer).default_lr


def own_augmentation(recipe: "Recipe") -> str:
    """The usual augmentation of a recipe's task."""
    kind = split_name(recipe.task)[0].split(":")[0]
    return AUTO_AUGMENT[kind not in PHOTOGRAPHS]


@dataclass(frozen=True)
class Recipe:
    """Everything that determines one training run, as plain values.

    A field is declared as `role(default, part of the catalogue, valid values, used_by=...)`, with its help below; see
    `fields.Field`. A recipe holds names, never objects; `program/build.py` turns them into objects. Types are checked
    here, and lists become tuples; names, ranges and combinations are checked by `check_recipe`, so that a recipe can be
    built in steps.

    Raises:
        UsageError: a value that is not of its field's type.
    """

    task: str = static("reef", "tasks", normalize=normalize_task)
    """reef, mnist, mnist-mini, synthetic, or folder:PATH with a sub-folder a class; defects to plant in it follow a ?,
    as in reef?train=0.5 (python -m experiments.describe --part corruptions)"""
    image_size: int | Auto = static("auto", "tasks", auto=own_image_size)
    """side of the square images in pixels; auto: 32 for photographs, 28 for MNIST, 16 for synthetic"""
    model: str = static("cnn", "models", named("fishnet.models:MODELS"))
    """mlp, cnn, resnet, separable, efficientnet, or hybrid: a cnn with an expert head for hard_classes"""
    widths: tuple[int, ...] = static((16, 32, 64), "models", Each(between(1, MOST_WIDTH)))
    """channels (or hidden units) of each stage, joined with hyphens: 16-32-64"""
    depth: int = static(1, "models", between(1, 64))
    """convolutions, blocks or hidden layers a stage"""
    stem_stride: int = static(1, "models", between(1, 8))
    """stride of the first convolution of a resnet or efficientnet, in pixels: 2 looks at large photographs at a quarter
    of the cost"""
    block: str = static("basic", "models", named("fishnet.models.resnet:BLOCKS"), used_by=given("model", "resnet"))
    """residual block of a resnet: basic or preactivation"""
    shortcut: str = static(
        "identity", "models", named("fishnet.models.resnet:SHORTCUTS"), used_by=given("model", "resnet")
    )
    """identity, or none: a resnet without its skip connections, so that depth can be compared"""
    se_reduction: int | Auto = static("auto", "models", between(0, 2**16))
    """squeeze-and-excitation behind each block, with so many times fewer hidden units than channels; 0: none; auto:
    none, but 4 in efficientnet"""
    compound: float = static(0.0, "models", between(0, 8), used_by=given("model", "efficientnet"))
    """compound coefficient of efficientnet: widths grow by 1.1, depth by 1.2, an image_size of auto by 1.15 to its
    power"""
    activation: str = traced("relu", "activations", ACTIVATION)
    """the non-linearity of every hidden layer"""
    act_coefficient: float | Auto = traced("auto", "activations", between(-1e6, 1e6), used_by=HAS_COEFFICIENT)
    """slope of leaky_relu on the left, limit of elu; auto: 0.01 and 1"""
    norm: str = traced("batch", "norms", named("fishnet.nn.norms:NORMS"))
    """normalization of activations (batch layer layer_channel group instance rms), of weights (weight
    weight_standardized), or none"""
    norm_position: str = static("pre", "norms", named("fishnet.models.network:NORM_POSITIONS"))
    """pre: before the activation; post: after it"""
    norm_layers: tuple[int, ...] | All = traced("all", "norms", LAYERS, used_by=not_given("norm", "none"))
    """which layers are normalized, counted from 1 in order of execution: all, or 1-3; the others get norm none"""
    ghost_batch: int = static(0, "norms", between(0, 2**20), used_by=given("norm", "batch"))
    """batch norm takes its statistics over so many images of a batch at a time; 0: over the whole batch"""
    input_norm: str = static("standardize", "norms", named("fishnet.models.network:INPUT_NORMS"))
    """what the pixels go through first: standardize (by the training split's mean and deviation), or batch norm"""
    eval_statistics: str = traced(
        "running", "norms", named("fishnet.models.norm_statistics:STATISTICS", "precise"), used_by=ANY_BATCH_NORM
    )
    """what batch norm is evaluated with: running averages, those of the batch at hand, or precise ones, estimated anew
    on the training images at the end of each epoch; averaged weights (ema, schedule_free) have no running averages of
    their own, so for them running means precise. With ghost_batch all but the second are means over ghost batches,
    whose variance is less than that of all images"""
    init: str = traced("he_normal", "initializers", INITIALIZER)
    """initializer of the kernels: he, glorot or lecun, _normal or _uniform; orthogonal, lsuv (orthogonal, then scaled
    on images to outputs of variance 1), normal, uniform, truncated (all 0.05), constant"""
    init_gain: float = traced(1.0, "initializers", between(0, 1e6, "right"), used_by=KEEPS_GAIN)
    """multiplies the initial standard deviation of every kernel"""
    init_bias: float = scalar(0.0, "initializers", between(-1e6, 1e6))
    """initial bias (or shift of the norm) of every hidden layer"""
    optimizer: str = traced("momentum", "optimizers", OPTIMIZER)
    """sgd momentum nesterov adagrad rmsprop adam nadam adamw lamb lion muon sam schedule_free"""
    lr: float | Auto = scalar("auto", "optimizers", between(0, 1e6, "right"), auto=default_lr)
    """peak learning rate, per step; auto: the documented default of the optimizer"""
    momentum: float = scalar(0.9, "optimizers", between(0, 1, "left"), used_by=HAS_MOMENTUM)
    """fraction of the velocity kept (momentum, nesterov) or beta 1 (adam and kin)"""
    rho: float = scalar(0.05, "optimizers", between(0, 1e6), used_by=given("optimizer", "sam"))
    """radius in which sam looks for the steepest point"""
    weight_decay: float = scalar(0.0, "regularization", between(0, 1e6))
    """L2 pull on the kernels, added to the gradient; decoupled from it in adamw"""
    clip: float = traced(0.0, "clipping", between(0, 1e30))
    """largest gradient, see clip_by; 0: no clipping"""
    clip_by: str = traced(
        "norm",
        "clipping",
        named("fishnet.optim.clipping:CLIPPINGS"),
        used_by=when(lambda r: r.clip > 0, "clip above 0"),
    )
    """norm: of all gradients together; value: of each entry; adaptive: of each unit, relative to its weights"""
    l1: float = scalar(0.0, "regularization", between(0, 1e6))
    """factor of the sum of absolute weights in the loss"""
    l2: float = scalar(0.0, "regularization", between(0, 1e6))
    """factor of half the sum of squared weights in the loss"""
    max_norm: float = traced(0.0, "regularization", between(0, 1e30))
    """largest length of the weights that lead into a unit; 0: any"""
    max_norm_layers: tuple[int, ...] | All = traced(
        "all", "regularization", LAYERS, used_by=when(lambda r: r.max_norm > 0, "max_norm above 0")
    )
    """which layers max_norm holds for, counted from 1 in order of execution, the head last: all, or 1-3"""
    ema: float = scalar(0.0, "regularization", between(0, 1, "left"))
    """evaluates an exponential moving average of the weights of which a step keeps this fraction; 0: the weights. It is
    debiased (the initial weights do not count, and the first 1 / (1 - ema) steps weigh nearly alike), and batch norm's
    statistics are estimated anew under it at the end of each epoch"""
    schedule: str = traced("cosine", "schedules", named("fishnet.optim.schedules:SCHEDULES"))
    """learning rate over the run: constant step exponential polynomial cosine warmup_cosine onecycle cyclic_triangular
    cyclic_sine, or plateau, which follows the validation loss"""
    lr_min: float = traced(0.0, "schedules", between(0, 1e6), used_by=not_given("schedule", "constant"))
    """lowest learning rate: the schedule runs between it and lr"""
    cycles: float = scalar(
        4.0, "schedules", between(0, 1e6, "right"), used_by=given("schedule", "cyclic_triangular", "cyclic_sine")
    )
    """how often the cyclic schedules rise and fall in a run"""
    plateau_factor: float = host(0.1, "schedules", between(0, 1, "neither"), used_by=PLATEAU)
    """what plateau multiplies the learning rate by"""
    plateau_patience: int = host(3, "schedules", between(0, 10**6), used_by=PLATEAU)
    """epochs without a lower validation loss that plateau bears"""
    warmup: float = scalar(0.0, "schedules", between(0, 1, "left"))
    """fraction of the run in which the rate rises linearly from 0, before the schedule starts"""
    trunk: str = host("none", "transfer", normalize=normal_trunk)
    """FOLDER:RUN of an earlier sweep: everything but the head starts from that run; FOLDER:FIRST-LAST: seed 0 from the
    first of these runs, seed 1 from the next, and so on in turn; none: from init"""
    freeze: str = static("none", "transfer")
    """layers that never change: trunk (all but the head), or some by name (conv_0, norm_*), several joined with +. A
    batch norm among them keeps its statistics and trains with them, as it evaluates; with /* behind the name (trunk/*,
    norm_*/*) only the parameters are frozen, and its statistics go on. Dropout goes on in any case"""
    unfreeze: tuple[int, ...] = traced((0,), "transfer")
    """epochs, counted from 0, at which another block of layers begins to learn, the one next to the head first: 2-4 is
    the head alone for two epochs, its half of the layers for two more, then all; 0: all from the start. Until then a
    layer is frozen as by freeze"""
    unfreeze_rates: tuple[float, ...] = traced((1.0,), "transfer")
    """factors on the learning rate in the stages of unfreeze, the head's own first: 1-0.3-0.1; one: for all"""
    layer_rate: float = traced(1.0, "transfer", between(0, 1, "right"))
    """discriminative rates: each layer learns at this fraction of the rate of the layer behind it, the head at lr"""
    pretrain: str = host("none", "pretraining", named("fishnet.pretraining:OBJECTIVES", "none"))
    """what the backbone learns first, without labels: autoencoder, denoising, rotation, contrastive (SimCLR) or gan"""
    pretrain_epochs: int = traced(10, "pretraining", between(1, 10**6), used_by=PRETRAINED)
    """passes over the training images without labels"""
    pretrain_lr: float = scalar(0.001, "pretraining", between(0, 1e6, "right"), used_by=PRETRAINED)
    """peak learning rate of pretraining, with adam along a cosine"""
    loss: str = traced("cross_entropy", "losses", named("fishnet.losses:LOSSES"))
    """cross_entropy class_weighted focal class_balanced_focal ldam logit_adjusted poly1 one_vs_rest mse hinge"""
    focal_gamma: float = traced(2.0, "losses", between(0, 100), used_by=given("loss", "focal", "class_balanced_focal"))
    """exponent of (1 - p) in the focal losses"""
    poly_epsilon: float = traced(1.0, "losses", between(-1, 1e6), used_by=given("loss", "poly1"))
    """factor of (1 - p) in poly1"""
    ldam_margin: float = traced(0.5, "losses", between(0, 1e6), used_by=given("loss", "ldam"))
    """margin of the rarest class in ldam"""
    ldam_scale: float = traced(1.0, "losses", between(0, 1e6, "right"), used_by=given("loss", "ldam"))
    """factor on the logits in ldam"""
    logit_tau: float = traced(1.0, "losses", between(0, 1e6), used_by=given("loss", "logit_adjusted"))
    """factor of the log frequency of a class in logit_adjusted"""
    class_weighting: str = traced("none", "class weights", named("fishnet.losses:CLASS_WEIGHTINGS"))
    """none; inverse: a class weighs in inverse proportion to its images; effective: to their effective number"""
    reweight_from: float = scalar(0.0, "class weights", between(0, 1), used_by=WEIGHTS_CLASSES)
    """fraction of the run after which class weights hold (deferred re-weighting)"""
    class_sampling: float = traced(0.0, "sampling", between(0, 10))
    """0: an epoch shows each image once; 1: it draws images so that classes come equally often; or in between"""
    hard_classes: str = traced("none", "sampling", used_by=TREATS_HARD_CLASSES)
    """classes that hard_augment, hard_sampling and the hybrid model are for, by name, joined with +; a + within a name
    is written as %2B, and likewise % as %25"""
    hard_augment: str = traced("same", "sampling", named(AUGMENTATIONS, "same"), used_by=HARD_CLASSES)
    """augmentation of the images of hard_classes; same: as all others"""
    hard_sampling: float = traced(1.0, "sampling", between(0, 1e6, "right"), used_by=HARD_CLASSES)
    """how many times as often as otherwise an image of hard_classes is drawn"""
    label_smoothing: float = traced(0.0, "regularization", between(0, 1, "left"), used_by=not_given("loss", "hinge"))
    """probability mass taken from the true class and spread evenly over all classes"""
    dropout: float = scalar(0.0, "dropout", between(0, 1, "left"))
    """fraction of the features dropped in training"""
    dropout_kind: str = traced("plain", "dropout", named("fishnet.nn.dropout:DROPOUTS"), used_by=DROPS_OTHERWISE)
    """plain: single features; spatial: whole channels; alpha: keeps mean and variance, for selu"""
    dropout_layers: str = static(
        "dense",
        "dropout",
        Each(one_of("dense", "input", "blocks"), joined=True),
        used_by=when(lambda r: r.dropout > 0, "dropout above 0"),
    )
    """where features are dropped: dense (before dense layers), input, blocks; several joined with +"""
    stochastic_depth: float = scalar(0.0, "regularization", between(0, 1, "left"))
    """probability that an example skips the last block of a resnet; it falls linearly to the first"""
    mixup: float = traced(0.0, "regularization", between(0, 1e6))
    """parameter of the beta distribution of mixup's shares; 0: no mixup"""
    cutmix: float = traced(0.0, "regularization", between(0, 1e6))
    """parameter of the beta distribution of cutmix's shares; 0: no cutmix"""
    cutout: int = scalar(0, "regularization", between(0, 2**15))
    """side in pixels of a square that is painted over; 0: none"""
    augment: str = traced("auto", "augmentation", named(AUGMENTATIONS, "auto"), auto=own_augmentation)
    """none, flip, shift, flip_shift or strong; auto: flip_shift for photographs, none elsewhere"""
    batch_size: int | All = static(64, "runs", between(1, 2**20))
    """images a step; all: the whole training split"""
    epochs: int = traced(8, "runs", between(1, 10**6))
    """passes over the training split"""
    patience: int = host(0, "regularization", between(0, 10**6))
    """epochs without a better `select_by` after which a run ends; 0: never"""
    select_by: str = host("val_loss", "selection", one_of(*SELECTABLE))
    """validation metric that chooses the reported epoch and drives patience"""
    pool: str = static(
        "max", "pooling", named("fishnet.nn.pooling:POOLS"), used_by=given("model", "cnn", "separable", "hybrid")
    )
    """max or mean pooling"""
    precision: str = static("float32", "runs", one_of("float32", "bfloat16"))
    """float32, or bfloat16 arithmetic with float32 parameters"""
    probes: tuple[str, ...] = static((), "probes", Each(PROBE, distinct=True))
    """what is measured on the way, to say why training fails: names of probes, several joined with +; none"""
    probe_every: int = static(50, "probes", between(1, 10**9), used_by=STEP_PROBES)
    """steps between two measurements of the probes of a step, from the first step of each epoch on"""
    probe_epochs: int = static(1, "probes", between(1, 10**6), used_by=EPOCH_PROBES)
    """epochs between two measurements of the probes of an epoch, each at the end of one"""
    probe_images: int = static(2048, "probes", between(0, 10**9), used_by=EPOCH_PROBES)
    """training images that the probes of an epoch look at, in whole batches; 0: all"""
    seed: int = traced(0, "runs")
    """draws the initial weights, the order of the images, augmentation and dropout"""

    def __post_init__(self) -> None:
        from fishnet.sweep.spec.field_parsing import coerce  # which reads the fields of this class

        for name, value in vars(self).items():
            if value is not FIELDS[name].default:
                object.__setattr__(self, name, coerce(name, value))


FIELDS: dict[str, Field] = declared_fields(Recipe)
STATIC_FIELDS = tuple(name for name, field in FIELDS.items() if field.role == "static")
SCALAR_FIELDS = tuple(name for name, field in FIELDS.items() if field.role == "scalar")


def is_used(recipe: Recipe, name: str) -> bool:
    """Tells whether a recipe makes use of one of its fields."""
    condition = FIELDS[name].used_by
    return condition is None or condition.holds(recipe)


def value_names() -> dict[str, tuple[str, ...]]:
    """Field -> the names that are its values, of fields whose value is one of a table or list."""
    return {name: tuple(field.valid) for name, field in FIELDS.items() if isinstance(field.valid, Names)}


def current_spelling(name: str, value: Any) -> Any:
    """A saved value of field `name` as it is spelled now: see `RENAMED`."""
    names = FIELDS[name].valid
    return RENAMED.get(value, value) if isinstance(names, Names) and isinstance(value, str) else value


def resolve(recipe: Recipe) -> Recipe:
    """`recipe` with every `auto` written out that does not stay one for the program."""
    found: dict[str, Any] = {
        name: field.auto(recipe) for name, field in FIELDS.items() if field.auto and getattr(recipe, name) == "auto"
    }
    return dataclasses.replace(recipe, **found)
