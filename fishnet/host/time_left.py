"""Time that work will still take, in words."""

import time

from fishnet.host.numbers import seconds_text


class Clock:
    """Time left, from the mean pace of this session's work: what else it does, and earlier ones, do not count.

    Args:
        total: amount of work.
        done: how much of it is done.
    """

    def __init__(self, total: float, done: float):
        self.total, self.done = total, done
        self._began = time.monotonic()
        self._last: float | None = self._began  # when work was last known to be going on
        self._gained = self._spent = 0.0

    def advance(self, done: float) -> None:
        """Notes that so much is done by now."""
        now = time.monotonic()
        if self._last is not None:
            self._gained, self._spent = self._gained + done - self.done, self._spent + now - self._last
        self.done, self._last = done, now

    def pause(self) -> None:
        """Leaves out the time until the next advance, which goes into something else than the work."""
        self._last = None

    def percent(self) -> float:
        """Share done, 0 to 100."""
        return 100.0 * min(self.done / self.total, 1.0) if self.total else 100.0

    def left_text(self) -> str:
        """Time that it will still take, or that it took."""
        if self.done >= self.total:
            return f"took {seconds_text(time.monotonic() - self._began)}"
        if self._gained <= 0:
            return "time left: not known yet"
        return f"{seconds_text(self._spent / self._gained * (self.total - self.done))} left"
