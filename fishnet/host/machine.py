"""Devices, their names, and the versions that results depend on."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import jax

from fishnet.errors import UsageError, UserError, first_line

PLATFORM_OPTIONS = ("jax_platforms", "jax_platform_name")
PACKAGES = ("fishnet", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


class Device(Protocol):
    """Device of JAX, for type checkers, which cannot read the native class `jax.Device`."""

    id: int
    platform: str
    device_kind: str

    def memory_stats(self) -> Mapping[str, int] | None:
        """Bytes by what they count; None on a device that does not keep count."""
        ...


def choose_devices(devices: int | None) -> list[Device]:
    """Chooses the first `devices` of the visible devices, or all.

    Raises:
        UsageError: more than there are, or fewer than one.
        UserError: JAX finds none at all.
    """
    visible = visible_devices()
    if devices is not None and not 1 <= devices <= len(visible):
        raise UsageError(f"devices: {devices} is not between 1 and the {len(visible)} visible here")
    return visible[:devices]


def visible_devices() -> list[Device]:
    """Devices that JAX computes on in this process.

    Raises:
        UserError: it finds none; the message names the variable that asks for others.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that a backend asked for by name came up
        asked = {name: os.environ.get(name.upper()) or getattr(jax.config, name, None) for name in PLATFORM_OPTIONS}
        given = " ".join(f"{name.upper()}={value}" for name, value in asked.items() if value)
        if given:
            raise UserError(f"{given}: JAX finds no such device here; unset it, or name cpu, cuda or tpu") from error
        raise UserError(f"JAX finds no device to compute on ({first_line(error)})") from error


def unused_accelerators(used: list[Device]) -> list[str]:
    """Names of accelerators of this machine that this process does not use."""
    if used[0].platform != "cpu":
        spare = [d for d in jax.devices() if d not in used]
        return [d.device_kind for d in spare]
    found = [f"NVIDIA GPU {p.name}" for p in Path("/proc/driver/nvidia/gpus").glob("*")]
    return found + [f"TPU {p.name}" for p in Path("/dev").glob("accel[0-9]*")]


def device_name(used: list[Device]) -> str:
    """Name of the devices: `cpu x 2 (AMD EPYC ...)`, or that of the accelerator."""
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
