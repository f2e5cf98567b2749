"""Wilson's interval of a proportion: the counting error of a share of cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959963984540054
"""Normal quantile for 95 %."""


def wilson(count: ArrayLike, total: ArrayLike, z: float = Z95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Parameters
    ----------
    count, total : array of int or float
        Cells of a kind, and all cells; broadcast against each other.
    z : float
        Normal quantile; 1.96 for 95 %.

    Returns
    -------
    low, high : array of float64
        Proportions 0 to 1; NaN where `total` is 0.
    """
    n = np.asarray(total, dtype=np.float64)
    n = np.where(n > 0, n, np.nan)
    p = np.asarray(count, dtype=np.float64) / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low = np.where(p == 0, 0.0, np.clip(centre - half, 0, 1))
    high = np.where(p == 1, 1.0, np.clip(centre + half, 0, 1))
    return np.where(np.isnan(n), np.nan, low), np.where(np.isnan(n), np.nan, high)
