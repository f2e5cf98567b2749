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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore.slide_shifts import (
    SlideShifts,
    differ,
    first_centres,
    shrunken_scale,
    sums,
    taken_by_chance,
    taken_share,
)

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
        unknown = sorted({str(name) for name in groups} - set(place))
        if unknown:
            raise ValueError(f"The group {unknown[0]!r} is not known ({len(unknown)} such): add it with `with_groups`.")
        rows = np.array([place[str(name)] for name in groups], np.int64)
        moved = np.empty_like(table)
        for start in range(0, len(table), BLOCK):
            part = slice(start, start + BLOCK)
            moved[part] = self.centre + (table[part] - self.shift[rows[part]] - self.centre) * self.scale[rows[part]]
        return moved

    def with_groups(self, x: npt.ArrayLike, groups: Groups) -> Restandardise:
        """Add slides that are not known yet, among the populations that are; those known stay as they are.

        Parameters
        ----------
        x : array (m, D) of float
            Embeddings.
        groups : sequence (m,)
            Slide of each cell; rows of slides that are known are passed over.
        """
        new = ~np.isin(np.array([str(name) for name in groups], object), self.groups)
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


def _result(model: SlideShifts, names: tuple[str, ...], spread: Float64 | None = None) -> Restandardise:
    """Put together what was found, with the spreads."""
    squares, fourth = model.residual_squares()
    within = squares / np.maximum(model.cells, 1)[:, None]
    pooled = squares.sum(0) / model.cells.sum() if spread is None else np.square(spread)
    tails = fourth.sum(0).mean() / max(model.cells.sum() * np.square(squares.sum(0) / model.cells.sum()).mean(), 1e-30)
    scale = shrunken_scale(within, pooled, model.cells, max(tails - 1, 2.0), None if spread is None else model.prior)
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


def _checked(x: npt.ArrayLike, groups: Groups) -> tuple[Float32, tuple[str, ...], Int64]:
    """Embeddings, names of the slides in order, and the number of each cell's slide."""
    table = np.asarray(x, np.float32)
    if table.ndim != 2 or len(table) != len(groups) or not len(table):
        raise ValueError(f"x has shape {table.shape} and there are {len(groups)} groups; needed (n, D) and n, n > 0.")
    if not np.isfinite(table).all():
        raise ValueError("x holds infinite or undefined numbers; leave such cells out.")
    names, codes = np.unique(np.array([str(name) for name in groups], object), return_inverse=True)
    return table, tuple(names.tolist()), codes.astype(np.int64)
