"""A small table that shows columns of a data frame: sorted by a click on a title, copied with Ctrl+C."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent, QKeySequence, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHeaderView,
    QTableView,
    QTableWidget,
    QTableWidgetItem,
    QTreeView,
    QWidget,
)

from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.gate_model import swatch

HEADER_LOOK = "QHeaderView::section {padding: 2px 4px}"
"""So that titles of neighbouring columns do not touch each other, nor the rim."""
SORT = Qt.ItemDataRole.UserRole
WIDEST = 280
"""Of a first column where the table has no room for it, pixels."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A column of the table.

    Attributes
    ----------
    title : str
        Key of its title in the texts; its tooltip is there too.
    show : callable
        Makes the text of a row, given as a mapping.
    sort : str
        Column of the frame by which it is sorted.
    right : bool
        Whether it holds numbers.
    """

    title: str
    show: Callable[[Mapping[str, Any]], str]
    sort: str
    right: bool = True


class FrameTable(QTableWidget):
    """Rows of a data frame, read-only.

    Parameters
    ----------
    columns : sequence of Shown
        What is shown; the first takes the room that is left.
    shorten : bool
        Whether the last column takes the room that is left, and is shortened where that is too little; its tips
        have all.
    """

    def __init__(self, columns: Sequence[Shown], parent: QWidget | None = None, *, shorten: bool = False) -> None:
        super().__init__(0, len(columns), parent)
        self.columns, self._shorten = tuple(columns), shorten
        header = QHeaderView(Qt.Orientation.Horizontal)
        header.setSectionsClickable(True)
        header.setStyleSheet(HEADER_LOOK)
        self.setHorizontalHeader(header)
        for at, column in enumerate(self.columns):
            item = QTableWidgetItem(text(column.title))
            item.setToolTip(tip(column.title))
            item.setTextAlignment(_side(column))
            self.setHorizontalHeaderItem(at, item)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        if shorten:
            header.setSectionResizeMode(len(columns) - 1, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(24)
        rows = QHeaderView(Qt.Orientation.Vertical)
        self.setVerticalHeader(rows)
        rows.hide()
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setMinimumHeight(70)

    def fill(self, frame: pd.DataFrame, colours: Sequence[str] = ()) -> None:
        """Show a frame, its rows in their order until a title is clicked.

        Parameters
        ----------
        frame : DataFrame
            With the columns that `Shown.show` and `sort` read.
        colours : sequence of str
            ``#rrggbb`` of each row, shown before its first column; or none.
        """
        self.setSortingEnabled(False)
        self.setRowCount(len(frame))
        for at, row in enumerate(frame.to_dict("records")):
            for place, column in enumerate(self.columns):
                item = _Item(column.show({str(name): value for name, value in row.items()}))
                item.setData(SORT, _plain(row[column.sort]))
                item.setTextAlignment(_side(column))
                item.setToolTip(item.text())
                if place == 0 and len(colours):
                    item.setData(Qt.ItemDataRole.DecorationRole, swatch(colours[at]))
                self.setItem(at, place, item)
        header = self.horizontalHeader()
        if header is not None:
            header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        self._fit()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Give the first column the room that is left."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        least = min(max(self.sizeHintForColumn(0), 60), WIDEST)
        header = self.horizontalHeader()
        if self._shorten and header is not None:  # the last one takes the room that is left
            header.resizeSection(0, least)
        else:
            fit_first(self, least)

    def texts(self) -> list[list[str]]:
        """What is shown, row by row."""
        cells = [[self.item(row, at) for at in range(self.columnCount())] for row in range(self.rowCount())]
        return [["" if item is None else item.text() for item in row] for row in cells]

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Copy the selected rows, or all, as text with tabs."""
        if event is None or not event.matches(QKeySequence.StandardKey.Copy):
            super().keyPressEvent(event)
            return
        chosen = sorted({index.row() for index in self.selectedIndexes()}) or range(self.rowCount())
        shown = self.texts()
        lines = [[text(column.title) for column in self.columns], *(shown[row] for row in chosen)]
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText("\n".join("\t".join(line) for line in lines))


class _Item(QTableWidgetItem):
    """An item that is sorted by its value and not by its text."""

    def __lt__(self, other: QTableWidgetItem) -> bool:
        one, two = self.data(SORT), other.data(SORT)
        if isinstance(one, str) or isinstance(two, str):
            return str(one) < str(two)
        return (one is None, one or 0) < (two is None, two or 0)


def fit_first(view: QTableView | QTreeView, least: int) -> None:
    """Give the first column of a view the room that the others leave, and no less than `least` pixels."""
    header = view.horizontalHeader() if isinstance(view, QTableView) else view.header()
    viewport = view.viewport()
    if header is not None and viewport is not None:
        others = sum(header.sectionSize(at) for at in range(1, header.count()))
        header.resizeSection(0, max(viewport.width() - others, least))


def figure(value: Any, digits: int = 1) -> str:
    """A number with some digits behind the point; empty where it is not known."""
    return f"{value:,.{digits}f}" if np.isfinite(value) else ""


def p_value(value: Any) -> str:
    """A p-value as papers print it."""
    if not np.isfinite(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def span(low: Any, high: Any, digits: int = 1) -> str:
    """Both ends of an interval, with a word between them where one is below 0; empty where it is not known."""
    ends = (figure(low, digits), figure(high, digits))
    return f"{ends[0]} {'to' if low < 0 else '–'} {ends[1]}" if all(ends) else ""


def _plain(value: Any) -> str | float | None:
    """A value that Python can compare; None for a number that is not known."""
    if isinstance(value, str):
        return value
    return float(value) if np.isfinite(value) else None


def _side(column: Shown) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column.right else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
