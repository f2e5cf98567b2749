"""A small table of one differential count: colour, class, number, percent, interval."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPainter, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.ui.texts import text, tip

COLUMNS = ("result.class", "result.n", "result.percent", "result.interval")


class DifferentialTable(QTableWidget):
    """Rows of a differential that have cells; those outside the count stand below, with per 100 in place of percent."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(COLUMNS), parent)
        self._header = QHeaderView(Qt.Orientation.Horizontal)
        self.setHorizontalHeader(self._header)
        for column, key in enumerate(COLUMNS):
            item = QTableWidgetItem(text(key))
            item.setToolTip(tip(key))
            side = Qt.AlignmentFlag.AlignLeft if column == 0 else Qt.AlignmentFlag.AlignRight
            item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
            self.setHorizontalHeaderItem(column, item)
        self._header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self._header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        rows = QHeaderView(Qt.Orientation.Vertical)
        self.setVerticalHeader(rows)
        rows.hide()
        self.setShowGrid(False)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def fill(self, counts: pd.DataFrame, palette: Mapping[str, str]) -> None:
        """Show `counts`.

        Parameters
        ----------
        counts : DataFrame
            Rows of `napari_dinobloom.report.differential.differential` of one slide.
        palette : mapping of str to str
            ``#rrggbb`` by class; classes without an entry take that of the taxonomy.
        """
        rows = counts[counts["n"] > 0].sort_values("in_denominator", ascending=False, kind="stable")
        self.setRowCount(len(rows))
        for at, row in enumerate(rows.to_dict("records")):
            known = describe(str(row["class"]))
            self.setItem(at, 0, _swatch(known.title, palette.get(known.name) or known.colour))
            self.setItem(at, 1, _number(str(row["n"])))
            self.setItem(at, 2, _number(share(row)))
            self.setItem(at, 3, _number(interval(row)))
        self.resizeRowsToContents()
        self._fit_height()

    def _fit_height(self) -> None:
        """Be as high as the rows, up to a dozen of them, so that the widget has one scroll bar at most."""
        rows = [self.rowHeight(at) for at in range(min(self.rowCount(), 12))]
        self.setFixedHeight(self._header.sizeHint().height() + sum(rows) + 2 * self.frameWidth() + 2)


def share(row: Mapping[Hashable, Any]) -> str:
    """Percent of the counted cells, or cells per 100 counted ones for a class that stays outside."""
    if row["in_denominator"]:
        return _figure(row["percent"])
    return text("result.per_100", figure=_figure(row["per_100_wbc"]))


def interval(row: Mapping[Hashable, Any]) -> str:
    """Lower and upper end of the counting interval."""
    ends = ("low", "high") if row["in_denominator"] else ("per_100_low", "per_100_high")
    low, high = (_figure(row[end]) for end in ends)
    return f"{low} – {high}" if low and high else ""


def _figure(value: object) -> str:
    """One decimal below ten, none above; empty when not known."""
    number = float(str(value))
    if not np.isfinite(number):
        return ""
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"


def _swatch(title: str, colour: str) -> QTableWidgetItem:
    """Item with a small square of the class colour before the title."""
    square = QPixmap(12, 12)
    square.fill(QColor("#c0c0c0"))  # a rim, so that dark colours show on a dark theme and light ones on a light theme
    painter = QPainter(square)
    painter.fillRect(1, 1, 10, 10, QColor(colour))
    painter.end()
    item = QTableWidgetItem(title)
    item.setData(Qt.ItemDataRole.DecorationRole, square)
    item.setToolTip(title)
    return item


def _number(figure: str) -> QTableWidgetItem:
    """Item aligned to the right."""
    item = QTableWidgetItem(figure)
    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item
