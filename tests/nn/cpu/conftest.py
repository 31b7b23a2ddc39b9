"""The kernels' library, built once for all sessions and registered with JAX."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from tests.conftest import KEPT

KERNELS = Path(__file__).parents[3] / "fishnet" / "nn" / "cpu" / "kernels"
HANDLERS = ("convolution", "convolution_input_gradient", "convolution_kernel_gradient")
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden")


def processor_has(name: str) -> bool:
    """Whether Linux lists this feature of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and f" {name} " in cpuinfo.read_text().replace("\n", " ")


@pytest.fixture(scope="session")
def kernels() -> None:
    """Registers the handlers of the sources as they are, built for this processor."""
    if shutil.which("g++") is None or not processor_has("avx2"):
        pytest.skip("the kernels need g++ and a processor with AVX2")
    architecture = "x86-64-v4" if processor_has("avx512f") else "x86-64-v3"
    sources = b"".join(path.read_bytes() for path in sorted(KERNELS.iterdir()))
    name = hashlib.sha256(sources + repr((FLAGS, architecture, jax.__version__)).encode()).hexdigest()[:16]
    library = KEPT.parent / "kernels" / f"{name}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        include = ["-isystem", jax.ffi.include_dir()]
        command = ["g++", *FLAGS, f"-march={architecture}", *include, "-o", unfinished, KERNELS / "handlers.cc"]
        subprocess.run(command, check=True)
        unfinished.rename(library)
    handlers = ctypes.CDLL(str(library))
    for handler in HANDLERS:
        jax.ffi.register_ffi_target(f"fishnet_{handler}", jax.ffi.pycapsule(handlers[handler]), platform="cpu")
