"""The plan in words, for displays and reports."""

from collections.abc import Mapping
from typing import Any

from fishnet.host.names import visible
from fishnet.host.numbers import counted, seconds_text


def plan_rows(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plan in words, as (name, text): device first, then what runs on it and for how long."""
    cohorts = view.get("cohorts") or ()
    rows = [
        ("device", str(view["device"])),
        (
            "runs",
            f"{view['runs']} = {counted(view['arms'], 'arm')} x {counted(view['seeds'], 'seed')}, "
            f"in {counted(view['programs'], 'compiled program')}",
        ),
    ]
    if each := view.get("shards"):
        rows.append(("shard", f"{view['shard']}; the {len(each)} shards have {', '.join(map(str, each))} runs"))
    for number, cohort in enumerate(cohorts, start=1):
        rows.append(("program" if len(cohorts) == 1 else f"program {number}", cohort_text(cohort)))
    rows += [("estimate", estimate_text(view))] if cohorts else []
    return [*rows, ("output", visible(str(view["out"])))]


def estimate_text(view: Mapping[str, Any]) -> str:
    """Expected time of a sweep and its parts, where all of its programs have run on this machine before."""
    times = [cohort.get("last_time") for cohort in view["cohorts"]]
    if not all(times):
        return "unknown until the first calls: then the progress says how much time is left"
    parts = dict.fromkeys((what for time in times for what in time.seconds), 0.0)
    for what in parts:
        parts[what] = sum(time.seconds.get(what, 0.0) for time in times)
    text = ", ".join(f"{what} {seconds_text(seconds)}" for what, seconds in parts.items())
    dates = ", ".join(dict.fromkeys(time.date for time in times))
    return f"about {seconds_text(sum(parts.values()))}: {text}; as it took on {dates}"


def cohort_text(cohort: Mapping[str, Any]) -> str:
    """One cohort of the plan in words."""
    runs = cohort["runs"] if isinstance(cohort["runs"], int) else len(cohort["runs"])
    shared = " with shared batches" * bool(cohort.get("share_batches"))
    parts = [counted(runs, "run"), f"lane width {cohort['lane_width']}{shared}", f"{cohort['lowering']} convolutions"]
    if cohort.get("devices"):
        parts.append(counted(cohort["devices"], "device"))
    if cohort.get("params"):
        parts.append(f"{cohort['params']:,} parameters" if isinstance(cohort["params"], int) else str(cohort["params"]))
    if cohort.get("steps_per_epoch"):
        parts.append(f"{counted(cohort['epochs'], 'epoch')} of {counted(cohort['steps_per_epoch'], 'step')}")
    text = ", ".join(parts)
    if cohort.get("dropped_images"):
        text += f"; each epoch drops the {counted(cohort['dropped_images'], 'image')} of its incomplete last batch"
    if cohort.get("pretraining"):
        text += f"; pretraining of its own program each: {', '.join(cohort['pretraining'])}"
    if cohort.get("why"):
        text += f"; chosen by timing: {cohort['why']}"
    return text + (f"; {cohort['reason']}" if cohort.get("reason") else "")
