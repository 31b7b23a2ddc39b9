"""What process 0 makes of the parts of all processes: tables as they come, and in the end the sweep in one piece."""

import shutil
import time
from pathlib import Path

import pandas as pd

from fishnet.errors import UserError
from fishnet.host.interrupt import Interrupt
from fishnet.sweep.distributed.processes import FINISHED, WORKING, Peer, Team
from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.history import History
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.store.checkpoint_store import (
    AGAIN,
    CHECKPOINTS,
    PARTS,
    POLL_SECONDS,
    CheckpointStore,
    part_of,
    parts_in,
)
from fishnet.sweep.store.tables import Tables

UPDATE_SECONDS = 60.0  # at most one look at the others' tables in this time


class Whole:
    """The output folder as one process would leave it.

    Args:
        out: the folder.
        sweep: what is run.
        spec_hash: of it.
        cohorts: all of them, whole.
        team: of this process, its first.
        interrupt: looked at while waiting.
        display: shown for whom.
    """

    def __init__(
        self,
        out: Path,
        sweep: Sweep,
        spec_hash: str,
        cohorts: list[Cohort],
        team: Team,
        interrupt: Interrupt,
        display: Display,
    ) -> None:
        self.out, self.cohorts, self.team, self.interrupt, self.display = out, cohorts, team, interrupt, display
        self.tables = Tables(out, sweep, cohorts, spec_hash)
        self.spec_hash = spec_hash
        self.histories: list[History] = []  # of all cohorts, where they had to be put together
        self.folders = [part_of(out, team, index) for index in range(team.count)]
        self.peers = [Peer(i, folder, team.session) for i, folder in enumerate(self.folders) if i]
        self._told: set[int] = set()
        self._updated = float("-inf")

    def update(self) -> None:
        """Brings the tables up to date with the parts, and says who has gone."""
        if not self.peers or time.monotonic() - self._updated < UPDATE_SECONDS:
            return
        for peer in self.peers:
            if peer.state() not in (WORKING, FINISHED) and peer.index not in self._told:
                self._told.add(peer.index)
                self.display.warn(f"{peer.ending()}: its runs wait until the same command is started again")
        self._write()

    def put_together(self, own: Tables) -> pd.DataFrame:
        """Waits for all processes, and makes the tables and checkpoints one.

        Args:
            own: the tables of this process.

        Returns:
            The table of runs.

        Raises:
            UserError: a process has ended before its runs were trained; the tables say how far they are.
        """
        waited: list[int] = []
        while working := [peer.index for peer in self.peers if peer.state() == WORKING]:
            if working != waited:
                waited = working
                self.display.stage(f"waiting for process {', '.join(map(str, working))}")
            self.interrupt.check(AGAIN)
            time.sleep(POLL_SECONDS)
        if self.peers:
            self._write()
        else:
            self.tables = own
        if ended := [peer.ending() for peer in self.peers if peer.state() != FINISHED]:
            raise UserError(f"{'; '.join(ended)}: the runs of the other processes are saved, and {AGAIN}")
        if parts_in(self.out):  # of this start or of earlier ones
            for number, cohort in enumerate(self.cohorts):
                runs = [run.index for run in cohort.runs]
                states = CheckpointStore(self.out, self.out, f"cohort_{number}", runs, self.spec_hash)
                tree = states.restore(None, self.display.warn).tree
                self.histories.append(History.of(tree["history"]))
                states.save(tree)
                states.finish()
        return self.tables.runs()

    def clear(self) -> None:
        """Removes the parts, and what earlier starts have left of pretraining."""
        shutil.rmtree(self.out / PARTS, ignore_errors=True)
        for folder in (self.out / CHECKPOINTS).glob("cohort_*_*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self) -> None:
        self.tables.absorb(self.folders)
        self.tables.write()
        self._updated = time.monotonic()
