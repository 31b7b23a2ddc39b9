"""Compiled library of the kernels: built at first use, kept in the user's cache, registered with XLA.

Its file is named by what it was made of and by its own hash: one of another processor, compiler, version of jaxlib or
source is not found, and a damaged one is seen before it is loaded. `FISHNET_CPU_KERNELS` forces a variant or turns it
off.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.errors import UserError
from fishnet.host.cache import cache_dir
from fishnet.host.folder_lock import InUse, wait_for_lock
from fishnet.lookup import unknown_name
from fishnet.nn.cpu.compiler import Compiler, Unavailable, find_compiler, run_compiler

SOURCES = Path(__file__).parent / "kernels"
VARIABLE = "FISHNET_CPU_KERNELS"
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden")
SECONDS = 600.0  # of compilation; it takes 10 to 60
WAIT_SECONDS = 180.0  # for another process that compiles
WAITING = "waiting for another process, which compiles the CPU kernels"
KEPT = 4  # libraries in the cache
HANDLER = re.compile(r"^XLA_FFI_DEFINE_HANDLER_SYMBOL\((\w+),", re.MULTILINE)


@dataclass(frozen=True)
class Variant:
    """Instruction set that the kernels can be compiled for.

    Args:
        machines: names that `platform.machine` has for processors that may have it.
        features: what `/proc/cpuinfo` must list; nothing where all such machines have it.
        flags: of GCC and Clang.
        zig_flags: of Zig's C++ compiler.
    """

    machines: tuple[str, ...]
    features: frozenset[str]
    flags: tuple[str, ...]
    zig_flags: tuple[str, ...]


X86, ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")
AVX2 = frozenset(["avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"])
VARIANTS = {  # the first that the processor has is taken
    "avx512": Variant(
        X86, AVX2 | frozenset(["avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512cd"]), ("-march=x86-64-v4",),
        ("-mcpu=x86_64_v4",),
    ),
    "avx2": Variant(X86, AVX2, ("-march=x86-64-v3",), ("-mcpu=x86_64_v3",)),
    "neon": Variant(ARM, frozenset(), (), ()),
}  # fmt: skip
CHOICES = ("auto", "off", *VARIANTS)


_LOCK = threading.Lock()
_OUTCOMES: dict[str, str] = {}  # by the value of VARIABLE: why the kernels cannot be had, "" if they can
_KEEP = ExitStack()  # temporary folders, for as long as the process lives
_REGISTERED: list[str] = []  # the variant that XLA was given, which stays for as long as the process lives


def missing_kernels(note: Callable[[str], object] = lambda _: None) -> str:
    """Loads the kernels and registers them with XLA as `fishnet_<handler>`, compiled first if need be.

    Once a process: later calls return what the first one found.

    Args:
        note: is told when a compiler is called, which takes 10 to 60 seconds, and when another process is waited for.

    Returns:
        Why they cannot be had, in a line; "" if they can.

    Raises:
        UsageError: `FISHNET_CPU_KERNELS` has another value than auto, off or the name of a variant.
    """
    wanted = os.environ.get(VARIABLE, "") or "auto"
    if wanted not in CHOICES:
        raise unknown_name(VARIABLE, wanted, CHOICES)
    with _LOCK:
        if wanted not in _OUTCOMES:
            try:
                _load(choose_variant(wanted), note)
                _OUTCOMES[wanted] = ""
            except Unavailable as reason:
                _OUTCOMES[wanted] = str(reason)
            except OSError as error:
                _OUTCOMES[wanted] = f"the kernels cannot be read, compiled or kept: {error}"
        return _OUTCOMES[wanted]


def is_off() -> bool:
    """Tells whether the user has turned the kernels off."""
    return os.environ.get(VARIABLE, "") == "off"


def require_kernels(note: Callable[[str], object] = lambda _: None) -> None:
    """Loads the kernels as `missing_kernels` does.

    Raises:
        UserError: they cannot be had here.
        UsageError: see `missing_kernels`.
    """
    if reason := missing_kernels(note):
        raise UserError(f"the lowering cpu_kernels cannot be used: {reason}")


def _load(variant: str, note: Callable[[str], object]) -> None:
    """Loads a variant and registers it, unless one is registered already.

    Raises:
        Unavailable: it cannot be built or loaded, or computes wrongly.
    """
    if "" in _OUTCOMES.values():
        return
    if _REGISTERED:  # XLA keeps what it was given, and a second handler of a name breaks its back end
        raise Unavailable(f"the kernels for {_REGISTERED[0]} failed in this process: start another to try {variant}")
    path = find_library(SOURCES, variant, note)
    register(path, handler_names(SOURCES), "fishnet_")
    _REGISTERED.append(variant)
    check_answers("fishnet_")


def choose_variant(wanted: str) -> str:
    """Name of the variant for this processor.

    Args:
        wanted: one of `CHOICES`.

    Raises:
        Unavailable: the processor has none of them, or not the one that is wanted; or they are turned off.
    """
    if wanted == "off":
        raise Unavailable(f"{VARIABLE} is off")
    machine = platform.machine()
    features = processor_features()
    fitting = [name for name, v in VARIANTS.items() if machine in v.machines and v.features <= features]
    if wanted != "auto" and wanted not in fitting:
        raise Unavailable(f"{VARIABLE} is {wanted}, which this processor ({machine}) does not have")
    if not fitting:
        raise Unavailable(f"this processor ({machine}) has neither AVX2 with FMA nor NEON")
    return fitting[0] if wanted == "auto" else wanted


def processor_features() -> frozenset[str]:
    """Instruction sets that the operating system lists, in Linux's spelling; empty if it lists none."""
    with suppress(OSError):
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return frozenset(found[1].split()) if found else frozenset()
    words: list[str] = []
    for name in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        with suppress(OSError, subprocess.SubprocessError):
            words += subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10).stdout.split()
    return frozenset(word.lower().replace(".", "") for word in words)


def find_library(sources: Path, variant: str, note: Callable[[str], object] = lambda _: None) -> Path:
    """Path of the compiled library, sound and of these sources; it is compiled if need be.

    Args:
        sources: folder with `handlers.cc` and what it includes.
        variant: a key of `VARIANTS`.
        note: is told when it is compiled, and when another process is waited for.

    Raises:
        Unavailable: there is no compiler, or it fails.
        OSError: the sources cannot be read, or there is nowhere to write to.
    """
    compiler = find_compiler()
    key = library_key(sources, variant, compiler)
    cache = cache_dir()

    @functools.cache
    def say_once() -> None:
        note(WAITING)

    if cache is not None:
        folder = cache / "kernels"
        if found := _kept(folder, key):
            return found
        try:
            with ExitStack() as stack:
                with suppress(InUse):  # then both compile; each moves a whole file into its place
                    stack.enter_context(wait_for_lock(folder, "", WAIT_SECONDS, say_once))
                return _kept(folder, key) or compile_library(sources, variant, compiler, folder, key, note)
        except (UserError, OSError):
            pass  # a cache that cannot be written or is full: compiled for this process alone
    folder = Path(_KEEP.enter_context(tempfile.TemporaryDirectory(prefix="fishnet-kernels-")))
    try:
        return compile_library(sources, variant, compiler, folder, key, note)
    except OSError as error:
        raise Unavailable(f"the kernels cannot be written to {folder}: {error.strerror or error}") from error


def target_flags(variant: str, compiler: Compiler) -> tuple[str, ...]:
    """Flags by which a compiler compiles for a variant."""
    return VARIANTS[variant].zig_flags if compiler.is_zig else VARIANTS[variant].flags


def library_key(sources: Path, variant: str, compiler: Compiler) -> str:
    """Name for all that a compiled library depends on."""
    digest = hashlib.sha256()
    for path in sorted(sources.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    flags = (*FLAGS, *target_flags(variant, compiler))
    for word in (*compiler.command, compiler.version, *flags, version("jaxlib"), sys.platform, platform.machine()):
        digest.update(word.encode() + b"\0")
    return f"{variant}-{digest.hexdigest()[:24]}"


def _kept(folder: Path, key: str) -> Path | None:
    """Library of this key in a folder, if its bytes are those that were written."""
    with suppress(OSError):
        for path in folder.glob(f"{key}-*.so"):
            if path.stem.removeprefix(f"{key}-") == _content_hash(path):
                return path
    return None


def _content_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24]


def compile_library(
    sources: Path, variant: str, compiler: Compiler, folder: Path, key: str, note: Callable[[str], object]
) -> Path:
    """Compiles a library into a folder, whole or not at all, and removes old ones; returns its path.

    Raises:
        Unavailable: the compiler fails.
        OSError: the folder cannot be written to.
    """
    note(f"compiling the CPU kernels, once, with {compiler.version or compiler.command[0]}")
    number, scratch = tempfile.mkstemp(dir=folder, prefix=".", suffix=".so")
    os.close(number)
    try:
        includes = ["-isystem", jax.ffi.include_dir()]
        flags = [*FLAGS, *target_flags(variant, compiler), *includes]
        run_compiler(compiler, [*flags, "-o", scratch, str(sources / "handlers.cc")], SECONDS)
        path = folder / f"{key}-{_content_hash(Path(scratch))}.so"
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)
    with suppress(OSError):
        others = [old for old in folder.glob("*.so") if old != path]  # the new one stays, whatever the clock says
        others.sort(key=lambda old: old.stat().st_mtime)
        damaged = [old for old in others if old.name.startswith(f"{key}-")]
        for old in [*damaged, *others[: 1 - KEPT]]:
            old.unlink(missing_ok=True)
    return path


def handler_names(sources: Path) -> list[str]:
    """Names of the handlers that the sources define."""
    return HANDLER.findall((sources / "handlers.cc").read_text())


def register(path: Path, names: Iterable[str], prefix: str) -> None:
    """Loads a library and registers its handlers with XLA for CPU, all or none.

    Raises:
        Unavailable: the operating system cannot load it, or it lacks a handler.
    """
    try:
        library = ctypes.CDLL(str(path))
        handlers = {prefix + name: jax.ffi.pycapsule(getattr(library, name)) for name in names}
    except (OSError, AttributeError) as error:
        raise Unavailable(f"the compiled kernels cannot be loaded: {error}") from error
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(name, handler, platform="cpu")


def check_answers(prefix: str) -> None:
    """Convolves small whole numbers, whose result is exact: a compiler's mistake is no reason for wrong networks.

    It computes at once, also when called by a function that is being traced.

    Raises:
        Unavailable: a result is wrong, or XLA cannot call the kernels.
    """
    x = np.arange(2 * 5 * 4 * 17, dtype=np.float32).reshape(2, 5, 4, 17) % 7 - 3
    k = np.arange(3 * 3 * 17 * 18, dtype=np.float32).reshape(3, 3, 17, 18) % 5 - 2
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.sum([around[:, i : i + 5, j : j + 4] @ k[i, j] for i in range(3) for j in range(3)], axis=0)
    window = np.array([1, 1, 1, 1, 1, 1], np.int64)
    for winograd_from in (0, 1):
        try:
            with jax.ensure_compile_time_eval(), jax.default_device(jax.devices("cpu")[0]):
                call = jax.ffi.ffi_call(f"{prefix}convolution", jax.ShapeDtypeStruct(expected.shape, jnp.float32))
                found = np.asarray(call(x, k, window=window, depthwise=False, winograd_from=np.int64(winograd_from)))
        except RuntimeError as error:  # JAX's own are such
            raise Unavailable(f"the compiled kernels cannot be called: {str(error).splitlines()[0]}") from error
        if not np.array_equal(found, expected):
            raise Unavailable("the compiled kernels give wrong results")
