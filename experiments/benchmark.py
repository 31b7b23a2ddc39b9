"""Speed of fishnet and its baselines: the same networks, batches and steps in PyTorch, Flax and fishnet.

    python -m experiments.benchmark
    python -m experiments.benchmark --quick
    python -m experiments.benchmark --net "cnn 16-32-64" --against serial,torch --rounds 9

Each baseline is a process of its own, prepared and warm; they take turns, round by round, so that what else the machine
does falls on all alike. A figure is the median over the rounds of the time a step and run, a ratio the median of its
rounds (baseline over fishnet: above 1 fishnet is faster), both with their range. Compilation time is listed with them.
Baselines: fishnet by default and, for mlps, as `--lane-width auto` lays it out ("fishnet auto"; baselines are
compared with the faster of the two), and for the others without its compiled kernels ("fishnet, no kernels"); a
serial loop of one jitted Flax program a run (step by step, and for mlps a loop of steps: "serial loop"),
`jit(vmap(step))` over all runs, PyTorch eager (channels last; "torch malloc" with the thresholds of malloc raised),
`torch.compile`, `torch.func.vmap`, and the product of two large matrices as the limit. "40 arms" is an ablation of 8
activations x 5 norms, 100 steps each, from a fresh process with nothing compiled but the kernels. Then fishnet alone
with 8, 64 and 512 runs: time a run, and memory; and with a checkpoint after every epoch, or probes every 50 steps,
compared with neither. Baselines that are not installed are left out and named. Tables and figures are saved as
benchmark.md and benchmark.json in benchmarks/DEVICE/ (--out); with --net or --part what was measured before of the
others stays there. `--instructions avx2` keeps every baseline from using AVX-512. The whole takes about 90 minutes on
2 CPU cores, --quick 3.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.baselines.nets import NETS, Net
from benchmarks.baselines.process import measure, measure_sizes
from benchmarks.baselines.rows import FISHNET, NO_KERNELS, Row, scaling_table, table, upkeep_table, verdicts
from benchmarks.baselines.worker import EXTERNAL
from fishnet.checks.arguments import find_repeated
from fishnet.checks.value_types import parse_number
from fishnet.cli.own_files import check_own_file
from fishnet.cli.parser import Parser, parse_whole, run_guarded, usable_cores
from fishnet.errors import UsageError
from fishnet.lookup import unknown_name

ROUNDS, SECONDS = 7, 1.5  # of a full run; how long a baseline trains a round
MOST_ROUNDS, MOST_SECONDS = 1000, 3600
QUICK_ROUNDS, QUICK_SECONDS, QUICK_BASELINES = 3, 0.3, ("serial", "torch")
SCALES = (8, 64, 512)  # runs
SCALED = ("mlp 784-10-10", "cnn 16-32-64")
PARTS = ("nets", "scaling", "upkeep")
UPKEPT, UPKEPT_SECONDS = "cnn 16-32-64", 8.0  # several epochs a round
# extra work during training -> steps of an epoch
UPKEEP = {"fishnet, a checkpoint an epoch": 16, "fishnet, probes every 50 steps": 50}
# What keeps fishnet, XLA, PyTorch and oneDNN from newer instructions; XLA's flag is added to those there are.
CAPS = {
    "avx2": {
        "FISHNET_CPU_KERNELS": "avx2",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa=AVX2".strip(),
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark from its command line."""
    return run_guarded(run, argv)


def run(argv: Sequence[str]) -> int:
    """Measures what the command line asks for, prints the tables and saves them."""
    flags = parser().parse(argv)
    names = {net.name: net for net in NETS}
    baselines = parse_baselines(flags)
    parts = [flags.part] if flags.part else ["nets"] if flags.quick or flags.net or flags.against else list(PARTS)
    check_effects(flags, parts)
    rounds = QUICK_ROUNDS if flags.quick else ROUNDS
    rounds = rounds if flags.rounds is None else parse_whole("rounds", flags.rounds, most=MOST_ROUNDS)
    seconds = QUICK_SECONDS if flags.quick else SECONDS
    seconds = seconds if flags.seconds is None else parse_seconds(flags.seconds)
    nets = parse_nets(flags) if "nets" in parts else []
    if flags.against and not any(net.takes(baseline) for net in nets for baseline in baselines):
        raise UsageError(f"--against {flags.against}: none of these trains {', '.join(net.name for net in nets)}")
    os.environ.update(CAPS[flags.instructions] if flags.instructions else {})
    about = machine() | ({"instructions": flags.instructions} if flags.instructions else {})
    name = [about["device"].split(" (")[0].replace(" ", "_"), *filter(None, [flags.instructions])]
    out = Path(flags.out or Path("benchmarks") / "_".join(name))
    check_own_file("--out", out / "benchmark.md", ("python ",), make_folder=True)
    check_own_file("--out", out / "benchmark.json", ('{\n "machine": {',), make_folder=True)
    ours = FISHNET[:1] if flags.quick else (*FISHNET, NO_KERNELS)
    found: dict[str, dict[Net, list[Row]]] = {part: {} for part in PARTS}
    for net in nets:
        contenders = list(filter(net.takes, [*ours, *baselines]))
        found["nets"][net] = measure(net, contenders, rounds, seconds, print_progress, flags.quick)
    for name in SCALED if "scaling" in parts else ():
        sizes = [replace(names[name], runs=runs) for runs in SCALES]
        found["scaling"] |= measure_sizes(sizes, "fishnet", rounds, seconds, print_progress)
    for what, batches in UPKEEP.items() if "upkeep" in parts else ():
        net = replace(names[UPKEPT], batches=batches)
        found["upkeep"][net] = measure(net, ["fishnet", what], rounds, UPKEPT_SECONDS, print_progress)
    how = f"{rounds} rounds of {seconds:g} s" + ", prepared side by side, which takes longer" * flags.quick
    content = {"machine": about} | {part: to_json_values(rows, how) for part, rows in found.items()}
    if flags.part or flags.net:
        content = merge_earlier(content, out / "benchmark.json")
    text = as_text(content)
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmark.md").write_text(text)
    (out / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"saved {out / 'benchmark.md'} and {out / 'benchmark.json'}")
    return 0


def parse_baselines(flags: argparse.Namespace) -> list[str]:
    """Parses the names of the baselines to run.

    Raises:
        UsageError: an unknown one, or one that is named twice.
    """
    if flags.against is None:
        return list(QUICK_BASELINES if flags.quick else EXTERNAL)
    baselines = [name.strip() for name in flags.against.split(",")]
    for name in baselines:
        if name not in EXTERNAL:
            raise unknown_name("baseline", name, list(EXTERNAL))
    for name in find_repeated(baselines):
        raise UsageError(f"--against {flags.against}: {name} is there twice")
    return baselines


def parse_nets(flags: argparse.Namespace) -> list[Net]:
    """Parses the names of the networks to train.

    Raises:
        UsageError: an unknown one, one that is named twice, or none that a quick run measures.
    """
    names = {net.name: net for net in NETS}
    for name in flags.net or ():
        if name not in names:
            raise unknown_name("net", name, names)
    for name in find_repeated(flags.net or ()):
        raise UsageError(f"--net {name} is given twice")
    nets = [names[name] for name in flags.net or names]
    for net in nets if flags.quick and flags.net else ():
        if net.cold_steps:
            raise UsageError(f"--net {net.name!r} would have no effect: --quick leaves it out, as it compiles anew")
    return [net for net in nets if not (flags.quick and net.cold_steps)]


def check_effects(flags: argparse.Namespace, parts: Sequence[str]) -> None:
    """Refuses flags that would have no effect.

    Raises:
        UsageError: with what the flag belongs to.
    """
    for flag, given, where in (
        ("net", flags.net and flags.net[0], ("nets",)),
        ("against", flags.against, ("nets",)),
        ("seconds", flags.seconds, ("nets", "scaling")),
    ):
        if given is not None and not set(where) & set(parts):
            raise UsageError(f"--{flag} {given} would have no effect: it belongs to --part {' and '.join(where)}")


def parse_seconds(text: str) -> float:
    """Parses a number of seconds.

    Raises:
        UsageError: it is none, or beyond an hour.
    """
    try:
        seconds = parse_number(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_SECONDS:
        raise UsageError(f"--seconds: {text!r} is not a number above 0 and at most {MOST_SECONDS}")
    return seconds


def merge_earlier(content: dict, path: Path) -> dict:
    """Merges measurements with those of earlier runs on the same machine and versions."""
    try:
        earlier = json.loads(path.read_text())
    except (OSError, ValueError):
        return content
    if earlier.get("machine") != content["machine"]:
        return content
    return content | {part: merge_by_network(earlier.get(part, []), content[part]) for part in PARTS}


def merge_by_network(earlier: Sequence[dict], now: Sequence[dict]) -> list[dict]:
    """Entries of networks in the order of the benchmark, later ones in place of earlier ones of the same network."""
    order = [net.name for net in NETS]
    entries = {(entry["net"], entry["runs"], entry["batches"]): entry for entry in (*earlier, *now)}
    return sorted(entries.values(), key=lambda entry: (order.index(entry["net"]), entry["runs"], entry["batches"]))


def as_text(content: Mapping) -> str:
    """The tables of `benchmark.json` as Markdown."""
    names = {net.name: net for net in NETS}
    tables = {
        part: {
            replace(names[entry["net"]], runs=entry["runs"], batches=entry["batches"]): [
                Row(**row) for row in entry["rows"]
            ]
            for entry in content[part]
        }
        for part in PARTS
    }
    ways: dict[str, list[str]] = {}
    for part in PARTS:
        for entry in content[part]:
            ways.setdefault(entry["measured"], []).append(entry["net"] if part == "nets" else part)
    hows = "; ".join(f"{', '.join(dict.fromkeys(nets))}: {how}" for how, nets in ways.items())
    texts = [", ".join(f"{name} {value}" for name, value in content["machine"].items()) + f"; {hows}"]
    if tables["nets"]:
        texts += [verdicts(tables["nets"]), table(tables["nets"])]
    texts += [scaling_table(tables["scaling"])] if tables["scaling"] else []
    texts += [upkeep_table(tables["upkeep"])] if tables["upkeep"] else []
    return "\n\n".join(texts) + "\n"


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m experiments.benchmark", description=__doc__)
    flags.add_argument("--quick", action="store_true", help="three short rounds of the baselines that need no compiler")
    flags.add_argument("--net", action="append", metavar="NAME", help="only this network (may be repeated)")
    flags.add_argument(
        "--part", choices=PARTS, help="only this: networks against baselines, more runs, or checkpoints and probes"
    )
    flags.add_argument("--against", metavar="NAMES", help=f"only these baselines, of {', '.join(list(EXTERNAL))}")
    flags.add_argument("--rounds", metavar="N", help=f"measurements of each (default {ROUNDS})")
    flags.add_argument("--seconds", metavar="X", help=f"length of each (default {SECONDS})")
    flags.add_argument("--instructions", choices=CAPS, help="use no newer instructions of the processor than these")
    flags.add_argument("--out", metavar="FOLDER", help="default benchmarks/DEVICE, with the instructions behind it")
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
    code = "import jax; from fishnet.host.machine import device_name; print(device_name(jax.devices()))"
    cores = os.environ | {"JAX_NUM_CPU_DEVICES": str(usable_cores())}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=cores)
    found["device"] = done.stdout.strip() or "unknown"
    return found


def to_json_values(found: Mapping[Net, Sequence[Row]], how: str) -> list[dict]:
    """Rows by network as JSON values, with how they were measured."""
    return [
        {"net": net.name, "runs": net.runs, "batches": net.batches, "measured": how, "rows": [asdict(r) for r in rows]}
        for net, rows in found.items()
    ]


def print_progress(text: str) -> None:
    """Prints progress to standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
