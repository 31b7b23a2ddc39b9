"""Holds the settings of JAX and NumPy that results depend on at their defaults while a sweep runs.

A user's settings (`JAX_ENABLE_X64=1`, `jax.config.update`, `np.seterr`) stay what they are outside. The managers act on
the thread that enters them, so each thread that traces, compiles or calls a program enters them itself.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fishnet.errors import UserError

# Option of `jax.config` -> its held value. Options that this version of JAX lacks are left out.
HELD: dict[str, Any] = {
    # types and promotion
    "jax_enable_x64": False,
    "jax_explicit_x64_dtypes": "warn",
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    # random numbers
    "jax_default_prng_impl": "threefry2x32",
    "jax_enable_custom_prng": False,
    "jax_high_dynamic_range_gumbel": False,
    "jax_legacy_prng_key": "allow",
    "jax_random_seed_offset": 0,
    "jax_threefry_gpu_kernel_lowering": False,
    "jax_threefry_partitionable": True,
    # arithmetic and derivatives
    "eager_constant_folding": False,
    "jax_accurate_erf_inv": False,
    "jax_allow_f16_reductions": True,
    "jax_default_matmul_precision": None,
    "jax_softmax_custom_jvp": False,
    "jax_use_direct_linearize": True,
    "jax_use_hlo_logistic_lowering": None,
    # what the compiler may do
    "jax_compiler_enable_remat_pass": True,
    "jax_enable_pgle": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_memory_fitting_level": "O2",
    "jax_optimization_level": "UNKNOWN",
    "jax_xla_profile_version": 0,
    # where and whether programs run, and what stops them
    "jax_array_garbage_collection_guard": "allow",
    "jax_check_static_indices": False,
    "jax_check_tracer_leaks": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_debug_nans": False,
    "jax_default_device": None,
    "jax_disable_jit": False,
    "jax_enable_checks": False,
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "jax_no_execution": False,
    "jax_no_tracing": False,
    "jax_thread_guard": False,
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
    "jax_transfer_guard_host_to_device": "allow",
}
FLOAT_ERRORS: Any = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}  # NumPy's own defaults
NO_MESH = jax.sharding.Mesh(np.empty((), object), ())  # of devices, that arrays would be spread over
# Variables that the backend reads once, when it starts: they cannot be held, so `sweep.json` keeps them.
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
OPTIONS = ("jax_disable_most_optimizations",)  # options without a context manager
# Flags of XLA that say where programs run and what is written about them.
HARMLESS = re.compile(r"--(xla_force_host_platform_device_count|xla_dump_|xla_hlo_profile|xla_gpu_cuda_data_dir)")


@contextmanager
def hold_settings() -> Iterator[None]:
    """Holds `HELD`, the mesh and NumPy's float errors at their defaults in this thread; also a decorator."""
    with ExitStack() as stack:
        for name, value in HELD.items():
            state: Any = jax.config._value_holders.get(name)
            if state is not None:
                stack.enter_context(state(value))
        stack.enter_context(jax.set_mesh(NO_MESH))
        stack.enter_context(np.errstate(**FLOAT_ERRORS))
        yield


def start_settings() -> dict[str, str]:
    """Settings of the backend at its start that may change results, by name."""
    found = {name: os.environ.get(name, "") for name in VARIABLES}
    words = [" ".join(sorted(w for w in text.split() if not HARMLESS.match(w))) for text in found.values()]
    found = dict(zip(found, words, strict=True))
    found |= {name.upper(): "1" for name in OPTIONS if jax.config.values.get(name)}
    return {name: text for name, text in found.items() if text}


def check_start_settings(out: Path, found: Mapping[str, Any]) -> None:
    """Refuses to resume a sweep whose results would change.

    Args:
        out: its folder.
        found: its `sweep.json`.

    Raises:
        UserError: the backend was started with other settings.
    """
    then, now = found.get("settings", {}), start_settings()
    for name in dict.fromkeys([*then, *now]):
        if then.get(name) != now.get(name):
            old, new = (f"with {name}={each[name]!r}" if name in each else f"without {name}" for each in (then, now))
            raise UserError(f"the sweep of {out} was begun {old} and would go on {new}: its numbers would change")
