"""What early values say of final ones: rank correlations over groups of runs, honestly uncertain.

Runs of one architecture are alike, so runs are no independent samples: over all of them the
interval resamples whole groups; between seeds only the order within each group counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from article_statistics import rho

Groups = Sequence[Sequence[float]]  # one value per seed, in groups
DRAWS = 2000


def across(x: Groups, y: Groups) -> str:
    """Spearman's rho over all runs, with the 95 % interval of a bootstrap over groups."""
    random = np.random.default_rng(0)
    pairs = [np.array([a, b], np.float64) for a, b in zip(x, y, strict=True)]
    drawn = []
    for _ in range(DRAWS):
        chosen = random.integers(len(pairs), size=len(pairs))
        if len(set(chosen)) > 1:
            drawn.append(rho(*np.concatenate([pairs[i] for i in chosen], axis=1)))
    found = rho(*np.concatenate(pairs, axis=1))
    if len(pairs) < 3:
        return f"{found:+.2f} (too few groups for an interval)"
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{found:+.2f} [{low:+.2f}, {high:+.2f}]"


def within(x: Groups, y: Groups) -> str:
    """Mean of the groups' rhos, and the p-value of permuting seeds within groups, two-sided."""
    if min(map(len, x)) < 3:
        return "too few seeds"
    random = np.random.default_rng(0)

    def mean(columns: Sequence[np.ndarray]) -> float:
        return float(np.mean([rho(np.asarray(a), b) for a, b in zip(x, columns, strict=True)]))

    found = mean([np.asarray(b) for b in y])
    drawn = np.array([mean([random.permutation(b) for b in y]) for _ in range(DRAWS)])
    p = (1 + np.sum(np.abs(drawn) >= abs(found) - 1e-12)) / (1 + DRAWS)
    return f"{found:+.2f} ({p:.3f})"
