"""Start-up time of a sweep before its first step, by parts.

    python -m benchmarks.start              # the main job started a second time, and sweeps of 10,000 runs
    python -m benchmarks.start --only runs

Each start is a process of its own that stops after the first call of its training program. The sweeps: the main job
(48 runs) from an empty cache, and again with what that one kept; 10,000 runs as 40 arms of 250 seeds and as 2,500 arms
of 4 seeds, up to the moment that compiling begins. Seconds of wall time and of processor time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOADED = "import of jax and fishnet"
MLP = {"task": "synthetic", "image_size": 8, "model": "mlp", "widths": (8,), "batch_size": 32, "epochs": 1}
NAMES = {
    "main": "the main job, nothing kept",
    "again": "the main job, started again",
    "runs": "10,000 runs: 40 arms, 250 seeds",
    "arms": "10,000 runs: 2,500 arms, 4 seeds",
}


class Reached(Exception):
    """Raised when the measured part of the start-up is over."""


def start(name: str, out: Path) -> None:
    """Starts a sweep and prints a line for each part of it: what, wall seconds, processor seconds."""
    began = time.perf_counter(), 0.0

    def part(what: str) -> None:
        nonlocal began
        now = time.perf_counter(), time.process_time()
        print(f"{what}\t{now[0] - began[0]:.1f}\t{now[1] - began[1]:.1f}", flush=True)
        began = now

    from experiments.ablation import EXPERIMENT
    from fishnet.cli.compilation_cache import enable_cache
    from fishnet.cli.main import use_cores
    from fishnet.sweep import Recipe, Sweep, run_sweep
    from fishnet.sweep.run import phase
    from fishnet.sweep.run.progress import Display

    use_cores(None)
    enable_cache()
    part(LOADED)

    class Parts(Display):
        def plan(self, view) -> None:
            part("plan")

        def stage(self, text: str) -> None:
            if name in ("runs", "arms") and text.startswith("compiling"):
                raise Reached

        def start(self, total: float, done: float = 0.0) -> None:
            part("programs, initial state")

        def advance(self, *_, **__) -> None:
            part("first call")
            raise Reached

    phase.CALL_SECONDS = 0.1
    names = ("relu", "elu", "tanh", "gelu", "silu", "selu", "mish", "softplus")
    norms = ("none", "batch", "layer", "group", "rms")
    sweeps = {
        "runs": lambda: Sweep(Recipe(**MLP), {"activation": names, "norm": norms}, seeds=250),
        "arms": lambda: Sweep(
            Recipe(**MLP),
            {"lr": [0.001 * (i + 1) for i in range(50)], "momentum": [0.01 * i for i in range(50)]},
            seeds=4,
        ),
    }

    def main_job() -> Sweep:
        return Sweep(EXPERIMENT.recipe, EXPERIMENT.axes, EXPERIMENT.seeds)

    try:
        run_sweep(sweeps.get(name, main_job)(), out, display=Parts())
    except Reached:
        os._exit(0)  # what goes on in the background does not count


def main() -> None:
    """Starts one sweep after the other."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--only", choices=NAMES, help="this sweep alone")
    flags.add_argument("--start", nargs=2, help=argparse.SUPPRESS)
    asked = flags.parse_args()
    if asked.start:
        start(asked.start[0], Path(asked.start[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        print("| start | part | seconds | CPU seconds |\n|---|---|---|---|")
        for name in NAMES:
            if asked.only not in (None, name):
                continue
            began = time.perf_counter()
            words = [sys.executable, "-m", "benchmarks.start", "--start", name, f"{folder}/{name}"]
            environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
            done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            for line in done.stdout.splitlines():
                what, wall, cpu = line.split("\t")
                print(f"| {NAMES[name]} | {what} | {wall} | {cpu} |", flush=True)
            print(f"| {NAMES[name]} | all | {time.perf_counter() - began:.1f} | |", flush=True)


if __name__ == "__main__":
    main()
