"""The plan in words, for displays and reports."""

from collections.abc import Mapping
from typing import Any

from fishnet.host.names import escape_text
from fishnet.host.numbers import counted, seconds_text


def plan_rows(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plan in words, as (name, text): device first, then what runs on it and for how long."""
    cohorts, sizes = view["cohorts"], f"{counted(view['arms'], 'arm')} x {counted(view['seeds'], 'seed')}"
    programs = counted(view["programs"], "compiled program")
    rows = [("device", view["device"]), ("runs", f"{view['runs']} = {sizes}, in {programs}")]
    if each := view.get("shards"):
        rows.append(("shard", f"{view['shard']}; the {len(each)} shards have {', '.join(map(str, each))} runs"))
    for number, cohort in enumerate(cohorts, start=1):
        rows.append(("program" if len(cohorts) == 1 else f"program {number}", cohort_text(cohort)))
    return [*rows, ("estimate", estimate_text(view)), ("output", escape_text(view["out"]))]


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
    shared = " with shared batches" * bool(cohort.get("share_batches"))
    parts = [
        counted(cohort["runs"], "run"),
        f"lane width {cohort['lane_width']}{shared}",
        f"{cohort['lowering']} convolutions",
        counted(cohort["devices"], "device"),
        *filter(None, [cohort.get("params")]),
        f"{counted(cohort['epochs'], 'epoch')} of {counted(cohort['steps_per_epoch'], 'step')}",
    ]
    text = ", ".join(parts)
    if cohort["dropped_images"]:
        text += f"; each epoch drops the {counted(cohort['dropped_images'], 'image')} of its incomplete last batch"
    if cohort.get("pretraining"):
        text += f"; pretraining of its own program each: {', '.join(cohort['pretraining'])}"
    if cohort.get("why"):
        text += f"; chosen by timing: {cohort['why']}"
    return f"{text}; {cohort['reason']}"
