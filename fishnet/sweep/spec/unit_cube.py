"""Points in the unit cube: a scrambled Sobol sequence, or independent ones."""

import numpy as np


def sobol(count: int, dimensions: int, seed: int) -> np.ndarray:
    """First points of a scrambled Sobol sequence, [count, dimensions] in [0, 1); more begin with the same.

    Source: Sobol 1967, https://doi.org/10.1016/0041-5553(67)90144-9; Owen 1998 (scrambling),
    https://doi.org/10.1006/jcom.1998.0487
    """
    from scipy.stats import qmc  # takes a second, for which a mistyped flag should not wait

    # Whole powers of two, which is what the sequence is made of: the first of them are the same for more points.
    points = qmc.Sobol(dimensions, scramble=True, seed=np.random.default_rng(seed))  # pyright: ignore[reportCallIssue]: SciPy's decorator hides it
    return points.random_base2((count - 1).bit_length())[:count]


def random(count: int, dimensions: int, seed: int) -> np.ndarray:
    """Independent uniform points, [count, dimensions] in [0, 1); more begin with the same."""
    return np.random.default_rng(seed).random((count, dimensions))


METHODS = {"sobol": sobol, "random": random}
