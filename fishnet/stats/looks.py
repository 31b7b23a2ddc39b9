"""Sequential testing: the error that each look may spend when seeds are added until arms are decided.

rows = {}
for look in range(1, looks + 1):
    alpha = alpha_at_look(look, looks)
    rows = keep_decided(rows, compare(values, control, alpha=alpha))
    ...  # run further seeds of the arms whose row says "undecided", and of the control
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from fishnet.errors import UsageError
from fishnet.lookup import lookup
from fishnet.stats.intervals import check_confidence

if TYPE_CHECKING:
    from fishnet.stats.compare import Comparison


def pocock_spending(fraction: float, alpha: float = 0.05) -> float:
    """Pocock-type spending, about even over the looks: `alpha log(1 + (e - 1) fraction)`.

    Source: Lan and DeMets 1983, https://doi.org/10.1093/biomet/70.3.659, after Pocock 1977
    """
    return float(alpha * np.log1p((np.e - 1) * fraction))


def obrien_fleming_spending(fraction: float, alpha: float = 0.05) -> float:
    """O'Brien-Fleming-type spending, little at the first looks: `2 - 2 Phi(z_{1 - alpha / 2} / sqrt(fraction))`.

    Source: Lan and DeMets 1983, https://doi.org/10.1093/biomet/70.3.659, after O'Brien and Fleming 1979
    """
    return float(2 * stats.norm.sf(stats.norm.isf(alpha / 2) / np.sqrt(fraction))) if fraction > 0 else 0.0


def alpha_at_look(look: int, looks: int, alpha: float = 0.05, spending: str | Callable = "pocock") -> float:
    """Family-wise error to use at one of several planned looks, from a spending function.

    `A(look / looks) - A((look - 1) / looks)`. The parts add up to alpha, so that by Bonferroni's inequality no more
    than alpha is wrong over all looks, for every test, every dependence between the looks and every rule by which seeds
    are added; Holm's correction over the arms goes on inside each look. Boundaries from the joint normal distribution
    of the looks would spend the same alpha a little more fully, but hold for neither the sign-flip test nor few seeds.
    Simulated with 3 to 7 looks at 3 to 12 seeds, normal runs like the control: .003 to .048 are called different, where
    looking each time at 0.05 gives .06 to .16.

    Args:
        look: 1 to `looks`.
        looks: how many are planned at most, before the first; ending earlier is allowed, adding one is not.
        alpha: family-wise error over all looks.
        spending: a name in `SPENDING`, or `f(fraction, alpha) -> error spent`, rising from 0 to alpha.

    Returns:
        `alpha` for `compare`.

    Raises:
        UsageError: a look outside 1 to `looks`, an unknown name, or an alpha not between 0 and 1.

    Source: Lan and DeMets 1983, https://doi.org/10.1093/biomet/70.3.659
    """
    check_confidence(alpha, "alpha")
    if not 1 <= look <= looks:
        raise UsageError(f"look {look} is not one of the {looks} planned")
    spent = lookup(SPENDING, spending, "spending")
    return spent(look / looks, alpha) - spent((look - 1) / looks, alpha)


def keep_decided(earlier: Mapping[str, "Comparison"], now: Mapping[str, "Comparison"]) -> dict[str, "Comparison"]:
    """Keeps the rows that an earlier look has decided, and takes the others from this look.

    All arms go on counting in Holm's correction: an arm that has dropped out because it is equivalent would make those
    that remain a selection of the most different.

    Args:
        earlier: of the looks before, by arm; empty at the first.
        now: of `compare` over all arms, those decided included.

    Returns:
        A row an arm, in the order of `now`.

    Raises:
        UsageError: an arm has been decided and is not compared now.
    """
    decided = {arm: row for arm, row in earlier.items() if row.decided}
    for arm in decided:
        if arm not in now:
            raise UsageError(f"arm {arm!r}, decided earlier, is left out: it must go on counting in the correction")
    return {arm: decided.get(arm, row) for arm, row in now.items()}


SPENDING: dict[str, Callable[[float, float], float]] = {
    "pocock": pocock_spending,
    "obrien-fleming": obrien_fleming_spending,
}
