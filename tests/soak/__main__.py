"""A long soak by hand: at least 100 kills at random moments of varied sweeps, each of which ends as if undisturbed.

    python -m tests.soak                        # 30 minutes; the record goes to benchmarks/soak.md
    python -m tests.soak --minutes 3 --kills 5 --record /tmp/soak.md

Sweep after sweep of `tests.faults.driver` is trained once undisturbed, then again and again by processes that are
killed (SIGKILL), at a random event or after a random time, and started anew until one comes to the end. Its tables,
weights, optimizer states and files then have to equal the undisturbed ones bit for bit. Exit code 1 at the first
difference; the folders are then kept, and their place is told.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fishnet.sweep.store.folder import read_sweep_file
from tests.faults.conftest import ROOT, assert_same, finished, start
from tests.faults.driver import LONGEST, SWEEPS

KILLED = -9


@dataclass
class Tally:
    """What was done to one sweep."""

    kills_at_events: int = 0
    kills_at_times: int = 0
    starts: int = 0
    ends: int = 0  # times that it came to its end, each compared with the undisturbed one

    @property
    def kills(self) -> int:
        """Of both kinds."""
        return self.kills_at_events + self.kills_at_times


def disturbed(name: str, out: Path, events: int, seconds: float, programs: Path, rng: random.Random, tally: Tally):
    """Trains a sweep to its end under kills.

    Args:
        name: of the sweep.
        out: its folder.
        events: of the undisturbed sweep; a session is killed within the first third of as many.
        seconds: that the undisturbed sweep trained; likewise.
        programs: where compiled programs are kept.
        rng: chooses the moments.
        tally: is added to.
    """
    code = KILLED
    while code == KILLED:
        by_event = rng.random() < 0.5
        options = ["--sweep", name, "--checkpoint-seconds", rng.choice(["0", "0.2"])]
        options += ["--kill-at", str(rng.randrange(1, max(events // 3, 2)))] if by_event else []
        process = start(out, *options, programs=programs)
        tally.starts += 1
        if not by_event:
            process.stdout.readline()
            time.sleep(rng.uniform(0, seconds / 3))
            process.kill()
        _, complaints = process.communicate(timeout=LONGEST)
        code = process.returncode
        if code not in (0, KILLED):
            raise AssertionError(f"{name} in {out} ended with exit code {code}: {complaints}")
        tally.kills_at_events += by_event and code == KILLED
        tally.kills_at_times += not by_event and code == KILLED
    tally.ends += 1


def soak(minutes: float, kills: int, seed: int, folder: Path) -> tuple[dict[str, Tally], float]:
    """Goes round the sweeps until the time is over and there have been so many kills.

    Returns:
        What was done, by sweep, and the seconds it took.
    """
    began, rng, programs = time.monotonic(), random.Random(seed), folder / "programs"
    tallies: dict[str, Tally] = {}
    known: dict[str, tuple[int, float]] = {}

    def done() -> int:
        return sum(tally.kills for tally in tallies.values())

    while (time.monotonic() - began) / 60 < minutes or done() < kills:
        name = list(SWEEPS)[sum(tally.ends for tally in tallies.values()) % len(SWEEPS)]
        whole, out = folder / f"{name}_undisturbed", folder / name
        if name not in known:
            process = start(whole, "--sweep", name, programs=programs)
            process.stdout.readline()
            training = time.monotonic()
            lines, _ = finished(process)
            known[name] = int(lines[-1].removeprefix("events: ")), time.monotonic() - training
        tally = tallies.setdefault(name, Tally())
        disturbed(name, out, *known[name], programs, rng, tally)
        assert_same(out, whole)
        shutil.rmtree(out)
        seconds = time.monotonic() - began
        print(f"{seconds / 60:5.1f} min  {done():4d} kills  {name}: as undisturbed", file=sys.stderr, flush=True)
    return tallies, time.monotonic() - began


def record(tallies: dict[str, Tally], seconds: float, seed: int, content: dict) -> str:
    """The result as Markdown.

    Args:
        tallies, seconds: of `soak`.
        seed: of the random moments.
        content: a `sweep.json`, for versions and device.
    """
    kills = sum(tally.kills for tally in tallies.values())
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    rows = "\n".join(
        f"| {name} | {t.kills_at_events} | {t.kills_at_times} | {t.starts} | {t.ends} |" for name, t in tallies.items()
    )
    return f"""# Soak: kill -9 at random moments

`python -m tests.soak --seed {seed}`: {kills} kills in {seconds / 60:.0f} minutes, all green. Every sweep that was
killed and started again until its end left the tables, weights, optimizer states and files of an undisturbed one, bit
for bit (but for the training seconds). The sweeps are those of `tests/faults/driver.py`.

| sweep | kills at an event | kills after a time | starts | ends compared |
|---|---|---|---|---|
{rows}

{time.strftime("%Y-%m-%d")}, {content["device"]}; {versions}.
"""


def main() -> int:
    """Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--minutes", type=float, default=30.0, help="at least so long")
    flags.add_argument("--kills", type=int, default=100, help="at least so many")
    flags.add_argument("--seed", type=int, default=0, help="of the moments")
    flags.add_argument("--record", type=Path, default=ROOT / "benchmarks" / "soak.md", help="where the result goes")
    asked = flags.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fishnet-soak-"))
    try:
        tallies, seconds = soak(asked.minutes, asked.kills, asked.seed, folder)
    except BaseException:
        print(f"the folders are kept in {folder}", file=sys.stderr)
        raise
    content = read_sweep_file(folder / f"{next(iter(tallies))}_undisturbed")
    asked.record.write_text(record(tallies, seconds, asked.seed, content), encoding="utf-8")
    print(asked.record.read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
