"""Declarations of recipe fields: default, valid values, and the other values that make a field meaningful.

Nothing here imports jax: tables of components are looked up when a value is checked.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

from fishnet.checks.valid_values import Each, Interval, Names
from fishnet.lookup import Table

Role = Literal["static", "traced", "scalar", "host"]
KEY = "declared"  # of a `Field` in the metadata of its dataclass field
METAVARS = {int: "N", float: "X", str: "NAME"}


@dataclasses.dataclass(frozen=True)
class Field:
    """A recipe field.

    Its role says where its value goes. static: it changes shapes or adds parameters, so runs that differ in it have
    programs of their own. scalar: a traced number that programs read as it is, `hparams.scalars[name]`. traced: its
    traced values are made in `program/traced_config.py`. host: read outside compiled programs.
    """

    role: Role
    default: Any
    part: str  # of the catalogue of `experiments.describe` that lists it
    valid: Names | Interval | Each | None = None  # beyond its type; None: any
    used_by: "Condition | None" = None  # recipes that make use of it; None: all
    auto: Callable[[Any], Any] | None = None  # f(recipe): what "auto" stands for; None: the program itself decides
    normalize: Callable[[str], str] | None = None  # f(text): the one way in which its values are written
    name: str = ""
    type: Any = None  # its annotation
    owner: Any = object  # the dataclass

    @property
    def help(self) -> str:
        """Its docstring, shown by --help and `experiments.describe`."""
        return attribute_docstrings(self.owner)[self.name]

    def check(self, value: Any) -> None:
        """Refuses a value of the field's type that is not valid: a `UsageError` with it and the valid ones."""
        if self.valid is not None:
            self.valid.check(self.name, value)

    def rules(self) -> list[str]:
        """Its range, and the values of other fields with which it has an effect, a sentence each."""
        valid = [f"Valid: {self.valid}."] if isinstance(self.valid, Interval) else []
        return valid + ([f"Only with {self.used_by.words()}."] if self.used_by else [])

    @property
    def alternatives(self) -> list[Any]:
        """The types of the field: those of a union, or its only one."""
        union = typing.get_origin(self.type) in (typing.Union, types.UnionType)
        return list(typing.get_args(self.type)) if union else [self.type]

    @property
    def flag(self) -> str:
        """The flag of the field: `--batch-size`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str:
        """Placeholder of its value in --help: N, X, NAME, N-N-N, NAME+NAME."""
        kind, *others = self.alternatives
        if typing.get_origin(kind) is tuple:
            entry = typing.get_args(kind)[0]
            return "NAME+NAME" if entry is str else "-".join([METAVARS[entry]] * 3)
        return "X" if others else METAVARS[kind]

    @property
    def table(self) -> Table | None:
        """The table of the components that its values name, if they do."""
        names = self.valid.each if isinstance(self.valid, Each) else self.valid
        table = names.table if isinstance(names, Names) else None
        return table if isinstance(table, Table) else None


def declare(role: Role, default: Any, part: str, valid: Any = None, **options: Any) -> Any:
    """A field of the dataclass `Recipe`; arguments as of `Field`."""
    return dataclasses.field(default=default, metadata={KEY: Field(role, default, part, valid, **options)})


static, traced, scalar, host = (functools.partial(declare, role) for role in typing.get_args(Role))


def declared_fields(recipe: type) -> dict[str, Field]:
    """The fields of a dataclass of declared ones, by name."""
    kinds = typing.get_type_hints(recipe)
    return {
        f.name: dataclasses.replace(f.metadata[KEY], name=f.name, type=kinds[f.name], owner=recipe)
        for f in dataclasses.fields(recipe)
    }


@functools.cache
def attribute_docstrings(owner: type) -> dict[str, str]:
    """Attribute of a class -> the docstring below it in the source."""
    (body,) = ast.parse(inspect.getsource(owner)).body
    return {
        line.target.id: " ".join(str(text.value.value).split())
        for line, text in itertools.pairwise(typing.cast(ast.ClassDef, body).body)
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


@dataclasses.dataclass(frozen=True)
class Condition:
    """Recipes that make use of a field."""

    holds: Callable[[Any], bool]  # f(recipe)
    words: Callable[[], str]  # what must be given, for messages: "loss focal or class_balanced_focal"

    def __or__(self, other: "Condition") -> "Condition":
        return Condition(lambda r: self.holds(r) or other.holds(r), lambda: f"{self.words()}, or {other.words()}")


def when(test: Callable[[Any], bool], words: str) -> Condition:
    """Recipes for which `test(recipe)` holds."""
    return Condition(test, lambda: words)


def given(field: str, *values: str) -> Condition:
    """Recipes whose `field` has one of these values."""
    return when(lambda recipe: getattr(recipe, field) in values, f"{field} {_either(values)}")


def not_given(field: str, value: Any) -> Condition:
    """Recipes whose `field` has another value."""
    return when(lambda recipe: getattr(recipe, field) != value, f"{field} other than {value}")


def component(field: str, names: Names, test: Callable[[Any], bool]) -> Condition:
    """Recipes of which `field` names a component, or several, for one of which `test` holds."""

    def fitting() -> list[str]:
        return [name for name in names.table if test(names.entry(name))]

    def holds(recipe: Any) -> bool:
        value = getattr(recipe, field)
        return not set(fitting()).isdisjoint(value if isinstance(value, tuple) else [value])

    return Condition(holds, lambda: f"{field} {_either(fitting())}")


def _either(values: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last
