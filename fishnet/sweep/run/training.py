"""Trains the runs of a shard, cohort after cohort, in smaller layouts where memory does not suffice."""

import time
from functools import partial

import jax
import numpy as np

from fishnet.host.best_effort import best_effort
from fishnet.host.memory import OutOfMemory, out_of_memory
from fishnet.sweep.distributed.assignment import shard_of
from fishnet.sweep.plan.fit_memory import lowering_text, reduce_layout
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.plan.past_times import keep_time
from fishnet.sweep.run.planning import Job, Plan
from fishnet.sweep.run.supervised import SupervisedPhase
from fishnet.sweep.spec.history import History
from fishnet.sweep.spec.stopping import ArmStopper
from fishnet.sweep.store.checkpoint_store import CheckpointStore
from fishnet.sweep.store.folder import write_sweep_file
from fishnet.sweep.store.tables import Tables


class ShardTrainer:
    """Training of the runs of a shard, which may be the whole sweep."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self.job, self.plan = job, plan
        self.layouts: dict[int, Layout] = {}  # number of a cohort -> layout of what this shard trains of it
        for number, (layout, assigned) in enumerate(zip(plan.layouts, plan.assigned, strict=True)):
            share = shard_of(layout, assigned, job.shard.number - 1, len(job.used))
            if share is not None:
                self.layouts[number] = share
        cohorts = [layout.cohort for layout in self.layouts.values()]
        self.tables = Tables(job.folder, job.sweep, cohorts, job.spec_hash, earlier=job.out)
        self.stopper = ArmStopper(job.sweep.stopping, job.sweep.recipe.select_by) if job.sweep.stopping else None
        self.started = False  # whether the display shows training
        self.run_epochs = 0  # of the cohorts that have been trained

    def run(self) -> list[History]:
        """Trains all cohorts to their end, writing the tables on the way; returns their histories."""
        histories = []
        for place, (number, layout) in enumerate(self.layouts.items()):
            histories.append(self.train_cohort(place, number, layout))
            self.run_epochs += planned_epochs(layout)
        return histories

    def train_cohort(self, place: int, number: int, layout: Layout) -> History:
        """Trains a cohort; where memory runs out it goes on from its newest checkpoint, if any, in a smaller layout."""
        job, runs = self.job, [run.index for run in layout.cohort.runs]
        states = CheckpointStore(job.out, job.folder, f"cohort_{number}", runs, job.spec_hash)
        while True:
            job.display.stage(f"compiling program {place + 1} of {len(self.layouts)}")
            try:
                return self.train_layout(place, layout, states)
            except (OutOfMemory, MemoryError, jax.errors.JaxRuntimeError) as error:
                if not out_of_memory(error):
                    raise
                problem = error if isinstance(error, OutOfMemory) else OutOfMemory()
            finally:
                states.give_up()  # nobody writes into the folder once its lock is given back
            layout = self.reduce(number, layout, problem, states.begun)
            del problem  # its traceback holds the lanes, which make room for the next ones

    def train_layout(self, place: int, layout: Layout, states: CheckpointStore) -> History:
        """Trains and tests a cohort, at this place among those of the shard, in one layout."""
        job, began = self.job, time.perf_counter()
        save = partial(self.write, place)
        training = SupervisedPhase(
            layout, job.used, states, job.interrupt, job.display, save, self.advance, self.stopper
        )
        training.prepare()
        if not self.started:
            total = float(sum(map(planned_epochs, self.layouts.values())))
            job.display.start(total, self.run_epochs + training.run_epochs)
            self.started = True
        training.run()
        logits = training.test()
        validate = partial(training.evaluate, "val", best=True)
        self.tables.finish(place, training.history, training.test_metrics, logits, validate)
        spent = training.seconds | {"whole": time.perf_counter() - began}
        keep = partial(keep_time, layout, job.used, spent, training.pacers["training"].made)
        best_effort("how long this program took", keep, job.display.note, None)
        return training.history

    def reduce(self, number: int, layout: Layout, problem: OutOfMemory, begun: bool) -> Layout:
        """Smaller layout of a cohort, of the same lane width where some of it has been trained.

        Raises:
            UserError: there is none, or it is one of several shards, which all have the same layout.
        """
        if not self.job.shard.whole:
            raise problem
        smaller = reduce_layout(layout, self.job.used, problem, begun)
        self.job.display.note(lowering_text(layout, smaller, problem))
        self.plan.content["plan"][number] |= smaller.view()
        write_sweep_file(self.job.out, self.plan.content)
        return smaller

    def write(self, place: int, training: SupervisedPhase) -> None:
        """Writes the tables, and into `sweep.json` how long nobody was at work before what they hold."""
        self.tables.update(place, training.history, training.test_metrics)
        content, paused = self.plan.content, self.plan.paused
        if self.job.shard.whole and content["paused"] != paused:
            content["paused"] = paused
            write_sweep_file(self.job.out, content)

    def advance(self, training: SupervisedPhase) -> None:
        """Shows progress."""
        done, epochs = self.run_epochs + training.run_epochs, training.cohort.epochs
        diverged = int((training.history.first_bad_step >= 0).sum())
        epoch = min(training.epoch + 1, epochs)
        self.job.display.advance(done, epoch, epochs, best_so_far(training), diverged)


def planned_epochs(layout: Layout) -> int:
    """Epochs of all runs of a cohort together."""
    return sum(run.recipe.epochs for run in layout.cohort.runs)


def best_so_far(training: SupervisedPhase) -> str | None:
    """Best validation accuracy so far and its run, in words."""
    accuracy = training.history.selected("val_accuracy")
    if not np.isfinite(accuracy).any():
        return None
    best = int(np.nanargmax(accuracy))
    run = training.cohort.runs[best]
    return f"{run.arm} seed {run.recipe.seed}: validation accuracy {accuracy[best]:.3f}"
