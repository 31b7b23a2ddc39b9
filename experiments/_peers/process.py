"""Processes of the benchmark that take turns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from experiments._cli import usable_cores
from experiments._peers.nets import Net
from experiments._peers.rows import Row
from fishnet.errors import UserError

ENDING = 20.0  # seconds that a process may take to end


class Worker:
    """The process of one contestant.

    Args:
        net: its network.
        contestant: a name in `CONTESTANTS`.
    """

    def __init__(self, net: Net, contestant: str) -> None:
        # Threads that wait by turning round would take the others' time.
        calm = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "TF_CPP_MIN_LOG_LEVEL": "2"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "experiments._peers.worker", net.name, contestant, str(net.runs), str(net.batches)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("FISHNET_BENCHMARK_LOUD") else None,
            text=True,
            env=os.environ | calm | {"JAX_NUM_CPU_DEVICES": str(usable_cores())},
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
        """Ends the process: by itself, or else by force."""
        try:
            self.process.communicate(timeout=ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


def measure(
    net: Net,
    contestants: Sequence[str],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
    side_by_side: bool = False,
) -> list[Row]:
    """Trains one network with several contestants in turns.

    Args:
        net: the network.
        contestants: names in `CONTESTANTS`.
        rounds: how often each is measured.
        seconds: how long it trains each time, where it is measured warm.
        say: told what is being done.
        side_by_side: whether warm contestants are prepared all at once, which takes less time but makes the seconds to
            compile longer; otherwise one after the other.

    Returns:
        A row for each contestant.

    Raises:
        UserError: a process died, or a contestant trains another network.
    """
    rows = [Row(name) for name in contestants]
    if net.cold_steps:
        return _cold(net, rows, rounds, say)
    return _warm(net, rows, rounds, seconds, say, side_by_side)


def _warm(
    net: Net, rows: list[Row], rounds: int, seconds: float, say: Callable[[str], None], side_by_side: bool
) -> list[Row]:
    """All contestants at once, each prepared before the first round."""
    workers, params = {}, {}
    try:
        for some in [rows] if side_by_side else [[row] for row in rows]:
            names = [row.contestant for row in some]
            say(f"{net.name}: {' and '.join(names)} prepared")
            workers |= {name: Worker(net, name) for name in names}
            for row in some:
                if (count := _ready(row, workers[row.contestant])) is None:
                    workers.pop(row.contestant).end()
                else:
                    params[row.contestant] = count
        steps = {name: worker.ask(str(seconds))["steps"] for name, worker in workers.items()}
        _check_same(net, params)
        for turn in range(rounds):
            say(f"{net.name}: round {turn + 1} of {rounds}")
            for row in rows:
                if row.missing is None:
                    many = steps[row.contestant]
                    took = workers[row.contestant].ask(f"steps {many}")["seconds"]
                    runs = 1 if row.contestant == "matmul" else net.runs
                    row.milliseconds.append(1e3 * took / (many * runs))
    finally:
        for worker in workers.values():
            worker.end()
    return rows


def _cold(net: Net, rows: list[Row], rounds: int, say: Callable[[str], None]) -> list[Row]:
    """A new process each time, one after the other; compilation is part of the time."""
    for turn in range(rounds):
        say(f"{net.name}: round {turn + 1} of {rounds}")
        params = {}
        for row in rows:
            if row.missing:
                continue
            worker = Worker(net, row.contestant)
            try:
                if (count := _ready(row, worker)) is not None:
                    params[row.contestant] = count
                    took = row.compile_seconds[-1] + worker.ask(f"steps {net.cold_steps}")["seconds"]
                    row.milliseconds.append(1e3 * took / (net.cold_steps * net.runs))
            finally:
                worker.end()
        _check_same(net, params)
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


def _check_same(net: Net, params: dict[str, int]) -> None:
    """Refuses to compare contestants that train different networks.

    Raises:
        UserError: with their numbers of parameters.
    """
    different = {name: count for name, count in params.items() if name != "matmul"}
    if len(set(different.values())) > 1:
        raise UserError(f"{net.name}: the contestants do not train the same network: parameters {different}")
