"""The cells on show as a list model of Qt: an array of rows, no object per cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QAbstractListModel, QModelIndex, QObject, Qt

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.ui.gallery.sheet import Rows, Sheet

NONE: Rows = np.zeros(0, np.intp)


class GalleryModel(QAbstractListModel):
    """Cells of a sheet in an order.

    Attributes
    ----------
    sheet : Sheet or None
        All cells of the study; None while none is open.
    rows : (m,) int array
        Rows of the sheet that are shown.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.sheet: Sheet | None = None
        self.rows = NONE
        self._place = NONE

    def put(self, sheet: Sheet | None, rows: Rows) -> None:
        """Show other cells."""
        self.beginResetModel()
        self.sheet, self.rows = sheet, rows
        self._place = np.full(0 if sheet is None else len(sheet), -1, np.intp)
        self._place[rows] = np.arange(len(rows))
        self.endResetModel()

    def renew(self, sheet: Sheet) -> None:
        """Show the same cells as they are now; `sheet` has as many rows as before."""
        self.sheet = sheet
        if len(self.rows):
            self.dataChanged.emit(self.index(0), self.index(len(self.rows) - 1))

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's own signature
        """How many cells are shown."""
        return 0 if parent.isValid() else len(self.rows)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Title and line of a cell; what is drawn is the delegate's."""
        if self.sheet is None or not index.isValid():
            return None
        row = int(self.rows[index.row()])
        if role == Qt.ItemDataRole.DisplayRole:
            return describe(self.sheet.name(row)).title
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            return self.sheet.line(row)
        return None

    def cell(self, place: int) -> str:
        """Id of the cell at a place of the gallery."""
        return "" if self.sheet is None else str(self.sheet.ids[self.rows[place]])

    def cells(self, places: Rows) -> tuple[str, ...]:
        """Ids of the cells at some places."""
        return () if self.sheet is None else tuple(self.sheet.ids.to_numpy()[self.rows[places]].tolist())

    def places(self, cells: Iterable[str]) -> Rows:
        """Places of the cells with these ids, in their order; cells that are not shown are left out."""
        if self.sheet is None:
            return NONE
        rows = self.sheet.ids.get_indexer(pd.Index(list(cells), dtype=object))
        places = self._place[rows[rows >= 0]]
        return places[places >= 0]

    def next_unreviewed(self, places: Rows) -> int:
        """Place of the first cell that nobody reviewed behind the last of `places`, else from the top; -1 for none."""
        if self.sheet is None or not len(self.rows):
            return -1
        open_ = ~self.sheet.reviewed[self.rows]
        open_[places] = False
        found = np.flatnonzero(open_)
        if not len(found):
            return -1
        after = found[found > places.max(initial=-1)]
        return int(after[0] if len(after) else found[0])
