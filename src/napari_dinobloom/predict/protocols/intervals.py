"""How far a score may be off because other pictures, or patients, could have been asked about: percentile bootstrap.

All scores follow from the table of true and predicted classes. To draw n pictures with replacement and count that table
is to draw it from a multinomial distribution with n draws, so a thousand resamples take milliseconds whatever n is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""(..., K, K) tables: rows true classes, columns predicted ones."""

Score = Callable[[Counts], Mapping[str, NDArray[np.float64]]]
"""Scores (...) of tables (..., K, K)."""

RESAMPLES = 1000

LEVEL = 0.95


def resample(units: Counts, count: int, random: np.random.Generator) -> Counts:
    """Draw units with replacement, as many as there are, and count their tables.

    Parameters
    ----------
    units : (U, K, K) array of int
        A table for each patient; or (1, K, K), the table of all pictures, each of which is a unit.
    count : int
        Resamples.
    random : numpy.random.Generator
        Draws.

    Returns
    -------
    (count, K, K) array of int
    """
    flat = units.reshape(len(units), -1)
    if len(units) == 1:
        n = int(flat.sum())
        drawn = random.multinomial(n, flat[0] / n, size=count)
    else:
        drawn = random.multinomial(len(units), np.full(len(units), 1 / len(units)), size=count) @ flat
    return drawn.reshape(count, *units.shape[1:])


def intervals(
    parts: Sequence[Counts], score: Score, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of scores that are averaged over parts, such as folds.

    Parameters
    ----------
    parts : sequence of (U, K, K) arrays of int
        What `resample` takes; each part is drawn by itself.
    score : callable
        Scores of tables.
    resamples : int, default: 1000
        How often to draw.
    level : float, default: 0.95
        Share of the resamples within the interval.
    seed : int, default: 0
        Of the draws.

    Returns
    -------
    dict
        Low and high of each score.
    """
    random = np.random.default_rng(seed)
    drawn = [score(resample(part, resamples, random)) for part in parts]
    found: dict[str, tuple[float, float]] = {}
    for name in drawn[0]:
        mean = np.mean([one[name] for one in drawn], axis=0)
        found[name] = bounds(mean, level)
    return found


def bounds(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Low and high end of the middle part of resampled values; NaN where no resample has one."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
