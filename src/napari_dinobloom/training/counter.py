"""Random numbers that are a function of counters, such as seed, position and crop, and of nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""What SplitMix64 adds from one number to the next."""


def uniform(count: int, *counters: ArrayLike) -> NDArray[np.float64]:
    """Draw numbers from 0 to below 1.

    Each counter in turn is put through the finaliser of SplitMix64 (Steele et al., OOPSLA 2014) with what came before.

    Parameters
    ----------
    count : int
        Numbers for each set of counters; the first ones stay the same if there are more.
    *counters : int or array of int64
        Broadcast against each other. Sets that differ in any counter have unrelated numbers.

    Returns
    -------
    ndarray of float64 (..., count)
        Multiples of 2**-53.
    """
    state = np.zeros(1, np.uint64)
    for counter in counters:
        state = mix((state + GOLDEN) ^ mix(np.atleast_1d(np.asarray(counter, np.int64)).astype(np.uint64)))
    steps = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    return fraction(mix(state[..., None] + steps))


def fraction(x: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn 64 random bits into a number from 0 to below 1, by the upper 53."""
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread words over all 64 bits: the finaliser of SplitMix64; sums and products wrap around."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
