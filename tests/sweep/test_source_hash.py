"""What an object is made of: each part of its state changes its digest, and equal ones have equal digests."""

import ast
import collections
import dataclasses
import enum
import functools
import hashlib
import importlib
import json
import os
import random
import subprocess
import sys
import threading
import time
import types
import typing
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from fishnet.errors import UsageError
from fishnet.nn.activations import ACTIVATIONS
from fishnet.optim.optimizers import Optimizer
from fishnet.source_hash.code import FISHNET, STDLIB, code_text, names_in, package_of
from fishnet.source_hash.digest import describe_source, source_hash
from fishnet.sweep import Recipe
from fishnet.sweep.plan.user_components import COMPONENTS
from fishnet.sweep.store.load import check_functions


def module(text: str, name: str = "users_own") -> types.ModuleType:
    """A module of the user's own, without a file."""
    made = types.ModuleType(name)
    exec(compile(text, f"<{name}>", "exec"), vars(made))
    return made


def of_text(text: str):
    """The function `f` of a module that holds `text`."""
    return module(text).f


def closure(n):
    def inner(x):
        return x * n

    def outer(x):
        return inner(x) + 1

    return outer


class Scaled:
    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        return x * self.n

    def method(self, x):
        return x + self.n

    def __eq__(self, other):
        return isinstance(other, Scaled)

    __hash__ = None


class Slotted:
    __slots__ = ("__hidden", "n")

    def __init__(self, n):
        self.n, self.__hidden = 1, n


@dataclasses.dataclass(frozen=True)
class Record:
    n: float
    more: dict = dataclasses.field(default_factory=dict)

    def __call__(self, x):
        return x * self.n


class Pair(typing.NamedTuple):
    first: int
    second: typing.Any = None


class Layer(nn.Module):
    width: int
    act: typing.Any = nn.relu

    @nn.compact
    def __call__(self, x):
        return self.act(nn.Dense(self.width)(x))


def attributed(n):
    def f(x):
        return x

    f.n = n
    return f


def wrapped(n):
    """A function of the user's that says it is JAX's relu."""
    return functools.wraps(jax.nn.relu)(lambda x: x * n)


def custom(n):
    @jax.custom_jvp
    def f(x):
        return x

    f.defjvp(lambda primals, tangents: (f(primals[0]), tangents[0] * n))
    return f


def made_class(n):
    class Base:
        factor = n

    class Made(Base):
        def __call__(self, x):
            return x * self.factor

    return Made


def circle(n):
    found = [n]
    found.append({"again": found})
    return found


def generator(n):
    found = np.random.default_rng(3)
    found.random(n)
    return found


def uses(inner: str):
    """A function that reads an attribute of a module that it holds as a global, and a method of its own class."""
    made = module("def f(x): return helper.scale(x)\n")
    made.helper = module(f"def scale(x): return x * {inner}\nunrelated = 1\n", "helper")
    return made.f


# What is told apart: a function of a number, each number another object.
KINDS = {
    "constant": lambda n: of_text(f"def f(x): return x * {n}"),
    "code": lambda n: of_text(f"def f(x): return x {'+-*'[n]} 2"),
    "global": lambda n: of_text(f"SCALE = {n}\ndef f(x): return x * SCALE"),
    "global of a helper": lambda n: of_text(f"SCALE = {n}\ndef g(x): return x * SCALE\ndef f(x): return g(x)"),
    "global of a nested function": lambda n: of_text(f"SCALE = {n}\ndef f(x):\n def g(): return SCALE\n return g()"),
    "global read in a comprehension": lambda n: of_text(f"SCALE = {n}\ndef f(x): return [x * SCALE for _ in (1,)]"),
    "global dictionary": lambda n: of_text(f"TABLE = {{'a': {n}}}\ndef f(x): return x * TABLE['a']"),
    "attribute of a module": lambda n: uses(str(n)),
    "default": lambda n: of_text(f"def f(x, a={n}): return x * a"),
    "keyword default": lambda n: of_text(f"def f(x, *, a={n}): return x * a"),
    "closure": closure,
    "lambda": lambda n: lambda x: x * n,
    "attribute of a function": attributed,
    "callable instance": Scaled,
    "slots": Slotted,
    "bound method": lambda n: Scaled(n).method,
    "partial": lambda n: partial(jax.nn.leaky_relu, negative_slope=n),
    "partial by position": lambda n: partial(pow, n),
    "jit": lambda n: jax.jit(closure(n)),
    "vmap": lambda n: jax.vmap(closure(n)),
    "grad": lambda n: jax.grad(closure(n)),
    "checkpoint": lambda n: jax.checkpoint(closure(n)),
    "custom_jvp": custom,
    "wraps": wrapped,
    "lru_cache": lambda n: functools.lru_cache(closure(n)),
    "list": lambda n: [1, [n]],
    "tuple": lambda n: (1, (n,)),
    "dictionary": lambda n: {"a": {"b": n}},
    "ordered dictionary": lambda n: collections.OrderedDict(a=n),
    "default dictionary": lambda n: collections.defaultdict(list, a=[n]),
    "set": lambda n: {"a", "b", "c", n, (n, "d")},
    "frozen set": lambda n: frozenset({"a", n}),
    "deque": lambda n: collections.deque([n]),
    "dataclass": Record,
    "dataclass in a dataclass": lambda n: Record(1, {"inner": Record(n)}),
    "named tuple": lambda n: Pair(1, n),
    "class": made_class,
    "instance of a class": lambda n: made_class(n)(),
    "enum": lambda n: enum.Enum("Kind", {"A": n}).A,
    "array": lambda n: np.array([1, n]),
    "type of an array": lambda n: np.zeros(2, ["f4", "f8", "i4"][n]),
    "shape of an array": lambda n: np.zeros((n, 2)),
    "jax array": lambda n: jnp.array([1, n]),
    "bfloat16": lambda n: jnp.array([1, n], jnp.bfloat16),
    "random key": lambda n: jax.random.key(n),
    "numpy generator": generator,
    "python generator": lambda n: random.Random(n),
    "linen module": Layer,
    "linen module's function": lambda n: Layer(2, act=closure(n)),
    "optax": lambda n: optax.chain(optax.clip(1.0), optax.scale(float(n))),
    "optax schedule": lambda n: optax.cosine_decay_schedule(float(n), 10),
    "optimizer": lambda n: Optimizer(lambda momentum, decay: optax.scale(float(n)), default_lr=0.1),
    "rate of an optimizer": lambda n: dataclasses.replace(COMPONENTS["optimizer"]["adam"], default_lr=float(n)),
    "initializer": lambda n: dataclasses.replace(COMPONENTS["init"]["he_normal"], scale=float(n)),
    "circle": circle,
    "float": lambda n: n * 1e-300,
    "text": lambda n: "abc"[n],
}


@pytest.mark.parametrize("kind", KINDS)
def test_state_changes_the_digest_and_equal_objects_have_equal_ones(kind):
    make = KINDS[kind]
    assert source_hash(make(1)) == source_hash(make(1))
    assert source_hash(make(1)) != source_hash(make(2))


WITH_METHODS = """
import dataclasses, typing
import flax.linen as nn
@dataclasses.dataclass
class Data:
    n: float = 2.0
    def __call__(self, x): return x * {0}
    def __eq__(self, other): return {0}
class Tuple(typing.NamedTuple):
    n: float = 2.0
    def __call__(self, x): return x * {0}
class Layer(nn.Module):
    n: float = 2.0
    def __call__(self, x): return x * {0}
class Listed:
    _fields = ("n",)
    def __call__(self, x): return x * {0}
"""


@pytest.mark.parametrize("kind", ["Data", "Tuple", "Layer", "Listed"])
def test_methods_of_classes_that_a_command_line_defines_count(kind):
    """`python -c` calls its code "<string>", as `dataclass` calls the methods that it writes."""

    def make(n):
        space = {"__name__": "users_own"}
        exec(compile(WITH_METHODS.format(n), "<string>", "exec"), space)
        return space[kind]()

    assert source_hash(make(2)) == source_hash(make(2)) != source_hash(make(3))


def test_a_generated_method_that_the_user_has_wrapped_counts():
    def make(n):
        kind = dataclasses.make_dataclass("Made", [("x", float, 1.0)])
        plain = kind.__init__
        kind.__init__ = functools.wraps(plain)(lambda self, x=1.0: plain(self, x * n))
        return kind()

    assert source_hash(make(2)) == source_hash(make(2)) != source_hash(make(3))


@pytest.mark.parametrize("base", [int, float, complex, str, bytes, tuple, list, dict, set, frozenset])
def test_values_of_classes_derived_from_pythons_count(base):
    class Derived(base):
        """One that does not show what it holds."""

        def __iter__(self):
            return iter(())

        __repr__ = object.__repr__

    content = {bytes: (b"a", b"b"), dict: ({"a": 1}, {"a": 2})}.get(base)
    one, other = content or (map(base, "12") if base in (int, float, complex, str) else ([1], [2]))
    assert source_hash(Derived(one)) == source_hash(Derived(one)) != source_hash(Derived(other))
    attributed = Derived(one)
    attributed.unit = "s"
    assert source_hash(attributed) != source_hash(Derived(one))


class AnswersAll:
    def __init__(self, n):
        self.n = n

    def __getattr__(self, name):
        return 0


def test_private_constants_of_enums_and_comparisons_of_dataclasses_count():
    def member(n):
        class Kind(enum.Enum):
            A = 1
            __scale = n

            def __call__(self, x):
                return x * self.__scale

        return Kind.A

    assert source_hash(member(1)) == source_hash(member(1)) != source_hash(member(2))
    kinds = [dataclasses.make_dataclass("Made", ["x"], **given) for given in ({}, {"order": True}, {"eq": False})]
    assert len(set(map(source_hash, kinds))) == 3


@pytest.mark.parametrize("way", ["__getstate__", "__reduce__", "a name"])
def test_what_a_copy_leaves_out_counts(way):
    class Hides(Scaled):
        pass

    if way == "__getstate__":
        Hides.__getstate__ = lambda self: {}
    else:
        Hides.__reduce__ = lambda self: "NAME" if way == "a name" else (Hides, (0,))
    assert source_hash(Hides(1)) == source_hash(Hides(1)) != source_hash(Hides(2))


def test_an_answer_to_any_name_is_no_version():
    assert source_hash(AnswersAll(1)) == source_hash(AnswersAll(1)) != source_hash(AnswersAll(2))

    class Filled(collections.defaultdict):
        __getattr__ = collections.defaultdict.__getitem__

    one, other = Filled(int, n=1), Filled(int, n=2)
    assert source_hash(one) == source_hash(one) != source_hash(other)
    assert [*one] == ["n"]  # hashing has put nothing in
    one.__fishnet_version__ = other.__fishnet_version__ = "1"
    assert source_hash(one) == source_hash(other)


def test_masks_and_attributes_of_arrays_count():
    def masked(mask, fill=9):
        return np.ma.masked_array([1, 2], mask, fill_value=fill)

    class Named(np.ndarray):
        pass

    def named(n):
        made = np.arange(3).view(Named)
        made.n = n
        return made

    assert source_hash(masked([0, 1])) == source_hash(masked([0, 1])) != source_hash(masked([1, 0]))
    assert source_hash(masked([0, 1])) != source_hash(masked([0, 1], fill=8))
    assert source_hash(named(1)) == source_hash(named(1)) != source_hash(named(2))


def test_all_kinds_differ():
    assert len({source_hash(make(1)) for make in KINDS.values()}) == len(KINDS)


def test_another_process_finds_the_same_digests(tmp_path):
    """With other addresses, another order of sets, another working folder and this file imported by another name."""
    program = (
        "import importlib.util, json, sys; spec = importlib.util.spec_from_file_location('other', sys.argv[1]);"
        "other = importlib.util.module_from_spec(spec); sys.modules['other'] = other; spec.loader.exec_module(other);"
        "print(json.dumps({kind: other.source_hash(make(1)) for kind, make in other.KINDS.items()}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    copy = tmp_path / "somewhere_else.py"
    copy.write_text("# moved down by a line\n" + Path(__file__).read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-c", program, copy], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {kind: source_hash(make(1)) for kind, make in KINDS.items()}


def test_comments_formatting_docstrings_names_and_annotations_do_not_count(tmp_path):
    texts = [
        "def f(x, y=2):\n    return x * (y + 1)\n",
        "# a comment\n\n\ndef f(x, y=2):\n    '''What it does.'''\n    # how\n    return (x *\n        (y + 1))\n",
        "def other(x: float, y: int = 2) -> float: return x*(y+1)\nf = other\n",
    ]
    found = []
    for place, text in enumerate(texts):
        path = tmp_path / f"own_{place}.py"
        path.write_text(text)
        space: dict = {}
        exec(compile(text, str(path), "exec"), space)
        found.append(source_hash(space["f"]))
    assert len(set(found)) == 1


def test_lambdas_on_one_line_are_told_apart():
    add, subtract = (lambda x: x + 1, lambda x: x - 1)
    assert source_hash(add) != source_hash(subtract)
    assert "Add()" in code_text(add.__code__) and "Sub()" in code_text(subtract.__code__)


def test_code_whose_file_has_changed_since_is_not_read_from_it(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def f(x):\n    return x + 1\n")
    space: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    before = source_hash(space["f"])
    path.write_text("def f(x):\n    return x - 1\n")
    os.utime(path, (1, 1))
    assert "Sub" not in code_text(space["f"].__code__)
    again: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), again)
    assert source_hash(again["f"]) not in (before, source_hash(space["f"]))


EDITS = {
    "a comment above": "# a comment\n\n{}",
    "a function above": "def g(x):\n    return x\n\n\n{}",
    "a docstring above": "'What it holds.'\n{}",
    "a line below": "{}Z = 1\n",
    "nothing": "{}",
}


@pytest.mark.parametrize("edit", [*EDITS, "a syntax error", "a docstring", "an empty file", "another value"])
def test_what_is_saved_to_the_file_later_does_not_change_a_function(edit, tmp_path):
    """Its digest stays the same in the process; another process finds it in the lines where the function is now."""
    path = tmp_path / "own.py"
    text = "def f(x):\n    def inner(y):\n        return (1 + 1) * y\n    return [inner(x), lambda: x]\n"

    def load(text):
        space: dict = {}
        exec(compile(text, str(path), "exec"), space)
        return space["f"]

    path.write_text(text)
    hashed, later = load(text), load(text)
    before = source_hash(hashed)
    changed = {
        "a syntax error": text + "def (",
        "a docstring": text.replace("(x):\n", "(x):\n    'What it does.'\n", 1),
        "another value": text.replace("1 + 1", "1 + 2"),
    }
    path.write_text(EDITS[edit].format(text) if edit in EDITS else changed.get(edit, ""))
    os.utime(path, (1, 1))
    assert source_hash(hashed) == before
    if edit in EDITS:
        assert source_hash(later) == before
        assert source_hash(load(path.read_text())) == before
    elif edit == "another value":
        assert source_hash(load(path.read_text())) != before


def test_a_run_can_be_loaded_after_a_comment_was_added_to_the_users_file(tmp_path, monkeypatch):
    path = tmp_path / "own.py"
    path.write_text("def mine(x):\n    return x * (x > 0)\n")
    space: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    monkeypatch.setitem(ACTIVATIONS, "mine", space["mine"])
    before = source_hash(ACTIVATIONS["mine"], "activation=mine")
    path.write_text("# typed while it trained\n" + path.read_text())
    os.utime(path, (1, 1))
    recipe = Recipe(task="mnist-mini", activation="mine")
    trained = {"activation=mine": describe_source(ACTIVATIONS["mine"], before)}
    check_functions(tmp_path, recipe, trained)


def test_the_tree_of_each_python_reads_alike():
    """Written out by hand from the grammar, so that every version of Python gives it."""

    def f(x, *, a):
        return [x[0] + a for _ in (1, "b")]

    assert code_text(f.__code__) == (
        "False ['x', 'a'] [False, False, 0, 1] [Return(value=ListComp(elt=BinOp(left=Subscript(value=Name(id='x'), "
        "slice=Constant(value=0)), op=Add(), right=Name(id='a')), generators=[comprehension(target=Name(id='_'), "
        "iter=Tuple(elts=[Constant(value=1), Constant(value='b')]), is_async=0)]))]"
    )
    assert isinstance(ast.parse("x").body[0], ast.Expr)


def test_order_counts_in_lists_and_dictionaries_and_not_in_sets_attributes_and_keyword_arguments():
    assert source_hash({"a": 1, "b": 2}) == source_hash({"a": 1, "b": 2}) != source_hash({"b": 2, "a": 1})
    steps = {"double": lambda x: 2 * x, "shift": lambda x: x + 1}
    made = module("def f(x):\n for g in steps.values(): x = g(x)\n return x")
    digests = []
    for made.steps in (steps, dict(steps), dict(reversed(steps.items()))):
        digests.append((made.f(1), source_hash(made.f)))
    assert [value for value, _ in digests] == [3, 3, 4]
    assert digests[0] == digests[1] and digests[0][1] != digests[2][1]
    turned = collections.OrderedDict(a=1, b=2)
    turned.move_to_end("a")
    assert source_hash(turned) == source_hash(collections.OrderedDict(b=2, a=1))
    assert source_hash(partial(dict, a=1, b=2)) == source_hash(partial(dict, b=2, a=1))
    one, other = types.SimpleNamespace(a=1, b=2), types.SimpleNamespace(b=2, a=1)
    assert source_hash(one) == source_hash(other) != source_hash(types.SimpleNamespace(a=2, b=1))
    assert source_hash({"a", "b", "c"}) == source_hash({"c", "b", "a"})
    assert source_hash([1, 2]) != source_hash([2, 1])
    assert source_hash(1) != source_hash(1.0) != source_hash(True)
    assert source_hash(0.0) != source_hash(-0.0)


def test_what_a_function_does_not_read_does_not_count():
    text = "UNUSED = {}\ndef f(x): return x.UNUSED"
    assert source_hash(of_text(text.format(1))) == source_hash(of_text(text.format(2)))
    with_helper = uses("2")
    before = source_hash(with_helper)
    with_helper.__globals__["helper"].unrelated = 5
    assert source_hash(with_helper) == before


MODULE_AS_VALUE = {
    "an argument": "def g(x, c): return x * c.SLOPE\ndef f(x): return g(x, config)",
    "a keyword argument": "def g(x, c): return x * c.SLOPE\ndef f(x): return g(x, c=config)",
    "getattr": "def f(x): return x * getattr(config, 'SLOPE')",
    "vars": "def f(x): return x * vars(config)['SLOPE']",
    "another variable": "def f(x):\n c = config\n return x * c.SLOPE",
    "a default": "def f(x, c=config): return x * c.SLOPE",
    "a nested function": "def f(x): return (lambda: getattr(config, 'SLOPE') * x)()",
    "a closure": "def make(c):\n def f(x): return x * getattr(c, 'SLOPE')\n return f\nf = make(config)",
    "a module in a module": "def f(x): return x * getattr(package.config, 'SLOPE')",
    "the module that holds it": "def f(x): return x * getattr(package, 'config').SLOPE",
    "an import": "def f(x):\n import own_config\n return x * getattr(own_config, 'SLOPE')",
    "an import by another name": "def f(x):\n import own_config as c\n return x * getattr(c, 'SLOPE')",
    "an import of a part": "def f(x):\n import own_package.own_config as c\n return x * getattr(c, 'SLOPE')",
    "an import of all": "def f(x):\n import own_package.own_config\n return vars(own_package)['config'].SLOPE * x",
    "an import from": "def f(x):\n from own_package import own_config as c\n return x * getattr(c, 'SLOPE')",
}


@pytest.mark.parametrize("way", MODULE_AS_VALUE)
def test_a_module_that_is_passed_on_counts_whole(way, monkeypatch):
    config, package = module("SLOPE = 2", "own_config"), module("OTHER = 1", "own_package")
    package.config = package.own_config = config
    config.package, package.__path__ = package, []  # modules may import each other
    for name, value in {"own_config": config, "own_package": package, "own_package.own_config": config}.items():
        monkeypatch.setitem(sys.modules, name, value)
    space = {"config": config, "package": package}
    exec(compile(MODULE_AS_VALUE[way], "<users_own>", "exec"), space)
    f, digests = space["f"], []
    for config.SLOPE in (2, 2, 3):
        digests.append((f(1), source_hash(f)))
    assert [value for value, _ in digests] == [2, 2, 3]
    assert digests[0] == digests[1] and digests[0][1] != digests[2][1]


@pytest.mark.parametrize(
    "text",
    [
        "def f(x): return x * globals()['S']",
        "def f(x): return eval('x * S')",
        "def f(x): return exec('x * S')",
        "def f(x): return __import__('comp').K",
        "import importlib\ndef f(x): return importlib.import_module('comp').K",
        "def f(x):\n import importlib as i\n return i.import_module('comp').K",
        "def f(x):\n from importlib import import_module\n return import_module('comp').K",
        "from importlib import import_module as load\ndef f(x): return load('comp').K",
        "read = eval\ndef f(x): return read('x * S')",
        "import sys\ndef f(x): return sys.modules['comp'].K",
    ],
)
def test_what_may_read_anything_is_refused_unless_it_names_a_version(text):
    made = of_text(text)
    with pytest.raises(UsageError, match=r"may (read|give) anything.*give .* attribute __fishnet_version__"):
        source_hash(made)
    made.__fishnet_version__ = "1"
    assert len(source_hash(made)) == 64


def test_a_value_that_an_object_keeps_for_itself_does_not_count():
    class Own:
        @functools.cached_property
        def double(self):
            return 2

    one, other = Own(), Own()
    assert one.double == 2 and source_hash(one) == source_hash(other)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.open("w"), "global log .*TextIOWrapper"),
        (lambda path: (i for i in "ab"), "global log .*generator"),
        (lambda path: threading.Lock(), "global log .*lock"),
    ],
)
def test_what_cannot_be_compared_is_refused_unless_it_names_a_version(make, problem, tmp_path):
    space = module("def f(x): return log and x")
    space.log = make(tmp_path / "log")
    advice = r"give the component an attribute __fishnet_version__"
    with pytest.raises(UsageError, match=rf"^activation=mine: .*{problem}.*{advice}"):
        source_hash(space.f, "activation=mine")
    space.f.__fishnet_version__ = "1"
    first = source_hash(space.f)
    space.log = None
    assert source_hash(space.f) == first
    space.f.__fishnet_version__ = "2"
    assert source_hash(space.f) != first
    getattr(space.log, "close", lambda: None)()


def test_objects_nested_too_deeply_are_refused():
    with pytest.raises(UsageError, match="is nested too deeply"):
        source_hash(functools.reduce(lambda inner, _: [inner], range(5000), []))


@pytest.mark.parametrize("value", [jax.nn.relu, jnp.tanh, np.sin, optax.adam(0.1), nn.Conv, *ACTIVATIONS.values()])
def test_components_of_packages_have_digests(value):
    assert len(source_hash(value)) == 64


def test_fishnets_own_tables_hold_only_fishnets_own():
    assert all(table.users() == {} for table in COMPONENTS.values())
    for table in COMPONENTS.values():
        assert all(source_hash(value, name) for name, value in table.items())


def test_large_objects_take_little_more_than_their_bytes():
    numbers, array = list(range(200_000)), np.zeros(4_000_000, np.float32)
    source_hash(0)
    began = time.process_time()
    hashlib.sha256(repr(numbers).encode() + array.tobytes()).digest()
    bytes_hashed = time.process_time()
    source_hash({"list": numbers, "array": array})
    assert time.process_time() - bytes_hashed < 10 * (bytes_hashed - began)  # measured: 1


@pytest.mark.parametrize("neighbor", ["fishnet_components.py", "fishnet_mine/own.py", "fishnet/../own.py"])
def test_a_file_beside_the_package_is_the_users_own(neighbor):
    file = f"{Path(FISHNET).parent}/{neighbor}"
    digests = []
    for factor in (2, 3):
        space: dict = {}
        exec(compile(f"def f(x): return x * {factor}", file, "exec"), space)
        digests.append(source_hash(space["f"]))
    assert digests[0] != digests[1]
    assert package_of(f"{FISHNET}/nn/norms.py") == "fishnet"


def test_a_file_beside_the_standard_library_is_the_users_own():
    assert package_of(f"{STDLIB}_own/mine.py") is None
    assert package_of(f"{STDLIB}/json/decoder.py") == "python"


def test_imports_in_functions_of_many_names():
    """The names of an import beyond the 256th constant or name take a prefix in the bytecode."""
    lines = [f" x.a{i}; x = {i}.5" for i in range(300)]
    made = of_text("\n".join(["def f(x):", *lines, " from json import dumps", " return dumps"]))
    assert names_in(made.__code__).imports == ((0, "json", ("dumps",)),)
    assert len(source_hash(made)) == 64


def test_ufuncs_count_by_the_package_that_they_are_of():
    space = module("def f(x): return u(x)")
    space.u = np.frompyfunc(lambda x: x, 1, 1)
    with pytest.raises(UsageError, match=r"^mine: global u \(numpy.ufunc\) does not show what it computes.*version"):
        source_hash(space.f, "mine")
    assert len({source_hash(u) for u in (np.sin, np.cos, np.exp2, scipy.special.exp2, scipy.special.expit)}) == 5
    assert source_hash(jnp.frompyfunc(closure(1), 1, 1)) != source_hash(jnp.frompyfunc(closure(2), 1, 1))


@pytest.fixture
def importable(monkeypatch, tmp_path):
    """A function that writes a module of the user's own, which nothing has imported; they are gone after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    "imports",
    ["import own_late", "from own_late import scale", "from own_pack import own_late", "import own_pack.own_late"],
)
def test_hashing_imports_nothing(importable, imports):
    """A module that fails when it is imported, in a branch that is never taken; another source is another digest."""
    name = "own_pack.own_late" if "own_pack" in imports else "own_late"
    made = of_text(f"def f(x):\n if x is None:\n  {imports}\n return x")
    digests = []
    for factor in (2, 2, 3):
        importable(name, f"raise RuntimeError\ndef scale(x): return x * {factor}\n")
        digests.append(source_hash(made))
    assert digests[0] == digests[1] != digests[2]
    assert not any(imported.startswith("own_") for imported in sys.modules)


def test_a_module_counts_alike_before_and_after_a_function_has_imported_it(importable):
    importable("own_inner", "FACTOR = 2\n")
    importable("own_outer", "from own_inner import FACTOR\nimport json\ndef scale(x): return x * FACTOR\n")
    made = of_text("def f(x):\n from own_outer import scale\n return scale(x)")
    before = source_hash(made)
    assert made(3) == 6 and "own_inner" in sys.modules
    assert source_hash(made) == before
    importable("own_inner", "FACTOR = 5\n")
    assert source_hash(made) != before


def test_the_environment_of_the_process_does_not_count(monkeypatch):
    made = [
        of_text("from os import environ\ndef f(x): return environ"),
        of_text("import os\ndef f(x): return os.environ"),
    ]
    before = list(map(source_hash, made))
    monkeypatch.setenv("FISHNET_TEST_VARIABLE", "1")
    assert list(map(source_hash, made)) == before
