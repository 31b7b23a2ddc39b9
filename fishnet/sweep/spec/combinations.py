"""Refuses recipes whose values do not go together."""

from collections.abc import Iterator

from fishnet.checks.value_types import format_value
from fishnet.errors import UsageError
from fishnet.losses import LOSSES
from fishnet.nn.initializers import INITIALIZERS, VarianceScaling
from fishnet.nn.norm_formulas import WEIGHT_KINDS
from fishnet.nn.norms import NORMS
from fishnet.optim.freezing import check_stages
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.sweep.spec.recipe import EPOCH_PROBES, FIELDS, Recipe
from fishnet.sweep.spec.trunk import parse_trunk

MOST_LAYERS = 256  # widths times depth: what a compiler takes minutes for
RESIDUAL = ("resnet", "efficientnet")


def check_recipe(recipe: Recipe) -> None:
    """Checks the values of one recipe and their combination, not its task's files.

    Raises:
        UsageError: the first problem; the message repeats the value and lists valid ones.
    """
    for name, field in FIELDS.items():
        field.check(getattr(recipe, name))
    if recipe.trunk != "none":
        parse_trunk(recipe.trunk)
    check_stages(recipe.layer_rate, recipe.unfreeze, recipe.unfreeze_rates)
    if recipe.batch_size != "all":
        check_ghosts(recipe, recipe.batch_size)
    for problems in (component_problems, shape_problems, norm_problems, training_problems):
        for problem in problems(recipe):
            raise UsageError(problem)


def check_ghosts(recipe: Recipe, batch_size: int) -> None:
    """Refuses a batch that cannot be cut into the recipe's ghost batches."""
    if recipe.ghost_batch and batch_size % recipe.ghost_batch:
        raise UsageError(f"ghost_batch: {recipe.ghost_batch} does not divide batch_size {batch_size}")


def component_problems(recipe: Recipe) -> Iterator[str]:
    """Components of the user where a sweep computes with one formula for all lanes."""
    for field, table in (("norm", NORMS), ("loss", LOSSES)):
        name = getattr(recipe, field)
        if name not in table.original:
            yield f"{field} {name!r} cannot be trained in a sweep: valid are {', '.join(table.original)}"
        elif not table.is_own(name):
            yield f"{field} {name!r} was replaced in its table, but a sweep has a formula of its own for it"
    if not isinstance(INITIALIZERS[recipe.init], VarianceScaling):
        yield f"init {recipe.init!r} cannot be used in a sweep: it is not a VarianceScaling"


def shape_problems(recipe: Recipe) -> Iterator[str]:
    """Fields that a model has no layers for, and too many layers."""
    model, residual = recipe.model, f"only {' and '.join(RESIDUAL)}"
    if len(recipe.widths) * recipe.depth > MOST_LAYERS:
        yield f"widths, depth: {len(recipe.widths)} stages of depth {recipe.depth} are more than {MOST_LAYERS} layers"
    if recipe.stem_stride > 1 and model not in RESIDUAL:
        yield f"stem_stride: {recipe.stem_stride} with model {model}: {residual} have such a stem"
    if model == "mlp" and "blocks" in recipe.dropout_layers.split("+"):
        yield "dropout_layers: 'blocks' with model mlp: it has dense layers only"
    if model == "mlp" and recipe.se_reduction not in ("auto", 0):
        yield f"se_reduction: {recipe.se_reduction} with model mlp: it has no maps"
    if model == "hybrid" and recipe.hard_classes == "none":
        yield "model hybrid needs hard_classes: the classes that its expert head is for"
    skipped = f"stochastic_depth: {recipe.stochastic_depth:g}"
    if recipe.stochastic_depth and model not in RESIDUAL:
        yield f"{skipped} with model {model}: {residual} have branches to leave out"
    if recipe.stochastic_depth and recipe.shortcut == "none":
        yield f"{skipped} with shortcut none: nothing would go past"


def norm_problems(recipe: Recipe) -> Iterator[str]:
    """Places where a norm cannot stand, and settings that it undoes."""
    norm, weights = recipe.norm, recipe.norm in WEIGHT_KINDS
    if norm == "group" and any(width % 8 for width in recipe.widths):
        yield f"norm group: its 8 groups do not divide every width of {format_value(recipe.widths)!r}"
    if norm == "instance" and recipe.model == "mlp":
        yield "norm instance with model mlp: one value has no variance; choose any other norm"
    if weights and INITIALIZERS[recipe.init].unit_variance:
        yield f"init {recipe.init} with norm {norm}: the norm takes the kernels' lengths away again"
    if weights and recipe.norm_position == "post":
        yield f"norm {norm} with norm_position post: it acts on the kernel, ahead of any activation"
    if recipe.block == "preactivation" and recipe.norm_position == "post":
        yield "block preactivation with norm_position post: its norms stand before the activations"
    if recipe.block == "preactivation" and weights:
        yield f"norm {norm} with block preactivation: its norms stand behind sums, not behind kernels"


def training_problems(recipe: Recipe) -> Iterator[str]:
    """Values that could have no effect in any epoch, or contradict the optimizer."""
    epochs = recipe.epochs
    if recipe.batch_size == 1 and (recipe.mixup or recipe.cutmix):
        yield "mixup and cutmix with batch_size 1: they would mix each image with itself"
    if recipe.unfreeze[-1] >= epochs:
        yield f"unfreeze: {format_value(recipe.unfreeze)!r} ends beyond the run: epochs {epochs} count from 0"
    layered = recipe.layer_rate != 1 or recipe.unfreeze != (0,) or recipe.unfreeze_rates != (1.0,)
    if recipe.optimizer == "schedule_free" and (layered or recipe.freeze != "none"):
        yield "optimizer schedule_free with freeze, unfreeze or layer_rate: it evaluates an average of whole steps"
    if recipe.probe_epochs > epochs and EPOCH_PROBES.holds(recipe):
        yield f"probe_epochs: {recipe.probe_epochs} is more than epochs {epochs}: no such probe would ever be taken"
    lr = OPTIMIZERS[recipe.optimizer].default_lr if recipe.lr == "auto" else recipe.lr
    if recipe.lr_min > lr:
        yield f"lr_min: {recipe.lr_min:g} is above lr {lr:g}"
    if recipe.patience and recipe.patience >= epochs:
        yield f"patience {recipe.patience} is not below epochs {epochs}: it could never end a run"
