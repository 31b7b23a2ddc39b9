"""fishnet against what people use otherwise: the same networks, batches and steps, side by side.

    python -m experiments.benchmark
    python -m experiments.benchmark --quick
    python -m experiments.benchmark --net "cnn 16-32-64" --against serial,torch --rounds 9

Each contestant is a process of its own, prepared and warm; they take turns, round by round, so that what else the
machine does falls on all alike. A figure is the median over the rounds of the time a step and run, a ratio the median
of its rounds (peer over fishnet: above 1 fishnet is faster), both with their range. What it takes to compile stands
beside. The contestants: fishnet by default and as `--lane-width auto` lays it out ("fishnet auto"; peers are compared
with the faster of the two); a serial loop of one jitted Flax program a run (step by step, and for mlps a loop of steps:
"serial loop"), `jit(vmap(step))` over all runs, PyTorch eager (channels last), `torch.compile`, `torch.func.vmap`, and
the product of two large matrices as the limit. "40 arms" is an ablation of 8 activations x 5 norms, 100 steps each,
from a fresh process with nothing compiled. Then fishnet alone with 8, 64 and 512 runs: time a run, and memory; and with
a checkpoint after every epoch beside without. Peers that are not installed are left out and named. Tables and figures
are saved as benchmark.md and benchmark.json in benchmarks/DEVICE/ (--out). The whole takes about 40 minutes on 2 CPU
cores, --quick 3.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from experiments._cli import Parser, guarded, usable_cores
from experiments._peers.nets import NETS, Net
from experiments._peers.process import measure
from experiments._peers.rows import FISHNET, Row, scaling_table, table, upkeep_table, verdicts
from experiments._peers.worker import PEERS
from fishnet.errors import UsageError
from fishnet.lookup import unknown

ROUNDS, SECONDS = 7, 1.5  # of a full run; how long a contestant trains a round
QUICK_ROUNDS, QUICK_SECONDS, QUICK_PEERS = 3, 0.3, ("serial", "torch")
SCALES = (8, 64, 512)  # runs
SCALED = ("mlp 784-10-10", "cnn 16-32-64")
UPKEPT = ("fishnet", "fishnet, a checkpoint an epoch")
SAVED, SAVED_BATCHES, SAVED_SECONDS = "cnn 16-32-64", 16, 8.0  # several epochs of 16 steps a round


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark from its command line."""
    return guarded(run, argv)


def run(argv: Sequence[str]) -> int:
    """Measures what the command line asks for, prints the tables and saves them."""
    flags = parser().parse(argv)
    names = {net.name: net for net in NETS}
    for name in flags.net or ():
        if name not in names:
            raise unknown("net", name, names)
    peers = flags.against.split(",") if flags.against else QUICK_PEERS if flags.quick else list(PEERS)
    for name in peers:
        if name not in PEERS:
            raise unknown("peer", name, list(PEERS))
    rounds = QUICK_ROUNDS if flags.quick else ROUNDS
    rounds = rounds if flags.rounds is None else flags.rounds
    seconds = QUICK_SECONDS if flags.quick else SECONDS
    seconds = seconds if flags.seconds is None else flags.seconds
    if rounds < 1 or seconds <= 0:
        raise UsageError("--rounds is at least 1 and --seconds above 0")
    whole = not (flags.quick or flags.net or flags.against)
    nets = [names[name] for name in flags.net] if flags.net else [n for n in NETS if not (flags.quick and n.cold_steps)]
    about = machine()
    ours = FISHNET[:1] if flags.quick else FISHNET
    found = {
        net: measure(net, list(filter(net.takes, [*ours, *peers])), rounds, seconds, tell, flags.quick) for net in nets
    }
    scaled = {}
    for net in (replace(names[name], runs=runs) for name in SCALED for runs in SCALES if whole):
        scaled[net] = measure(net, ["fishnet"], rounds, seconds, tell)
    upkept = {}
    if whole:
        saved = replace(names[SAVED], batches=SAVED_BATCHES)
        upkept[saved] = measure(saved, list(UPKEPT), rounds, SAVED_SECONDS, tell)
    heading = ", ".join(f"{name} {value}" for name, value in about.items())
    heading += "; prepared side by side, which makes the seconds to compile longer" if flags.quick else ""
    text = f"{heading}; {rounds} rounds of {seconds:g} s\n\n{verdicts(found)}\n\n{table(found)}\n"
    text += f"\n{scaling_table(scaled)}\n" if scaled else ""
    text += f"\n{upkeep_table(upkept)}\n" if upkept else ""
    print(text)
    out = Path(flags.out or Path("benchmarks") / about["device"].split(" (")[0].replace(" ", "_"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmark.md").write_text(text)
    content = {"machine": about, "rounds": rounds, "seconds": seconds} | {
        "nets": plain(found),
        "scaling": plain(scaled),
        "upkeep": plain(upkept),
    }
    (out / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"saved {out / 'benchmark.md'} and {out / 'benchmark.json'}")
    return 0


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m experiments.benchmark", description=__doc__)
    flags.add_argument("--quick", action="store_true", help="three short rounds of the peers that need no compiler")
    flags.add_argument("--net", action="append", metavar="NAME", help="only this network (may be repeated)")
    flags.add_argument("--against", metavar="NAMES", help=f"only these peers, of {', '.join(list(PEERS))}")
    flags.add_argument("--rounds", type=int, metavar="N", help=f"measurements of each (default {ROUNDS})")
    flags.add_argument("--seconds", type=float, metavar="X", help=f"length of each (default {SECONDS})")
    flags.add_argument("--out", metavar="FOLDER", help="default benchmarks/DEVICE")
    flags.add_argument("--debug", action="store_true", help="show where an error happened")
    return flags


def machine() -> dict[str, str]:
    """Device, cores and versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "cores": str(usable_cores())}
    for package in ("jax", "jaxlib", "flax", "optax", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    code = "import jax; from fishnet.sweep.machine import device_name; print(device_name(jax.devices()))"
    cores = os.environ | {"JAX_NUM_CPU_DEVICES": str(usable_cores())}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=cores)
    found["device"] = done.stdout.strip() or "unknown"
    return found


def plain(found: Mapping[Net, Sequence[Row]]) -> list[dict]:
    """Rows by network as JSON values."""
    return [{"net": net.name, "runs": net.runs, "rows": [asdict(row) for row in rows]} for net, rows in found.items()]


def tell(text: str) -> None:
    """Says what is being done."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
