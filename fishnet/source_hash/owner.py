"""Identity of an object: the package that owns it, a version that the user has named, its attributes."""

import collections
import dataclasses
import functools
import importlib.metadata
import inspect
import sys
import types
from collections.abc import Mapping
from typing import Any

from fishnet.host.machine import PACKAGES
from fishnet.source_hash.code import package_of

VERSION = "__fishnet_version__"
# Attributes that say where an object is from and how it reads, not what it computes.
ABOUT = {
    *("__module__", "__name__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__type_params__"),
    *("__firstlineno__", "__static_attributes__", "__match_args__", "__parameters__", "__orig_bases__"),
    *("__classcell__", "__dataclass_params__", "__abstractmethods__", "_abc_impl", "__signature__"),
    "__slotnames__",  # which copying leaves behind
    "_jit_info",  # of a jitted function: how its arguments are taken apart
}
NOTHING = object()  # an attribute that there is not


def own_version(value: Any) -> str | None:
    """Version that the user has named; only that of the class itself, not of its bases."""
    version = vars(value).get(VERSION) if isinstance(value, type) else attribute(value, VERSION)
    return str(version) if isinstance(version, (str, int)) else None


def attribute(value: Any, name: str, default: Any = None) -> Any:
    """Attribute that an object has; what a `__getattr__` would return does not count."""
    if isinstance(value, types.ModuleType):
        return vars(value).get(name, default)
    if defines(type(value), "__getattr__") and inspect.getattr_static(value, name, NOTHING) is NOTHING:
        return default
    return getattr(value, name, default)


def defines(kind: type, name: str) -> bool:
    """Whether a class or one of its bases, but `object`, has an attribute of its own of this name."""
    return any(name in vars(base) for base in kind.__mro__[:-1])


def without_about(found: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the attributes of `ABOUT`."""
    return {name: value for name, value in found.items() if name not in ABOUT}


def code_file(value: Any) -> str | None:
    """File of the code of a function, or of what it wraps; None: it has no code in Python."""
    code = attribute(attribute(value, "__wrapped__", value), "__code__")
    return code.co_filename if code is not None else None


def is_generated(value: Any) -> bool:
    """Whether a method was written by `dataclass` or `NamedTuple`, from fields that count by themselves.

    Its file does not tell: programs given to `python -c` are called "<string>" too.
    """
    function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
    if not isinstance(function, types.FunctionType):
        return False
    if package_of(function.__code__.co_filename) == "python":  # what guards a generated `__repr__`
        function = getattr(function, "__wrapped__", function)
    code, home = function.__code__, str(function.__globals__.get("__name__"))
    if code.co_filename == collections.__file__:
        return code.co_qualname.startswith("namedtuple.<locals>.")
    return (
        code.co_qualname.startswith("__create_fn__.<locals>.")
        or code.co_filename == dataclasses.__file__
        or (home.startswith("namedtuple_") and code.co_filename == "<string>")
    )


def package_identity(value: Any) -> list[str | bytes] | None:
    """Identity of an object of an installed package, by its name; None for other objects, whatever their names."""
    if isinstance(value, types.ModuleType):
        package = package_of_module(value)
        return None if package is None else ["package", *name_identity(package, value.__name__)]
    module, name = (attribute(value, which) for which in ("__module__", "__qualname__"))
    name = name or attribute(value, "__name__")
    home = sys.modules.get(module) if isinstance(module, str) else None
    package = package_of_module(home) if home is not None and isinstance(name, str) else None
    if package is None or package_of(code_file(value)) is None:
        return None
    found: Any = home
    for part in name.split("."):
        found = getattr(found, part, None)
    return ["packaged", *name_identity(package, f"{module}.{name}")] if found is value else None


def is_own_module(value: Any) -> bool:
    """Whether an object is a module of the user's own."""
    return isinstance(value, types.ModuleType) and package_of_module(value) is None


def package_of_module(module: types.ModuleType) -> str | None:
    """Installed package that a module belongs to, as `package_of` has it."""
    top = module.__name__.partition(".")[0]
    if getattr(module, "__file__", None) is None:  # built in, or a folder without an __init__
        paths = list(getattr(module, "__path__", []))
        return package_of(f"{paths[0]}/.") if paths else "python" if top in sys.stdlib_module_names else None
    return package_of(module.__file__)


def name_identity(package: str, name: str) -> list[str | bytes]:
    """Identity of an object of a package: its name, and the package's version unless `sweep.json` records it."""
    return [name] if package == "python" or package in PACKAGES else [name, _version(package)]


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", ""))
