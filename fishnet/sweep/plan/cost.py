"""What a traced program costs, counted from its equations: enough to tell how long a sweep will take.

A loop's body is counted once; how often it runs is for the caller to know. A choice among functions counts each branch
for the share of lanes that take it, where the choice is one of a lane's knobs, and otherwise the dearest.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

# What is counted, in the order of a vector of costs.
PARTS = ("multiplications", "operands", "passes", "functions", "moved", "random", "operations", "far")
FAR = 2**20  # values of an array that does not stay in a core's caches
LINEAR = ("dot_general", "conv_general_dilated")
FUNCTIONS = frozenset(
    (
        *("exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "erf", "erf_inv", "erfc", "sin", "cos", "pow"),
        *("sqrt", "rsqrt", "cbrt", "div", "rem", "atan2"),
    )
)
RANDOM = frozenset(("threefry2x32", "random_bits", "random_fold_in", "random_seed", "random_wrap", "random_unwrap"))
MOVED = frozenset(
    (
        *("slice", "dynamic_slice", "dynamic_update_slice", "gather", "scatter", "scatter-add", "concatenate", "pad"),
        *("transpose", "rev", "sort", "reduce_window_max", "select_and_scatter_add", "cumsum", "top_k", "copy"),
    )
)
# Part of whatever uses them: they cost nothing of their own.
FREE = frozenset(
    (
        *("reshape", "broadcast_in_dim", "squeeze", "convert_element_type", "bitcast_convert_type", "stop_gradient"),
        *("iota", "optimization_barrier"),
    )
)


@dataclass
class Counted:
    """A vector of costs, in the order of `PARTS`, and those of the loops inside."""

    own: np.ndarray  # [part] float64
    loops: list["Counted"] = field(default_factory=list)

    @property
    def whole(self) -> np.ndarray:
        """[part] with every loop run once."""
        return self.own + sum((loop.whole for loop in self.loops), np.zeros(len(PARTS)))


def count(program: ClosedJaxpr, choices: dict[int, np.ndarray], rare: Mapping[str, float] | None = None) -> Counted:
    """What one call of a traced program costs.

    Args:
        program: its equations.
        choices: number of an argument that holds an index for each lane -> the indices of the lanes, [lane].
        rare: name of a function that is compiled by itself within the program -> how often it is called each time.
    """
    jaxpr = program.jaxpr
    return _count(jaxpr, {jaxpr.invars[number]: values for number, values in choices.items()}, rare or {})


def equations(program: ClosedJaxpr | Jaxpr) -> Iterator[Any]:
    """All equations of a traced program, those of its loops and branches once each."""
    for equation in getattr(program, "jaxpr", program).eqns:
        inner = list(_inner(equation.params.values()))
        for part in inner:
            yield from equations(part)
        if not inner:
            yield equation


def _inner(values: Any) -> Iterator[Jaxpr]:
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _inner(value)


def _count(jaxpr: Jaxpr, known: dict[Any, np.ndarray], rare: Mapping[str, float]) -> Counted:
    """`known`: variable -> the choices of the lanes that it holds some of."""
    total = Counted(np.zeros(len(PARTS)))

    def add(found: Counted, times: float = 1.0) -> None:
        total.own += times * found.own
        total.loops += found.loops

    def inside(body: ClosedJaxpr | Jaxpr, given: Sequence[Any]) -> Counted:
        body = getattr(body, "jaxpr", body)
        pairs = zip(body.invars, given, strict=True)
        own = {own: known[var] for own, var in pairs if not isinstance(var, Literal) and var in known}
        return _count(body, own, rare)

    for equation in jaxpr.eqns:
        name, params, given = equation.primitive.name, equation.params, list(equation.invars)
        if name == "while":
            first, second = params["cond_nconsts"], params["body_nconsts"]
            total.loops.append(inside(params["body_jaxpr"], given[first : first + second] + given[first + second :]))
        elif name == "scan":
            add(inside(params["jaxpr"], given), params["length"])
        elif name == "cond":
            branches = [inside(branch, given[1:]) for branch in params["branches"]]
            for branch, share in zip(branches, _shares(given[0], known, branches), strict=True):
                add(branch, share)
        elif inner := list(_inner(params.values())):
            body = inner[0]  # the others, if any, are its derivatives
            often = rare.get(params.get("name"), 1.0)
            add(inside(body, given[-len(body.invars) :] if body.invars else []), often)
        else:
            total.own += _cost(equation)
            _pass_on(equation, known)
    return total


def _shares(index: Any, known: dict[Any, np.ndarray], branches: list[Counted]) -> np.ndarray:
    """How often each branch is taken, [branch]."""
    if not isinstance(index, Literal) and index in known:
        taken = Counter(np.clip(known[index], 0, len(branches) - 1).tolist())
        return np.array([taken[i] / len(known[index]) for i in range(len(branches))])
    dearest = int(np.argmax([branch.whole.sum() for branch in branches]))
    return np.eye(len(branches))[dearest]


def _pass_on(equation: Any, known: dict[Any, np.ndarray]) -> None:
    """What is a lane's choice stays one when it is sliced, reshaped, converted or clipped."""
    sources = [known[var] for var in equation.invars if not isinstance(var, Literal) and var in known]
    if len(sources) != 1 or not equation.outvars:  # no outputs: an effect, or an axis of size 0 taken apart
        return
    out = equation.outvars[0]
    kind = getattr(getattr(out.aval, "dtype", None), "kind", "")  # a token has neither type nor shape
    if kind and kind in "biu" and out.aval.shape in ((), (1,), sources[0].shape):
        known[out] = sources[0]


def _cost(equation: Any) -> np.ndarray:
    """One equation's, [part]."""
    name, cost = equation.primitive.name, dict.fromkeys(PARTS, 0.0)
    if name in FREE:
        return np.zeros(len(PARTS))
    out = sum(_size(var) for var in equation.outvars)
    cost["operations"] = 1.0
    if name in LINEAR:
        left, right = (var.aval for var in equation.invars[:2])
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            taps = np.prod([left.shape[d] for d in contracted])
        else:
            taps = right.size / right.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        cost["multiplications"], cost["operands"] = out * taps, left.size + right.size + out
    elif name in FUNCTIONS:
        cost["functions"] = out
    elif name in RANDOM:
        cost["random"] = out
    elif name in MOVED:
        # An update in place touches what it writes alone.
        cost["moved"] = _size(equation.invars[1]) if name == "dynamic_update_slice" else out
    else:
        cost["passes"] = max([out, *(_size(var) for var in equation.invars)]) if name.startswith("reduce") else out
    cost["far"] = sum(size for var in (*equation.invars, *equation.outvars) if (size := _size(var)) > FAR)
    return np.array(list(cost.values()))


def _size(var: Any) -> int:
    return int(getattr(var.aval, "size", 0))


def choices_of(knobs: Any) -> dict[int, np.ndarray]:
    """Which leaves of a tree of knobs, by number, hold an index or a truth for each lane, and which."""
    return {
        number: np.asarray(leaf).astype(np.int64)
        for number, leaf in enumerate(jax.tree.leaves(knobs))
        if leaf.ndim == 1 and leaf.dtype.kind in "biu"
    }
