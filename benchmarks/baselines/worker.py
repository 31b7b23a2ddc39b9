"""A process of the benchmark: one baseline with one network, which trains when a line on its input says so.

    python -m benchmarks.baselines.worker NET BASELINE RUNS BATCHES

Writes a line of JSON when it is ready ({"seconds", "params", "memory"} or {"missing"}), then one for every line read: a
number of seconds, answered with the number of steps that take as long ({"steps"}), or `steps N`, answered with
{"seconds", "cpu_seconds"}, the latter of all threads.
"""

import importlib
import json
import os
import sys
import time
from dataclasses import replace

from benchmarks.baselines.nets import NETS
from fishnet.errors import first_line

OURS = {
    "fishnet": ("fishnet_baseline", "Fishnet"),
    "fishnet auto": ("fishnet_baseline", "Tuned"),
    "fishnet, no kernels": ("fishnet_baseline", "WithoutKernels"),
    "fishnet, a checkpoint an epoch": ("fishnet_baseline", "Saving"),
    "fishnet, probes every 50 steps": ("fishnet_baseline", "Probed"),
}
# name -> (module, class)
EXTERNAL = {
    "serial": ("flax_baselines", "Serial"),
    "serial loop": ("flax_baselines", "SerialLoop"),
    "vmap": ("flax_baselines", "Vmap"),
    "torch": ("torch_baselines", "Eager"),
    "torch malloc": ("torch_baselines", "Eager"),
    "torch.compile": ("torch_baselines", "Compiled"),
    "torch.func": ("torch_baselines", "Ensemble"),
    "matmul": ("matmul_peak", "Peak"),
}
BASELINES = OURS | EXTERNAL


def main() -> None:
    """Runs the process."""
    # Libraries that print go to standard error; the answers keep the pipe to themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    net = next(net for net in NETS if net.name == sys.argv[1])
    net = replace(net, runs=int(sys.argv[3]), batches=int(sys.argv[4]))
    module, name = BASELINES[sys.argv[2]]
    began = time.perf_counter()
    try:
        baseline = getattr(importlib.import_module(f"benchmarks.baselines.{module}"), name)(net)
        began = time.perf_counter()
        params = baseline.prepare()
    except ModuleNotFoundError as error:
        answers.write(json.dumps({"missing": f"{error.name} is not installed"}) + "\n")
        return
    except Exception as error:  # a baseline that cannot do this network is a row that says so
        answers.write(json.dumps({"missing": f"{type(error).__name__}: {first_line(error)}"}) + "\n")
        return
    ready = {"seconds": time.perf_counter() - began, "params": params, "memory": baseline.memory()}
    answers.write(json.dumps(ready) + "\n")
    for line in sys.stdin:
        word, _, number = line.strip().rpartition(" ")
        if word == "steps":
            began, cpu = time.perf_counter(), time.process_time()
            baseline.train(int(number))
            took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
            answers.write(json.dumps(took) + "\n")
        else:
            answers.write(json.dumps({"steps": baseline.fitting(float(number))}) + "\n")
    baseline.finish()


if __name__ == "__main__":
    main()
