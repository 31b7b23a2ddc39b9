"""Hashes a user's component, to tell whether it is still the one that a sweep was started with.

What counts: the code of functions and classes, constants, defaults, closures, attributes, the object of a bound method,
arguments of `functools.partial`, what `jit`, `vmap`, `custom_jvp` and `wraps` wrap, the globals that a function reads
and the attributes that it reads of the user's own modules (all of a module that it passes on or stores), arrays with
type, shape and values, the order of dictionaries, and so on inwards. What does not: comments, formatting, docstrings,
annotations, the names of functions, files, addresses, the order of sets, of attributes and of keyword arguments. Nor
does what a function reads from outside the process when it is called: environment variables, files, the clock, states
of random numbers.

A function that calls `eval`, `exec`, `globals`, `__import__` or `importlib.import_module` or looks into `sys.modules`
may read anything: it is refused unless it names a version.

Hashing imports nothing. A module of the user's own that a function imports when it is called, and that nothing had
imported when this process first hashed the function, counts by its source.

Functions and classes of installed packages and of Python count by name, and by version where `sweep.json` does not
record that of their package. An object with an attribute `__fishnet_version__` counts by its name and that version, and
nothing else of it does.
"""

import ast
import builtins
import collections
import copyreg
import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import types
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from typing import Any

import flax.linen as nn
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from fishnet.errors import UsageError
from fishnet.host.files import read_regular_file
from fishnet.source_hash.code import Names, code_text, names_in, package_of, tree_text
from fishnet.source_hash.module_specs import find_spec, is_own_source, package_of_spec
from fishnet.source_hash.owner import (
    NOTHING,
    VERSION,
    attribute,
    code_file,
    defines,
    is_generated,
    is_own_module,
    name_identity,
    own_version,
    package_identity,
    package_of_module,
    without_about,
)

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), range)
# What tells nothing of what it reads: a name that is put together, or any text.
READ_ANYTHING = (eval, exec, globals, __import__, importlib.import_module)
# What a masked array keeps for itself.
MASKS = {"_mask", "_sharedmask", "_hardmask", "_fill_value", "_basedict", "_baseclass", "_isfield", "_optinfo"}
DESCRIPTORS = (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType)
SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_by_source: set[str] = set()  # modules that nothing had imported when they were first hashed: they stay so counted
WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)  # caches


def source_hash(value: Any, name: str = "the object") -> str:
    """SHA-256 of what `value` is made of: equal in every process for objects that compute the same in the same way.

    Args:
        value: a function, a class or any object.
        name: what the message calls it.

    Raises:
        UsageError: something in it has state that cannot be compared, such as an open file or a generator.
    """
    try:
        return _Digest(name).of(value).hex()
    except RecursionError as error:
        raise _refusal(name, "is nested too deeply", None) from error


def label(value: Any) -> str:
    """Module and qualified name of a function or class, those of the class for any other object."""
    named = value if isinstance(attribute(value, "__qualname__"), str) else type(value)
    return f"{attribute(named, '__module__', '')}.{named.__qualname__}"


def describe_source(value: Any, digest: str) -> str:
    """Description of an object, its name and the beginning of its digest, as in `sweep.json`."""
    return f"{label(value)} {digest[:12]}"


def hash_each(functions: Mapping[str, Any]) -> dict[str, str]:
    """Hashes components, by their names in messages; raises as `source_hash`."""
    return {name: source_hash(value, name) for name, value in functions.items()}


def changed_components(functions: Mapping[str, Any], digests: Mapping[str, str]) -> list[str]:
    """Names of the components whose digests have changed.

    Args:
        functions: the components, by name.
        digests: of them, by name, as they were.
    """

    def is_same(name: str) -> bool:
        try:
            return source_hash(functions[name], name) == digests[name]
        except UsageError:  # it holds what has no digest now
            return False

    return [name for name in functions if not is_same(name)]


def _refusal(where: str, problem: str, value: Any) -> UsageError:
    kind = f" ({type(value).__module__}.{type(value).__qualname__})" if value is not None else ""
    return UsageError(
        f"{where}{kind} {problem}, so that fishnet could not tell if your component changes: give the component an "
        f'attribute {VERSION} = "1", and another version whenever it computes something else'
    )


class _Digest:
    """Digests of objects and of what they hold; an object that holds itself counts by how far up it stands."""

    def __init__(self, name: str) -> None:
        self.path = [name]
        self.done: dict[int, tuple[Any, bytes]] = {}  # with the objects, whose numbers nothing else then gets
        self.open: dict[int, int] = {}
        self.sources: set[str] = set()  # modules whose source is counted

    def of(self, value: Any, step: str = "") -> bytes:
        """Digest of one object.

        Args:
            value: the object.
            step: how it is reached, for the message.
        """
        if isinstance(value, PLAIN) and type(value) in PLAIN:
            return _sha([type(value).__name__, repr(value)])
        number = id(value)
        if number in self.done:
            return self.done[number][1]
        if number in self.open:
            return _sha(["itself", str(self.open[number])])
        self.open[number] = len(self.open)
        self.path += [step] * bool(step)
        digest = _sha(self.parts(value))
        del self.path[len(self.path) - bool(step) :], self.open[number]
        self.done[number] = value, digest
        return digest

    def parts(self, value: Any) -> list[str | bytes]:
        """Parts of an object that its digest is made of, by kind of object."""
        if (version := own_version(value)) is not None:
            return ["version", label(value).rpartition(".")[2], version]
        if any(value is function for function in READ_ANYTHING):
            raise self.refusal("may read anything", value)
        if (known := package_identity(value)) is not None:
            return known
        if isinstance(value, type):
            return self.class_parts(value)
        if isinstance(value, types.ModuleType):
            return self.module_parts(value, None)
        if isinstance(value, types.FunctionType):
            return self.function_parts(value)
        if isinstance(value, types.MethodType):
            return ["method", self.of(value.__func__, "its function"), self.of(value.__self__, "its object")]
        if isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
            return ["builtin", value.__name__, self.of(value.__self__, "its object")]
        if isinstance(value, DESCRIPTORS):
            return ["descriptor", value.__name__, self.of(value.__objclass__)]
        if isinstance(value, SLOTS):
            return ["slot", value.__name__]
        if isinstance(value, types.CodeType):
            return ["code", code_text(value)]
        if isinstance(value, types.CellType):
            return ["cell", self.of(value.cell_contents)]
        if isinstance(value, (jax.Array, np.ndarray, np.generic)):
            return self.array_parts(value)
        if isinstance(value, np.ufunc):
            return self.ufunc_parts(value)
        if isinstance(value, type(os.environ)):
            return ["environment"]
        return self.instance_parts(value)

    def function_parts(self, function: types.FunctionType) -> list[str | bytes]:
        code = function.__code__
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        held = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}
        held |= {f"default {place}": value for place, value in enumerate(function.__defaults__ or ())}
        held |= {f"default of {name}": value for name, value in (function.__kwdefaults__ or {}).items()}
        held |= {f".{name}": value for name, value in without_about(vars(function)).items()}
        package = package_of(code.co_filename)
        if package is not None:
            return ["function", *name_identity(package, code.co_qualname), *self.named(held)]
        names = names_in(code)
        for name in names.globals:
            if name in function.__globals__:
                held[f"global {name}"] = function.__globals__[name]
            elif vars(builtins).get(name) in READ_ANYTHING:
                raise self.refusal(f"calls {name}, which may read anything", function)
        read = {*names.attributes, *(one for _, _, wanted in names.imports for one in wanted)}
        has_sys = any(value is sys for value in held.values()) or any(name == "sys" for _, name, _ in names.imports)
        for name in sorted(read & {"import_module", *["modules"] * has_sys}):
            raise self.refusal(f"calls or reads {name}, which may give anything", function)
        parts = ["function", code_text(code)]
        parts += self.imports_parts(names, function.__globals__.get("__package__") or None)
        for name in sorted(held):
            if is_own_module(held[name]):
                is_value = name.removeprefix("global ") in names.values or name[0] == "." or name.startswith("default ")
                if not is_value:
                    parts += [name, *self.module_parts(held.pop(name), names)]
        return parts + self.named(held)

    def imports_parts(self, names: Names, package: str | None) -> list[str | bytes]:
        """Modules that code imports when it runs, and those among the names that it takes from them.

        Args:
            names: what the code reads.
            package: that the code is in.
        """
        parts: list[str | bytes] = []
        for level, name, wanted in names.imports:
            try:
                full = importlib.util.resolve_name("." * level + name, package)
            except ImportError:
                parts += ["import", name]
                continue
            inner = {f"{full}.{one}": one for one in wanted if is_own_source(f"{full}.{one}")}
            if wanted or name not in names.values:
                read = tuple(one for one in wanted if one not in inner.values()) if wanted else names.attributes
                parts += ["import", *self.imported_parts(full, replace(names, attributes=read))]
            else:  # `import a.b` gives a function a, unless it names b otherwise
                top = full.partition(".")[0]
                parts += ["import", *self.imported_parts(top if top in names.values else full, None)]
            for module, one in inner.items():
                parts += self.imported_parts(module, None if one in names.values else names)
        return parts

    def imported_parts(self, full: str, names: Names | None) -> list[str | bytes]:
        """Parts of a module given by its full name: the module if it is imported, otherwise its source."""
        if full in sys.modules and full not in _by_source:
            module = sys.modules[full]
            return package_identity(module) or self.module_parts(module, names)
        spec = find_spec(full)
        if spec is None:
            return [full]
        package = package_of_spec(spec)
        if package is not None:
            return ["package", *name_identity(package, full)]
        _by_source.add(full)
        if full in self.sources:  # modules may import each other
            return ["source", full]
        self.sources.add(full)
        return ["source", full, *self.source_parts(spec)]

    def source_parts(self, spec: ModuleSpec) -> list[str | bytes]:
        """Parts of a module that nothing has imported: its code, and what that imports."""
        if spec.origin is None:
            return ["a folder"]
        try:
            content = read_regular_file(spec.origin)
        except OSError as error:
            problem = f"imports {spec.name}, whose file {spec.origin} cannot be read ({error.strerror or error})"
            raise _refusal(self.path[0], problem, None) from error
        if not isinstance(spec.loader, SourceLoader):
            return [content]
        try:
            tree, code = ast.parse(content), compile(content, spec.origin, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):  # of no use to the function either
            return [content]
        parts: list[str | bytes] = [tree_text(tree)]
        return parts + self.imports_parts(names_in(code), spec.parent or None)

    def module_parts(self, module: Any, names: Names | None) -> list[str | bytes]:
        """Parts of a user's module that a function may read: its attributes in `names`, or all (None)."""
        if (version := own_version(module)) is not None:
            return ["module", version]
        if names is None:
            public = {name: value for name, value in vars(module).items() if not name.startswith("__")}
            return ["module", *self.named(public)]
        parts: list[str | bytes] = ["module"]
        for name in names.attributes:
            found = getattr(module, name, NOTHING)
            if found is NOTHING:
                continue
            if not is_own_module(found) or name in names.values:
                parts += [name, self.of(found, f"{module.__name__}.{name}")]
            elif id(found) not in self.open:  # modules may import each other
                self.open[id(found)] = len(self.open)
                parts += [name, *self.module_parts(found, names)]
                del self.open[id(found)]
        return parts

    def class_parts(self, kind: type) -> list[str | bytes]:
        held = without_about(vars(kind))
        if issubclass(kind, enum.Enum):
            members = {name: member.value for name, member in kind.__members__.items()}
            private = f"_{kind.__name__.lstrip('_')}__"
            own = {
                name
                for name, value in held.items()
                if name[0] != "_" or name.startswith(private) or package_of(code_file(value)) is None
            }
            held = {name: held[name] for name in own if name not in members}
            held |= {f"member {name}": value for name, value in members.items()}
        if issubclass(kind, nn.Module):
            held = {name: value for name, value in held.items() if name not in ("scope", "parent", "name", "_state")}
        for name, value in list(held.items()):
            if isinstance(value, SLOTS) or is_generated(value):
                del held[name]
        bases = [self.of(base, "a base") for base in kind.__bases__]
        maker = [] if type(kind) is type else [self.of(type(kind), "its metaclass")]
        made_by = vars(kind).get("__dataclass_params__")
        compared = [str(getattr(made_by, name)) for name in ("eq", "order", "unsafe_hash", "frozen") if made_by]
        return ["class", kind.__name__, *bases, *maker, *compared, *self.named(held)]

    def array_parts(self, value: Any) -> list[str | bytes]:
        if isinstance(value, jax.core.Tracer):
            raise self.refusal("is not a value yet", value)
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return ["keys", str(value.dtype), *self.array_parts(jax.random.key_data(value))]
        array = np.asarray(value)
        content = [self.of(x) for x in array.ravel().tolist()] if array.dtype.hasobject else [array.tobytes()]
        parts = ["array", type(value).__name__, str(array.dtype), str(array.shape), *content]
        return parts + (self.subclass_parts(value) if isinstance(value, np.ndarray) else [])

    def subclass_parts(self, value: np.ndarray) -> list[str | bytes]:
        """Mask, fill value and attributes of an array whose class is derived from NumPy's."""
        kind = type(value)
        parts: list[str | bytes] = [] if kind is np.ndarray else [self.of(kind, "its class")]
        if isinstance(value, np.ma.MaskedArray):
            parts += ["mask", np.ma.getmaskarray(value).tobytes(), self.of(value.fill_value), str(value.hardmask)]
        if package_identity(kind) is None:
            held = {name: found for name, found in vars(value).items() if name not in MASKS}
            parts += self.named(without_about(held))
        return parts

    def ufunc_parts(self, value: np.ufunc) -> list[str | bytes]:
        """Parts of a ufunc: its name and package; one made by `np.frompyfunc` is refused: its function is hidden."""
        found = [m for m in list(sys.modules.values()) if isinstance(m, types.ModuleType)]
        holders = (package_of_module(m) for m in found if vars(m).get(value.__name__) is value)
        owners = {package for package in holders if package is not None}
        if not owners:
            raise self.refusal("does not show what it computes", value)
        package = min(owners, key=lambda name: (name != "numpy", name != "scipy", name))  # others only hold it
        return ["ufunc", *name_identity(package, f"{package}.{value.__name__}")]

    def instance_parts(self, value: Any) -> list[str | bytes]:
        """Parts of an object: its class and its state."""
        kind = type(value)
        if isinstance(value, enum.Enum):
            return ["member", value.name, self.of(kind)]
        if isinstance(value, functools.partial):
            return [
                "partial",
                self.of(value.func, "its function"),
                *(self.of(argument, "an argument") for argument in value.args),
                *self.named(value.keywords),
                *self.named(without_about(vars(value))),
            ]
        if isinstance(value, (staticmethod, classmethod)):
            return [kind.__name__, self.of(value.__func__)]
        if isinstance(value, property):
            return ["property", *map(self.of, (value.fget, value.fset, value.fdel))]
        if isinstance(value, functools.cached_property):
            return ["cached", self.of(value.func)]
        if isinstance(value, np.dtype):
            return ["dtype", str(value.descr if value.fields else value)]
        if isinstance(value, dataclasses.Field):
            taken = [str(flag) for flag in (value.init, value.compare, value.hash, value.kw_only)]
            made = map(self.of, (value.default, value.default_factory, value.metadata))
            return ["field", value.name, *taken, *made]
        if isinstance(value, weakref.ref):
            return ["reference", self.of(value())]
        if isinstance(value, WEAK):
            return ["cache"]
        if isinstance(value, nn.Module):
            fields = [f.name for f in dataclasses.fields(value) if f.name not in ("parent", "name")]
            return ["module", self.of(kind), *self.named({name: getattr(value, name) for name in fields})]
        parts = [self.of(kind, "its class")]
        base: Any  # whose own methods are called, whatever a derived class overrides
        for base in (int, float, complex, str, bytes):
            if isinstance(value, base):  # of a class derived from it
                return [*parts, base.__name__, base.__repr__(value), *self.state(value)]
        if isinstance(value, (dict, types.MappingProxyType)):
            return parts + self.pairs(value) + self.state(value)
        if isinstance(value, (list, tuple)):
            base = list if isinstance(value, list) else tuple
            items = [*base.__iter__(value)]
            if {*map(type, items)} <= {bool, int, float, str, type(None)}:  # long lists of numbers
                return [*parts, repr(items), *self.state(value)]
            return parts + [self.of(item, f"[{place}]") for place, item in enumerate(items)] + self.state(value)
        if isinstance(value, (set, frozenset)):
            base = set if isinstance(value, set) else frozenset
            items = base.__iter__(value)
            return parts + sorted(map(self.alone, items)) + self.state(value)
        if (inner := attribute(value, "__wrapped__", NOTHING)) is not NOTHING:
            parts += ["wraps", self.of(inner, "what it wraps")]
            return parts + self.state(value)
        return parts + self.copied(value)

    def state(self, value: Any) -> list[str | bytes]:
        """State of an object: attributes and slots, without values cached by `cached_property`."""
        held = without_about(attribute(value, "__dict__", {}))
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                name = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and name[-2:] != "__" else name
                found = attribute(value, name, NOTHING)
                if name not in ("__dict__", "__weakref__") and found is not NOTHING:
                    held[name] = found
        cached = {name for name in held if isinstance(getattr(type(value), name, None), functools.cached_property)}
        return self.named({f".{name}": found for name, found in held.items() if name not in cached})

    def copied(self, value: Any) -> list[str | bytes]:
        """State of an object, and the form in which it would be copied where it defines one."""
        kind = type(value)
        reduce = copyreg.dispatch_table.get(kind) or (lambda value: value.__reduce_ex__(4))
        try:
            found: Any = reduce(value)
        except (TypeError, NotImplementedError) as error:
            raise self.refusal("has state that cannot be read", value) from error
        own = [base for base in kind.__mro__ if package_identity(base) is None]
        may_hide = any(name in vars(base) for base in own for name in ("__getstate__", "__reduce__", "__reduce_ex__"))
        held = self.state(value) if may_hide else []  # a copy may leave out what it computes with
        if isinstance(found, str):
            return ["global", found, *held]
        as_any = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
        if as_any and kind not in copyreg.dispatch_table and not defines(kind, "__getstate__"):
            return self.state(value)
        reduced: list[Any] = [*found, *[None] * (5 - len(found))]
        maker, arguments, state, items, pairs = reduced[:5]
        parts = [self.of(maker), *(self.of(argument, "its state") for argument in arguments)]
        for half in state if isinstance(state, tuple) else (state,):  # attributes and slots, each in any order
            is_named = type(half) is dict and all(type(name) is str for name in half)
            parts += ["attributes", *self.named(half)] if is_named else [self.of(half, "its state")]
        parts += held
        parts += map(self.of, items or ())
        return parts + (self.pairs(dict(pairs)) if pairs is not None else [])

    def alone(self, value: Any) -> bytes:
        """Digest of an object, independent of where it occurs."""
        return self.of(value) if type(value) in PLAIN else _Digest(self.path[0]).of(value)

    def pairs(self, found: Mapping[Any, Any]) -> list[str | bytes]:
        """Parts of keys and values, in their order."""
        kind: Any = next((kind for kind in (collections.OrderedDict, dict) if isinstance(found, kind)), type(found))
        parts: list[str | bytes] = []
        for key, value in kind.items(found):  # whatever a derived class shows
            parts += [self.alone(key), self.of(value, f"[{key!r}]" if isinstance(key, PLAIN) else "a value")]
        return parts

    def named(self, found: Mapping[str, Any]) -> list[str | bytes]:
        """Parts of names and values, in alphabetical order."""
        return [part for name in sorted(found) for part in (name, self.of(found[name], name))]

    def refusal(self, problem: str, value: Any) -> UsageError:
        return _refusal(": ".join([self.path[0], ", ".join(self.path[1:])]).removesuffix(": "), problem, value)


def _sha(parts: Iterable[str | bytes]) -> bytes:
    """SHA-256 of parts, each with its length, so that different lists of parts differ."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(f"{len(content)}{'b' if isinstance(part, bytes) else 's'}".encode())
        digest.update(content)
    return digest.digest()
