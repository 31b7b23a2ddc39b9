"""Finds the components of a sweep that the user has added or replaced."""

from collections.abc import Iterable, Mapping, Sequence

from fishnet.nn.conv_implementations import DEFAULT_LOWERING, LOWERINGS, WITHOUT_KERNELS
from fishnet.sweep.spec.recipe import AUTO_AUGMENT, FIELDS, Recipe
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.spec.validation import has_convolutions

COMPONENTS = {name: table for name, field in FIELDS.items() if (table := field.table) is not None}
TABLES = COMPONENTS | {"lowering": LOWERINGS}


def user_functions(sweep: Sweep, lowering: str | None = None, lane_width: int | str | None = None) -> dict[str, object]:
    """Components that a sweep names and that are not fishnet's own, by "field=name".

    Without `lowering`, the default lowerings of all backends count as named; with `lane_width="auto"`, every lowering.
    """
    varied = sweep.varied
    named: dict[str, Iterable] = {name: {getattr(sweep.recipe, name), *varied.get(name, ())} for name in COMPONENTS}
    if lowering is not None:
        named["lowering"] = {lowering}
    elif has_convolutions(sweep):
        named["lowering"] = LOWERINGS if lane_width == "auto" else {*DEFAULT_LOWERING.values(), WITHOUT_KERNELS}
    return _users(named)


def functions_of(recipes: Sequence[Recipe], lowerings: Iterable[str]) -> dict[str, object]:
    """Components that the resolved recipes of a program, or its lowerings, name and that are not fishnet's own."""
    named = {field: {getattr(recipe, field) for recipe in recipes} for field in COMPONENTS}
    return _users(named | {"lowering": set(lowerings)})


def _users(named: Mapping[str, Iterable]) -> dict[str, object]:
    found = {}
    for field, values in named.items():
        table = TABLES[field]
        names = {name for value in values for name in (value if isinstance(value, tuple) else [value])}
        if field == "augment" and "auto" in names:
            names |= set(AUTO_AUGMENT)
        found |= {f"{field}={name}": table[name] for name in sorted(names & table.keys()) if not table.is_own(name)}
    return found
