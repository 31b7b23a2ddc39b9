"""The processes that train one sweep: how they meet, and how each knows whether the others are still at work.

They meet once, through `jax.distributed`, and learn how many they are. Then they let go of each other: lanes never
talk, and JAX takes a process that stays connected down with the one that dies. From then on each gives signs of life in
a small file in the output folder, which all of them must see.
"""

import json
import os
import secrets
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax._src.distributed import global_state  # JAX offers its key-value store and its count of processes nowhere else

from fishnet.checks.arguments import check_type
from fishnet.errors import UsageError, UserError, first_line

MEETING_SECONDS = 300.0  # how long a process waits for the others to start
BEAT_SECONDS = 5.0  # between two signs of life
# Without a sign of life for so long a process counts as gone; network file systems may show a file a minute late.
GONE_SECONDS = 180.0
STATUS_FILE = "status.json"
# A host of a TPU pod then takes its own chips only, https://github.com/pytorch/xla/issues/7714 (under the older name).
OWN_CHIPS = {"TPU_PROCESS_BOUNDS": "1,1,1"}
WORKING, FINISHED, STOPPED, GONE = "working", "finished", "stopped", "gone"


@dataclass(frozen=True)
class Team:
    """All processes of a job, and which of them this one is."""

    index: int = 0
    count: int = 1
    session: str = ""  # tells this start of the job from earlier ones

    def view(self) -> dict[str, Any]:
        """What `sweep.json` says of it."""
        return {"processes": self.count} | ({"session": self.session} if self.count > 1 else {})


_team = Team()


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> Team:
    """Meets the other processes of this job, before JAX has made its devices; the sweeps that follow are shared.

    Args:
        coordinator: host:port of process 0. None, as the rest: found from Slurm, a TPU pod, Open MPI, Kubernetes.
        processes: how many there are.
        process: which of them this one is, from 0.

    Returns:
        The team; a second call returns the same one.

    Raises:
        UsageError: nothing is given, and this is no cluster that JAX knows.
        UserError: JAX has made its devices already, or the meeting failed.
    """
    global _team
    check_type("coordinator", coordinator, (str, type(None)), "host:port as a text, or None")
    for name, number in (("processes", processes), ("process", process)):
        check_type(name, number, (int, type(None)), "a whole number, or None")
    if _team.count > 1 or processes == 1:
        return _team
    late = threading.Timer(MEETING_SECONDS, _give_up, [coordinator, processes, process])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=int(MEETING_SECONDS) + 60)
        index, count, client = global_state.process_id, global_state.num_processes, global_state.client
        if index == 0:
            client.key_value_set("fishnet/session", secrets.token_hex(8))
        session = client.blocking_key_value_get("fishnet/session", int(MEETING_SECONDS * 1000))
        jax.distributed.shutdown()
    except ValueError as error:
        raise UsageError(
            "--distributed: this is no cluster that JAX knows (Slurm, TPU pod, Open MPI, Kubernetes): "
            "give --coordinator HOST:PORT --processes N --process I"
        ) from error
    except RuntimeError as error:
        raise UserError(f"the processes did not find each other: {first_line(error)}") from error
    finally:
        late.cancel()
    # From here on each is a JAX of its own: its devices are numbered from 0 and its compiled programs are kept.
    global_state.process_id, global_state.num_processes = 0, 1
    for name, value in OWN_CHIPS.items():
        os.environ.setdefault(name, value)
    _team = Team(index, count, session)
    return _team


def current() -> Team:
    """The team of this process: itself alone, unless it has joined others."""
    return _team


def check_apart() -> None:
    """Refuses devices that JAX counts as shared between processes, where one would wait for the others.

    Raises:
        UserError: with what to do about it.
    """
    if jax.process_count() == 1:
        return
    if _team.count == 1:
        raise UserError(
            "JAX runs on several processes: call fishnet.sweep.distributed.processes.join() before anything else of "
            "JAX (in place of jax.distributed.initialize()), or give --distributed"
        )
    raise UserError(
        "the hosts of this TPU pod share their chips: set TPU_PROCESS_BOUNDS=1,1,1 and TPU_CHIPS_PER_PROCESS_BOUNDS "
        "to the chips of one host, such as 2,2,1"
    )


def _give_up(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Ends a process that waited in vain for the others; JAX itself would crash."""
    who, all_of_them = ("this process", "all") if process is None else (f"process {process}", f"all {processes}")
    where = f" at {coordinator}" if coordinator else ""
    print(
        f"error: {who} waited {MEETING_SECONDS:.0f} s{where} for {all_of_them} processes of the job to start: "
        "some did not, or cannot reach process 0",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


class Pulse:
    """While entered, this process gives signs of life in its part of the output folder.

    Args:
        folder: the part.
        session: of the team.
    """

    def __init__(self, folder: Path, session: str) -> None:
        self.path, self.session = folder / STATUS_FILE, session
        self.state, self.why, self.beats = WORKING, "", 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Pulse":
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self.state == WORKING:
            self.say(STOPPED, first_line(error) if error else "")

    def say(self, state: str, why: str = "") -> None:
        """The last sign: whether the part is finished or why not."""
        self._end.set()
        self._thread.join()
        self.state, self.why = state, why
        self._beat()

    def _work(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        self.beats += 1
        status = {"session": self.session, "beat": self.beats, "state": self.state, "why": self.why}
        temporary = self.path.with_name(f".{self.path.name}.part")
        with suppress(OSError):  # the next one may succeed; once the sweep is put together the folder is gone
            temporary.write_text(json.dumps(status))
            os.replace(temporary, self.path)


@dataclass
class Peer:
    """Another process, as its signs of life tell."""

    index: int
    folder: Path  # its part
    session: str  # of the team: signs of an earlier start do not count
    heard: bool = False
    why: str = ""  # it stopped
    _beat: int = 0
    _since: float = field(default_factory=time.monotonic)  # the last new beat, by this process's clock

    def state(self) -> str:
        """WORKING, FINISHED, STOPPED, or GONE: killed, cut off, or never begun."""
        try:
            status = json.loads((self.folder / STATUS_FILE).read_text())
        except (OSError, ValueError):
            status = {}
            if self.heard:  # process 0 has left nothing behind
                return GONE
        if status.get("session") == self.session:
            self.heard = True
            if status["state"] != WORKING:
                self.why = status["why"]
                return status["state"]
            if status["beat"] != self._beat:
                self._beat, self._since = status["beat"], time.monotonic()
        return GONE if time.monotonic() - self._since > GONE_SECONDS else WORKING

    def ending(self) -> str:
        """How it ended, in words."""
        if not self.heard:
            return f"process {self.index} did not begin"
        return f"process {self.index} stopped ({self.why})" if self.why else f"process {self.index} is gone"
