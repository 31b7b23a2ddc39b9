"""The sweep engine: every arm of an ablation in one compiled program."""

from typing import TYPE_CHECKING, Any

from fishnet.sweep.spec.random_search import Samples
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.search_space import Range
from fishnet.sweep.spec.stopping import Stopping
from fishnet.sweep.spec.sweep import Run, Sweep

if TYPE_CHECKING:
    from fishnet.data.options import DataOptions
    from fishnet.host.interrupt import Interrupted
    from fishnet.sweep.run.sweep import run_sweep
    from fishnet.sweep.store.finished import Result
    from fishnet.sweep.store.load import LoadedRun, load_run

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

HOMES = {
    "DataOptions": "fishnet.data.options",
    "Interrupted": "fishnet.host.interrupt",
    "LoadedRun": "fishnet.sweep.store.load",
    "Result": "fishnet.sweep.store.finished",
    "load_run": "fishnet.sweep.store.load",
    "run_sweep": "fishnet.sweep.run.sweep",
}


def __getattr__(name: str) -> Any:
    # The engine brings in jax; recipes, which the command line parses, do not wait for it.
    import importlib

    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
