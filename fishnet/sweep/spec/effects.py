"""Refuses what would have no effect in a sweep: no option is ignored in silence."""

import dataclasses

from fishnet.data.corruption_spec import split_name
from fishnet.errors import UsageError
from fishnet.sweep.spec.field_parsing import format_value
from fishnet.sweep.spec.recipe import FIELDS
from fishnet.sweep.spec.rules import USES
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.spec.text import counted

FROM_FILES = ("mnist",)  # tasks that read files of a data folder
FROM_PHOTOGRAPHS = ("folder",)  # whose files may be no photographs


def check_uses(sweep: Sweep) -> None:
    """Refuses a field that was set and that no run of the sweep looks at: nothing is ignored in silence.

    Raises:
        UsageError: with what the field belongs to.
    """
    recipes = [dataclasses.replace(sweep.recipe, **arm) for arm in sweep.arms()]
    for field, (used, needs) in USES.items():
        changed = [recipe for recipe in recipes if getattr(recipe, field) != FIELDS[field].default]
        if changed and not any(map(used, changed)):
            value = format_value(getattr(changed[0], field))
            raise UsageError(f"{field}: {value!r} would have no effect in any run: it belongs to {needs}")


def check_stopping(sweep: Sweep) -> None:
    """Refuses rules that could not end any arm before its last epoch.

    Raises:
        UsageError: with the reason.
    """
    stopping, longest = sweep.stopping, max(sweep.varied.get("epochs", [sweep.recipe.epochs]))
    rules = [name for name, given in (("halving", stopping.halving), ("median", stopping.median)) if given]
    if rules and len(sweep.arms()) == 1:
        raise UsageError(f"{' and '.join(rules)} stopping would have no effect: it compares arms, and there is one")
    if rules and stopping.first >= longest:
        raise UsageError(
            f"{' and '.join(rules)} stopping would have no effect: the first rung, after "
            f"{counted(stopping.first, 'epoch')}, is not before the last of {counted(longest, 'epoch')}"
        )
    if stopping.target and longest == 1:
        raise UsageError(f"target {stopping.target!r} would have no effect: the arms have one epoch")


def check_lowering(sweep: Sweep, lowering: str | None) -> None:
    """Refuses a lowering of convolutions where there are none.

    Raises:
        UsageError: all networks are mlps.
    """
    if lowering is not None and not has_convolutions(sweep):
        raise UsageError(f"lowering {lowering} would have no effect: an mlp has no convolutions")


def has_convolutions(sweep: Sweep) -> bool:
    """Whether any network of a sweep has convolutions: a model other than an mlp, or what pretrains it."""
    models, pretrain = (sweep.varied.get(name, [getattr(sweep.recipe, name)]) for name in ("model", "pretrain"))
    return set(models) != {"mlp"} or set(pretrain) != {"none"}


def check_data_options(sweep: Sweep, data_dir: str | None = None, strict: bool = False) -> None:
    """Refuses options for data that none of the tasks reads: they would change a folder's name, or nothing.

    Raises:
        UsageError: with what the option belongs to.
    """
    kinds = {split_name(task)[0].split(":")[0] for task in sweep.varied.get("task", [sweep.recipe.task])}
    if data_dir is not None and kinds.isdisjoint(FROM_FILES):
        raise UsageError(
            f"the data folder {data_dir} would have no effect: it belongs to the task {', '.join(FROM_FILES)}; "
            "a folder of photographs is a task of its own, folder:PATH"
        )
    if strict and kinds.isdisjoint(FROM_PHOTOGRAPHS):
        raise UsageError("strict would have no effect: it belongs to the tasks folder:PATH, whose files may be bad")
