"""Finds the source of modules without importing them."""

import sys
from importlib.machinery import ModuleSpec

from fishnet.source_hash.code import package_of


def find_spec(full: str) -> ModuleSpec | None:
    """Finds the spec of a module without importing its packages; None: there is no such module."""
    spec, path, name = None, None, ""
    for part in full.split("."):
        if name and path is None:
            return None  # what it is to be in is no package
        name = f"{name}.{part}".removeprefix(".")
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        spec = next((found for finder in finders if (found := finder.find_spec(name, path)) is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def package_of_spec(spec: ModuleSpec) -> str | None:
    """Installed package that a module belongs to, as `package_of` has it."""
    if spec.name.partition(".")[0] in sys.stdlib_module_names or spec.origin in ("built-in", "frozen"):
        return "python"
    paths = list(spec.submodule_search_locations or ())
    return package_of(spec.origin or (f"{paths[0]}/." if paths else None))


def is_own_source(full: str) -> bool:
    """Whether there is a module of this name that is the user's own."""
    spec = find_spec(full)
    return spec is not None and package_of_spec(spec) is None
