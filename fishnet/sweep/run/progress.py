"""Displays for the person who waits for a sweep: nothing, log lines, or a live bar.

The runner calls the same few methods on any `Display`; which one it is, is the caller's choice. Everything goes to
standard error, so that standard output holds only results. A display never fails a sweep: once its stream is closed
(`... 2>&1 | head`), it goes silent.
"""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from fishnet.host.names import escape_lines
from fishnet.host.time_left import Clock
from fishnet.sweep.spec.text import plan_rows


class Display:
    """Display that shows nothing; the base of those that do."""

    def note(self, text: str) -> None:
        """Shows something worth knowing (skipped files, a resumed sweep)."""

    def warn(self, text: str) -> None:
        """Shows something the user should act on (an unused GPU)."""

    def plan(self, view: Mapping[str, Any]) -> None:
        """Shows what is about to run: `view` as from `fishnet.sweep.run.planning.plan_view`."""

    def stage(self, text: str) -> None:
        """Shows what is being done now, when it is not training ("compiling program 1 of 1")."""

    def start(self, total: float, done: float = 0.0) -> None:
        """Begins to show training of `total` run-epochs, of which `done` were finished by an earlier session."""

    def advance(self, done: float, epoch: int, epochs: int, best: str | None = None, diverged: int = 0) -> None:
        """Shows that `done` run-epochs are finished in all; called about once a second at most."""

    def finish(self) -> None:
        """Ends what is shown of training; may be called twice."""


class LineDisplay(Display):
    """Plain lines, one every `every` seconds of training: for logs, pipes and `--quiet`.

    Args:
        stream: where the lines go; standard error by default.
        every: seconds between two lines of progress.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 10.0):
        file = sys.stderr if stream is None else stream
        width = None if file.isatty() else 1000  # a log has no width: nothing is wrapped or cut in it
        self._console = _Console(file=file, width=width, markup=False, highlight=False, emoji=False)
        self._every = every
        self._clock = Clock(0.0, 0.0)
        self._printed = float("-inf")
        self._line: str | None = None  # the latest progress, if it has not been printed

    def note(self, text: str) -> None:
        self._print(text)

    def warn(self, text: str) -> None:
        self._print(f"warning: {text}", style="yellow")

    def plan(self, view: Mapping[str, Any]) -> None:
        for accelerator in view.get("visible_accelerators") or ():
            self.warn(f"{accelerator} is visible, but training runs on {view['device']}")
        self._print_rows(plan_rows(view))
        for text in view.get("notes") or ():
            self.note(text)

    def stage(self, text: str) -> None:
        self._clock.pause()
        self._print(text)

    def start(self, total: float, done: float = 0.0) -> None:
        self._clock, self._printed = Clock(total, done), float("-inf")  # the first calls tell how long it takes

    def advance(self, done: float, epoch: int, epochs: int, best: str | None = None, diverged: int = 0) -> None:
        self._clock.advance(done)
        self._line = "  ".join([progress_text(self._clock, f"epoch {epoch} of {epochs}"), *details(best, diverged)])
        if time.monotonic() - self._printed >= self._every:
            self._print_line()

    def finish(self) -> None:
        self._print_line()

    def _print_line(self) -> None:
        if self._line is not None:
            self._print(self._line)
        self._line, self._printed = None, time.monotonic()

    def _print_rows(self, rows: list[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            self._print(f"{name:{width}}  {text}")

    def _print(self, what: str | Table, style: str = "") -> None:
        try:
            self._console.print(Text(escape_lines(what), style) if isinstance(what, str) else what)
        except (OSError, ValueError):  # the reader of the stream has gone
            self._console.quiet = True


class LiveDisplay(LineDisplay):
    """A bar with the time left and the best arm so far, redrawn in place on a terminal, standard error by default."""

    def __init__(self, stream: TextIO | None = None):
        super().__init__(stream)
        self._progress: Progress | None = None
        self._status: Status | None = None

    def stage(self, text: str) -> None:
        self._clock.pause()
        self._stop_status()
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], detail=text)
            return
        self._status = self._console.status(Text(escape_lines(text)))
        self._status.start()

    def start(self, total: float, done: float = 0.0) -> None:
        self.finish()
        super().start(total, done)
        bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
        words = TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True))
        self._progress = _TwoLines(bar, words, console=self._console, expand=True, refresh_per_second=4)
        text = progress_text(self._clock, "")
        self._progress.add_task("", total=max(total, 1e-9), completed=cast(Any, done), words=text, detail="")
        self._progress.start()

    def advance(self, done: float, epoch: int, epochs: int, best: str | None = None, diverged: int = 0) -> None:
        if self._progress is None:
            return
        self._clock.advance(done)
        text = progress_text(self._clock, f"epoch {epoch}/{epochs}")
        task, detail = self._progress.task_ids[0], "  ".join(details(best, diverged))
        self._progress.update(task, completed=done, words=text, detail=detail)

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

    def _print_rows(self, rows: list[tuple[str, str]]) -> None:
        table = Table.grid(Column(no_wrap=True, style="bold"), Column(overflow="fold"), padding=(0, 2))
        for name, text in rows:
            table.add_row(Text(name), Text(escape_lines(text)))
        self._print(table)

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def progress_text(clock: Clock, epoch: str) -> str:
    """Share done, epoch and time left."""
    return f"{clock.percent():3.0f} %  {epoch}  {clock.left_text()}"


def details(best: str | None, diverged: int) -> list[str]:
    """Best arm and number of diverged runs in words, where there are any."""
    return [f"best {best}"] * bool(best) + [f"{diverged} diverged"] * bool(diverged)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process: a sweep whose log nobody reads any more goes on in silence
        self.quiet = True


class _TwoLines(Progress):
    """The bar, and under it the best arm: on one line they do not fit 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            yield Text(escape_lines(task.fields["detail"]), overflow="ellipsis", no_wrap=True)


def display_for(quiet: bool, stream: TextIO | None = None) -> Display:
    """A live bar on a terminal, plain lines with `quiet` or where there is no terminal to redraw."""
    stream = cast(TextIO, sys.stderr if stream is None else stream)
    return LineDisplay(stream) if quiet or not stream.isatty() else LiveDisplay(stream)
