"""fishnet against what people use otherwise: the same networks, batches and steps, side by side.

    python -m experiments.benchmark
    python -m experiments.benchmark --quick
    python -m experiments.benchmark --net "cnn 16-32-64" --against serial,torch --rounds 9

Each contestant is a process of its own, prepared and warm; they take turns, round by round, so that what else the
machine does falls on all alike. A figure is the median over the rounds of the time a step and run, a ratio the median
of its rounds (peer over fishnet: above 1 fishnet is faster), both with their range. What it takes to compile stands
beside. The contestants: a serial loop of one jitted Flax program a run (step by step, and a loop of steps: "serial
loop"), `jit(vmap(step))` over all runs, PyTorch eager (channels last), `torch.compile`, `torch.func.vmap`, and the
product of two large matrices as the limit. Peers that are not installed are left out and named. Table and figures are
saved as benchmark.md and benchmark.json in benchmarks/DEVICE/ (--out).
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments._cli import Parser, guarded, usable_cores
from experiments._peers.nets import NETS, Net
from experiments._peers.worker import CONTESTANTS
from fishnet.errors import UsageError, UserError
from fishnet.lookup import unknown

ROUNDS, SECONDS = 7, 1.5  # of a full run; how long a contestant trains a round
QUICK_ROUNDS, QUICK_SECONDS, QUICK_PEERS = 3, 0.5, ("serial", "serial loop", "vmap", "torch")
BEST_OF = {"serial": ("serial", "serial loop"), "vmap": ("vmap",), "torch": ("torch", "torch.compile", "torch.func")}


@dataclass
class Row:
    """One contestant with one network."""

    contestant: str
    compile_seconds: float = float("nan")
    milliseconds: list[float] = field(default_factory=list)  # a step and run, by round
    missing: str | None = None


class Worker:
    """The process of one contestant.

    Args:
        net: its network.
        contestant: a name in `CONTESTANTS`.
    """

    def __init__(self, net: Net, contestant: str) -> None:
        # Threads that wait by turning round would take the others' time.
        calm = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "TF_CPP_MIN_LOG_LEVEL": "2"}
        flags = os.environ.get("XLA_FLAGS", "")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "experiments._peers.worker", net.name, contestant],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("FISHNET_BENCHMARK_LOUD") else None,
            text=True,
            env=os.environ | calm | {"XLA_FLAGS": flags, "JAX_NUM_CPU_DEVICES": str(usable_cores())},
        )

    def answer(self) -> dict:
        """The next line.

        Raises:
            UserError: the process has ended.
        """
        line = self.process.stdout.readline()
        if not line:
            errors = self.process.stderr.read().strip().splitlines() if self.process.stderr else []
            raise UserError(f"a process of the benchmark ended: {errors[-1] if errors else 'without a word'}")
        return json.loads(line)

    def ask(self, line: str) -> dict:
        """The answer to a line."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


def measure(net: Net, contestants: Sequence[str], rounds: int, seconds: float, say=print) -> list[Row]:
    """Trains one network with several contestants in turns.

    Args:
        net: the network.
        contestants: names in `CONTESTANTS`.
        rounds: how often each is measured.
        seconds: how long it trains each time.
        say: told what is being done.

    Returns:
        A row for each contestant.

    Raises:
        UserError: a process died, or a contestant trains another network.
    """
    rows, workers, steps, params = [], {}, {}, {}
    try:
        for name in contestants:
            row = Row(name)
            rows.append(row)
            worker = workers[name] = Worker(net, name)
            first = worker.answer()
            if "missing" in first:
                row.missing = first["missing"]
                workers.pop(name).end()
                say(f"{net.name}: {name}: {row.missing}")
                continue
            row.compile_seconds, params[name] = first["seconds"], first["params"]
            steps[name] = worker.ask(str(seconds))["steps"]
        different = {name: count for name, count in params.items() if name != "matmul"}
        if len(set(different.values())) > 1:
            raise UserError(f"{net.name}: the contestants do not train the same network: parameters {different}")
        for turn in range(rounds):
            for row in rows:
                if row.missing is None:
                    took = workers[row.contestant].ask(f"steps {steps[row.contestant]}")["seconds"]
                    runs = 1 if row.contestant == "matmul" else net.runs
                    row.milliseconds.append(1e3 * took / (steps[row.contestant] * runs))
            say(f"{net.name}: round {turn + 1} of {rounds}")
    finally:
        for worker in workers.values():
            worker.end()
    return rows


def ratios(rows: Sequence[Row], peers: Sequence[str]) -> list[float] | None:
    """Time of the fastest of `peers` (by its median) over fishnet's, by round; None where none of them ran."""
    ran = [row for row in rows if row.contestant in peers and row.milliseconds]
    ours = next(row for row in rows if row.contestant == "fishnet")
    if not ran or not ours.milliseconds:
        return None
    best = min(ran, key=lambda row: statistics.median(row.milliseconds))
    return [theirs / mine for theirs, mine in zip(best.milliseconds, ours.milliseconds, strict=True)]


def with_range(values: Sequence[float], digits: int = 2) -> str:
    """`1.52 (1.48 to 1.60)`."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(found: dict[str, list[Row]]) -> str:
    """The figures as Markdown."""
    by_name = {net.name: net for net in NETS}
    lines = [
        "| net | contestant | ms a step and run | seconds to compile | over fishnet | goal |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        for row in rows:
            if row.missing:
                lines.append(f"| {name} | {row.contestant} | {row.missing} | | | |")
                continue
            over, goal = "", ""
            if row.contestant not in ("fishnet", "matmul"):
                of = ratios(rows, [row.contestant])
                over = with_range(of) if of else ""
                group = next(g for g, members in BEST_OF.items() if row.contestant in members)
                goal = f"{by_name[name].goals[group]:g}" if group in by_name[name].goals else ""
            figures = with_range(row.milliseconds, 3)
            lines.append(f"| {name} | {row.contestant} | {figures} | {row.compile_seconds:.1f} | {over} | {goal} |")
    return "\n".join(lines)


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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    found["device"] = done.stdout.strip() or "unknown"
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark from its command line."""
    return guarded(run, argv)


def run(argv: Sequence[str]) -> int:
    """Measures what the command line asks for, prints the table and saves it."""
    parser = Parser(prog="python -m experiments.benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three short rounds of the peers that need no compiler")
    parser.add_argument("--net", action="append", metavar="NAME", help="only this network (may be repeated)")
    parser.add_argument("--against", metavar="NAMES", help=f"only these peers, of {', '.join(list(CONTESTANTS)[1:])}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"measurements of each (default {ROUNDS})")
    parser.add_argument("--seconds", type=float, metavar="X", help=f"length of each (default {SECONDS})")
    parser.add_argument("--out", metavar="FOLDER", help="default benchmarks/DEVICE")
    parser.add_argument("--debug", action="store_true", help="show where an error happened")
    flags = parser.parse(argv)
    nets = [net for net in NETS if flags.net is None or net.name in flags.net]
    for name in flags.net or ():
        if name not in {net.name for net in NETS}:
            raise unknown("net", name, [net.name for net in NETS])
    peers = flags.against.split(",") if flags.against else QUICK_PEERS if flags.quick else list(CONTESTANTS)[1:]
    for name in peers:
        if name not in CONTESTANTS or name == "fishnet":
            raise unknown("peer", name, list(CONTESTANTS)[1:])
    rounds = flags.rounds or (QUICK_ROUNDS if flags.quick else ROUNDS)
    seconds = flags.seconds or (QUICK_SECONDS if flags.quick else SECONDS)
    if rounds < 1 or seconds <= 0:
        raise UsageError("--rounds is at least 1 and --seconds above 0")
    about = machine()
    found: dict[str, list[Row]] = {}
    for net in nets:
        found[net.name] = measure(net, ["fishnet", *peers], rounds, seconds, lambda t: print(t, file=sys.stderr))
    heading = ", ".join(f"{name} {value}" for name, value in about.items())
    text = f"{heading}; {rounds} rounds of {seconds:g} s\n\n{table(found)}\n"
    print(text)
    out = Path(flags.out or Path("benchmarks") / about["device"].split(" (")[0].replace(" ", "_"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmark.md").write_text(text)
    rows = {name: [vars(row) for row in of] for name, of in found.items()}
    (out / "benchmark.json").write_text(json.dumps({"machine": about, "rounds": rounds, "nets": rows}, indent=1))
    print(f"saved {out / 'benchmark.md'} and {out / 'benchmark.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
