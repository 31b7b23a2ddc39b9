"""Trains a sweep in a process of its own that can be killed: `python -m tests.faults.driver FOLDER [options]`.

Moments to be killed at are counted in events, so that they do not depend on how fast a machine is: every call of the
compiled program for training, and whatever Python opens, makes, renames or removes in the folder, the checkpoints
being written in the background included. What happens between two events (training, the writing of arrays by
TensorStore) is reached by kills from outside at random times.
"""

import argparse
import faulthandler
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import jax

from fishnet.errors import UserError
from fishnet.sweep import Recipe, Stopping, Sweep, run_sweep
from fishnet.sweep.run import phase
from fishnet.sweep.run.progress import Display

SMALL = {"task": "synthetic", "image_size": 8, "model": "mlp", "widths": (8,), "batch_size": 16, "dropout": 0.1}

SWEEPS = {
    # One program, eight lanes, one checkpoint after the other.
    "long": lambda: Sweep(
        Recipe(**SMALL, epochs=60), axes={"optimizer": ["momentum", "adam"], "norm": ["batch", "layer"]}, seeds=2
    ),
    # Pretraining, two cohorts of which the second is judged by the first, a plateau schedule, an average of weights.
    "mixed": lambda: Sweep(
        Recipe(**SMALL, epochs=6, schedule="plateau", plateau_patience=0, ema=0.9, pretrain_epochs=2),
        axes={"optimizer": ["momentum", "sam"], "pretrain": ["none", "denoising"], "lr": [0.02, 0.1]},
        stopping=Stopping(halving=2),
    ),
    # For tests/soak: images, norms with statistics, other ways to stop and to schedule, several programs.
    "cnn": lambda: Sweep(
        Recipe(**SMALL | {"model": "cnn", "widths": (8, 8), "augment": "flip_shift"}, epochs=10, schedule="onecycle"),
        axes={"norm": ["none", "batch", "group"], "activation": ["relu", "prelu"]},
        seeds=2,
    ),
    "stopping": lambda: Sweep(
        Recipe(**SMALL, epochs=40, patience=8, schedule="warmup_cosine", warmup=0.1),
        axes={"optimizer": ["adamw", "schedule_free"], "widths": [(8,), (16, 8)], "lr": [0.003, 0.03]},
        seeds=2,
        stopping=Stopping(median=True, first=4, target="val_accuracy>=0.99"),
    ),
    "resnet": lambda: Sweep(
        Recipe(**SMALL | {"model": "resnet", "depth": 1, "widths": (8,)}, epochs=6, pretrain_epochs=2, mixup=0.2),
        axes={"pretrain": ["none", "rotation"], "ema": [0.0, 0.95], "loss": ["cross_entropy", "focal"]},
        seeds=1,
    ),
    "short": lambda: Sweep(Recipe(**SMALL, epochs=6), axes={"optimizer": ["momentum", "adam"]}, seeds=2),
}

LONGEST = 900  # seconds that a process may take; one that hangs then says where
BALLOON = "balloon"  # the file that fills a disk
LOOKS = 200  # at the clock between two jumps of it
LARGEST_DISK = 16 * 2**20  # bytes of a file system that may be filled
# What Python tells of work on files: https://docs.python.org/3/library/audit_events.html
FILE_EVENTS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree")


class Counter(Display):
    """Counts events and kills its process at one of them; prints a line when training begins.

    Args:
        out: the folder whose files count.
        kill_at: the number of the event; 0: none.
        at_epoch: called once when the fourth epoch begins.
    """

    def __init__(self, out: Path, kill_at: int, at_epoch: Callable[[], None]) -> None:
        self.out, self.kill_at, self.at_epoch, self.count = str(out), kill_at, at_epoch, 0
        self._lock = threading.RLock()
        sys.addaudithook(self._file_event)

    def _file_event(self, name: str, arguments: tuple) -> None:
        if name in FILE_EVENTS and any(isinstance(a, str | Path) and str(a).startswith(self.out) for a in arguments):
            self._event()

    def _event(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def start(self, total: float, done: float = 0.0) -> None:
        print("training", flush=True)

    def advance(self, done: float, epoch: int, epochs: int, best: str | None = None, diverged: int = 0) -> None:
        self._event()
        if epoch == 4:
            self.at_epoch()
            self.at_epoch = nothing

    def warn(self, text: str) -> None:
        print(f"warning: {text}", flush=True)

    def note(self, text: str) -> None:
        print(f"note: {text}", flush=True)


def main() -> int:
    """Returns the exit code of the sweep."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("out", type=Path)
    flags.add_argument("--sweep", choices=SWEEPS, default="long")
    flags.add_argument("--kill-at", type=int, default=0, help="event at which the process kills itself; 0: none")
    flags.add_argument("--checkpoint-seconds", type=float, default=0.0, help="0: a checkpoint after every epoch")
    flags.add_argument("--clock", type=float, default=0.0, help="seconds by which the clock jumps to and fro")
    flags.add_argument("--fill", type=int, help="fill the disk at the fourth epoch, all but so many bytes")
    flags.add_argument("--limit", type=int, help="from the fourth epoch on no file may be larger, in bytes")
    asked = flags.parse_args()
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    jax.config.update("jax_num_cpu_devices", 2)
    phase.CHECKPOINT_SECONDS = asked.checkpoint_seconds
    phase.CALL_SECONDS = 0.02  # many small calls
    if asked.clock:
        jump_about(asked.clock)
    at_epoch = nothing
    if asked.fill is not None:
        at_epoch = partial(fill, asked.out.parent, asked.fill)
    elif asked.limit is not None:
        at_epoch = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (asked.limit, resource.RLIM_INFINITY))
    counter = Counter(asked.out.absolute(), asked.kill_at, at_epoch)
    try:
        run_sweep(SWEEPS[asked.sweep](), asked.out, lane_width=1, display=counter)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    print(f"events: {counter.count}", flush=True)
    return 0


def nothing() -> None:
    """Does nothing."""


def fill(disk: Path, leave: int) -> None:
    """Fills a small file system with one file, up to its last `leave` bytes; refuses any other."""
    if shutil.disk_usage(disk).total > LARGEST_DISK:
        raise UserError(f"{disk} is not on a small file system of its own: it is not filled")
    with suppress(OSError), open(disk / BALLOON, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    os.truncate(disk / BALLOON, (disk / BALLOON).stat().st_size - leave)


def jump_about(seconds: float) -> None:
    """Sets the clock forward and back by turns, every so many looks at it: as NTP or a suspended laptop does."""
    true, looks = time.time, iter(range(10**9))
    time.time = lambda: true() + (seconds if next(looks) // LOOKS % 2 else -seconds)
    time.time_ns = lambda: int(time.time() * 1e9)


if __name__ == "__main__":
    sys.exit(main())
