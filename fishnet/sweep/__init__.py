"""The sweep engine: every arm of an ablation in one compiled program."""

from typing import TYPE_CHECKING, Any

from fishnet.sweep.domains import Range
from fishnet.sweep.grid import Run, Sweep
from fishnet.sweep.recipe import Recipe
from fishnet.sweep.samples import Samples
from fishnet.sweep.stopping import Stopping

if TYPE_CHECKING:
    from fishnet.sweep.finished import Result
    from fishnet.sweep.inputs import DataOptions
    from fishnet.sweep.interrupt import Interrupted
    from fishnet.sweep.load import LoadedRun, load_run
    from fishnet.sweep.run import run_sweep

__all__ = [
    "DataOptions",
    "Interrupted",
    "LoadedRun",
    "Range",
    "Recipe",
    "Result",
    "Run",
    "Samples",
    "Stopping",
    "Sweep",
    "load_run",
    "run_sweep",
]

HOMES = {"DataOptions": "inputs", "Interrupted": "interrupt", "LoadedRun": "load", "Result": "finished",
         "load_run": "load", "run_sweep": "run"}  # fmt: skip


def __getattr__(name: str) -> Any:
    # The engine brings in jax; recipes, which the command line parses, do not wait for it.
    import importlib

    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
