"""Icons of the tools of the map, on the grid of `tool_icons`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QPainter, QPainterPath, QPen

FRAME = QRectF(3, 4, 14, 12)


def _line(painter: QPainter, *points: tuple[float, float]) -> None:
    for (x0, y0), (x1, y1) in pairwise(points):
        painter.drawLine(QPointF(x0, y0), QPointF(x1, y1))


def _pointer(painter: QPainter) -> None:
    _line(painter, (5, 3), (5, 16), (8.5, 12.5), (14, 12), (5, 3))


def _rectangle(painter: QPainter) -> None:
    painter.drawRect(FRAME)


def _polygon(painter: QPainter) -> None:
    _line(painter, (10, 2.5), (17, 8), (14.5, 16.5), (5, 16.5), (3, 8), (10, 2.5))


def _lasso(painter: QPainter) -> None:
    path = QPainterPath(QPointF(5, 15))
    path.cubicTo(QPointF(-1, 8), QPointF(5, 1), QPointF(12, 4))
    path.cubicTo(QPointF(20, 7), QPointF(17, 16), QPointF(10, 13))
    path.cubicTo(QPointF(7, 12), QPointF(3, 17), QPointF(6, 18.5))
    painter.drawPath(path)


def _ellipse(painter: QPainter) -> None:
    painter.translate(10, 10)
    painter.rotate(-25)
    painter.drawEllipse(QRectF(-8, -5, 16, 10))


def _quadrant(painter: QPainter) -> None:
    _line(painter, (10, 2), (10, 18))
    _line(painter, (2, 10), (18, 10))


def _range_x(painter: QPainter) -> None:
    _line(painter, (4, 3), (4, 17))
    _line(painter, (16, 3), (16, 17))
    _line(painter, (6.5, 10), (13.5, 10))
    _line(painter, (8.5, 8), (6.5, 10), (8.5, 12))
    _line(painter, (11.5, 8), (13.5, 10), (11.5, 12))


def _range_y(painter: QPainter) -> None:
    painter.translate(20, 0)
    painter.rotate(90)
    _range_x(painter)


def _select(painter: QPainter) -> None:
    pen = QPen(painter.pen())
    pen.setDashPattern([1.8, 1.8])
    pen.setCapStyle(Qt.PenCapStyle.FlatCap)
    painter.setPen(pen)
    _lasso(painter)


def _fit(painter: QPainter) -> None:
    for x, y, dx, dy in ((3, 3, 1, 1), (17, 3, -1, 1), (17, 17, -1, -1), (3, 17, 1, -1)):
        _line(painter, (x + 4.5 * dx, y), (x, y), (x, y + 4.5 * dy))


def _copy(painter: QPainter) -> None:
    painter.drawRect(QRectF(3, 3, 9.5, 11))
    _line(painter, (15.5, 6.5), (16.5, 6.5), (16.5, 17), (7, 17), (7, 16))


def _save(painter: QPainter) -> None:
    _line(painter, (10, 2.5), (10, 12.5))
    _line(painter, (6, 8.8), (10, 12.8), (14, 8.8))
    _line(painter, (3, 13), (3, 17), (17, 17), (17, 13))


TOOL_DRAWINGS: dict[str, Callable[[QPainter], None]] = {
    "": _pointer,
    "rectangle": _rectangle,
    "polygon": _polygon,
    "lasso": _lasso,
    "ellipse": _ellipse,
    "quadrant": _quadrant,
    "range_x": _range_x,
    "range_y": _range_y,
    "select": _select,
}
"""Tools that are taken into the hand, in the order of their buttons."""

ACT_DRAWINGS: dict[str, Callable[[QPainter], None]] = {"fit": _fit, "copy": _copy, "save": _save}
"""Buttons that act at once."""
