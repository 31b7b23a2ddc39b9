"""Merges the shards of a sweep that no process has merged, and writes its report.

    python -m experiments.merge --run runs/a

The last process to finish its shard merges by itself; this is for the case that it was killed before. A shard that is
missing or unfinished is named, with the command that resumes it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from fishnet.cli.parser import Parser, run_guarded
from fishnet.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_guarded(run, argv)


def run(words: Sequence[str]) -> int:
    """Merges the folder that a command line names."""
    parser = Parser(prog="python -m experiments.merge", description=__doc__)
    parser.add_argument("--run", metavar="DIR", required=True, help="output folder of the sweep")
    parser.add_argument("--data-dir", metavar="DIR", help="where the files of the task mnist are, for the report")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    flags = parser.parse(words)
    from fishnet.cli.main import show
    from fishnet.host.interrupt import Interrupt
    from fishnet.sweep.distributed.merge import merge_shards
    from fishnet.sweep.distributed.shard import Shard
    from fishnet.sweep.distributed.shard_folders import missing_shards, one_at_a_time, resume_text
    from fishnet.sweep.run.progress import display_for
    from fishnet.sweep.store.folder import read_sweep_file

    out, display = Path(flags.run), display_for(quiet=True)
    content = read_sweep_file(out)
    if content is None or not (content.get("finished") or content.get("shards", 1) > 1):
        raise UserError(f"{out} holds no sweep that was trained in shards")
    if not content["finished"]:
        with Interrupt() as interrupt, one_at_a_time(out, Shard(1, content["shards"]), interrupt):
            content = read_sweep_file(out) or content
            if not content["finished"]:
                if missing := missing_shards(out, content["shards"], content["spec_hash"]):
                    raise UserError(resume_text(missing, content["command"]))
                merge_shards(out, content, display.warn)
    show(out, display, flags.data_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
