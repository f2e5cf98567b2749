"""The fit under re-standardising: centres of populations and shifts of slides by least squares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LEAST_PRIOR = 10.0
"""Cells that weigh in for no shift, at least: a slide of ten cells moves by half."""

ROUNDS = 20
"""Of clustering and fitting in turn."""

SHUFFLES = 200
"""Deals of the shifts to slides by which `Restandardise.chance` is found."""

BLOCK = 1 << 14
"""Cells at a time in float64."""


class SlideShifts:
    """Centres of populations and shifts of slides, fitted in turn."""

    def __init__(self, table: Float32, codes: Int64, centres: Float64, shift: Float64, *, fixed: bool = False) -> None:
        self.table, self.codes, self.centres, self.shift, self.fixed = table, codes, centres, shift, fixed
        self.cells = np.bincount(codes, minlength=len(shift)).astype(np.float64)
        self.prior = LEAST_PRIOR
        self.cost = np.inf
        self.kinds = np.zeros(len(table), np.int64)
        self.sums = sums(table, codes, len(shift))

    def run(self) -> SlideShifts:
        """Repeat clustering and fitting until no cell changes its population."""
        for _ in range(ROUNDS):
            kinds = self._assigned()
            if np.array_equal(kinds, self.kinds) and np.isfinite(self.cost):
                break
            self.kinds, self.cost = kinds, 0.0
            self._solve()
        squares = self.residual_squares()[0].sum()
        self.cost = float(squares + self.prior * np.square(self.shift).sum())
        return self

    def shrink(self) -> None:
        """Weigh the prior by how far the shifts exceed what chance alone makes of as many cells; fit again."""
        freedom = max(len(self.table) - len(self.centres) - len(self.shift), 1)
        noise = float(self.residual_squares()[0].sum()) / freedom
        raw = np.square(self.shift * ((self.cells + self.prior) / self.cells)[:, None]).sum(1)
        excess = float(((raw - noise / self.cells) * self.cells).sum() / self.cells.sum())
        self.prior = max(LEAST_PRIOR, noise / excess if excess > 0 else 1e9)
        self._solve()
        self.run()

    def _parts(self) -> Iterator[tuple[slice, Float64]]:
        for start in range(0, len(self.table), BLOCK):
            part = slice(start, start + BLOCK)
            yield part, self.table[part].astype(np.float64) - self.shift[self.codes[part]]

    def _assigned(self) -> Int64:
        """Nearest centre of each cell without its slide's shift."""
        lengths = np.square(self.centres).sum(1)
        return np.concatenate([(lengths - 2 * rows @ self.centres.T).argmin(1) for _, rows in self._parts()])

    def counts(self) -> Float64:
        """Cells of each population (rows) and slide (columns)."""
        pairs = self.kinds * len(self.shift) + self.codes
        shape = (len(self.centres), len(self.shift))
        return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    def _solve(self) -> None:
        """Solve for centres and shifts together; the prior makes the solution the only one."""
        counts = self.counts()
        if self.fixed:
            self.shift = (self.sums - counts.T @ self.centres) / (self.cells + self.prior)[:, None]
            return
        kinds = sums(self.table, self.kinds, len(self.centres))
        total = np.maximum(counts.sum(1), 1)[:, None]
        left = np.diag(self.cells + self.prior) - counts.T @ (counts / total)
        self.shift = np.linalg.solve(left, self.sums - counts.T @ (kinds / total))
        some = counts.sum(1) > 0
        self.centres = np.where(some[:, None], (kinds - counts @ self.shift) / total, self.centres)

    def residual_squares(self) -> tuple[Float64, Float64]:
        """Sums of squares and of fourth powers of what centres and shifts leave, (G, D) each."""
        squares, fourth = np.zeros_like(self.shift), np.zeros_like(self.shift)
        for part, rows in self._parts():
            rest = np.square(rows - self.centres[self.kinds[part]])
            squares += sums(rest, self.codes[part], len(self.shift))
            fourth += sums(np.square(rest), self.codes[part], len(self.shift))
        return squares, fourth


def taken_share(shift: Float64, composition: Float64, cells: Float64) -> float:
    """Compute which share of the differences in composition the shifts take away.

    Parameters
    ----------
    shift : ndarray (G, D) float64
        What is subtracted from each slide.
    composition : ndarray (G, D) float64
        What each slide's mean would be by its populations alone: their centres, weighted by its cells in each.
    cells : ndarray (G,) float64
        Cells of each slide.

    Returns
    -------
    float
        Slope of the shifts on the differences in composition through the origin: 1 where each slide's mean is made
        equal, 0 where the shifts have nothing to do with composition. Without any labels.
    """
    own = composition - (composition * cells[:, None]).sum(0) / cells.sum()
    total = float((own * own * cells[:, None]).sum())
    return float((shift * own * cells[:, None]).sum()) / total if total > 0 else 0.0


def differ(counts: Float64, centres: Float64) -> bool:
    """Whether slides hold different cells to an extent that matters.

    Parameters
    ----------
    counts : ndarray (K, G) float64
        Cells of each population and slide.
    centres : ndarray (K, D) float64
        Centres of the populations.

    Returns
    -------
    bool
        Of the variance between populations, more than 2 % lies between slides, and more than twice what chance makes.
    """
    total, cells = counts.sum(1), counts.sum(0)
    around = centres - total @ centres / total.sum()
    between = float((np.square(counts.T @ around).sum(1) / cells).sum())
    whole = float((np.square(around).sum(1) * total).sum())
    return bool(between > max(0.02, 2 * (len(cells) - 1) / total.sum()) * whole)


def taken_by_chance(shift: Float64, composition: Float64, cells: Float64) -> float:
    """Compute what `taken_share` exceeds in one of twenty cases where the shifts are dealt out to slides by chance."""
    random = np.random.default_rng(0)
    dealt = [taken_share(shift[random.permutation(len(shift))], composition, cells) for _ in range(SHUFFLES)]
    return float(np.quantile(dealt, 0.95))


def shrunken_scale(within: Float64, pooled: Float64, cells: Float64, tails: float, prior: float | None) -> Float64:
    """Factor that gives each slide the pooled spread, its logarithm shrunk by how far it exceeds chance.

    The logarithm of a variance of n cells has the variance (kurtosis - 1) / n.
    """
    usable = (within > 0) & (pooled > 0)
    ratio = np.where(usable, np.log(np.where(usable, within, 1) / np.where(pooled > 0, pooled, 1)), 0.0)
    excess = float(((np.square(ratio).mean(1) - tails / cells) * cells).sum() / cells.sum())
    weight = prior if prior is not None else max(LEAST_PRIOR, tails / excess if excess > 0 else 1e9)
    scale: Float64 = np.exp(-ratio / 2 * (cells / (cells + weight))[:, None])
    return scale


def sums(rows: npt.NDArray[Any], codes: Int64, count: int) -> Float64:
    """Sum rows by code, (count, D) float64."""
    from scipy.sparse import csr_matrix

    ends = np.arange(len(rows) + 1)
    total = np.zeros((count, rows.shape[1]))
    for start in range(0, len(rows), BLOCK):
        part = codes[start : start + BLOCK]
        pick = csr_matrix((np.ones(len(part)), part, ends[: len(part) + 1]), (len(part), count))
        total += pick.T @ rows[start : start + BLOCK].astype(np.float64)
    return total


def first_centres(table: Float32, count: int, seed: int) -> Float64:
    """First centres, spread as by k-means++ over a seeded sample."""
    from sklearn.cluster import kmeans_plusplus

    some = np.sort(np.random.default_rng(seed).choice(len(table), min(len(table), 20_000), replace=False))
    return np.asarray(kmeans_plusplus(table[some].astype(np.float64), count, random_state=seed)[0])
