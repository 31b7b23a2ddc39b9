"""Compilation in threads of their own, which a signal can end."""

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

import jax

from fishnet.errors import UserError, first_line
from fishnet.host.interrupt import Interrupt
from fishnet.host.jax_settings import hold_settings
from fishnet.host.memory import OutOfMemory, out_of_memory


def compiler_options(platform: str) -> dict[str, Any] | None:
    """LLVM's first level on CPU: measured as fast to run as the default third and 40 % less to compile."""
    return {"xla_backend_optimization_level": 1} if platform == "cpu" else None


def compile_functions(
    lower: list[Callable[[], jax.stages.Lowered]], options: dict[str, Any] | None, interrupt: Interrupt
) -> list[jax.stages.Compiled]:
    """Lowers and compiles programs in threads of their own, looking out for signals meanwhile.

    Raises:
        OutOfMemory: the backend says that there is not enough of it.
        UserError: it could not compile for another reason.
    """
    futures: list[Future] = [Future() for _ in lower]

    def work(function: Callable[[], jax.stages.Lowered], future: Future) -> None:
        try:
            with hold_settings():
                future.set_result(function().compile(compiler_options=options))
        except BaseException as error:  # handed to the waiting thread
            future.set_exception(error)

    def leave() -> None:
        # Python's own way out takes threads down in the middle of the compiler, which aborts the process.
        if not all(future.done() for future in futures):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + (interrupt.number or signal.SIGINT))

    atexit.register(leave)
    for function, future in zip(lower, futures, strict=True):
        Thread(target=work, args=(function, future), daemon=True).start()
    while not all(future.done() for future in futures):
        interrupt.check("nothing was lost: the same command starts or goes on")
        time.sleep(0.05)
    atexit.unregister(leave)
    try:
        return [future.result() for future in futures]
    except jax.errors.JaxRuntimeError as error:
        if out_of_memory(error):
            raise OutOfMemory from error
        raise UserError(f"the program could not be compiled: {first_line(error)}") from error
