"""Pictures of cells with the colours of their patches, one pair large and the others small; a patch can be clicked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPoint, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap, QResizeEvent
from qtpy.QtWidgets import QToolTip, QWidget

from napari_dinobloom.encoders.overlay import blend
from napari_dinobloom.ui.previews import pixmap

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.cell_patches import CellPatches

SMALL = 68
GAP = 4
LARGEST = 200
CHOSEN = "#ffffff"


@dataclass(frozen=True, slots=True)
class Spot:
    """A picture on the sheet: where, of which cell, and whether it is the plain crop."""

    rect: QRect
    cell: int
    plain: bool


class PatchesSheet(QWidget):
    """Draws what it is given, and says which patch was clicked.

    Attributes
    ----------
    picked : Signal
        Number of the cell, row and column of the patch.
    """

    picked = Signal(int, int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._found: CellPatches | None = None
        self._values: npt.NDArray[np.float32] = np.zeros((0, 1, 1, 3), np.float32)
        self._opacity = 0.6
        self.current = 0
        self.patch: tuple[int, int, int] | None = None
        self._pixmaps: dict[tuple[int, bool], QPixmap] = {}
        self.spots: list[Spot] = []
        self.setMouseTracking(True)
        self.setCursor(Qt.CursorShape.CrossCursor)

    def show_patches(self, found: CellPatches | None, values: npt.NDArray[np.float32], opacity: float) -> None:
        """Show cells with these colours of their patches, (n, h, w, 3) in 0..1."""
        self._found, self._values, self._opacity = found, values, opacity
        self.current = min(self.current, max(len(values) - 1, 0))
        self._pixmaps.clear()
        self._arrange()

    def show_current(self, cell: int) -> None:
        """Show this cell large."""
        if cell != self.current and self._found is not None and 0 <= cell < len(self._found.cells):
            self.current = cell
            self._pixmaps.clear()
            self._arrange()

    def sizeHint(self) -> QSize:
        """As high as the pictures need."""
        return QSize(320, self.minimumHeight())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Arrange the pictures anew."""
        super().resizeEvent(event)
        self._pixmaps.clear()
        self._arrange()

    def _arrange(self) -> None:
        """Find a place for each picture: the large pair above, all cells below."""
        self.spots = []
        count = 0 if self._found is None else len(self._found.cells)
        if not count:
            self.setMinimumHeight(0)
            self.update()
            return
        side = max(min((self.width() - GAP) // 2, LARGEST), SMALL)
        for at, plain in enumerate((True, False)):
            self.spots.append(Spot(QRect(at * (side + GAP), 0, side, side), self.current, plain))
        columns = max((self.width() + GAP) // (SMALL + GAP), 1)
        for number in range(count if count > 1 else 0):
            row, column = divmod(number, columns)
            left, top = column * (SMALL + GAP), side + 2 * GAP + row * (SMALL + GAP)
            self.spots.append(Spot(QRect(left, top, SMALL, SMALL), number, plain=False))
        self.setMinimumHeight(self.spots[-1].rect.bottom() + 1)
        self.update()

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        """Draw the pictures, and a frame around the clicked patch and the cell that is shown large."""
        painter = QPainter(self)
        for spot in self.spots:
            painter.drawPixmap(spot.rect, self._pixmap(spot))
            if spot.rect.width() == SMALL and spot.cell == self.current:
                painter.setPen(QPen(QColor(CHOSEN), 2))
                painter.drawRect(spot.rect.adjusted(1, 1, -1, -1))
            if self.patch is not None and self.patch[0] == spot.cell:
                painter.setPen(QPen(QColor(CHOSEN), 2))
                painter.drawRect(self._patch_rect(spot, self.patch[1], self.patch[2]))
        painter.end()

    def _pixmap(self, spot: Spot) -> QPixmap:
        """The picture of a spot; made once."""
        key = (spot.cell + 10_000 * (spot.rect.width() == SMALL), spot.plain)
        if key not in self._pixmaps and self._found is not None:
            crop = self._found.crops[spot.cell]
            if not spot.plain:
                crop = blend(crop, self._values[spot.cell], opacity=self._opacity)
            self._pixmaps[key] = pixmap(crop, spot.rect.width(), self.devicePixelRatioF())
        return self._pixmaps[key]

    def _grid(self) -> tuple[int, int]:
        return (int(self._values.shape[1]), int(self._values.shape[2]))

    def _patch_rect(self, spot: Spot, row: int, column: int) -> QRect:
        """Where a patch lies in a picture."""
        rows, columns = self._grid()
        height, width = spot.rect.height() / rows, spot.rect.width() / columns
        place = QPoint(spot.rect.left() + round(column * width), spot.rect.top() + round(row * height))
        return QRect(place, QSize(round(width), round(height)))

    def patch_at(self, point: QPoint) -> tuple[int, int, int] | None:
        """Cell, row and column of the patch under a point of the sheet; None beside all pictures."""
        for spot in self.spots:
            if spot.rect.contains(point):
                rows, columns = self._grid()
                y, x = point.y() - spot.rect.top(), point.x() - spot.rect.left()
                row, column = y * rows // spot.rect.height(), x * columns // spot.rect.width()
                return spot.cell, min(row, rows - 1), min(column, columns - 1)
        return None

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Say which patch was clicked; its cell becomes the large one."""
        found = self.patch_at(event.position().toPoint()) if event is not None else None
        if found is not None:
            self.show_current(found[0])
            self.picked.emit(*found)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Name the cell under the pointer."""
        found = self.patch_at(event.position().toPoint()) if event is not None else None
        if event is not None and found is not None and self._found is not None:
            QToolTip.showText(event.globalPosition().toPoint(), self._found.cells[found[0]], self)
