"""Trains the cohorts of a sweep, or this process's shard of them, one after the other."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np

from fishnet.host.best_effort import best_effort
from fishnet.host.interrupt import Interrupt
from fishnet.host.machine import Device
from fishnet.host.memory import OutOfMemory, out_of_memory
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.plan.past_times import keep_time
from fishnet.sweep.run.cohort import CohortRunner
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.history import History
from fishnet.sweep.spec.stopping import ArmStopper
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.store.checkpoint_store import CheckpointStore
from fishnet.sweep.store.tables import Tables


@dataclass(frozen=True)
class Training:
    """What all cohorts of a sweep have in common while they are trained."""

    sweep: Sweep
    out: Path
    part: Path  # the folder that this process writes to
    spec_hash: str
    used: list[Device]
    display: Display
    interrupt: Interrupt

    def run(
        self,
        shares: Sequence[Layout | None],
        on_tables: Callable[[], None],
        smaller: Callable[[int, OutOfMemory, bool], Layout],
    ) -> tuple[Tables, list[History]]:
        """Trains the shares of this process to their end.

        One that turns out not to fit its memory begins again, from its newest checkpoint if there is one, in a smaller
        layout.

        Args:
            shares: of each cohort; None: nothing.
            on_tables: called when the tables of this process have been written.
            smaller: `f(number, problem, begun)`: the share of a cohort in a smaller layout; `begun`: of the same lane
                width, as some of it has been trained. Raises what the user is told where there is none.

        Returns:
            The tables of this process, and the histories of its shares.
        """
        own = {number: share for number, share in enumerate(shares) if share is not None}
        tables = Tables(
            self.part, self.sweep, [share.cohort for share in own.values()], self.spec_hash, earlier=self.out
        )
        total = float(sum(run.recipe.epochs for share in own.values() for run in share.cohort.runs))
        before, started, histories = 0.0, False, []
        stopper = ArmStopper(self.sweep.stopping, self.sweep.recipe.select_by) if self.sweep.stopping else None
        for place, (number, share) in enumerate(own.items()):

            def advance(runner: CohortRunner, before: float = before) -> None:
                diverged = int((runner.history.first_bad_step >= 0).sum())
                epoch = min(runner.training.epoch + 1, runner.cohort.epochs)
                self.display.advance(
                    before + runner.training.run_epochs, epoch, runner.cohort.epochs, best_so_far(runner), diverged
                )

            def write(runner: CohortRunner, place: int = place) -> None:
                tables.update(place, runner.cohort, runner.history, runner.test_metrics)
                on_tables()

            states = CheckpointStore(
                self.out, self.part, f"cohort_{number}", [run.index for run in share.cohort.runs], self.spec_hash
            )
            history = None
            while history is None:
                self.display.stage(f"compiling program {place + 1} of {len(own)}")
                began, problem = time.perf_counter(), None
                try:
                    runner = CohortRunner(
                        share, self.used, states, self.interrupt, self.display, write, advance, stopper
                    )
                    runner.prepare()
                    if not started:
                        self.display.start(total, before + runner.training.run_epochs)
                        started = True
                    runner.train()
                    logits = runner.test()
                    validate = partial(runner.training.evaluate, "val", best=True)
                    tables.finish(place, runner.cohort, runner.history, runner.test_metrics, logits, validate)
                    history = runner.history
                    spent = runner.seconds | {"whole": time.perf_counter() - began}
                    keep = partial(keep_time, share, self.used, spent, runner.steps_made)
                    best_effort("how long this program took", keep, self.display.note, None)
                except (OutOfMemory, MemoryError, jax.errors.JaxRuntimeError) as error:
                    if not out_of_memory(error):
                        raise
                    problem = error if isinstance(error, OutOfMemory) else OutOfMemory()
                finally:
                    states.give_up()  # nobody writes into the folder once its lock is given back
                    runner = None  # its lanes make room for the next ones
                if problem:
                    share = smaller(number, problem, states.begun)
            histories.append(history)
            before += sum(run.recipe.epochs for run in share.cohort.runs)
        return tables, histories


def best_so_far(runner: CohortRunner) -> str | None:
    """The run with the best validation accuracy so far, in words."""
    accuracy = runner.history.selected("val_accuracy")
    if not np.isfinite(accuracy).any():
        return None
    best = int(np.nanargmax(accuracy))
    run = runner.cohort.runs[best]
    return f"{run.arm} seed {run.recipe.seed}: validation accuracy {accuracy[best]:.3f}"
