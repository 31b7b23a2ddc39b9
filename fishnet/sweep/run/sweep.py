"""Runs a sweep: checks it, plans it, trains its cohorts and keeps its tables."""

import warnings
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from fishnet.checks.arguments import as_folder, check_flag, check_type
from fishnet.data import DataOptions
from fishnet.errors import UsageError, UserError
from fishnet.host.interrupt import Interrupt
from fishnet.host.jax_settings import hold_settings
from fishnet.host.machine import choose_devices
from fishnet.host.parquet import read_table
from fishnet.source_hash.digest import changed_components, hash_each
from fishnet.sweep.distributed.merge import finish_sweep, merge_checkpoints, merge_shards
from fishnet.sweep.distributed.shard import Shard, parse_shard
from fishnet.sweep.distributed.shard_folders import (
    is_finished,
    mark_finished,
    missing_shards,
    one_at_a_time,
    shard_lock,
)
from fishnet.sweep.plan.cohorts import LayoutChoice
from fishnet.sweep.plan.layout import check_overrides
from fishnet.sweep.plan.user_components import user_functions
from fishnet.sweep.run.backend_check import check_backend
from fishnet.sweep.run.inputs import Inputs, describe
from fishnet.sweep.run.planning import Job, check_kernels, plan_sweep
from fishnet.sweep.run.progress import Display, display_for
from fishnet.sweep.run.training import ShardTrainer
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.spec.validation import check_lowering, check_out, check_sweep
from fishnet.sweep.store.checkpoint_store import parts_in
from fishnet.sweep.store.finished import Result, finished_before
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file

STATE_MOVED = (
    "component {} changes its own state while it runs, by which it would be taken for another one when this process "
    "asks for the sweep again: give it an attribute __fishnet_version__"
)


@hold_settings()
def run_sweep(
    sweep: Sweep,
    out: str | Path,
    lane_width: int | str | None = None,
    lowering: str | None = None,
    devices: int | None = None,
    quiet: bool = True,
    display: Display | None = None,
    data: DataOptions | None = None,
    command: str | None = None,
    share_batches: bool | None = None,
    shard: str | None = None,
) -> Result:
    """Trains every run of `sweep` and writes its folder; goes on where an earlier call stopped.

    A sweep that names components of the user's own which this process has not traced yet, or which are made of
    something else now, makes JAX forget every compiled function of the process (`jax.clear_caches`): what else the
    process has jitted is compiled again when it is next called.

    Args:
        sweep: what to run.
        out: the output folder (its files: docs/output.md); made if need be.
        lane_width: lanes vectorised together, or "all", or "auto" to time some; None: the default of the backend.
        lowering: of convolutions ("gemm", "winograd", "native", "cpu_kernels"); None: the default of the backend.
        devices: how many of the visible devices to use; None: all.
        quiet: whether to print nothing; otherwise the plan and a progress bar.
        display: shown the plan and the progress instead.
        data: where and how the data are read; None: as without options.
        command: kept in `sweep.json`; None: this process's command line.
        share_batches: whether lanes are only vectorised together if they have one seed: they then share their batches,
            whose augmentation and products with the first layer are computed once; None: as a timing ("auto") chose,
            otherwise not. At lane width 1 it is refused.
        shard: "I/N" to train the I-th of N shares of the runs, I from 1; the process that finishes last merges the
            shares. None: all runs.

    Returns:
        The runs as a table, and where everything is; of a shard while others are `missing`, its own runs.

    Raises:
        UsageError: the sweep or an option makes no sense.
        UserError: data, device or folder are not as they must be; nothing in the folder was changed.
        Interrupted: Ctrl-C or SIGTERM came; everything done so far is saved.
    """
    given = {"sweep": sweep, "display": display, "data": data, "command": command}
    for name, value in (given | {"share_batches": share_batches, "shard": shard}).items():
        check_type(name, value, *ARGUMENTS[name])
    check_flag("quiet", quiet)
    out, data = as_folder("out", out), data or DataOptions()
    if display is None:
        display = Quiet() if quiet else display_for(quiet=False)
    of = parse_shard(shard) if shard else Shard()
    check_overrides(lane_width, lowering, devices, share_batches)
    check_sweep(sweep, data.data_dir, data.group_regex, data.strict)
    check_lowering(sweep, lowering)
    check_rules(sweep, of)
    check_out(sweep, out)
    functions = user_functions(sweep, lowering, lane_width)
    digests = hash_each(functions)
    content, inputs = describe(sweep, data, functions, digests, command), Inputs(sweep, data)
    if (result := finished_before(out, content, lambda: inputs.fingerprints)) is not None:
        return result
    used = choose_devices(devices)  # refused before anything is made
    check_kernels([lowering], used, display)
    choice = LayoutChoice(lane_width, lowering, share_batches)
    try:
        with Interrupt() as interrupt, shard_lock(out, of, interrupt):
            result = run_job(Job(sweep, out, content, inputs, choice, of, used, display, interrupt))
            for name in changed_components(functions, digests):
                display.warn(STATE_MOVED.format(name))
            return result
    finally:
        display.finish()


ARGUMENTS = {  # of `run_sweep` that have no checks of their own elsewhere: types and valid values
    "sweep": (Sweep, "a Sweep, as in Sweep(Recipe(...), axes={...}, seeds=3)"),
    "display": ((Display, type(None)), "a Display, or None"),
    "data": ((DataOptions, type(None)), "DataOptions, or None"),
    "command": ((str, type(None)), "a text, or None"),
    "share_batches": ((bool, type(None)), "True, False or None"),
    "shard": ((str, type(None)), "a text such as 1/4, or None"),
}


class Quiet(Display):
    """Says nothing but warnings, and these in Python's own way."""

    def warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)


def check_rules(sweep: Sweep, shard: Shard) -> None:
    """Refuses rules of stopping that would need to see the runs of other shards."""
    rules = [name for name in ("halving", "median") if getattr(sweep.stopping, name)]
    if rules and not shard.whole:
        raise UsageError(
            f"{' and '.join(rules)} stopping compares all arms, and {shard.count} shards have some each: "
            "run it in one process (--shard 1/1), or stop arms by a target"
        )


def check_apart() -> None:
    """Refuses devices that JAX counts as shared between processes, where one would wait for the others."""
    if jax.process_count() > 1:
        raise UserError(
            "JAX runs on several processes that share their devices: leave jax.distributed.initialize() out, and give "
            "each process a shard (--shard I/N); on a TPU pod set TPU_PROCESS_BOUNDS=1,1,1 and "
            "TPU_CHIPS_PER_PROCESS_BOUNDS to the chips of one host, such as 2,2,1"
        )


def run_job(job: Job) -> Result:
    """Plans, trains the runs of a shard and, where no other shard is missing, leaves the finished sweep."""
    check_apart()
    check_backend(job.used[0])
    out, shard, spec_hash = job.out, job.shard, job.spec_hash
    with one_at_a_time(out, shard, job.interrupt):
        # Again: a process that held the lock until now may have done it all.
        if (result := job.earlier_result()) is not None:
            return result
        found = read_sweep_file(out)
        planned = not shard.whole and (found or {}).get("shards") == shard.count
        trained = planned and is_finished(job.folder, spec_hash)
        plan = None if planned else plan_sweep(job, found)
        if plan:
            write_sweep_file(out, plan.content)
    if not trained:
        plan = plan or plan_sweep(job, found)
        trainer = ShardTrainer(job, plan)
        histories = trainer.run()
        if shard.whole:
            if parts_in(out):  # some of it was trained in shards
                runs = [[run.index for run in layout.cohort.runs] for layout in plan.layouts]
                merge_checkpoints(out, runs, spec_hash, job.display.warn)
            finish_sweep(out, plan.content | {"paused": plan.paused}, histories, trainer.tables.written)
            return Result(trainer.tables.runs(), out, len(plan.layouts), finished=False)
        mark_finished(job.folder, spec_hash)
    with one_at_a_time(out, shard, job.interrupt):
        if (result := job.earlier_result()) is not None:
            return result
        found: Any = read_sweep_file(out)
        missing = missing_shards(out, shard.count, spec_hash)
        path = job.folder / "runs.parquet"
        if missing:
            runs = read_table(path, {"sweep": spec_hash}) if path.exists() else pd.DataFrame()
        else:
            job.display.stage("merging the shards")
            runs = merge_shards(out, found, job.display.warn)
    return Result(runs, out, found["programs"], finished=False, missing=tuple(missing))
