"""Orderly stop on Ctrl-C and SIGTERM: a training runner saves at its next boundary and raises."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

from fishnet.errors import UserError


class Interrupted(UserError):
    """Request to stop; the sweep has saved its state, and the same command continues from there."""

    def __init__(self, number: int, saved: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {saved}")
        self.exit_code = 128 + number


class Interrupt:
    """Context manager in which SIGINT and SIGTERM end the block with `Interrupted`.

    They end it at once as long as there is nothing to save. After `defer` they wait until `check` is called, and only a
    second Ctrl-C ends at once. Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._deferred = False
        self._previous: dict[int, Callable | int | signal.Handlers | None] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
        if kind is KeyboardInterrupt and not self._deferred:
            self.check("nothing was lost: the same command starts or goes on")

    def defer(self) -> None:
        """Defers signals from now on until `check`."""
        self._deferred = True

    def _remember(self, number: int, frame: FrameType | None) -> None:
        second = self.number is not None and number == signal.SIGINT
        self.number = number
        if second or not self._deferred:
            raise KeyboardInterrupt

    def check(self, saved: str) -> None:
        """Raises `Interrupted` if a signal has come; `saved` says what has been kept."""
        if self.number is not None:
            raise Interrupted(self.number, saved)
