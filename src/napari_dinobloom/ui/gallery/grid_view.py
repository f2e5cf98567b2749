"""A view of equal tiles in rows, whose layout is arithmetic: a hundred thousand items cost as much as ten.

Qt's own list view asks the model for every item when it lays out or selects, which takes 0.1 to 2 s in Python.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QItemSelection, QItemSelectionModel, QItemSelectionRange, QModelIndex, QPoint, QRect, QSize, Qt
from qtpy.QtGui import QPainter, QPaintEvent, QRegion, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QRubberBand,
    QStyle,
    QStyleOptionRubberBand,
    QStyleOptionViewItem,
    QWidget,
)

Places = npt.NDArray[np.intp]

MOST_RANGES = 1000
"""Ranges of items up to which Qt keeps a selection: its time grows with their square."""


class GridView(QAbstractItemView):
    """Items of a list model as tiles of one size, as many in a row as there is room for."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._tile = QSize(100, 100)
        self._band = QRect()
        self._many: npt.NDArray[np.bool_] | None = None
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)

    # Layout

    @property
    def count(self) -> int:
        """Items of the model."""
        model = self.model()
        return 0 if model is None else model.rowCount()

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return max(self.viewport().width() // self._tile.width(), 1)  # type: ignore[union-attr]

    @property
    def _pitch(self) -> int:
        """Pixels from one tile to the next in a row, which share what room is left over."""
        return max(self.viewport().width() // self.columns, 1)  # type: ignore[union-attr]

    def set_tile(self, tile: QSize) -> None:
        """Give tiles another size; the first one in sight stays there."""
        first = self.first_in_sight()
        self._tile = tile
        self._lay_out(first)

    def first_in_sight(self) -> int:
        """Place of the first item that is seen, be it in part."""
        return min(self.verticalOffset() // self._tile.height() * self.columns, max(self.count - 1, 0))

    def in_sight(self) -> tuple[int, int]:
        """Places of the first item in sight and of the one behind the last."""
        first = self.first_in_sight()
        rows = self.viewport().height() // self._tile.height() + 2  # type: ignore[union-attr]
        return first, min(first + rows * self.columns, self.count)

    def _lay_out(self, first: int) -> None:
        """Fit the scroll bar, and bring the row of item `first` to the top."""
        self.updateGeometries()
        self.verticalScrollBar().setValue(first // self.columns * self._tile.height())  # type: ignore[union-attr]
        self.viewport().update()  # type: ignore[union-attr]

    def updateGeometries(self) -> None:
        """Fit the scroll bar to what there is."""
        super().updateGeometries()
        bar, height = self.verticalScrollBar(), self.viewport().height()  # type: ignore[union-attr]
        if bar is not None:
            rows = -(-self.count // self.columns)
            bar.setSingleStep(max(self._tile.height() // 3, 1))
            bar.setPageStep(height)
            bar.setRange(0, max(rows * self._tile.height() - height, 0))

    def reset(self) -> None:
        """Show a model that was filled anew."""
        self._many = None
        super().reset()
        self.updateGeometries()
        self.viewport().update()  # type: ignore[union-attr]

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the first row in sight."""
        before = event.oldSize().width() if event is not None else -1
        columns = max(before // self._tile.width(), 1)
        first = self.verticalOffset() // self._tile.height() * columns
        super().resizeEvent(event)
        if before > 0 and columns != self.columns:
            self._lay_out(first)

    def horizontalOffset(self) -> int:
        """Nothing is scrolled sideways."""
        return 0

    def verticalOffset(self) -> int:
        """Pixels above what is in sight."""
        return self.verticalScrollBar().value()  # type: ignore[union-attr]

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        """Move what is in sight; only the rest is drawn."""
        self.scrollDirtyRegion(dx, dy)
        self.viewport().scroll(dx, dy)  # type: ignore[union-attr]

    def isIndexHidden(self, _index: QModelIndex) -> bool:
        """No item is hidden."""
        return False

    def visualRect(self, index: QModelIndex) -> QRect:
        """Where an item is, in the viewport."""
        return self._rect(index.row()) if index.isValid() else QRect()

    def _rect(self, place: int) -> QRect:
        row, column = divmod(place, self.columns)
        width, height = self._pitch, self._tile.height()
        return QRect(column * width, row * height - self.verticalOffset(), width, height)

    def indexAt(self, point: QPoint) -> QModelIndex:
        """Item at a point of the viewport, which may lie above or below what is in sight."""
        column = point.x() // self._pitch
        place = (point.y() + self.verticalOffset()) // self._tile.height() * self.columns + column
        inside = 0 <= column < self.columns and 0 <= place < self.count
        model = self.model()
        return model.index(place, 0) if inside and model is not None else QModelIndex()

    def scrollTo(
        self, index: QModelIndex, hint: QAbstractItemView.ScrollHint = QAbstractItemView.ScrollHint.EnsureVisible
    ) -> None:
        """Bring an item into sight."""
        bar, rect = self.verticalScrollBar(), self.visualRect(index)
        room = self.viewport().height()  # type: ignore[union-attr]
        if bar is None or rect.isNull():
            return
        centred = hint == QAbstractItemView.ScrollHint.PositionAtCenter
        far = rect.bottom() < -room or rect.top() > 2 * room
        if centred or (far and hint == QAbstractItemView.ScrollHint.EnsureVisible):
            bar.setValue(bar.value() + rect.center().y() - room // 2)
        elif rect.top() < 0 or hint == QAbstractItemView.ScrollHint.PositionAtTop:
            bar.setValue(bar.value() + rect.top())
        elif rect.bottom() >= room:
            bar.setValue(bar.value() + rect.bottom() + 1 - room)

    # Selection

    def moveCursor(self, action: QAbstractItemView.CursorAction, _modifiers: Qt.KeyboardModifier) -> QModelIndex:
        """Item that a key of the keyboard leads to."""
        moves, model = QAbstractItemView.CursorAction, self.model()
        if model is None or not self.count:
            return QModelIndex()
        place, last = self.currentIndex().row(), self.count - 1
        if place < 0:
            return model.index(self.first_in_sight(), 0)
        page = max(self.viewport().height() // self._tile.height(), 1) * self.columns  # type: ignore[union-attr]
        steps = {
            moves.MoveLeft: -1,
            moves.MovePrevious: -1,
            moves.MoveRight: 1,
            moves.MoveNext: 1,
            moves.MoveUp: -self.columns,
            moves.MoveDown: self.columns,
            moves.MovePageUp: -page,
            moves.MovePageDown: page,
            moves.MoveHome: -place,
            moves.MoveEnd: last - place,
        }
        return model.index(min(max(place + steps.get(action, 0), 0), last), 0)

    def setSelection(self, rect: QRect, command: QItemSelectionModel.SelectionFlag) -> None:
        """Select what a rubber band touches, or all from one item to another."""
        selection, model = self.selectionModel(), self.model()
        if selection is None or model is None:
            return
        chosen = QItemSelection()
        if self.state() == QAbstractItemView.State.DragSelectingState:
            self._band = rect.normalized()
            for first, last in self._runs(self._band):
                chosen.select(model.index(first, 0), model.index(last, 0))
            self.viewport().update()  # type: ignore[union-attr]
        else:
            ends = [self.indexAt(rect.topLeft()), self.indexAt(rect.bottomRight())]
            rows = sorted(index.row() for index in ends if index.isValid())
            if rows:
                chosen.select(model.index(rows[0], 0), model.index(rows[-1], 0))
        selection.select(chosen, command)

    def _runs(self, rect: QRect) -> list[tuple[int, int]]:
        """First and last place in each row of the tiles that a rectangle touches."""
        width, height, columns = self._pitch, self._tile.height(), self.columns
        left, right = max(rect.left() // width, 0), min(rect.right() // width, columns - 1)
        top = max((rect.top() + self.verticalOffset()) // height, 0)
        bottom = min((rect.bottom() + self.verticalOffset()) // height, (self.count - 1) // columns)
        if left > right:
            return []
        rows = [(row * columns + left, min(row * columns + right, self.count - 1)) for row in range(top, bottom + 1)]
        return [(first, last) for first, last in rows if first <= last]

    def visualRegionForSelection(self, selection: QItemSelection) -> QRegion:
        """What is to be drawn when items are selected or not: those in sight."""
        start, end = self.in_sight()
        region = QRegion()
        for one in _ranges(selection):
            for place in range(max(one.top(), start), min(one.bottom() + 1, end)):
                region += QRegion(self._rect(place))
        return region

    def choose(self, places: Places) -> None:
        """Select the items at some places, and no others.

        A selection in more than `MOST_RANGES` parts is kept here, not in Qt's model, until somebody selects again.
        """
        selection, model = self.selectionModel(), self.model()
        if selection is None or model is None:
            return
        ordered = np.sort(places)
        runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1) if len(ordered) else []
        chosen = QItemSelection()
        self._many = None
        if len(runs) > MOST_RANGES:
            self._many = np.zeros(self.count, dtype=bool)
            self._many[ordered] = True
        else:
            for run in runs:
                chosen.select(model.index(int(run[0]), 0), model.index(int(run[-1]), 0))
        selection.select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        self.viewport().update()  # type: ignore[union-attr]

    @property
    def any_chosen(self) -> bool:
        """Whether an item is selected."""
        selection = self.selectionModel()
        return self._many is not None or (selection is not None and selection.hasSelection())

    def chosen_places(self) -> Places:
        """Places of the selected items, in their order."""
        if self._many is not None:
            return np.flatnonzero(self._many)
        selection = self.selectionModel()
        found = [] if selection is None else _ranges(selection.selection())
        ranges = [(one.top(), one.bottom() + 1) for one in found]
        parts = [np.arange(*one) for one in sorted(ranges)]
        return np.concatenate(parts) if parts else np.zeros(0, np.intp)

    # Drawing

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the items in sight, and the rubber band."""
        viewport, model, selection = self.viewport(), self.model(), self.selectionModel()
        if viewport is None or model is None or selection is None or event is None:
            return
        painter = QPainter(viewport)
        delegate, option = self.itemDelegate(), QStyleOptionViewItem()
        self.initViewItemOption(option)
        plain = option.state & ~QStyle.StateFlag.State_Selected
        for place in range(*self.in_sight()):
            option.rect = self._rect(place)
            if delegate is None or not event.rect().intersects(option.rect):
                continue
            index = model.index(place, 0)
            chosen = self._many[place] if self._many is not None else selection.isSelected(index)
            option.state = plain | QStyle.StateFlag.State_Selected if chosen else plain
            delegate.paint(painter, option, index)
        self._draw_band(painter)
        painter.end()

    def _draw_band(self, painter: QPainter) -> None:
        """Draw the rubber band while the mouse drags it."""
        if self.state() != QAbstractItemView.State.DragSelectingState or self._band.isEmpty():
            self._band = QRect()
            return
        option = QStyleOptionRubberBand()
        option.initFrom(self)
        option.shape = QRubberBand.Shape.Rectangle
        option.opaque = False
        option.rect = self._band
        self.style().drawControl(QStyle.ControlElement.CE_RubberBand, option, painter)  # type: ignore[union-attr]


def _ranges(selection: QItemSelection) -> list[QItemSelectionRange]:
    """Ranges of a selection, which is a list in Qt."""
    ranges: list[QItemSelectionRange] = list(selection)  # type: ignore[call-overload]
    return ranges
