"""What a sweep tells the person who waits for it: nothing, log lines, or a live bar.

The runner calls the same few methods on any `Display`; which one it is, is the caller's choice. Everything goes to
standard error, so that standard output holds only results. A display never fails a sweep: once its stream is closed
(`... 2>&1 | head`), it goes silent.
"""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column, Table
from rich.text import Text

from fishnet.host.names import visible_lines
from fishnet.host.numbers import seconds_text
from fishnet.sweep.spec.text import plan_rows


class Display:
    """Says nothing; the base of the displays that do."""

    def note(self, text: str) -> None:
        """Something worth knowing (skipped files, a resumed sweep)."""

    def warn(self, text: str) -> None:
        """Something the user should act on (an unused GPU)."""

    def plan(self, view: Mapping[str, Any]) -> None:
        """What is about to run.

        Args:
            view: device (str), devices (int), visible_accelerators (list of str: seen but not used), runs, arms, seeds,
                programs, out, cohorts (list of mappings: runs, lane_width, lowering, devices, steps_per_epoch, epochs,
                dropped_images, reason, params, last_time), notes (list of str).
        """

    def stage(self, text: str) -> None:
        """What is being done now, when it is not training ("compiling program 1 of 1")."""

    def start(self, total: float, done: float = 0.0) -> None:
        """Training begins: `total` run-epochs, of which `done` were finished by an earlier session."""

    def advance(self, done: float, epoch: int, epochs: int, best: str | None = None, diverged: int = 0) -> None:
        """`done` run-epochs are finished in all; called about once a second at most."""

    def finish(self) -> None:
        """Nothing more will come from training; may be called twice."""


class LineDisplay(Display):
    """Plain lines, one every `every` seconds of training: for logs, pipes and `--quiet`.

    Args:
        stream: where the lines go; standard error by default.
        every: seconds between two lines of progress.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 10.0):
        self._stream = sys.stderr if stream is None else stream
        # A log has no width: nothing is wrapped or cut in it.
        self._console = _Console(
            file=self._stream,
            width=None if self._stream.isatty() else 1000,
            soft_wrap=False,
            markup=False,
            highlight=False,
            emoji=False,
        )
        self._every = every
        self._clock = Clock(0.0, 0.0)
        self._printed = float("-inf")
        self._line: Text | None = None  # the latest progress, if it has not been printed

    def note(self, text: str) -> None:
        self._print(Text(visible_lines(text)))

    def warn(self, text: str) -> None:
        self._print(Text(visible_lines(f"warning: {text}"), style="yellow"))

    def plan(self, view: Mapping[str, Any]) -> None:
        for accelerator in view.get("visible_accelerators") or ():
            self.warn(f"{accelerator} is visible, but training runs on {view['device']}")
        self._plan_rows(plan_rows(view))
        for text in view.get("notes") or ():
            self.note(text)

    def stage(self, text: str) -> None:
        self._clock.pause()
        self._print(Text(visible_lines(text)))

    def start(self, total: float, done: float = 0.0) -> None:
        self._clock, self._printed = Clock(total, done), float("-inf")  # the first calls tell how long it takes

    def advance(self, done: float, epoch: int, epochs: int, best: str | None = None, diverged: int = 0) -> None:
        self._clock.advance(done)
        parts = [f"{self._clock.percent:3.0f} %", f"epoch {epoch} of {epochs}", self._clock.left_text()]
        parts += [f"best {best}"] * bool(best) + [f"{diverged} diverged"] * bool(diverged)
        self._line = Text(visible_lines("  ".join(parts)))
        if time.monotonic() - self._printed >= self._every:
            self._print_line()

    def finish(self) -> None:
        self._print_line()

    def _print_line(self) -> None:
        if self._line is not None:
            self._print(self._line)
        self._line, self._printed = None, time.monotonic()

    def _plan_rows(self, rows: list[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            self._print(Text(visible_lines(f"{name:{width}}  {text}")))

    def _print(self, what: Text | Table) -> None:
        try:
            self._console.print(what)
        except (OSError, ValueError):  # the reader of the stream has gone
            self._console.quiet = True


class LiveDisplay(LineDisplay):
    """A bar with the time left and the best arm so far, redrawn in place on a terminal.

    Args:
        stream: a terminal; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None):
        super().__init__(stream)
        self._progress: Progress | None = None
        self._status: Any = None

    def stage(self, text: str) -> None:
        self._clock.pause()
        self._stop_status()
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], detail=text)
            return
        self._status = self._console.status(Text(visible_lines(text)))
        self._status.start()

    def start(self, total: float, done: float = 0.0) -> None:
        self.finish()
        super().start(total, done)
        bar, words = BarColumn(bar_width=None, table_column=Column(ratio=1)), _Words(self._clock)
        self._progress = _TwoLines(bar, words, console=self._console, expand=True, refresh_per_second=4)
        self._progress.add_task("", total=max(total, 1e-9), completed=cast(Any, done), epoch="", detail="")
        self._progress.start()

    def advance(self, done: float, epoch: int, epochs: int, best: str | None = None, diverged: int = 0) -> None:
        if self._progress is None:
            return
        self._clock.advance(done)
        detail = "  ".join([f"best {best}"] * bool(best) + [f"{diverged} diverged"] * bool(diverged))
        task = self._progress.task_ids[0]
        self._progress.update(task, completed=done, detail=detail, epoch=f"epoch {epoch}/{epochs}")

    def finish(self) -> None:
        self._stop_status()
        if self._progress is not None:
            try:
                self._progress.stop()
            except (OSError, ValueError):
                self._console.quiet = True
            self._progress = None

    def plan(self, view: Mapping[str, Any]) -> None:
        self._stop_status()
        super().plan(view)

    def _plan_rows(self, rows: list[tuple[str, str]]) -> None:
        table = Table.grid(Column(no_wrap=True, style="bold"), Column(overflow="fold"), padding=(0, 2))
        for name, text in rows:
            table.add_row(Text(name), Text(visible_lines(text)))
        self._print(table)

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process: a sweep whose log nobody reads any more goes on in silence
        self.quiet = True


class Clock:
    """Time left, from the mean pace of this session's training: what else it does, and earlier ones, do not count.

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
        """So much is done by now."""
        now = time.monotonic()
        if self._last is not None:
            self._gained, self._spent = self._gained + done - self.done, self._spent + now - self._last
        self.done, self._last = done, now

    def pause(self) -> None:
        """What is done until the next advance is not the work that is counted: compilation, pretraining."""
        self._last = None

    @property
    def percent(self) -> float:
        """The share done, 0 to 100."""
        return 100.0 * min(self.done / self.total, 1.0) if self.total else 100.0

    def left_text(self) -> str:
        """How long it will still take, or how long it took, in words."""
        if self.done >= self.total:
            return f"took {seconds_text(time.monotonic() - self._began)}"
        if self._gained <= 0:
            return "time left: not known yet"
        return f"{seconds_text(self._spent / self._gained * (self.total - self.done))} left"


class _Words(ProgressColumn):
    def __init__(self, clock: Clock):
        super().__init__(table_column=Column(no_wrap=True))
        self._clock = clock

    def render(self, task: Task) -> Text:
        return Text(f"{self._clock.percent:3.0f} %  {task.fields['epoch']}  {self._clock.left_text()}")


class _TwoLines(Progress):
    """The bar, and under it the best arm: on one line they do not fit 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            yield Text(visible_lines(task.fields["detail"]), overflow="ellipsis", no_wrap=True)


def display_for(quiet: bool, stream: TextIO | None = None) -> Display:
    """A live bar on a terminal, plain lines with `quiet` or where there is no terminal to redraw."""
    stream = cast(TextIO, sys.stderr if stream is None else stream)
    return LineDisplay(stream) if quiet or not stream.isatty() else LiveDisplay(stream)
