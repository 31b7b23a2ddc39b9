"""How well the plan predicts the time of a sweep, and the prices from which it does.

    python -m benchmarks.plan_time                 # all sweeps below, each in a process of its own: about six minutes
    python -m benchmarks.plan_time --only mlp      # those whose name has this in it
    python -m benchmarks.plan_time --fit           # the same, then fits the constants of the estimate

Each sweep starts with an empty cache, so nothing is remembered and everything is compiled, unless `--again` runs each a
second time with what the first one left. Time is from the moment that the plan is on the screen until the process ends.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STIFFNESS = 0.1  # of the prices as they were, against one sweep's error
REEF = "--axis activation=relu,gelu --axis norm=none,batch --seeds 1"
DIGITS = "--task mnist-mini --axis norm=none,batch,layer --seeds 2"
SWEEPS = {
    "main job, 2 epochs, one seed": "ablation --epochs 2 --seeds 1",
    "cnn 16-32-64, reef, one device": f"ablation {REEF} --epochs 2 --devices 1",
    "cnn 32-64, reef 64 px": f"ablation {REEF} --image-size 64 --widths 32-64 --epochs 1",
    "cnn 16-32, digits, batch 64, adam": f"ablation {DIGITS} --optimizer adam --widths 16-32 --batch-size 64 "
    "--epochs 2",
    "cnn 8-16, reef 64 px, batch 64, one device": f"ablation {REEF} --image-size 64 --widths 8-16 --batch-size 64 "
    "--epochs 1 --devices 1",
    "cnn 8-16, digits, batch 16": f"ablation {DIGITS} --widths 8-16 --batch-size 16 --epochs 2",
    "resnet 16-32, reef": f"ablation {REEF} --model resnet --widths 16-32 --epochs 1",
    "resnet 16-32, reef, one run": "train --model resnet --widths 16-32 --norm batch --epochs 3",
    "separable 16-32, reef": f"ablation {REEF} --model separable --widths 16-32 --epochs 2",
    "mlp 300-100, digits": f"ablation {DIGITS} --model mlp --widths 300-100 --epochs 10",
    "mlp 300-100, digits, one device": f"ablation {DIGITS} --model mlp --widths 300-100 --epochs 5 --devices 1",
    "mlp 32, digits, 96 runs": "ablation --task mnist-mini --model mlp --widths 32 --axis lr=0.01,0.03,0.1 --seeds 32 "
    "--epochs 4 --batch-size 64",
    "mlp 64-64, digits, adam, batch 256": f"ablation {DIGITS} --model mlp --widths 64-64 --optimizer adam "
    "--batch-size 256 --epochs 20",
}


def run(command: str, cache: Path, out: Path) -> tuple[float, float, str]:
    """Seconds predicted and taken by a sweep, and what the plan said."""
    words = [sys.executable, "-m", *f"experiments.{command}".split(), "--quiet", "--out", str(out)]
    process = subprocess.Popen(
        words,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    planned, estimate = None, ""
    for line in process.stderr:
        if line.startswith("estimate"):
            estimate = line.removeprefix("estimate").strip()
        if line.startswith("output"):
            planned = time.perf_counter()
        if line.startswith("error"):
            sys.exit(line)
    process.wait()
    taken = time.perf_counter() - planned
    plan = json.loads((out / "sweep.json").read_text())
    return sum(cohort["estimated_seconds"] for cohort in plan["plan"]) + sum(plan["then"].values()), taken, estimate


def fit(caches: list[Path]) -> None:
    """Prints prices and constants, from what the sweeps have left in their caches."""
    import jax
    from scipy.optimize import nnls

    from fishnet.sweep.plan.cost import PARTS
    from fishnet.sweep.plan.estimate import PRICES, yardstick

    entries = [
        entry
        for cache in caches
        for entry in json.loads((cache / "fishnet" / "measured" / "paces.json").read_text()).values()
    ]

    def rows(entry: dict) -> list[tuple[list[float], float]]:
        return [(list(entry["counted"][what].values()), entry[what]) for what in ("step", "chunk")]

    print("PRICES, in the order of", ", ".join(PARTS))
    for name, beside in (("alone", False), ("beside", True)):
        found = [row for entry in entries if entry["beside"] == beside for row in rows(entry)]
        if not found:
            continue
        counts, seconds = (np.array(column) for column in zip(*found, strict=True))
        before = np.array(PRICES["cpu"][name])
        # Relative errors count, and a little how far a price moves that the sweeps say nothing of.
        ratios = np.vstack([counts * before / seconds[:, None], STIFFNESS * np.eye(len(before))])
        found, _ = nnls(ratios, np.concatenate([np.ones(len(seconds)), np.full(len(before), STIFFNESS)]))
        prices = found * before
        off = counts @ prices / seconds
        print(f'    "{name}": [{", ".join(f"{price:.2g}" for price in prices)}],  # {off.min():.2f} to {off.max():.2f}')
    equations = np.array([entry["counted"]["equations"] for entry in entries])
    compiling = np.array([entry["spent"]["compiling"] for entry in entries])
    each = nnls((equations / compiling)[:, None], np.ones(len(entries)))[0][0]
    off = equations * each / compiling
    print(f'    "equation": {each:.2g},  # {off.min():.2f} to {off.max():.2f}')
    rest = [
        entry["spent"]["whole"] - sum(entry["spent"][what] for what in ("compiling", "training", "evaluating"))
        for entry in entries
    ]
    print(f'    "starting": {np.median(rest):.2g},  # {min(rest):.2g} to {max(rest):.2g}')
    print(f"YARDSTICK = {yardstick(jax.devices()[0]):.2g}")
    reports = [
        entry["seconds"]
        for cache in caches
        for entry in json.loads((cache / "fishnet" / "measured" / "reports.json").read_text()).values()
    ]
    print(f"REPORT_SECONDS = {np.median(reports):.2g}  # {min(reports):.2g} to {max(reports):.2g}")


def main() -> None:
    """Runs the sweeps and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run the sweeps whose name has this in it")
    parser.add_argument("--again", action="store_true", help="run each a second time, with what the first one left")
    parser.add_argument("--fit", action="store_true", help="print the constants that fit best")
    parser.add_argument("--keep", help="a folder for the caches, to fit them later; a temporary one by default")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(flags.keep or scratch)
        print("| sweep | predicted, s | taken, s | ratio |")
        print("|---|---|---|---|")
        for number, (name, command) in enumerate(SWEEPS.items()):
            if flags.only not in name:
                continue
            for turn in range(1 + flags.again):
                out = Path(scratch) / f"{number}-{turn}"
                predicted, taken, estimate = run(command, kept / f"cache-{number}", out)
                again = " (again)" * turn
                print(f"| {name}{again} | {predicted:.1f} | {taken:.1f} | {predicted / taken:.2f} |", flush=True)
                print(f"  {estimate}", file=sys.stderr)
        if flags.fit:
            fit(sorted(kept.glob("cache-*")))


if __name__ == "__main__":
    main()
