"""Buttons and icons of tools, these drawn with a pen in the colour of the theme's text; here those of correction."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap
from qtpy.QtWidgets import QMenu, QToolButton

from napari_dinobloom.ui.texts import text, tip

SIDE = 20
"""Side of an icon in device-independent pixels; drawings use this grid."""

CELL = QRectF(3, 3, 14, 14)


MENU_LOOK = (
    "QToolButton {padding: 2px 13px 2px 2px} "
    "QToolButton::menu-indicator {subcontrol-origin: padding; subcontrol-position: center right; right: 2px}"
)
"""The arrow stands beside the word; napari's style puts it below or over it."""


def menu_button(key: str, menu: QMenu) -> QToolButton:
    """A button with the text `key` that opens a menu."""
    button = QToolButton()
    button.setText(text(key))
    button.setToolTip(tip(key))
    button.setMenu(menu)
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    button.setMinimumHeight(SIDE + 10)
    button.setStyleSheet(MENU_LOOK)
    return button


def icon(drawing: Callable[[QPainter], None], colour: QColor, ratio: float = 1.0) -> QIcon:
    """Draw one icon.

    Parameters
    ----------
    drawing : callable
        Draws it on a grid of `SIDE`, such as those of `DRAWINGS`.
    colour : QColor
        Of the pen; the disabled icon has a third of its opacity.
    ratio : float
        Device pixels per pixel of the screen.
    """
    drawn = QIcon()
    for mode, alpha in ((QIcon.Mode.Normal, 255), (QIcon.Mode.Disabled, 85)):
        picture = QPixmap(QSize(round(SIDE * ratio), round(SIDE * ratio)))
        picture.setDevicePixelRatio(ratio)
        picture.fill(Qt.GlobalColor.transparent)
        shade = QColor(colour)
        shade.setAlpha(alpha)
        painter = QPainter(picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        pen = QPen(shade, 1.6)
        pen.setCapStyle(Qt.PenCapStyle.RoundCap)
        pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
        painter.setPen(pen)
        drawing(painter)
        painter.end()
        drawn.addPixmap(picture, mode)
    return drawn


def _lines(painter: QPainter, *points: tuple[float, float]) -> None:
    """Draw a line through `points`."""
    for (x0, y0), (x1, y1) in pairwise(points):
        painter.drawLine(QPointF(x0, y0), QPointF(x1, y1))


def _add(painter: QPainter) -> None:
    painter.drawEllipse(CELL)
    _lines(painter, (10, 6.5), (10, 13.5))
    _lines(painter, (6.5, 10), (13.5, 10))


def _box(painter: QPainter) -> None:
    pen = QPen(painter.pen())
    pen.setDashPattern([2.0, 2.0])
    painter.setPen(pen)
    painter.drawRect(CELL)
    pen.setStyle(Qt.PenStyle.SolidLine)
    painter.setPen(pen)
    _lines(painter, (10, 7), (10, 13))
    _lines(painter, (7, 10), (13, 10))


def _delete(painter: QPainter) -> None:
    _lines(painter, (3.5, 6), (16.5, 6))
    _lines(painter, (8, 6), (8, 3.5), (12, 3.5), (12, 6))
    _lines(painter, (5, 6), (6, 17), (14, 17), (15, 6))
    _lines(painter, (8.6, 9), (8.9, 14))
    _lines(painter, (11.4, 9), (11.1, 14))


def _merge(painter: QPainter) -> None:
    one, other = QPainterPath(), QPainterPath()
    one.addEllipse(QRectF(1.5, 5, 10, 10))
    other.addEllipse(QRectF(8.5, 5, 10, 10))
    painter.drawPath(one.united(other))


def _split(painter: QPainter) -> None:
    painter.drawEllipse(CELL)
    _lines(painter, (14, 1.5), (6, 18.5))


def _repaint(painter: QPainter) -> None:
    _lines(painter, (16.5, 3.5), (9, 11))
    tip = QPainterPath(QPointF(9, 11))
    tip.cubicTo(QPointF(4.5, 9.5), QPointF(6, 15), QPointF(2.5, 16))
    tip.cubicTo(QPointF(7, 18), QPointF(11, 16), QPointF(9, 11))
    painter.drawPath(tip)


def _exclude(painter: QPainter) -> None:
    painter.drawEllipse(CELL)
    _lines(painter, (5.2, 5.2), (14.8, 14.8))


def _undo(painter: QPainter) -> None:
    _lines(painter, (6.5, 3.5), (3, 7), (6.5, 10.5))
    path = QPainterPath(QPointF(3.5, 7))
    path.lineTo(QPointF(11.5, 7))
    path.arcTo(QRectF(7, 7, 9.5, 9), 90, -180)
    path.lineTo(QPointF(7, 16))
    painter.drawPath(path)


def _redo(painter: QPainter) -> None:
    painter.translate(SIDE, 0)
    painter.scale(-1, 1)
    _undo(painter)


DRAWINGS: dict[str, Callable[[QPainter], None]] = {
    "add": _add,
    "box": _box,
    "delete": _delete,
    "merge": _merge,
    "split": _split,
    "repaint": _repaint,
    "exclude": _exclude,
    "undo": _undo,
    "redo": _redo,
}
"""How each tool's icon is drawn on a grid of `SIDE`."""
