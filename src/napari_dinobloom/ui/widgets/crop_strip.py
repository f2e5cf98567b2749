"""A strip with the crops of the selected cells: what the encoder gets to see of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.qt.threading import create_worker
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_dinobloom.ui.previews import Crops, crops_of, pixmap
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip

SIDE = 84
MOST = 24
"""Crops that are shown; more would be no help to the eye."""


class CropStrip(QWidget):
    """Crops of the selected cells side by side; read in a second thread, so that a click never waits for a disk.

    Parameters
    ----------
    session : Session
        Its selection and revision are followed.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._asked: tuple[str, ...] = ()
        self._worker: Any = None
        self.title = QLabel(text("crops.title"))
        self.title.setStyleSheet("font-weight: bold")
        self.title.setToolTip(tip("crops.title"))
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.note.setTextFormat(Qt.TextFormat.PlainText)
        self._inner = QWidget()
        self._row = QHBoxLayout(self._inner)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(4)
        self._row.addStretch(1)
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        bar = self.area.horizontalScrollBar()
        self.area.setFixedHeight(SIDE + 4 + (bar.sizeHint().height() if bar is not None else 0))
        self.area.setWidget(self._inner)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.title, self.area, self.note):
            column.addWidget(part)
        session.events.selected.connect(self.refresh)
        session.events.revision.connect(self.refresh)
        self.refresh()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.selected.disconnect(self.refresh, missing_ok=True)
        self._session.events.revision.disconnect(self.refresh, missing_ok=True)

    @property
    def pictures(self) -> list[QLabel]:
        """What is shown, one a crop."""
        return self._inner.findChildren(QLabel)

    def refresh(self) -> None:
        """Ask for the crops of the selected cells, or show none."""
        study, chosen = self._session.study, self._session.selected[:MOST]
        self._asked = chosen
        self.setVisible(bool(study is not None and chosen))
        if study is None or not chosen or self._worker is not None:
            return  # the worker under way asks again when it sees that something else is wanted
        self._worker = create_worker(crops_of, study, chosen)
        self._worker.returned.connect(self._show)
        self._worker.errored.connect(self._fail)
        self._worker.start()

    def _fail(self, error: Exception) -> None:
        """Say that the crops could not be read; the next selection is tried again."""
        self._show((self._asked, np.zeros((0, 1, 1, 3), np.uint8), str(error)))

    def _show(self, found: Crops) -> None:
        """Show what was read, if it is still wanted."""
        self._worker = None
        cells, crops, problem = found
        if cells != self._asked:
            self.refresh()
            return
        for label in self.pictures:
            self._row.removeWidget(label)
            label.setParent(None)
            label.deleteLater()
        for at, (cell, crop) in enumerate(zip(cells, crops, strict=False)):
            label = QLabel()
            label.setPixmap(pixmap(crop, SIDE, self.devicePixelRatioF()))
            label.setToolTip(cell)
            self._row.insertWidget(at, label)
        more = len(self._session.selected) - len(cells)
        self.note.setText(problem or (text("crops.more", count=more) if more else ""))
        self.note.setVisible(bool(self.note.text()))
