"""How well the cells of several slides mix: the inverse Simpson index of a cell's neighbourhood, against chance.

The local inverse Simpson index over slides (iLISI; Korsunsky et al. 2019, doi:10.1038/s41592-019-0619-0), here over
exact neighbours with equal weights: the number of slides that a neighbourhood effectively holds. Slides that hold
different cells mix less than by chance, whatever their stain: compare before and after, not with 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore.graph import best_device
from napari_dinobloom.explore.neighbours import iter_neighbours
from napari_dinobloom.progress import drain

SAMPLE = 5000
"""Cells whose neighbourhoods are looked at, drawn evenly."""

SHUFFLES = 20


@dataclass(frozen=True, slots=True)
class Mixing:
    """How well slides mix.

    Attributes
    ----------
    lisi : float
        Mean number of slides that a neighbourhood effectively holds, 1 or more.
    expected : float
        The same with slides dealt out by chance over the same cells.
    k : int
        Neighbours of a neighbourhood.
    cells : int
        Neighbourhoods.
    """

    lisi: float
    expected: float
    k: int
    cells: int

    @property
    def share(self) -> float:
        """0 where every slide keeps to itself, 1 where they mix as by chance; NaN with one slide."""
        return (self.lisi - 1) / (self.expected - 1) if self.expected > 1 else float("nan")


def mixing(x: npt.ArrayLike, groups: Sequence[Any], *, k: int = 30, seed: int = 0) -> Mixing:
    """Measure how well slides mix.

    Parameters
    ----------
    x : array (n, D) of float
        Embeddings, or coordinates of a map; without undefined numbers.
    groups : sequence (n,)
        Slide of each cell.
    k : int, default: 30
        Neighbours; fewer where there are fewer cells.
    seed : int, default: 0
        Of the sample and the chance.

    Returns
    -------
    Mixing

    Raises
    ------
    ValueError
        Fewer than two cells, or lengths that do not agree.
    """
    table = np.ascontiguousarray(x, np.float32)
    codes = np.unique(np.array([str(name) for name in groups], object), return_inverse=True)[1].astype(np.int64)
    if len(table) != len(codes) or len(table) < 2:
        raise ValueError(f"There are {len(table)} cells and {len(codes)} groups; needed the same number, 2 or more.")
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(table), min(SAMPLE, len(table)), replace=False))
    size = min(k, len(table) - 1)
    own = (rows, np.arange(len(table)))
    near, _ = drain(iter_neighbours(table[rows], table, size, groups=own, device=best_device()))
    chance = [inverse_simpson(random.permutation(codes)[near]).mean() for _ in range(SHUFFLES)]
    return Mixing(float(inverse_simpson(codes[near]).mean()), float(np.mean(chance)), size, len(rows))


def inverse_simpson(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Inverse Simpson index of each row of group numbers (m, k): ``1 / sum of squared shares``."""
    ordered = np.sort(codes, axis=1)
    count, size = ordered.shape
    new = np.ones((count, size), bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    runs = np.bincount(np.cumsum(new.ravel()) - 1)
    row = np.repeat(np.arange(count), size)[new.ravel()]
    return np.asarray(1 / np.bincount(row, weights=(runs / size) ** 2, minlength=count), np.float64)
