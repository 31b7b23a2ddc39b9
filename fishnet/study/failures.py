"""Captions that say where the runs of each arm first became non-finite."""

from collections import Counter
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from fishnet.study.trials import Trial


def first_bad(trial: "Trial", unit: str = "step") -> list[str]:
    """For every arm with runs that went non-finite: `overflow: 9 of 10 runs, most often forward of dense_7, step 0`.

    Args:
        trial: of a sweep with the probe `first_bad`, whose runs have a phase and a layer, or of own runs whose column
            `first_bad` names an array, empty where there is none. The first look is told of.
        unit: what `first_bad_step` counts.

    Returns:
        How many of its runs did, and their commonest place with the median of its steps; none where all is finite.
    """
    look = trial.looks[0]
    sentences = []
    for label in trial.labels:
        rows = look.results.runs[look.results.runs["run"].isin(look.runs(label))]
        places = pd.Series([_place(row) for row in rows.to_dict("records")], rows.index)
        found = Counter(place for place in places if place)
        if found:
            ((place, _),) = found.most_common(1)
            at = int(rows.loc[places == place, "first_bad_step"].median())
            number = f"{found.total()} of {len(rows)} runs, " + "most often " * (len(found) > 1)
            sentences.append(f"{label}: {number}{place}, {unit} {at}")
    return sentences


def _place(row: dict) -> str:
    """Where one run went non-finite first; empty where it did not."""
    if "first_bad" in row:
        return row["first_bad"]
    phase, layer = row.get("first_bad_phase"), row.get("first_bad_layer")
    if not isinstance(phase, str):
        return ""
    return f"{phase} of {layer}" if isinstance(layer, str) else phase
