"""Catalogue that `experiments.describe` prints: for each part its names, and remarks on its recipe fields.

A recipe field names its part where it is declared. What is said of a name stands at the function or module that does
it: its docstring is what gets printed. A plain text stands here for what is done in several places.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

WHEN = {"step": "Every --probe-every steps", "epoch": "Every --probe-epochs epochs", "failure": "When a run diverges"}


@dataclass(frozen=True)
class Part:
    """One part of the catalogue.

    Args:
        choice: the recipe field (or the flag) that the names are values of; "" where they are none.
        names: name -> what says what it is: functions, modules or texts.
        more: recipe field -> what says more of it than its help.
    """

    choice: str = ""
    names: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    more: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


def describe_entries(table: Mapping[Any, Any]) -> dict[str, tuple[Any, ...]]:
    """Table entries, each described by its own docstring."""
    return {name: (entry,) for name, entry in table.items()}


def tasks() -> Part:
    from fishnet.data.folder import load_folder
    from fishnet.data.mnist import load_mnist
    from fishnet.data.mnist_mini import load_mnist_mini
    from fishnet.data.reef import load_reef
    from fishnet.data.synthetic import load_synthetic

    digits = 'Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998'
    names = {
        "reef": (load_reef, "Source: Fish4Knowledge, University of Edinburgh; see fishnet/data/assets/reef/NOTICE.txt"),
        "mnist": (load_mnist, digits),
        "mnist-mini": (load_mnist_mini, digits),
        "folder:PATH": (load_folder,),
        "synthetic": (load_synthetic,),
    }
    return Part("task", names)


def corruptions() -> Part:
    from fishnet.data import corruptions as on_tasks
    from fishnet.data import image_corruptions as on_images

    draw = "Behind the amount of mix, vary, shift=noise, train, few and noise: other random choices; 0 when not given."
    names = {
        "only=CLASS+CLASS": (on_tasks.only,),
        "mix=CLASS:OTHER:SHARE": (on_tasks.mix, on_images.blend_images),
        "vary=CLASS:STRENGTH": (on_tasks.vary, on_images.vary_image),
        "blur=CLASS:SIGMA": (on_tasks.blur, on_images.gaussian_blur),
        "low=CLASS:PIXELS": (on_tasks.low, on_images.pixelate),
        "shift=blur:SIGMA": (on_tasks.shift, on_images.gaussian_blur),
        "shift=contrast:AMOUNT": (on_tasks.shift, on_images.change_contrast),
        "shift=brightness:AMOUNT": (on_tasks.shift, on_images.change_brightness),
        "shift=noise:AMOUNT": (on_tasks.shift, on_images.add_noise),
        "train=SHARE": (on_tasks.train,),
        "few=CLASS:IMAGES": (on_tasks.few,),
        "noise=SHARE or noise=CLASS:SHARE": (on_tasks.noise, on_tasks.flip_labels),
        "@DRAW": (draw,),
    }
    return Part(names=names)


def models() -> Part:
    from fishnet.nn.squeeze_excitation import SqueezeExcitation

    return Part("model", more={"se_reduction": (SqueezeExcitation,)})


def from_scratch() -> Part:
    from fishnet.models import scratch

    functions = (scratch.init_params, scratch.forward, scratch.cross_entropy, scratch.backward, scratch.check_gradient)
    return Part(names={f"fishnet.models.scratch.{f.__name__}": (f,) for f in functions})


def activations() -> Part:
    from fishnet.nn.activations import ACTIVATIONS

    return Part("activation", describe_entries(ACTIVATIONS))


def norms() -> Part:
    from fishnet.models.norm_statistics import STATISTICS, precise_statistics
    from fishnet.nn.norms import NORMS
    from fishnet.nn.standardize import Standardize

    position = (
        "pre: act(norm(layer(x)));   post: norm(act(layer(x)))\n"
        "Source: pre: Ioffe and Szegedy, arXiv:1502.03167; both compared: Mishkin et al., arXiv:1606.02228"
    )
    precise = "mean = average of batch means, var = average of (batch var + batch mean^2) - mean^2"
    more = {
        "norm_position": (position,),
        "ghost_batch": ("Source: Hoffer, Hubara and Soudry, arXiv:1705.08741",),
        "input_norm": ("standardize:", Standardize, "batch: the norm batch of the raw pixels, with scale and shift"),
        "eval_statistics": (f"{', '.join(STATISTICS)}, or precise:", precise_statistics, precise),
    }
    return Part("norm", describe_entries(NORMS), more)


def initializers() -> Part:
    from fishnet.nn.initializers import INITIALIZERS

    return Part("init", describe_entries(INITIALIZERS))


def pooling() -> Part:
    from fishnet.nn.pooling import POOLS

    return Part("pool", describe_entries(POOLS))


def dropout() -> Part:
    from fishnet.nn.dropout import DROPOUTS, alpha_dropout, dropout, spatial_dropout

    functions = (dropout, spatial_dropout, alpha_dropout)
    names = dict(zip(DROPOUTS, functions, strict=True))
    return Part("dropout_kind", describe_entries(names))


def regularization() -> Part:
    from fishnet.augment.mixing import cutmix, cutout, mixup
    from fishnet.losses import cross_entropy
    from fishnet.nn.stochastic_depth import linear_rates, stochastic_depth
    from fishnet.optim.constraints import ema, l1_penalty, l2_penalty, max_norm
    from fishnet.optim.decay import kernel_decay

    stopping = (
        "A run ends after the epoch e with e - best >= patience, best being the epoch of its best select_by so far\n"
        'Source: Prechelt, "Early Stopping - But When?", Neural Networks: Tricks of the Trade, 1998'
    )
    more = {
        "weight_decay": (kernel_decay,),
        "l1": (l1_penalty,),
        "l2": (l2_penalty,),
        "max_norm": (max_norm,),
        "ema": (ema,),
        "label_smoothing": (cross_entropy,),
        "stochastic_depth": (stochastic_depth, linear_rates),
        "mixup": (mixup,),
        "cutmix": (cutmix,),
        "cutout": (cutout,),
        "patience": (stopping,),
    }
    return Part(more=more)


def augmentation() -> Part:
    from fishnet.augment import images as augment

    numbers = ("TURN", "ZOOM", "LIGHT", "CONTRAST")
    names = describe_entries(augment.AUGMENTATIONS)
    names["strong"] += (", ".join(f"{name} = {getattr(augment, name)}" for name in numbers),)
    return Part("augment", names)


def sampling() -> Part:
    from fishnet.augment.sampling import balanced_positions, choose_by_class, sampling_weights

    more = {
        "class_sampling": (sampling_weights, balanced_positions),
        "hard_sampling": ("The factor f_c of class_sampling.",),
        "hard_augment": (choose_by_class,),
    }
    return Part(more=more)


def losses() -> Part:
    from fishnet.losses import LOSSES, ldam_margins, log_priors

    return Part("loss", describe_entries(LOSSES), {"ldam_margin": (ldam_margins,), "logit_tau": (log_priors,)})


def class_weights() -> Part:
    from fishnet.losses import CLASS_WEIGHTINGS, defer_weights

    return Part("class_weighting", describe_entries(CLASS_WEIGHTINGS), {"reweight_from": (defer_weights,)})


def optimizers() -> Part:
    from fishnet.optim.optimizers import OPTIMIZERS
    from fishnet.stats.lr_range import suggest

    return Part("optimizer", describe_entries(OPTIMIZERS), {"lr": ("found by experiments.lr_range:", suggest)})


def clipping() -> Part:
    from fishnet.optim.clipping import adaptive_clip, clip_by_global_norm, clip_by_value

    names = {"value": clip_by_value, "norm": clip_by_global_norm, "adaptive": adaptive_clip}
    return Part("clip_by", describe_entries(names))


def schedules() -> Part:
    from fishnet.optim.plateau import update_plateau
    from fishnet.optim.schedules import SCHEDULES, with_floor, with_warmup

    names = describe_entries(SCHEDULES) | {"plateau": (SCHEDULES["plateau"], update_plateau)}
    return Part("schedule", names, {"lr_min": (with_floor,), "warmup": (with_warmup,)})


def transfer() -> Part:
    from fishnet.optim.freezing import layer_scales
    from fishnet.pretraining import transfer_trunk

    source = "Source: Yosinski et al., arXiv:1411.1792"
    frozen = "p <- p exactly, whatever the optimizer and its decay; a gradient that only frozen layers need is left out"
    return Part(more={"trunk": (transfer_trunk, source), "freeze": (frozen, source), "unfreeze": (layer_scales,)})


def pretraining() -> Part:
    from fishnet.pretraining import OBJECTIVES
    from fishnet.pretraining.contrastive import nt_xent

    names = describe_entries(OBJECTIVES)
    names["contrastive"] += (nt_xent,)
    return Part("pretrain", names)


def probes() -> Part:
    from fishnet.probes import PROBES

    def text(name: str) -> tuple[Any, ...]:
        probe = PROBES[name]
        figures = ", ".join(f"{figure} [{measure.axis}]" for figure, measure in probe.gives.items())
        return probe, f"{WHEN[probe.kind]}: {figures or 'first_bad_phase, first_bad_layer'}. Costs {probe.cost}."

    return Part("probes", {name: text(name) for name in PROBES})


def uncertainty() -> Part:
    from fishnet.models import mc_dropout as uncertainty
    from fishnet.models import norm_statistics

    functions = (uncertainty.mc_dropout, uncertainty.summarize, norm_statistics.normalization_gap)
    names: dict[str, tuple[Any, ...]] = {f"{f.__module__}.{f.__name__}": (f,) for f in functions}
    names["fishnet.models.mc_dropout.mc_dropout"] += ("On photographs: python -m experiments.predict --mc-dropout T",)
    return Part(names=names)


def selection() -> Part:
    from fishnet.metrics import classification as metrics
    from fishnet.metrics import roc

    names = {
        "val_loss": (metrics.nll,),
        "val_accuracy": (metrics.accuracy,),
        "val_balanced_accuracy": (metrics.balanced_accuracy,),
        "val_macro_auc": (roc.macro_auc, roc.one_vs_rest_auc),
        "val_macro_f1": (metrics.macro_f1,),
        "val_ece": (metrics.ece,),
    }
    return Part("select_by", names)


def convolutions() -> Part:
    from fishnet.nn.conv_implementations import LOWERINGS

    return Part(
        "lowering", describe_entries(LOWERINGS) | {"native": ("XLA's own convolution, lax.conv_general_dilated.",)}
    )


def runs() -> Part:
    return Part()


PARTS: dict[str, Callable[[], Part]] = {
    "tasks": tasks,
    "corruptions": corruptions,
    "models": models,
    "from scratch": from_scratch,
    "activations": activations,
    "norms": norms,
    "initializers": initializers,
    "pooling": pooling,
    "dropout": dropout,
    "regularization": regularization,
    "augmentation": augmentation,
    "sampling": sampling,
    "losses": losses,
    "class weights": class_weights,
    "optimizers": optimizers,
    "clipping": clipping,
    "schedules": schedules,
    "transfer": transfer,
    "pretraining": pretraining,
    "probes": probes,
    "uncertainty": uncertainty,
    "selection": selection,
    "convolutions": convolutions,
    "runs": runs,
}
