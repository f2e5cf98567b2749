"""Which cells the gallery shows and in which order; no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.ui.gallery.sheet import Bools, Rows, Sheet

Kind = Literal["all", "selection", "gate", "unreviewed", "unnamed", "by_hand", "excluded", "class"]

KINDS: tuple[Kind, ...] = ("all", "selection", "gate", "unreviewed", "unnamed", "by_hand", "excluded")
"""Choices beside the classes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which cells are shown.

    Attributes
    ----------
    kind : str
        One of `KINDS`, or ``class``.
    name : str
        The class, for ``class``.
    """

    kind: Kind = "all"
    name: str = ""

    def rows(self, sheet: Sheet, *, selected: tuple[str, ...] = (), gate: Bools | None = None) -> Rows:
        """Rows of the cells that belong here, living ones, in the order of the table.

        Parameters
        ----------
        sheet : Sheet
            All cells.
        selected : tuple of str
            Cells selected elsewhere, for ``selection``.
        gate : (n,) bool array, optional
            Cells in the chosen gate, for ``gate``; none where no gate is chosen.
        """
        if self.kind == "selection":
            rows = sheet.ids.get_indexer(pd.Index(selected, dtype=object))
            rows = np.unique(rows[rows >= 0])
            return rows[sheet.living[rows]]
        return np.flatnonzero(self._mask(sheet, gate) & sheet.living)

    def _mask(self, sheet: Sheet, gate: Bools | None) -> Bools:
        """Whether each cell belongs here."""
        if self.kind == "gate":
            whole = gate is not None and len(gate) == len(sheet)
            return gate if whole and gate is not None else np.zeros(len(sheet), dtype=bool)
        if self.kind == "class":
            code = sheet.classes.index(self.name) if self.name in sheet.classes else -1
            same: Bools = sheet.codes == code
            return same
        unnamed = (sheet.predicted == "") & ~sheet.by_hand
        masks: dict[str, Bools] = {
            "unreviewed": ~sheet.reviewed,
            "unnamed": unnamed,
            "by_hand": sheet.by_hand,
            "excluded": sheet.excluded,
        }
        return masks.get(self.kind, np.ones(len(sheet), dtype=bool))


def choice_of(kept: object) -> Choice | None:
    """The choice that was kept as (kind, name); None where it is none."""
    if not (isinstance(kept, list | tuple) and len(kept) == 2 and all(isinstance(one, str) for one in kept)):
        return None
    kind, name = kept
    return Choice(kind, name) if kind in (*KINDS, "class") and bool(name) == (kind == "class") else None


@dataclass(frozen=True, slots=True)
class Sorting:
    """In which order cells are shown.

    Attributes
    ----------
    key : str
        ``class``, ``slide``, or one of `Sheet.measures`.
    turned : bool
        Whether the order is the other way round.
    """

    key: str = "class"
    turned: bool = False

    def order(self, sheet: Sheet, rows: Rows) -> Rows:
        """Return `rows` in this order; cells without a value come last, those of one value in the table's order.

        By class, the most confident come first in each class.
        """
        keys = self._keys(sheet, rows)
        if self.turned:
            keys = [-key for key in keys]
        keys = [np.where(np.isnan(key), np.inf, key) for key in keys]
        return rows[np.lexsort([*reversed(keys)])]

    def _keys(self, sheet: Sheet, rows: Rows) -> list[npt.NDArray[np.float64]]:
        """Numbers to sort by, the first one first, the least number first."""
        if self.key == "class":
            confidence = sheet.measures["confidence"][rows].astype(np.float64)
            return [sheet.codes[rows].astype(np.float64), -confidence]
        if self.key == "slide":
            codes, _ = pd.factorize(sheet.slide[rows], sort=True)
            return [codes.astype(np.float64)]
        values = sheet.measures.get(self.key)
        if values is None:
            return [np.zeros(len(rows))]
        least_first = self.key == "confidence"  # the doubtful come first, of all other measures the largest
        return [values[rows].astype(np.float64) * (1 if least_first else -1)]


def sort_keys(sheet: Sheet | None) -> list[str]:
    """Keys that the cells of a sheet can be sorted by: those of which at least one cell has a value."""
    if sheet is None:
        return ["class", "confidence", "outlier", "size", "slide"]
    known = [name for name, values in sheet.measures.items() if np.isfinite(values).any()]
    return ["class", *known, "slide"]
