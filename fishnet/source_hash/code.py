"""Normalizes the code of a function: comments, formatting and, with source at hand, the Python version do not count."""

import ast
import dis
import itertools
import linecache
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import fishnet

FUTURE = sum(getattr(__import__("__future__"), name).compiler_flag for name in ("annotations",))
# Of syntax trees: what says nothing about the values that are computed.
SILENT = {"ctx", "type_comment", "kind", "annotation", "returns", "type_params"}
READS_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
_texts: dict[int, tuple[types.CodeType, str]] = {}  # with the code objects, whose numbers nothing else then gets
STDLIB = sysconfig.get_path("stdlib")
FISHNET = str(Path(fishnet.__file__).parent)


@dataclass(frozen=True)
class Names:
    """Names that a piece of code, and the functions inside it, read from outside; sorted."""

    globals: tuple[str, ...]
    attributes: tuple[str, ...]
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]  # level, module, names
    values: frozenset[str]  # names, attributes and imports that are not only read an attribute of: `f(module)`


def package_of(file: str | None) -> str | None:
    """Installed package that a file belongs to, "python" for the standard library, None for the user's own files."""
    if file is None or file.startswith("<frozen "):
        return "python"
    parts = Path(file).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts:
            return parts[len(parts) - parts[::-1].index(folder)].removesuffix(".py")
    place = Path(os.path.normpath(file))  # by folders: a neighbor's name may begin like the package's
    return "python" if place.is_relative_to(STDLIB) else "fishnet" if place.is_relative_to(FISHNET) else None


def names_in(code: types.CodeType) -> Names:
    """Globals, closure variables and attributes that `code` reads."""
    found, attributes, imports, values = set(), set(), set(), set()
    for part in _nested(code):
        before: list[Any] = [0, None]
        steps = [step for step in dis.get_instructions(part) if step.opname != "EXTENDED_ARG"]  # before large arguments
        aliases = []  # names of imports and the variables that hold them
        for place, step in enumerate(steps):
            after = steps[place + 1].opname if place + 1 < len(steps) else None
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                found.add(step.argval)
            elif step.opname in READS_ATTRIBUTE:
                attributes.add(step.argval)
            elif step.opname == "IMPORT_NAME":
                imports.add((before[0], step.argval, before[1] or ()))
            if step.opname == "IMPORT_FROM" or (step.opname == "IMPORT_NAME" and not before[1]):
                stores = (later for later in steps[place:] if later.opname.startswith("STORE_"))
                aliases += [(step.argval, _names_of(later)[0]) for later in itertools.islice(stores, 1)]
            elif "LOAD" in step.opname and (names := _names_of(step)):
                values.update(names[:-1] if after in (*READS_ATTRIBUTE, "STORE_ATTR", "DELETE_ATTR") else names)
            before = [before[1], step.argval]
        values |= {name for name, alias in aliases if alias in values}
    return Names(tuple(sorted(found)), tuple(sorted(attributes)), tuple(sorted(imports)), frozenset(values))


def code_text(code: types.CodeType) -> str:
    """Text of `code`, normalized.

    It is the syntax tree without names of functions, docstrings and annotations, where the file (or notebook cell) at
    hand is what was compiled; otherwise the bytecode, which another version of Python writes otherwise. It stays the
    same in a process, whatever is saved to the file later.
    """
    if id(code) not in _texts:
        _texts[id(code)] = code, _syntax(code) or _bytecode(code)
    return _texts[id(code)][1]


def tree_text(tree: ast.Module) -> str:
    """Text of a module's syntax tree, without docstrings and annotations."""
    return _dump(_without_docstring(tree.body))


def _names_of(step: dis.Instruction) -> tuple[str, ...]:
    """Variables or attribute of an instruction; some versions of Python join two instructions."""
    if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
        return ()
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return tuple(name for name in names if isinstance(name, str))


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _bytecode(code: types.CodeType) -> str:
    constants = [_bytecode(c) if isinstance(c, types.CodeType) else _constant(c) for c in code.co_consts]
    given = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return f"{sys.version_info[:2]} {given} {code.co_code.hex()} {names} {constants}"


def _constant(value: Any) -> str:
    """Text of a constant; sets in alphabetical order."""
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    return f"({', '.join(map(_constant, value))})" if isinstance(value, tuple) else repr(value)


def _syntax(code: types.CodeType) -> str | None:
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename))
    found = _compiled(text, code.co_filename, code.co_flags & FUTURE) if text else None
    if found is None:
        return None
    tree, compiled = found
    there = [other for other in _nested(compiled) if other.co_qualname == code.co_qualname]
    if code in there:
        return _syntax_at(tree, code)
    moved = [other for other in there if _bytecode(other) == _bytecode(code)]  # other lines of the file were edited
    texts = {_syntax_at(tree, other) for other in moved}
    return texts.pop() if len(texts) == 1 else None


def _syntax_at(tree: ast.Module, code: types.CodeType) -> str | None:
    """Finds the syntax of the function in `tree` at the position of `code`."""
    nodes = _nodes(tree).get((code.co_firstlineno, code.co_name), [])
    if len(nodes) > 1:  # lambdas on one line
        spans = set(code.co_positions())
        nodes = [node for node in nodes if _span(node.body) in spans]
    if len(nodes) != 1:
        return None
    (node,) = nodes
    taken = [argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
    kinds = [bool(node.args.vararg), bool(node.args.kwarg), len(node.args.posonlyargs), len(node.args.kwonlyargs)]
    body = node.body if isinstance(node.body, list) else [ast.Return(node.body)]
    return f"{type(node).__name__ == 'AsyncFunctionDef'} {taken} {kinds} {_dump(_without_docstring(body))}"


@lru_cache(maxsize=16)
def _compiled(text: str, file: str, flags: int) -> tuple[ast.Module, types.CodeType] | None:
    try:
        tree = ast.parse(text)
        return tree, compile(text, file, "exec", flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError):
        return None


@lru_cache(maxsize=16)
def _nodes(tree: ast.Module) -> dict[tuple[int, str], list[Any]]:
    """Functions of a module, by the line and the name of their code."""
    found: dict[tuple[int, str], list[Any]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            lines = [node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))]
            found.setdefault((min(lines), getattr(node, "name", "<lambda>")), []).append(node)
    return found


def _span(node: Any) -> tuple[int, int, int, int]:
    """Span of an expression, as in `co_positions`."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _without_docstring(body: list[Any]) -> list[Any]:
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    return body[1:] if isinstance(first, ast.Constant) and isinstance(first.value, str) else body


def _dump(node: Any) -> str:
    """Text of a syntax tree, the same in all versions of Python."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return _constant(node)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in SILENT}
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        fields["body"] = _without_docstring(node.body)
    told = {name: value for name, value in fields.items() if value is not None and value != []}
    if isinstance(node, ast.Constant):
        told = {"value": node.value}
    return f"{type(node).__name__}({', '.join(f'{name}={_dump(value)}' for name, value in told.items())})"
