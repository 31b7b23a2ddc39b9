"""Processes of the benchmark that take turns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from benchmarks.baselines.nets import Net
from benchmarks.baselines.rows import Row
from fishnet.cli.parser import usable_cores
from fishnet.errors import UserError

ENDING = 20.0  # seconds that a process may take to end
# glibc gives the memory of large arrays back to the system and asks for it anew, page by page, unless told otherwise.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**26)}


class Worker:
    """Process of one baseline.

    Args:
        net: its network.
        baseline: a name in `BASELINES`.
    """

    def __init__(self, net: Net, baseline: str) -> None:
        # Threads that wait by turning round would take the others' time.
        calm = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "TF_CPP_MIN_LOG_LEVEL": "2"}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.baselines.worker",
                net.name,
                baseline,
                str(net.runs),
                str(net.batches),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("FISHNET_BENCHMARK_LOUD") else None,
            text=True,
            env=os.environ
            | calm
            | (MALLOC if baseline.endswith(" malloc") else {})
            | {"JAX_NUM_CPU_DEVICES": str(usable_cores())},
        )

    def answer(self) -> dict:
        """Reads the next line of the process.

        Raises:
            UserError: the process has ended.
        """
        assert self.process.stdout is not None, "a pipe"
        line = self.process.stdout.readline()
        if not line:
            errors = self.process.stderr.read().strip().splitlines() if self.process.stderr else []
            raise UserError(f"a process of the benchmark ended: {errors[-1] if errors else 'without a word'}")
        return json.loads(line)

    def ask(self, line: str) -> dict:
        """The answer to a line."""
        assert self.process.stdin is not None, "a pipe"
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        """Ends the process: by itself, or else by force."""
        try:
            self.process.communicate(timeout=ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


def measure(
    net: Net,
    baselines: Sequence[str],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
    side_by_side: bool = False,
) -> list[Row]:
    """Trains one network with several baselines in turns.

    Args:
        net: the network.
        baselines: names in `BASELINES`.
        rounds: how often each is measured.
        seconds: how long it trains each time, where it is measured warm.
        say: told what is being done.
        side_by_side: whether warm baselines are prepared all at once, which takes less time but makes the seconds to
            compile longer; otherwise one after the other.

    Returns:
        A row for each baseline.

    Raises:
        UserError: a process died, or a baseline trains another network.
    """
    rows = [Row(name) for name in baselines]
    if net.cold_steps:
        return _cold(net, rows, rounds, say)
    _warm([(net, row) for row in rows], rounds, seconds, say, side_by_side)
    return rows


def measure_sizes(
    nets: Sequence[Net], baseline: str, rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[Net, list[Row]]:
    """Trains several networks, or numbers of them, with one baseline in turns.

    Args:
        nets: measured warm; with as many parameters a run each.
        baseline: a name in `BASELINES`.
        rounds: how often each is measured.
        seconds: how long it trains each time.
        say: told what is being done.

    Returns:
        One row for each network.

    Raises:
        UserError: a process died.
    """
    entries = [(net, Row(baseline)) for net in nets]
    _warm(entries, rounds, seconds, say)
    return {net: [row] for net, row in entries}


def _warm(
    entries: Sequence[tuple[Net, Row]],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
    side_by_side: bool = False,
) -> None:
    """All entries at once, each prepared before the first round; fills in their rows."""
    workers: dict[int, Worker] = {}
    params = {}
    try:
        for some in [range(len(entries))] if side_by_side else [[place] for place in range(len(entries))]:
            say("; ".join(f"{entries[place][0].name}: {entries[place][1].baseline} prepared" for place in some))
            workers |= {place: Worker(entries[place][0], entries[place][1].baseline) for place in some}
            for place in some:
                net, row = entries[place]
                if (count := _ready(row, workers[place])) is None:
                    workers.pop(place).end()
                else:
                    own = None if row.baseline == "matmul" else count / net.runs
                    params[f"{row.baseline}, {net.runs} runs"] = own
        steps = {place: worker.ask(str(seconds))["steps"] for place, worker in workers.items()}
        name = entries[0][0].name
        _check_same(name, params)
        for turn in range(rounds):
            say(f"{name}: round {turn + 1} of {rounds}")
            for place, worker in workers.items():
                net, row = entries[place]
                took = worker.ask(f"steps {steps[place]}")
                times = steps[place] * (1 if row.baseline == "matmul" else net.runs)
                row.milliseconds.append(1e3 * took["seconds"] / times)
                row.cpu_milliseconds.append(1e3 * took["cpu_seconds"] / times)
    finally:
        for worker in workers.values():
            worker.end()


def _cold(net: Net, rows: list[Row], rounds: int, say: Callable[[str], None]) -> list[Row]:
    """A new process each time, one after the other; compilation is part of the time."""
    for turn in range(rounds):
        say(f"{net.name}: round {turn + 1} of {rounds}")
        params = {}
        for row in rows:
            if row.missing:
                continue
            worker = Worker(net, row.baseline)
            try:
                if (count := _ready(row, worker)) is not None:
                    params[row.baseline] = count
                    took = row.compile_seconds[-1] + worker.ask(f"steps {net.cold_steps}")["seconds"]
                    row.milliseconds.append(1e3 * took / (net.cold_steps * net.runs))
            finally:
                worker.end()
        _check_same(net.name, params)
    return rows


def _ready(row: Row, worker: Worker) -> int | None:
    """Takes in a process's first line; returns its number of parameters, None where it cannot take part."""
    first = worker.answer()
    if "missing" in first:
        row.missing = first["missing"]
        return None
    row.compile_seconds.append(first["seconds"])
    row.memory = first["memory"]
    return first["params"]


def _check_same(net: str, params: dict[str, float | None]) -> None:
    """Refuses to compare baselines that train different networks.

    Raises:
        UserError: with their numbers of parameters a run; one of None is not compared.
    """
    different = {name: count for name, count in params.items() if count is not None}
    if len(set(different.values())) > 1:
        raise UserError(f"{net}: the baselines do not train the same network: parameters {different}")
