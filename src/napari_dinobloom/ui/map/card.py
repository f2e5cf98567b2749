"""The card of the cell under the pointer: its picture, class and slide, beside the pointer."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout, QWidget

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.previews import CropReader, pixmap
from napari_dinobloom.ui.texts import text

SIDE = 128
AWAY = 16
"""Pixels between pointer and card."""

_log = logging.getLogger(__name__)


class Card(QFrame):
    """Shown while a cell is under the pointer; lies over `parent` and never takes its mouse.

    Parameters
    ----------
    parent : QWidget
        The canvas.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setObjectName("card")
        self.setStyleSheet("#card { background: #20242c; border: 1px solid #8a8a8a; } QLabel { color: #f0f0f0; }")
        self.picture, self.line = QLabel(), QLabel()
        self.picture.setFixedSize(SIDE, SIDE)
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.line.setTextFormat(Qt.TextFormat.PlainText)
        self.line.setWordWrap(True)
        self.line.setFixedWidth(SIDE)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 4, 4, 4)
        column.addWidget(self.picture)
        column.addWidget(self.line)
        self._reader: CropReader | None = None
        self._unread: Study | None = None
        self.hide()

    def read_from(self, study: Study | None) -> None:
        """Take pictures from a study as it is now; it is not read before a cell is shown."""
        self._reader, self._unread = None, study
        self.hide()

    def show_cell(self, cell: str, row: pd.Series[Any] | None) -> None:
        """Show a cell of the study, given its row in the table, or nothing."""
        if row is None:
            self.hide()
            return
        crop = self._crop(cell)
        self.picture.setText("" if crop is not None else text("map.no_picture"))
        if crop is not None:
            self.picture.setPixmap(pixmap(crop, SIDE, self.devicePixelRatioF()))
        self.line.setText(caption(row))
        self.adjustSize()
        self._place()
        self.show()
        self.raise_()

    def _crop(self, cell: str) -> npt.NDArray[np.uint8] | None:
        """The picture of a cell; None where it cannot be had."""
        try:
            if self._reader is None and self._unread is not None:
                self._reader, self._unread = CropReader(self._unread), None
            found = [] if self._reader is None else [*self._reader.read([cell])]
        except (DinoBloomError, ValueError) as error:
            _log.warning("no picture of %s: %s", cell, error)
            return None
        return found[0] if len(found) else None

    def _place(self) -> None:
        """Stand beside the pointer, within the canvas."""
        over = self.parentWidget()
        if over is None:
            return
        at = over.mapFromGlobal(QCursor.pos()) + QPoint(AWAY, AWAY)
        if at.x() + self.width() > over.width():
            at.setX(at.x() - self.width() - 2 * AWAY)
        if at.y() + self.height() > over.height():
            at.setY(at.y() - self.height() - 2 * AWAY)
        self.move(max(0, at.x()), max(0, at.y()))


def caption(row: pd.Series[Any]) -> str:
    """Class, how sure it is or who gave it, slide."""
    label, predicted = str(row.get("label", "") or ""), str(row.get("predicted", "") or "")
    unsure = bool(row.get("abstained", False))
    name = label or ("" if unsure else predicted)
    lines = [describe(name or "unclassified").title]
    confidence = row.get("confidence", np.nan)
    if label:
        lines.append(text("cell.by_hand", author=str(row.get("label_by", ""))))
    elif confidence == confidence:
        lines.append(text("cell.confidence", confidence=float(confidence)))
    lines.append(str(row.get("slide", "")))
    return "\n".join(line for line in lines if line)
