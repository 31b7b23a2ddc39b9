"""The sweep engine: every arm of an ablation in one compiled program."""

from fishnet.sweep.interrupt import Interrupted
from fishnet.sweep.load import LoadedRun, load_run
from fishnet.sweep.recipe import Recipe, Run, Sweep
from fishnet.sweep.run import DataOptions, Result, run_sweep

__all__ = ["DataOptions", "Interrupted", "LoadedRun", "Recipe", "Result", "Run", "Sweep", "load_run", "run_sweep"]
