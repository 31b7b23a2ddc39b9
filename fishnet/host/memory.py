"""Memory: how much is available, how much arrays take, and the error for programs that do not fit."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from fishnet.errors import UserError
from fishnet.host.machine import Device

T = TypeVar("T")

USABLE = 0.9  # of what a machine has left: allocators, tables and the compiler take their share, which nobody counts
COPIES = 2  # of the state of all lanes on the host: one checkpoint is still being written when the next is gathered
EXHAUSTED = "RESOURCE_EXHAUSTED"  # how XLA's errors begin when memory has run out
GROUPS = Path("/sys/fs/cgroup")


class OutOfMemory(UserError):
    """Program that does not fit into memory.

    Args:
        needed: bytes; None where the backend has not said how much.
        available: bytes; None where nobody knows.
        fixed: bytes of `needed` that do not depend on the lane width.
    """

    def __init__(self, needed: int | None = None, available: int | None = None, fixed: int = 0) -> None:
        self.needed, self.available, self.fixed = needed, available, fixed
        super().__init__(f"out of memory: the sweep needs {self.figures}")

    @property
    def figures(self) -> str:
        """Needed and available memory, in words."""
        needed = "more than there is" if self.needed is None else bytes_text(self.needed)
        return needed if self.available is None else f"{needed} of {bytes_text(self.available)}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the host has no memory left."""
    return isinstance(error, (OutOfMemory, MemoryError)) or EXHAUSTED in str(error)


def available_bytes(device: Device) -> int | None:
    """Available bytes on a device; on CPU those of the machine, for all devices together; None: not known."""
    if device.platform == "cpu":
        found = host_bytes()
        return None if found is None else int(USABLE * found)
    stats = _ask_backend(device.memory_stats) or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _ask_backend(ask: Callable[[], T]) -> T | None:
    """Memory statistics of a backend; None where it gives none."""
    with suppress(NotImplementedError, jax.errors.JaxRuntimeError):
        return ask()
    return None


def host_bytes() -> int | None:
    """Memory that this process can still take, in bytes: what the system has left, within its container's limit.

    None on systems that do not say.
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    # Containers: version 2 of control groups, or version 1; pages of files that can be dropped count as free.
    for folder, limit, used, files in (
        (GROUPS, "memory.max", "memory.current", "inactive_file "),
        (GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
    ):
        with suppress(OSError, ValueError):  # no limit is the word max
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            stat = (folder / "memory.stat").read_text().splitlines()
            found.append(left + sum(int(line.split()[1]) for line in stat if line.startswith(files)))
    if not found:
        with suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def tree_bytes(tree: Any) -> int:
    """Bytes of the arrays of `tree`, which may be abstract."""
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def call_bytes(compiled: jax.stages.Compiled, held: int) -> int:
    """Bytes that one call of a program needs on its device.

    Args:
        compiled: the program.
        held: bytes on the device meanwhile, whether they are among its arguments or not.

    Returns:
        Inputs and other arrays that are held, outputs that are not among them, and temporaries of the program.
    """
    found = _ask_backend(compiled.memory_analysis)
    if found is None:  # a backend that does not say
        return held
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    return max(held, found.argument_size_in_bytes) + new + found.temp_size_in_bytes


def check_memory(
    programs: Iterable[tuple[str, jax.stages.Compiled]],
    held: Mapping[str, int],
    shared: int,
    lanes: int,
    devices: int,
    available: int | None,
) -> None:
    """Refuses programs whose calls would not fit.

    Args:
        programs: names and what was compiled.
        held: bytes on each device during a call of each program; what a name lacks holds its arguments alone.
        shared: bytes of the images, which devices of one memory share.
        lanes: bytes of the state of all lanes of a device, of which the host keeps copies for checkpoints.
        devices: that have one memory and call side by side.
        available: bytes in that memory; None: nothing is refused.

    Raises:
        OutOfMemory: the greatest call of all devices together needs more.
    """
    greatest, fixed = 0, 0
    for name, compiled in programs:
        both = held.get(name, 0)
        greatest, fixed = max(greatest, call_bytes(compiled, both)), max(fixed, both)
    copies = COPIES * lanes * devices

    def together(one: int) -> int:
        return max(0, devices * (one - shared)) + shared + copies

    if available is not None and together(greatest) > available:
        raise OutOfMemory(together(greatest), available, together(fixed))


def bytes_text(number: float) -> str:
    """Formats a size: 312 MiB, 61 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(number) < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if number >= 10 or unit == "bytes" else f"{number:.1f} {unit}"
