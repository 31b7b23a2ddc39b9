"""What determines one training run."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal

SELECTABLE = ("val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_auc", "val_macro_f1", "val_ece")
Auto = Literal["auto"]
All = Literal["all"]


@dataclass(frozen=True)
class Recipe:
    """Everything that determines one training run, as plain values.

    A recipe holds names, never objects; `fishnet.sweep.program.build` turns them into objects. Types are checked here,
    and lists become tuples; names, ranges and combinations are checked by
    `fishnet.sweep.spec.validation.check_recipe`, so that a recipe can be built in steps.

    Raises:
        UsageError: a value that is not of its field's type.
    """

    task: str = "reef"
    """reef, mnist, mnist-mini, synthetic, or folder:PATH with a sub-folder a class; defects to plant in it follow a ?,
    as in reef?train=0.5 (python -m experiments.describe --part plants)"""
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
    on the training images at the end of each epoch; averaged weights (ema, schedule_free) have no running averages of
    their own, so for them running means precise. With ghost_batch all but the second are means over ghost batches,
    whose variance is less than that of all images"""
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
    """evaluates an exponential moving average of the weights of which a step keeps this fraction; 0: the weights. It is
    debiased (the initial weights do not count, and the first 1 / (1 - ema) steps weigh nearly alike), and batch norm's
    statistics are estimated anew under it at the end of each epoch"""
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
    """FOLDER:RUN of an earlier sweep: everything but the head starts from that run; FOLDER:FIRST-LAST: seed 0 from the
    first of these runs, seed 1 from the next, and so on in turn; none: from init"""
    freeze: str = "none"
    """layers that never change: trunk, or some by name (conv_0, norm_*), several joined with +. A batch norm among them
    keeps its statistics and trains with them, as it evaluates; with /* behind the name (trunk/*, norm_*/*) only the
    parameters are frozen, and its statistics go on. Dropout goes on in any case"""
    unfreeze: tuple[int, ...] = (0,)
    """epochs, counted from 0, at which another block of layers begins to learn, the one next to the head first: 2-4 is
    the head alone for two epochs, its half of the layers for two more, then all; 0: all from the start. Until then a
    layer is frozen as by freeze"""
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
    """classes that hard_augment, hard_sampling and the hybrid model are for, by name, joined with +; a + within a name
    is written as %2B, and likewise % as %25"""
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
    batch_size: int | All = 64
    """images a step; all: the whole training split"""
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
    probes: tuple[str, ...] = ()
    """what is measured on the way, to say why training fails: names of probes, several joined with +; none"""
    probe_every: int = 50
    """steps between two measurements of the probes of a step, from the first step of each epoch on"""
    probe_epochs: int = 1
    """epochs between two measurements of the probes of an epoch, each at the end of one"""
    probe_images: int = 2048
    """training images that the probes of an epoch look at, in whole batches; 0: all"""
    seed: int = 0
    """draws the initial weights, the order of the images, augmentation and dropout"""

    def __post_init__(self) -> None:
        from fishnet.sweep.spec.field_parsing import coerce  # which reads the fields of this class

        for name, value in vars(self).items():
            if value is not FIELDS[name].default:
                object.__setattr__(self, name, coerce(name, value))


FIELDS: dict[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(Recipe)}
TYPES: dict[str, Any] = typing.get_type_hints(Recipe)
