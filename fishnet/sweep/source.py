"""A function as text, so that a sweep can tell whether the user's own functions are still those it was started with."""

import functools
import inspect
import types
from typing import Any


def source_of(function: Any) -> str:
    """Qualified name and source text of a function, with the plain values it carries along.

    Values bound by `functools.partial`, closures and defaults count: with others the same source is another function.
    """
    if isinstance(function, functools.partial):
        bound = [*function.args, *sorted(function.keywords.items())]
        return f"partial of {source_of(function.func)}\nwith {list(map(_carried, bound))}"
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = _code_text(getattr(function, "__code__", None))
    if inspect.isfunction(function):
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
        carried = [*cells, *(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
        text += f"\nwith {list(map(_carried, carried))}" if carried else ""
    return f"{_name(function)}\n{text}"


def _name(function: Any) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"


def _carried(value: Any) -> str:
    """A value without what differs from process to process, such as addresses."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_carried, value))}]"
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    return repr(value.tolist()) if hasattr(value, "tolist") else _name(value)


def _code_text(code: types.CodeType | None) -> str:
    """The compiled code of a function whose source is not at hand, such as one typed at a prompt."""
    if code is None:
        return ""
    constants = [_code_text(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
