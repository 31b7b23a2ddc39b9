"""What a sweep runs on: devices, their names, and the versions that its results depend on."""

import importlib.metadata
import platform
from pathlib import Path

import jax

from fishnet.errors import UsageError

PACKAGES = ("fishnet", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def choose_devices(devices: int | None) -> list[jax.Device]:
    """The first `devices` of the visible ones, or all.

    Raises:
        UsageError: more than there are, or fewer than one.
    """
    visible = jax.devices()
    if devices is not None and not 1 <= devices <= len(visible):
        raise UsageError(f"devices: {devices} is not between 1 and the {len(visible)} visible here")
    return visible[:devices]


def unused_accelerators(used: list[jax.Device]) -> list[str]:
    """Accelerators that this machine shows and this process does not use."""
    if used[0].platform != "cpu":
        spare = [d for d in jax.devices() if d not in used]
        return [d.device_kind for d in spare]
    found = [f"NVIDIA GPU {p.name}" for p in Path("/proc/driver/nvidia/gpus").glob("*")]
    return found + [f"TPU {p.name}" for p in Path("/dev").glob("accel[0-9]*")]


def device_name(used: list[jax.Device]) -> str:
    """`cpu x 2 (AMD EPYC ...)`, or the accelerator's own name."""
    if used[0].platform != "cpu":
        return f"{used[0].device_kind} x {len(used)}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"cpu x {len(used)} ({model})"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package) or "unknown"  # its record is damaged
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
        except KeyError:  # newer Pythons raise it instead of returning None
            found[package] = "unknown"
    return found
