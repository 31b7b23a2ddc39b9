"""Benchmark measurements, and their tables in Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.baselines.nets import Net

# What goals are over: a jitted step a call, naive vmap, and PyTorch eager. Others have no goal and stand in the table.
BEST_OF = {"serial": ("serial",), "vmap": ("vmap",), "torch": ("torch", "torch malloc")}
# As it trains without being told how, and by `--lane-width auto`.
FISHNET = ("fishnet", "fishnet auto")
NO_KERNELS = "fishnet, no kernels"


@dataclass
class Row:
    """Measurements of one baseline with one network."""

    baseline: str
    compile_seconds: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)  # a step and run, by round
    memory: Mapping[str, int] = field(default_factory=dict)  # bytes, where it says so
    missing: str | None = None
    cpu_milliseconds: list[float] = field(default_factory=list)  # of all threads; empty where compilation is measured


def fastest(rows: Sequence[Row], baselines: Sequence[str]) -> Row | None:
    """The row of the fastest of some baselines, by its median; None where none of them ran."""
    ran = [row for row in rows if row.baseline in baselines and row.milliseconds]
    return min(ran, key=lambda row: statistics.median(row.milliseconds), default=None)


def ratios(rows: Sequence[Row], baselines: Sequence[str], ours: Sequence[str] = FISHNET) -> list[float] | None:
    """Time of the fastest of `baselines` over that of the fastest of `ours`, by round; None where none of them ran."""
    best, own = fastest(rows, baselines), fastest(rows, ours)
    if best is None or own is None:
        return None
    return [theirs / mine for theirs, mine in zip(best.milliseconds, own.milliseconds, strict=True)]


def with_range(values: Sequence[float], digits: int = 2) -> str:
    """`1.52 (1.48 to 1.60)`: the median and the range."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(found: Mapping[Net, Sequence[Row]]) -> str:
    """Table of all baselines in Markdown: times, and how many times as long as fishnet each took."""
    lines = [
        "| net | baseline | ms a step and run | CPU ms | seconds to prepare | over fishnet's faster mode |",
        "|---|---|---|---|---|---|",
    ]
    for net, rows in found.items():
        for row in rows:
            if row.missing:
                lines.append(f"| {net.name} | {row.baseline} | {row.missing} | | | |")
                continue
            baseline = row.baseline not in (*FISHNET, "matmul")
            over = with_range(of) if baseline and (of := ratios(rows, [row.baseline])) else ""
            cells = [net.name, row.baseline, with_range(row.milliseconds, 3)]
            cells += [f"{statistics.median(row.cpu_milliseconds):.3f}" if row.cpu_milliseconds else ""]
            cells += [f"{statistics.median(row.compile_seconds):.1f}", over]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdicts(found: Mapping[Net, Sequence[Row]]) -> str:
    """Table of goals in Markdown: for each network the time of the fastest baseline of each kind over fishnet's."""
    lines = [
        "| net | baseline | its fastest mode | fishnet | over fishnet | in CPU time | goal | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for net, rows in found.items():
        for kind, goal in net.goals.items():
            of, best, own = ratios(rows, BEST_OF[kind]), fastest(rows, BEST_OF[kind]), fastest(rows, FISHNET)
            if of is None or best is None or own is None:
                continue
            met = "yes" if statistics.median(of) >= goal else "no"
            cells = [net.name, kind, best.baseline, own.baseline]
            cpu = [theirs / mine for theirs, mine in zip(best.cpu_milliseconds, own.cpu_milliseconds, strict=True)]
            cells += [with_range(of), f"{statistics.median(cpu):.2f}" if cpu else ""]
            lines.append(f"| {' | '.join(cells)} | {goal:g} | {met} |")
    return "\n".join(lines)


def scaling_table(found: Mapping[Net, Sequence[Row]]) -> str:
    """Table of growing numbers of runs in Markdown: time a run, and memory of one device."""
    lines = [
        "| net | runs | ms a step and run | over fewest runs | MiB of arguments | MiB of temporaries "
        "| KiB of state a run |",
        "|---|---|---|---|---|---|---|",
    ]
    fewest: dict[str, Row] = {}
    for net, (row,) in found.items():
        first = fewest.setdefault(net.name, row)
        over = [mine / base for mine, base in zip(row.milliseconds, first.milliseconds, strict=True)]
        of = row.memory
        sizes = [f"{of[key] / 2**20:.1f}" for key in ("arguments", "temporary")] + [f"{of['state a lane'] / 2**10:.1f}"]
        cells = [net.name, str(net.runs), with_range(row.milliseconds, 3), "" if row is first else with_range(over)]
        lines.append(f"| {' | '.join([*cells, *sizes])} |")
    return "\n".join(lines)


def upkeep_table(found: Mapping[Net, Sequence[Row]]) -> str:
    """Table of extra work in Markdown: time that checkpoints or probes add to training."""
    lines = ["| net | with | ms a step and run | over without |", "|---|---|---|---|"]
    for net, rows in found.items():
        for row in rows:
            of = ratios([row, rows[0]], [row.baseline], [rows[0].baseline]) if row is not rows[0] else None
            cells = [net.name, row.baseline.partition(", ")[2] or "nothing", with_range(row.milliseconds, 3)]
            lines.append(f"| {' | '.join([*cells, with_range(of, 3) if of else ''])} |")
    return "\n".join(lines)
