"""From a command line to a trained sweep, its table and its report."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fishnet.cli.compilation_cache import enable_cache, note_missing_cache
from fishnet.cli.output import output_width
from fishnet.cli.parser import run_guarded, usable_cores
from fishnet.cli.sweep_flags import Experiment, Request, parse_request
from fishnet.errors import UsageError, UserError
from fishnet.host.cluster import OWN_CHIPS
from fishnet.host.names import escape_text, quote_word
from fishnet.sweep.distributed.shard import parse_shard
from fishnet.sweep.run.progress import Display, display_for

if TYPE_CHECKING:
    from fishnet.sweep import DataOptions


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Runs an experiment from its command line.

    Returns:
        the exit code: 0, 2 for bad usage, 130 or 143 when stopped, 1 for every other error.
    """
    return run_guarded(lambda words: train(parse_request(experiment, words)), argv)


def train(request: Request, show_result: Callable[[Path, Display, str | None], None] | None = None) -> int:
    """Trains what is asked for (or goes on with it, or finds it finished), and shows it.

    Args:
        request: the command line, understood.
        show_result: `f(folder, display, data_dir)` prints the result and writes what belongs to it; None: table and
            report, as `show` does.
    """
    use_cores(request.devices)
    enable_cache()
    from fishnet.sweep import DataOptions, run_sweep
    from fishnet.sweep.distributed.shard_folders import resume_text
    from fishnet.sweep.spec.validation import check_sweep

    data = DataOptions(data_dir=request.data_dir, group_regex=request.group_regex, strict=request.strict)
    display = display_for(request.quiet)
    note_missing_cache(display)
    try:
        if not request.shard.whole:
            keep_own_chips()
        check_sweep(request.sweep, data.data_dir, data.group_regex, data.strict)
        out = Path(request.out or default_folder(request, data))
        if request.ray is not None:
            train_on_ray(request, out, display)
        result = run_sweep(
            request.sweep,
            out,
            lane_width=request.lane_width,
            lowering=request.lowering,
            share_batches=request.share_batches,
            devices=request.devices,
            quiet=request.quiet,
            display=display,
            data=data,
            command=request.command,
            shard=str(request.shard),
        )
    except UsageError as error:
        raise request.as_typed(error) from error
    finally:
        display.finish()
    if result.missing:  # who finishes last shows what all have done
        display.note(resume_text(list(result.missing), request.command))
        return 0
    if result.finished and request.ray is None:
        display.note("this sweep was finished before: nothing is trained")
    (show_result or show)(out, display, request.data_dir)
    return 0


def train_on_ray(request: Request, out: Path, display: Display) -> None:
    """Trains all shards of a sweep on a Ray cluster; returns when they are merged.

    Raises:
        UserError: there is no Ray, or a shard could not be trained.
    """
    try:
        from fishnet.contrib.ray_shards import run_shards
    except ImportError as error:
        raise UserError(f"--ray: {error}") from error

    home = {"out": str(out.absolute()), "data_dir": request.data_dir and os.path.abspath(request.data_dir)}
    of_one = replace(request, **home, ray=None, ray_shards=None, quiet=True)
    run_shards(partial(train_shard, of_one), cast(str, request.ray), request.ray_shards, display.note)


def train_shard(request: Request, shard: str, devices: int | None) -> None:
    """Trains one shard of a sweep in a process of a Ray cluster.

    Args:
        request: the command line, understood, with absolute paths.
        shard: I/N.
        devices: how many cores Ray gives it; None: it has a GPU of its own.
    """
    train(
        replace(request, shard=parse_shard(shard), devices=request.devices or devices),
        show_result=lambda out, display, data_dir: None,
    )


def keep_own_chips() -> None:
    """Has a host of a TPU pod take its own chips only, as long as the user has not said otherwise."""
    for name, value in OWN_CHIPS.items():
        os.environ.setdefault(name, value)


def use_cores(devices: int | None) -> None:
    """Makes every usable CPU core, or the requested number, a JAX device; call before the first use of a device."""
    import jax

    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # a session that already uses its devices keeps them
        jax.config.update("jax_num_cpu_devices", devices or usable_cores())


def default_folder(request: Request, data: "DataOptions") -> str:
    """`runs/<experiment>-<first 10 of the spec hash>`: the same command always finds its folder."""
    from fishnet.sweep.run.inputs import spec_hash

    digest = spec_hash(request.sweep, data, request.lowering, request.lane_width)
    return os.path.join("runs", f"{request.experiment.name}-{digest[:10]}")


def show(out: Path, display: Display, data_dir: str | None) -> None:
    """Prints the table of a finished sweep and the path of its report, written unless it is there and whole."""
    from rich.console import Console

    from fishnet.report.results import load_results
    from fishnet.report.stamp import PAGE, is_current
    from fishnet.report.tables import print_arms, print_recipe

    results = load_results(out)
    console = Console(width=output_width(), markup=False, highlight=False, emoji=False)
    console.print()
    (print_arms if results.axes else print_recipe)(console, results)
    report = out / PAGE
    if not is_current(out):
        from fishnet.report.html import write_report

        display.stage("writing the report")
        try:
            write_report(out, data_dir=data_dir)
        finally:
            display.finish()
    console.print(f"\nreport   {escape_text(str(report))}", soft_wrap=True)
    if results.best_run is not None:
        run = quote_word(str(out))
        console.print(f"predict  python -m experiments.predict --run {run} --images PHOTO_OR_FOLDER", soft_wrap=True)
    sys.stdout.flush()
