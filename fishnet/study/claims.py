"""From verdicts to what becomes of a statement: supported, refuted or undecided."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fishnet.errors import UsageError
from fishnet.lookup import unknown_name
from fishnet.stats import DECISIONS
from fishnet.study.contrasts import Evidence

GUESSING = 0.02  # above chance: what always naming the commonest class is worth among about equal ones
OPPOSITE = {"better": "worse", "worse": "better", "equivalent": ""}


@dataclass(frozen=True)
class Claim:
    """A statement that courses and papers make, and what would be seen if it were true here.

    Args:
        text: the statement.
        source: who makes it.
        contrast: the name of the contrast that bears on it.
        expected: arm -> verdict that the statement predicts; all of them must be found for it to be supported, and
            one that is contradicted refutes it.
        also: further contrasts and what is expected of them, such as the same on another task.
    """

    text: str
    source: str
    contrast: str
    expected: Mapping[str, str]
    also: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def expectations(self) -> dict[str, Mapping[str, str]]:
        """contrast -> arm -> verdict, of all contrasts."""
        return {self.contrast: self.expected, **self.also}


@dataclass(frozen=True)
class Judgment:
    """What became of a claim."""

    claim: Claim
    verdict: str  # supported, refuted or undecided
    metric: str  # what was measured, in words; of several contrasts joined by "; "
    control: str  # the arm that the others are compared with; likewise
    effects: Mapping[str, str] = field(default_factory=dict)  # arm -> phrase


def judge(claim: Claim, evidence: Mapping[str, Evidence]) -> Judgment:
    """Whether the evidence supports or refutes a claim.

    An expectation of `better` or `worse` is contradicted by the opposite, by `equivalent`, and by an interval that
    excludes every difference of the margin in that direction; one of `equivalent` by `better` and `worse`. `not better`
    (or `not worse`) is met by equivalent, by the opposite, and by such an interval (non-inferiority), and contradicted
    by the word itself. Two arms of which neither has learned anything meet no expectation of being alike.

    Args:
        claim: to be judged.
        evidence: by the contrast's name.

    Raises:
        UsageError: a contrast that is not there, or an expectation that is no verdict.
    """
    met, contradicted, effects, used = [], [], {}, []
    several = len(claim.expectations) > 1
    for name, expectations in claim.expectations.items():
        if name not in evidence:
            raise unknown_name("contrast", name, evidence)
        of = evidence[name]
        used.append(of)
        for label, expected in expectations.items():
            word = expected.removeprefix("not ")
            if word not in DECISIONS:
                raise UsageError(f"claim {claim.text!r} expects {expected!r} of {label!r}: not a verdict")
            found = of.row(label).verdict
            excluded = word in excludes(of, label)
            nothing = found in ("equivalent", "undecided") and _nothing_learned(of, label)
            if expected.startswith("not "):
                met.append((found in ("equivalent", OPPOSITE[word]) or excluded) and not nothing)
                contradicted.append(found == word)
            else:
                met.append(found == word and not nothing)
                contradicted.append(found not in (word, "undecided") or excluded)
            remark = (
                f" ({word} by {of.contrast.metric.margin:g} is excluded)" if excluded and found == "undecided" else ""
            )
            beside = f" ({of.contrast.metric.name}, against {next(iter(of.rows))})" if several else ""
            effects[label + beside] = of.difference_text(label) + remark
    verdict = "refuted" if any(contradicted) else "supported" if all(met) else "undecided"
    metrics, controls = ({of.contrast.metric.name: 0 for of in used}, {next(iter(of.rows)): 0 for of in used})
    return Judgment(claim, verdict, "; ".join(metrics), "; ".join(controls), effects)


def excludes(of: Evidence, label: str) -> set[str]:
    """Effects of the size of the margin (`better`, `worse`) that the interval of the verdict excludes."""
    metric, bounds = of.contrast.metric, of.row(label).simultaneous_interval
    if of.problem or metric.margin is None:
        return set()
    low, high = bounds if metric.larger_is_better else (-bounds.high, -bounds.low)
    return {word for word, out in (("better", high < metric.margin), ("worse", low > -metric.margin)) if out}


def _nothing_learned(of: Evidence, label: str) -> bool:
    """Whether neither an arm nor its control is better than a diverged run, such as chance."""
    metric, control = of.contrast.metric, next(iter(of.rows.values()))
    if metric.diverged is None:
        return False
    means = np.array([control.mean, of.row(label).mean])
    return bool((np.abs(means - metric.diverged) < max(metric.margin or 0.0, GUESSING)).all())
