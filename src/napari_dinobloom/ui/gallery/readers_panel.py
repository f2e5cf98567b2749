"""Two readers side by side: kappa at the top, the table of their classes, and the cells on which they differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.report.agreement import Agreement, agreement, differing, labels_by_reader
from napari_dinobloom.report.legend import Legend
from napari_dinobloom.ui.gallery.bars import narrow_combo
from napari_dinobloom.ui.gallery.content import Content
from napari_dinobloom.ui.gallery.link import SelectionLink
from napari_dinobloom.ui.gallery.model import NONE, GalleryModel
from napari_dinobloom.ui.gallery.thumbnails import Thumbnails
from napari_dinobloom.ui.gallery.view import GalleryView
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip


class ReadersPanel(QWidget):
    """What two readers said of the same cells.

    Parameters
    ----------
    session : Session
        Its study and revision are followed, while the panel is on show.
    content : Content
        Knows all cells.
    thumbnails : Thumbnails
        Pictures of the cells.
    """

    def __init__(
        self, session: Session, content: Content, thumbnails: Thumbnails, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._session, self._content = session, content
        self._labels = pd.DataFrame()
        self.first, self.second = narrow_combo("readers.first"), narrow_combo("readers.second")
        self.kappa, self.note, self.differ = QLabel(), QLabel(), QLabel()
        self.kappa.setStyleSheet("font-weight: bold")
        for label in (self.kappa, self.note, self.differ):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)  # names of readers stand in it
        self.table = QTableWidget()
        self.table.setToolTip(tip("readers.table"))
        self.table.setAccessibleName(text("readers.table"))
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.model = GalleryModel(self)
        self.view = GalleryView(self.model, thumbnails, self)
        self.view.setAccessibleName(text("readers.differ_title"))
        self.link = SelectionLink(session, self.view, content)
        self._lay_out()
        self.first.currentIndexChanged.connect(self._compare)
        self.second.currentIndexChanged.connect(self._compare)
        content.changed.connect(self.refresh)
        content.renewed.connect(self.refresh)

    def _lay_out(self) -> None:
        """Readers, kappa, table, and the cells below."""
        pair = QHBoxLayout()
        pair.addWidget(self.first, 1)
        pair.addWidget(QLabel(text("readers.and")))
        pair.addWidget(self.second, 1)
        column = QVBoxLayout(self)
        column.addLayout(pair)
        for part in (self.kappa, self.note):
            column.addWidget(part)
        column.addWidget(self.table, 1)
        column.addWidget(self.differ)
        column.addWidget(self.view, 2)

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self.link.detach()

    def showEvent(self, event: object) -> None:
        """Compare when the panel comes into sight."""
        super().showEvent(event)  # type: ignore[arg-type]
        self.refresh()

    def refresh(self) -> None:
        """Read again who said what; nothing while the panel is out of sight."""
        if not self.isVisible():
            return
        study, hidden = self._session.study, self._session.blind
        nothing = study is None or hidden
        self._labels = pd.DataFrame() if study is None or hidden else labels_by_reader(study, prediction=True)
        names = list(self._labels.columns) if len(self._labels) else []
        for combo, default in ((self.first, 0), (self.second, 1)):
            with QSignalBlocker(combo):
                before = combo.currentText()
                combo.clear()
                combo.addItems(names)
                combo.setCurrentIndex(names.index(before) if before in names else min(default, len(names) - 1))
        if len(names) > 1 and self.first.currentText() == self.second.currentText():
            with QSignalBlocker(self.second):
                self.second.setCurrentIndex((self.first.currentIndex() + 1) % len(names))
        for part in (self.table, self.differ, self.view):
            part.setVisible(len(names) > 1)
        self.kappa.setText("" if len(names) > 1 else text("readers.blind" if hidden else "readers.none"))
        self.note.clear()
        if not nothing and len(names) > 1:
            self._compare()

    def _compare(self, _event: object = None) -> None:
        """Compare the two readers that are chosen."""
        one, other = self.first.currentText(), self.second.currentText()
        if not {one, other} <= set(self._labels.columns):
            return
        found = agreement(self._labels[one], self._labels[other])
        self.kappa.setText(kappa_line(found))
        self.note.setText(text("readers.note", expected=found.expected) if found.n else "")
        self._fill(found.confusion, one, other)
        cells = differing(self._labels, one, other)
        told = text("readers.differ", count=len(cells), one=one, other=other)
        self.differ.setText(told if len(cells) else text("readers.agree"))
        self.view.setVisible(len(cells) > 0)
        sheet = self._content.sheet
        self.view.tiles.second = {str(i): (str(a), str(b)) for i, a, b in cells.itertuples(name=None)}
        self.view.tiles.palette = self._session.study.palette if self._session.study is not None else {}
        self.view.set_side(self.view.tiles.side)
        rows = NONE if sheet is None else sheet.ids.get_indexer(cells.index)
        self.model.put(sheet, rows[rows >= 0])
        self.link.show()

    def _fill(self, confusion: pd.DataFrame, one: str, other: str) -> None:
        """Show the table of classes: the first reader in rows, the second in columns."""
        names = list(confusion.index)
        legend = Legend(names, {})
        self.table.setRowCount(len(names))
        self.table.setColumnCount(len(names))
        self.table.setVerticalHeaderLabels([describe(name).title for name in names])
        self.table.setHorizontalHeaderLabels([legend[name].tag for name in names])
        most = max(int(confusion.to_numpy().max(initial=0)), 1)
        for (row, column), count in np.ndenumerate(confusion.to_numpy()):
            item = QTableWidgetItem(str(count) if count else "")
            item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            item.setToolTip(
                text(
                    "readers.cell",
                    one=one,
                    first=describe(names[row]).title,
                    other=other,
                    second=describe(names[column]).title,
                    count=int(count),
                )
            )
            if count:
                tint = QColor("#2e8b57" if row == column else "#c0392b")
                tint.setAlphaF(0.2 + 0.5 * float(count) / most)
                item.setBackground(tint)
            self.table.setItem(row, column, item)
        self.table.resizeColumnsToContents()


def kappa_line(found: Agreement) -> str:
    """Say how far two readers agree."""
    if not found.n:
        return text("readers.no_common")
    if not np.isfinite(found.kappa):
        return text("readers.undefined", n=found.n, percent=found.percent)
    return text("readers.kappa", kappa=found.kappa, low=found.low, high=found.high, percent=found.percent, n=found.n)
