"""How one cell of the gallery is drawn: picture, border in its colour, caption, marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from qtpy.QtCore import QModelIndex, QPointF, QRect, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetrics, QPainter, QPalette, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, describe
from napari_dinobloom.report.legend import tag_of
from napari_dinobloom.ui.gallery.model import GalleryModel
from napari_dinobloom.ui.gallery.thumbnails import SIDE, Thumbnails
from napari_dinobloom.ui.map.colouring import Colouring, hexed

BORDER = 3
"""Pixels of the line in the colour of a cell."""

MARGIN = 5
"""Pixels around a tile, where selection and hover are drawn."""

BADGE = 16
FADED = 0.35
REVIEWED = QColor("#1b7f3b")
BY_HAND = QColor("#1f4e9e")
EXCLUDED = QColor("#c0392b")
CHOSEN = QColor("#3d8bfd")
"""Of selected cells: no class has this blue, and it is seen on dark and on light."""


class TileDelegate(QStyledItemDelegate):
    """Draws the tiles of a `GalleryModel`.

    Attributes
    ----------
    side : int
        Pixels of a picture.
    palette : mapping of str to str
        ``#rrggbb`` by class, the study's.
    shades : Colouring or None
        Colours of the borders by row of the cell table, where cells are not coloured by class.
    hover : str
        Id of the cell under a pointer anywhere.
    second : mapping of str to (str, str)
        Two classes by cell, which stand in the caption in place of one; where two readers are compared.
    """

    def __init__(self, thumbnails: Thumbnails, parent: Any = None) -> None:
        super().__init__(parent)
        self._thumbnails = thumbnails
        self.side = SIDE
        self.palette: Mapping[str, str] = {}
        self.shades: Colouring | None = None
        self.hover = ""
        self.second: Mapping[str, tuple[str, str]] = {}
        self._badges: dict[tuple[str, float], QPixmap] = {}

    def tile(self, metrics: QFontMetrics) -> QSize:
        """Pixels that a cell takes."""
        lines = 2 if self.second else 1
        frame = 2 * (MARGIN + BORDER)
        return QSize(self.side + frame, self.side + frame + lines * metrics.lineSpacing() + 2)

    def sizeHint(self, option: QStyleOptionViewItem, _index: QModelIndex) -> QSize:
        """Pixels that a cell takes, all cells the same."""
        return self.tile(option.fontMetrics)

    def colour(self, name: str) -> QColor:
        """Colour of a class."""
        return QColor(self.palette.get(name) or describe(name).colour)

    def _border(self, row: int, name: str) -> QColor:
        """Colour around a cell: that of the map where it is not that of its class."""
        shades = self.shades
        if shades is None or row >= len(shades.codes):
            return self.colour(name)
        return QColor(hexed(shades.table[shades.codes[row]]))

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw one cell."""
        model = index.model()
        if painter is None or not isinstance(model, GalleryModel) or model.sheet is None:
            return
        sheet, row = model.sheet, int(model.rows[index.row()])
        cell, name = str(sheet.ids[row]), sheet.name(row)
        painter.save()
        self._ground(painter, option, under=cell == self.hover)
        frame = self.side + 2 * BORDER
        box = QRect(option.rect.x() + (option.rect.width() - frame) // 2, option.rect.y() + MARGIN, frame, frame)
        if cell in self.second:
            self._two_frames(painter, box, *map(self.colour, self.second[cell]))
        else:
            painter.fillRect(box, self._border(row, name))
        self._picture(painter, box.adjusted(BORDER, BORDER, -BORDER, -BORDER), cell, option, bool(sheet.excluded[row]))
        marks = [("reviewed", sheet.reviewed[row]), ("by_hand", sheet.by_hand[row])]
        corner = box.topRight() - QPointF(BADGE + BORDER, -BORDER - 1).toPoint()
        for mark in (mark for mark, there in marks if there):
            painter.drawPixmap(corner, self._badge(mark, painter.device().devicePixelRatioF()))  # type: ignore[union-attr]
            corner.setX(corner.x() - BADGE - 1)
        self._caption(painter, box, option, cell, name, float(sheet.measures["confidence"][row]), sheet.by_hand[row])
        painter.restore()

    def _ground(self, painter: QPainter, option: QStyleOptionViewItem, *, under: bool) -> None:
        """Draw what says that a cell is selected, or under a pointer."""
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        area = QRectF(option.rect).adjusted(1, 1, -1, -1)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        if chosen:
            tint = QColor(CHOSEN)
            tint.setAlpha(90)
            painter.setPen(QPen(CHOSEN, 2))
            painter.setBrush(tint)
            painter.drawRoundedRect(area, 4, 4)
        if under:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(option.palette.color(QPalette.ColorRole.Text), 1.5))
            painter.drawRoundedRect(area, 4, 4)

    @staticmethod
    def _two_frames(painter: QPainter, box: QRect, one: QColor, other: QColor) -> None:
        """Draw a border whose halves have the colours of two classes."""
        half = box.width() // 2
        painter.fillRect(box.adjusted(0, 0, -half, 0), one)
        painter.fillRect(box.adjusted(half, 0, 0, 0), other)

    def _picture(self, painter: QPainter, box: QRect, cell: str, option: QStyleOptionViewItem, excluded: bool) -> None:
        """Draw the crop of a cell; faded and crossed out when it is excluded."""
        picture = self._thumbnails.get(cell)
        painter.fillRect(box, option.palette.color(QPalette.ColorRole.Window))
        painter.setOpacity(FADED if excluded else 1.0)
        if picture is not None:
            painter.drawPixmap(box, picture)
        painter.setOpacity(1.0)
        if excluded:
            painter.setPen(QPen(EXCLUDED, 2))
            painter.drawLine(box.topLeft(), box.bottomRight())
            painter.drawLine(box.topRight(), box.bottomLeft())

    def _badge(self, mark: str, ratio: float) -> QPixmap:
        """A small disc with the sign of a mark: a tick for reviewed, a pencil for named by hand."""
        key = (mark, ratio)
        if key not in self._badges:
            disc = QPixmap(round(BADGE * ratio), round(BADGE * ratio))
            disc.setDevicePixelRatio(ratio)
            disc.fill(Qt.GlobalColor.transparent)
            painter = QPainter(disc)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(QColor("white"), 1))
            painter.setBrush(REVIEWED if mark == "reviewed" else BY_HAND)
            painter.drawEllipse(QRectF(0.5, 0.5, BADGE - 1, BADGE - 1))
            pen = QPen(QColor("white"), 1.8)
            pen.setCapStyle(Qt.PenCapStyle.RoundCap)
            pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
            painter.setPen(pen)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            tick = [(4.5, 8.2), (7.0, 10.8), (11.5, 5.4)]
            pencil = [(4.4, 11.6), (5.2, 9.0), (10.2, 4.2), (11.8, 5.8), (7.0, 10.8), (4.4, 11.6)]
            painter.drawPolyline(QPolygonF([QPointF(*at) for at in (tick if mark == "reviewed" else pencil)]))
            painter.end()
            self._badges[key] = disc
        return self._badges[key]

    def _caption(
        self,
        painter: QPainter,
        box: QRect,
        option: QStyleOptionViewItem,
        cell: str,
        name: str,
        confidence: float,
        by_hand: bool,
    ) -> None:
        """Write the class, and how sure the classifier is of it; or what two readers said."""
        painter.setPen(option.palette.color(QPalette.ColorRole.Text))
        line = option.fontMetrics.lineSpacing()
        area = QRect(box.x() - 1, box.bottom() + 3, box.width() + 2, line)
        if cell in self.second:
            for said in self.second[cell]:
                self._words(painter, area, option, said, "")
                area.translate(0, line)
            return
        sure = "" if by_hand or name == UNCLASSIFIED or not np.isfinite(confidence) else f"{100 * confidence:.0f} %"
        self._words(painter, area, option, name, sure)

    @staticmethod
    def _words(painter: QPainter, area: QRect, option: QStyleOptionViewItem, name: str, figure: str) -> None:
        """Write a class at the left, in a few capitals where its name has no room, and a figure at the right."""
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        middle = Qt.AlignmentFlag.AlignVCenter
        width = option.fontMetrics.horizontalAdvance(figure)
        room = area.width() - (width + 4 if figure else 0)
        title = describe(name).title
        shown = title if option.fontMetrics.horizontalAdvance(title) <= room or name == UNCLASSIFIED else tag_of(name)
        short: Callable[[str, Qt.TextElideMode, int], str] = option.fontMetrics.elidedText
        painter.drawText(area, int(left | middle), short(shown, Qt.TextElideMode.ElideRight, room))
        if figure:
            painter.drawText(area, int(right | middle), figure)
