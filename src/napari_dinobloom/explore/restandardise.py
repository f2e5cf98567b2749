"""Batch re-standardisation: what a stain or scanner adds to all cells of a slide, estimated and taken out.

No labels are used. Standardising every slide to the same mean would also erase that slides hold different cells. So a
slide's shift is what is left **within populations**: cells are grouped into clusters over all slides, and a cell is
its cluster's centre plus its slide's shift plus the rest. Centres and shifts are least squares solutions of that sum,
clusters those of k-means on what the shifts leave; both are repeated in turn. The idea is Harmony's (Korsunsky et al.
2019, doi:10.1038/s41592-019-0619-0), with one shift for a slide, so that every cell of it moves alike. The shifts are
shrunk as in ComBat (Johnson, Li and Rabinovic 2007, doi:10.1093/biostatistics/kxj037): towards none for small slides,
and for all where they are no larger than chance alone would make them. Spreads within populations are matched in the
same way.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.explore.slide_shifts import (
    SlideShifts,
    differ,
    first_centres,
    shrunken_scale,
    sums,
    taken_by_chance,
    taken_share,
)
from napari_dinobloom.io.vectors import Vectors

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Groups = Sequence[Any] | npt.NDArray[Any]
"""Slide or batch of each cell."""

VERSION = 1
"""Raised when the same embeddings would be moved elsewhere."""

TAKEN = 0.1
"""Share of the differences in composition from which on the user is warned that they are taken away."""

SHARED = 0.5
"""Share of a slide's cells that must lie in populations of other slides too."""

BLOCK = 1 << 14
"""Cells at a time in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Restandardise:
    """What to do with the cells of each slide or batch; made by `fit`.

    Attributes
    ----------
    groups : tuple of str
        Names of the slides.
    cells : (G,) array of int64
        Cells that each was estimated from.
    shift : (G, D) array of float32
        What is subtracted.
    scale : (G, D) array of float32
        What the rest is multiplied by, about `centre`.
    centre : (D,) array of float32
        Mean of all cells.
    clusters : (K, D) array of float32
        Centres of the populations.
    spread : (D,) array of float32
        Standard deviation within populations.
    prior : float
        Cells that weigh in for no shift.
    taken : float
        Share of the differences in composition that the shifts take away, see `slide_shifts.taken_share`; 0 where
        slides hardly differ.
    chance : float
        What `taken` exceeds in one of twenty cases where shifts have nothing to do with composition.
    shared : (G,) array of float32
        Of each slide, the share of its cells in populations of which other slides hold a part too.
    """

    groups: tuple[str, ...]
    cells: Int64
    shift: Float32
    scale: Float32
    centre: Float32
    clusters: Float32
    spread: Float32
    prior: float
    taken: float
    chance: float
    shared: Float32

    @classmethod
    def fit(cls, x: npt.ArrayLike, groups: Groups, *, clusters: int | None = None, seed: int = 0) -> Restandardise:
        """Estimate the shift and spread of every slide.

        Parameters
        ----------
        x : array (n, D) of float
            Embeddings.
        groups : sequence (n,)
            Slide or batch of each cell.
        clusters : int, optional
            Populations; by default one for a hundred cells, 5 to 50.
        seed : int, default: 0
            Of the clustering.

        Returns
        -------
        Restandardise

        Raises
        ------
        ValueError
            Lengths that do not agree, no cell, or undefined numbers.

        Warns
        -----
        UserWarning
            If slides hold populations of their own, or the shifts take differences in composition away; see `concerns`.
        """
        table, names, codes = _checked(x, groups)
        count = clusters or int(np.clip(len(table) // 100, 5, 50))
        first = first_centres(table, min(count, len(table)), seed)
        means = sums(table, codes, len(names)) / np.bincount(codes, minlength=len(names))[:, None]
        starts = [np.zeros_like(means), means - table.mean(0, dtype=np.float64)]
        model = min((SlideShifts(table, codes, first, start).run() for start in starts), key=lambda one: one.cost)
        model.shrink()
        made = _result(model, names)
        for concern in made.concerns():
            warnings.warn(concern, stacklevel=2)
        return made

    def transform(self, x: npt.ArrayLike, groups: Groups) -> Float32:
        """Move cells; each by its own slide's numbers, whatever stands beside it.

        Parameters
        ----------
        x : array (m, D) of float
            Embeddings.
        groups : sequence (m,)
            Slide of each cell, one of `groups`.

        Returns
        -------
        ndarray (m, D) float32

        Raises
        ------
        ValueError
            A slide that is not known, or another number of columns.
        """
        table = np.asarray(x, np.float32)
        if table.ndim != 2 or table.shape[1] != self.shift.shape[1] or len(table) != len(groups):
            raise ValueError(f"x has shape {table.shape} and {len(groups)} groups; needed (n, {self.shift.shape[1]}).")
        place = {name: row for row, name in enumerate(self.groups)}
        names, codes = _coded(groups)
        unknown = sorted(set(names) - set(place))
        if unknown:
            raise ValueError(f"The group {unknown[0]!r} is not known ({len(unknown)} such): add it with `with_groups`.")
        rows = np.array([place[name] for name in names], np.int64)[codes]
        moved = np.empty_like(table)
        for start in range(0, len(table), BLOCK):
            part = slice(start, start + BLOCK)
            moved[part] = self.centre + (table[part] - self.shift[rows[part]] - self.centre) * self.scale[rows[part]]
        return moved

    def unknown(self, groups: Groups) -> npt.NDArray[np.bool_]:
        """Which cells are of a slide that is not known, (n,)."""
        names, codes = _coded(groups)
        known = set(self.groups)
        return np.array([name not in known for name in names], bool)[codes]

    def with_groups(self, x: npt.ArrayLike, groups: Groups) -> Restandardise:
        """Add slides that are not known yet, among the populations that are; those known stay as they are.

        Parameters
        ----------
        x : array (m, D) of float
            Embeddings.
        groups : sequence (m,)
            Slide of each cell; rows of slides that are known are passed over.
        """
        new = self.unknown(groups)
        if not new.any():
            return self
        table, names, codes = _checked(np.asarray(x, np.float32)[new], np.asarray(groups, object)[new])
        model = SlideShifts(
            table, codes, self.clusters.astype(np.float64), np.zeros((len(names), table.shape[1])), fixed=True
        )
        model.prior = self.prior
        added = _result(model.run(), names, self.spread.astype(np.float64))
        return replace(
            self,
            groups=self.groups + added.groups,
            cells=np.concatenate([self.cells, added.cells]),
            shift=np.concatenate([self.shift, added.shift]),
            scale=np.concatenate([self.scale, added.scale]),
            shared=np.concatenate([self.shared, added.shared]),
        )

    def of_all(self, x: npt.ArrayLike | Vectors, groups: Groups, most: int) -> Restandardise:
        """Estimate shift and spread of every slide from all of its cells, among the populations that are known.

        Parameters
        ----------
        x : (n, D) array of float32, or Vectors
            Embeddings, from a sample of which this was fitted.
        groups : sequence (n,)
            Slide of each cell; all slides of this, and no other.
        most : int
            Cells that are held at a time, but for one slide.

        Returns
        -------
        Restandardise
            With populations, prior, `shared` and `taken` of the sample.
        """
        names, centres = np.asarray(groups, object), self.clusters.astype(np.float64)
        cells, shift = np.zeros(len(self.groups)), np.zeros(self.shift.shape)
        squares, fourth = np.zeros_like(shift), np.zeros_like(shift)
        place = {name: row for row, name in enumerate(self.groups)}
        for rows in batches(groups, most):
            table, here, codes = _checked(x[rows], names[rows])  # type: ignore[index]
            at = np.array([place[name] for name in here], np.int64)
            model = SlideShifts(table, codes, centres, self.shift[at].astype(np.float64), fixed=True)
            model.prior = self.prior
            cells[at], shift[at] = model.cells, model.run().shift
            squares[at], fourth[at] = model.residual_squares()
        pooled = squares.sum(0) / cells.sum()
        scale = shrunken_scale(squares / cells[:, None], pooled, cells, _tails(squares, fourth, cells), None)
        found = {"shift": shift, "scale": scale, "spread": np.sqrt(pooled)}
        return replace(self, cells=cells.astype(np.int64), **{name: a.astype(np.float32) for name, a in found.items()})

    def concerns(self) -> list[str]:
        """Say in words where composition may be taken for stain; none if nothing speaks for it."""
        said = []
        alone = [name for name, share in zip(self.groups, self.shared, strict=True) if share < SHARED]
        if alone and len(self.groups) > 1:
            said.append(
                f"Re-standardising: {len(alone)} of {len(self.groups)} groups ({', '.join(alone[:3])}) hold "
                "populations that no other group holds, so that their stain cannot be told from their cells. Leave it "
                "off, or compare groups that share populations."
            )
        if self.taken > max(TAKEN, self.chance):
            said.append(
                f"Re-standardising takes away {100 * self.taken:.0f} % of the differences in which cells the groups "
                "hold: the shifts point along them. Groups would look more alike than they are; leave it off."
            )
        return said


def fit_many(x: Float32 | Vectors, groups: Groups, most: int) -> Restandardise:
    """`Restandardise.fit` for any number of cells.

    Where there are more than `most`, the populations and how much slides differ are found on a sample of about so many,
    and each slide's shift and spread on all of its cells.
    """
    some = sample(groups, most)
    fitted = Restandardise.fit(x[some], np.asarray(groups, object)[some])
    return fitted if len(some) == len(groups) else fitted.of_all(x, groups, most)


def batches(groups: Groups, most: int) -> Iterator[Int64]:
    """Rows of whole slides together, in the order of the slides' names, up to `most` at a time or one slide."""
    codes = _coded(groups)[1]
    order, ends = np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))
    start = 0
    while start < len(order):
        last = max(int(np.searchsorted(ends, start + most, side="right")) - 1, int(codes[order[start]]))
        yield np.sort(order[start : ends[last]])
        start = int(ends[last])


def sample(groups: Groups, most: int) -> Int64:
    """Rows of up to about `most` cells, of each slide the same share, spread evenly; all where there are no more."""
    if len(groups) <= most:
        return np.arange(len(groups))
    codes = _coded(groups)[1]
    order, counts = np.argsort(codes, kind="stable"), np.bincount(codes)
    wanted = np.ceil(counts * (most / len(groups))).astype(np.int64)
    parts = np.split(order, np.cumsum(counts)[:-1])
    chosen = [part[np.arange(n) * len(part) // n] for part, n in zip(parts, wanted, strict=True)]
    return np.sort(np.concatenate(chosen))


def _result(model: SlideShifts, names: tuple[str, ...], spread: Float64 | None = None) -> Restandardise:
    """Put together what was found, with the spreads."""
    squares, fourth = model.residual_squares()
    within = squares / np.maximum(model.cells, 1)[:, None]
    pooled = squares.sum(0) / model.cells.sum() if spread is None else np.square(spread)
    tails = _tails(squares, fourth, model.cells)
    scale = shrunken_scale(within, pooled, model.cells, tails, None if spread is None else model.prior)
    counts = model.counts()
    others = (counts.sum(1, keepdims=True) - counts) > 0.02 * counts.sum(1, keepdims=True)
    shared = (counts * others).sum(0) / model.cells if spread is None else np.ones(len(names))
    composition = (counts.T @ model.centres) / model.cells[:, None]
    return Restandardise(
        groups=names,
        cells=model.cells.astype(np.int64),
        shift=model.shift.astype(np.float32),
        scale=scale.astype(np.float32),
        centre=model.table.mean(0, dtype=np.float64).astype(np.float32),
        clusters=model.centres.astype(np.float32),
        spread=np.sqrt(pooled).astype(np.float32),
        prior=model.prior,
        taken=taken_share(model.shift, composition, model.cells) if differ(counts, model.centres) else 0.0,
        chance=taken_by_chance(model.shift, composition, model.cells),
        shared=shared.astype(np.float32),
    )


def _tails(squares: Float64, fourth: Float64, cells: Float64) -> float:
    """Kurtosis of what populations and shifts leave, less one; at least that of a normal distribution."""
    normal = cells.sum() * np.square(squares.sum(0) / cells.sum()).mean()
    return max(float(fourth.sum(0).mean() / max(normal, 1e-30)) - 1, 2.0)


def _coded(groups: Groups) -> tuple[list[str], Int64]:
    """Names of the slides as text, in order, and the number of each cell's slide."""
    codes, words = pd.factorize(np.asarray(groups, object), use_na_sentinel=False)
    names, place = np.unique(np.array([str(word) for word in words], object), return_inverse=True)
    return names.tolist(), place.astype(np.int64)[codes]


def _checked(x: npt.ArrayLike, groups: Groups) -> tuple[Float32, tuple[str, ...], Int64]:
    """Embeddings, names of the slides in order, and the number of each cell's slide."""
    table = np.asarray(x, np.float32)
    if table.ndim != 2 or len(table) != len(groups) or not len(table):
        raise ValueError(f"x has shape {table.shape} and there are {len(groups)} groups; needed (n, D) and n, n > 0.")
    if not np.isfinite(table).all():
        raise ValueError("x holds infinite or undefined numbers; leave such cells out.")
    names, codes = _coded(groups)
    return table, tuple(names), codes
