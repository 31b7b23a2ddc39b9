"""What the fields of a recipe may be: names, ranges, and what each belongs to."""

from collections.abc import Callable, Iterable

from fishnet.augment.images import AUGMENTATIONS
from fishnet.lookup import Table
from fishnet.losses import CLASS_WEIGHTINGS, FAMILY_NUMBERS, LOSSES
from fishnet.models import MODELS
from fishnet.models.network import INPUT_NORMS, NORM_POSITIONS
from fishnet.models.norm_statistics import STATISTICS
from fishnet.models.resnet import BLOCKS, SHORTCUTS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.dropout import DROPOUTS
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import NORMS
from fishnet.nn.pooling import POOLS
from fishnet.optim.clipping import CLIPPINGS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.schedules import CYCLIC, SCHEDULES
from fishnet.pretraining import OBJECTIVES
from fishnet.probes import PROBES
from fishnet.sweep.program.config import FOCAL, IMPLIED_WEIGHTING, family
from fishnet.sweep.spec.recipe import SELECTABLE, Recipe

RESIDUAL = ("resnet", "efficientnet")
PRECISIONS = ("float32", "bfloat16")
PHOTOGRAPHS = ("reef", "folder")
DROPOUT_LAYERS = ("dense", "input", "blocks")
TRAINABLE_LOSSES = tuple(LOSSES)  # those that fishnet brings: a lane's loss is a choice of numbers, see mixed_loss

NAMES = {
    "model": MODELS,
    "activation": ACTIVATIONS,
    "norm": NORMS,
    "norm_position": NORM_POSITIONS,
    "input_norm": INPUT_NORMS,
    "eval_statistics": (*STATISTICS, "precise"),
    "block": BLOCKS,
    "shortcut": SHORTCUTS,
    "hard_augment": ("same", *AUGMENTATIONS),
    "pretrain": ("none", *OBJECTIVES),
    "init": INITIALIZERS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "class_weighting": CLASS_WEIGHTINGS,
    "augment": ("auto", *AUGMENTATIONS),
    "clip_by": CLIPPINGS,
    "dropout_kind": DROPOUTS,
    "select_by": SELECTABLE,
    "pool": POOLS,
    "precision": PRECISIONS,
}
# field -> the table of the objects that its values stand for
COMPONENTS = {
    **{field: table for field, table in NAMES.items() if isinstance(table, Table)},
    **{"augment": AUGMENTATIONS, "hard_augment": AUGMENTATIONS, "pretrain": OBJECTIVES, "probes": PROBES},
    "eval_statistics": STATISTICS,
}
DEFAULT_LOWERING = {"cpu": "winograd", "gpu": "native", "tpu": "native"}  # of convolutions, by backend
# field -> (lowest, highest, whether the lowest and the highest are themselves allowed)
RANGES = {
    "depth": (1, 64, True, True),
    "stem_stride": (1, 8, True, True),
    "se_reduction": (0, 2**16, True, True),
    "compound": (0, 8, True, True),
    "act_coefficient": (-1e6, 1e6, True, True),
    "ghost_batch": (0, 2**20, True, True),
    "init_gain": (0, 1e6, False, True),
    "init_bias": (-1e6, 1e6, True, True),
    "lr": (0, 1e6, False, True),
    "momentum": (0, 1, True, False),
    "weight_decay": (0, 1e6, True, True),
    "rho": (0, 1e6, True, True),
    "l1": (0, 1e6, True, True),
    "l2": (0, 1e6, True, True),
    "max_norm": (0, 1e30, True, True),
    "ema": (0, 1, True, False),
    "layer_rate": (0, 1, False, True),
    "pretrain_epochs": (1, 10**6, True, True),
    "pretrain_lr": (0, 1e6, False, True),
    "hard_sampling": (0, 1e6, False, True),
    "lr_min": (0, 1e6, True, True),
    "cycles": (0, 1e6, False, True),
    "plateau_factor": (0, 1, False, False),
    "plateau_patience": (0, 10**6, True, True),
    "clip": (0, 1e30, True, True),
    "warmup": (0, 1, True, False),
    "focal_gamma": (0, 100, True, True),
    "poly_epsilon": (-1, 1e6, True, True),
    "ldam_margin": (0, 1e6, True, True),
    "ldam_scale": (0, 1e6, False, True),
    "logit_tau": (0, 1e6, True, True),
    "reweight_from": (0, 1, True, True),
    "class_sampling": (0, 10, True, True),
    "label_smoothing": (0, 1, True, False),
    "dropout": (0, 1, True, False),
    "stochastic_depth": (0, 1, True, False),
    "mixup": (0, 1e6, True, True),
    "cutmix": (0, 1e6, True, True),
    "cutout": (0, 2**15, True, True),
    "batch_size": (1, 2**20, True, True),
    "epochs": (1, 10**6, True, True),
    "patience": (0, 10**6, True, True),
    "probe_every": (1, 10**9, True, True),
    "probe_epochs": (1, 10**6, True, True),
    "probe_images": (0, 10**9, True, True),
}


def of_kind(kind: str, probes: Iterable[str] = PROBES) -> list[str]:
    """Those of the probes that are of one kind: "step", "epoch" or "failure"."""
    return [name for name in probes if PROBES[name].kind == kind]


def can_reach_plateau(recipe: Recipe) -> bool:
    """Whether the schedule plateau could cut the rate of an epoch: the first loss is the lowest, then patience ends."""
    return recipe.schedule == "plateau" and recipe.epochs >= recipe.plateau_patience + 3


PLATEAU = "schedule plateau, with epochs at least plateau_patience + 3: one that is best, patience + 1, and one slower"

# field -> (whether a recipe makes use of it, what it belongs to)
USES: dict[str, tuple[Callable[[Recipe], bool], str]] = {
    "pool": (lambda r: r.model in ("cnn", "separable", "hybrid"), "models cnn, separable and hybrid"),
    "act_coefficient": (
        lambda r: getattr(ACTIVATIONS[r.activation], "coefficient", None) is not None,
        "activations leaky_relu and elu",
    ),
    "norm_layers": (lambda r: r.norm != "none", "a norm"),
    "max_norm_layers": (lambda r: r.max_norm > 0, "max_norm above 0"),
    "eval_statistics": (lambda r: r.norm == "batch" or r.input_norm == "batch", "norm batch or input_norm batch"),
    "block": (lambda r: r.model == "resnet", "model resnet"),
    "shortcut": (lambda r: r.model == "resnet", "model resnet"),
    "compound": (lambda r: r.model == "efficientnet", "model efficientnet"),
    "hard_classes": (
        lambda r: r.model == "hybrid" or r.hard_augment != "same" or r.hard_sampling != 1,
        "model hybrid, hard_augment and hard_sampling",
    ),
    "hard_augment": (lambda r: r.hard_classes != "none", "hard_classes"),
    "hard_sampling": (lambda r: r.hard_classes != "none", "hard_classes"),
    "pretrain_epochs": (lambda r: r.pretrain != "none", "a pretrain objective"),
    "pretrain_lr": (lambda r: r.pretrain != "none", "a pretrain objective"),
    "ghost_batch": (lambda r: r.norm == "batch", "norm batch"),
    "init_gain": (lambda r: not INITIALIZERS[r.init].unit_variance, "any init but lsuv, which rescales the kernels"),
    "momentum": (lambda r: OPTIMIZERS[r.optimizer].uses_momentum, "an optimizer with momentum"),
    "rho": (lambda r: r.optimizer == "sam", "optimizer sam"),
    "clip_by": (lambda r: r.clip > 0, "clip above 0"),
    "lr_min": (lambda r: r.schedule != "constant", "a schedule"),
    "cycles": (lambda r: r.schedule in CYCLIC, "the cyclic schedules"),
    "plateau_factor": (lambda r: can_reach_plateau(r), PLATEAU),
    "plateau_patience": (lambda r: can_reach_plateau(r), PLATEAU),
    "focal_gamma": (lambda r: r.loss in FOCAL, "the focal losses"),
    "poly_epsilon": (lambda r: r.loss == "poly1", "loss poly1"),
    "ldam_margin": (lambda r: r.loss == "ldam", "loss ldam"),
    "ldam_scale": (lambda r: r.loss == "ldam", "loss ldam"),
    "logit_tau": (lambda r: r.loss == "logit_adjusted", "loss logit_adjusted"),
    "reweight_from": (
        lambda r: r.class_weighting != "none" or r.loss in IMPLIED_WEIGHTING,
        "class_weighting inverse or effective",
    ),
    "label_smoothing": (lambda r: "smoothing" in FAMILY_NUMBERS[family(r)], "any loss but hinge"),
    "dropout_kind": (
        lambda r: r.dropout > 0 and (r.dropout_kind == "alpha" or r.dropout_layers != "dense"),
        "dropout above 0, and spatial dropout to maps, so to dropout_layers input or blocks",
    ),
    "dropout_layers": (lambda r: r.dropout > 0, "dropout above 0"),
    "probe_every": (lambda r: bool(of_kind("step", r.probes)), f"the probes {', '.join(of_kind('step'))}"),
    "probe_epochs": (lambda r: bool(of_kind("epoch", r.probes)), f"the probes {', '.join(of_kind('epoch'))}"),
    "probe_images": (lambda r: bool(of_kind("epoch", r.probes)), f"the probes {', '.join(of_kind('epoch'))}"),
}
