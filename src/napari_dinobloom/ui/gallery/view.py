"""The grid of thumbnails: scrolling, selecting by mouse and keys, and the keys that name cells."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QEvent, QItemSelection, QItemSelectionModel, QModelIndex, Qt, QTimer, Signal
from qtpy.QtGui import QKeyEvent, QKeySequence, QMouseEvent, QPainter, QPaintEvent, QPalette, QWheelEvent
from qtpy.QtWidgets import QAbstractItemView, QWidget

from napari_dinobloom.ui.gallery.delegate import TileDelegate
from napari_dinobloom.ui.gallery.grid_view import GridView
from napari_dinobloom.ui.gallery.model import GalleryModel
from napari_dinobloom.ui.gallery.sheet import Rows
from napari_dinobloom.ui.gallery.thumbnails import Thumbnails

SETTLE = 30
"""Milliseconds after which a selection counts as made: a rubber band changes it with every move of the mouse."""

AHEAD = 1.0
"""Pages below those in sight whose thumbnails are made as well."""

STANDARD = {"undo": QKeySequence.StandardKey.Undo, "redo": QKeySequence.StandardKey.Redo}
LETTERS = {"\r": "confirm", "\n": "confirm", "c": "confirm", "r": "review", "x": "exclude"}
"""What keys do beside the digits."""


class GalleryView(GridView):
    """The tiles of a `GalleryModel`.

    Signals
    -------
    chosen
        The selection was changed here, by a person, and has settled.
    pressed_key : str
        ``0`` to ``9``, ``confirm``, ``review``, ``exclude``, ``undo``, ``redo``.
    pointed : str
        Id of the cell under the pointer; empty for none.
    zoomed : int
        Steps by which tiles are to become larger.
    """

    chosen = Signal()
    pressed_key = Signal(str)
    pointed = Signal(str)
    zoomed = Signal(int)

    def __init__(self, model: GalleryModel, thumbnails: Thumbnails, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.tiles = TileDelegate(thumbnails, self)
        self.cells = model
        self.empty = ""
        self._thumbnails = thumbnails
        self._told = False
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE)
        self._settle.timeout.connect(self.chosen)
        self._ask = QTimer(self)
        self._ask.setSingleShot(True)
        self._ask.setInterval(0)
        self._ask.timeout.connect(self._want)
        self.setModel(model)
        self._settle.stop()  # Qt counts the new model as a change of the selection; nobody selected anything
        self.setItemDelegate(self.tiles)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setMouseTracking(True)
        self.setMinimumHeight(180)
        self.set_side(self.tiles.side)
        thumbnails.arrived.connect(self.redraw)

    def set_side(self, side: int) -> None:
        """Draw pictures of this many pixels; the cell at the top stays in sight."""
        self.tiles.side = side
        self.set_tile(self.tiles.tile(self.fontMetrics()))

    # The selection

    def settle(self) -> None:
        """Tell a selection that has not settled yet at once."""
        if self._settle.isActive():
            self._settle.stop()
            self.chosen.emit()

    def show_chosen(self, places: Rows, current: int = -1) -> None:
        """Select the cells at some places from outside, and bring `current` into sight; `chosen` is not emitted."""
        self._told = True
        try:
            self.choose(places)
        finally:
            self._told = False
        self.look_at(current)

    def look_at(self, place: int) -> None:
        """Make the cell at a place the current one, selected or not, and bring it into sight; -1 for none."""
        selection = self.selectionModel()
        if selection is not None and place >= 0:
            selection.setCurrentIndex(self.cells.index(place), QItemSelectionModel.SelectionFlag.NoUpdate)
            self.scrollTo(self.cells.index(place))

    def selectionChanged(self, selected: QItemSelection, deselected: QItemSelection) -> None:
        """Note that a person changed the selection."""
        super().selectionChanged(selected, deselected)
        if not self._told:
            self._many = None
            self._settle.start()

    # Keys and mouse

    def event(self, event: QEvent | None) -> bool:
        """Claim our keys while the focus is here, before the window takes them for its menus."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.ShortcutOverride and _is_ours(event):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Do what one of our keys stands for; Qt knows arrows, pages and Ctrl+A."""
        act = _act_of(event) if event is not None else ""
        if act:
            self.settle()
            self.pressed_key.emit(act)
        else:
            super().keyPressEvent(event)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Say which cell is under the pointer."""
        super().mouseMoveEvent(event)
        if event is not None:
            self._point(self.indexAt(event.pos()))

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """A click is a selection at once."""
        super().mouseReleaseEvent(event)
        self.settle()
        self.redraw()  # the rubber band goes

    def leaveEvent(self, event: QEvent | None) -> None:
        """No cell is under the pointer any more."""
        super().leaveEvent(event)
        self.pointed.emit("")

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Scroll; with Ctrl, make tiles larger or smaller."""
        if event is not None and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoomed.emit(1 if event.angleDelta().y() > 0 else -1)
            event.accept()
            return
        super().wheelEvent(event)

    def _point(self, index: QModelIndex) -> None:
        """Say which cell is under the pointer."""
        self.pointed.emit(self.cells.cell(index.row()) if index.isValid() else "")

    def show_hover(self, cell: str) -> None:
        """Draw a ring around a cell that is under a pointer, here or elsewhere."""
        before, self.tiles.hover = self.tiles.hover, cell
        viewport = self.viewport()
        for place in self.cells.places([one for one in (before, cell) if one]):
            if viewport is not None:
                viewport.update(self.visualRect(self.cells.index(int(place))))

    # Drawing

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw what is in sight, and ask for the pictures that are missing."""
        super().paintEvent(event)
        if not len(self.cells.rows):
            self._write_empty()
        elif not self._ask.isActive():
            self._ask.start()

    def _write_empty(self) -> None:
        """Say why there is nothing to see."""
        viewport = self.viewport()
        if viewport is None or not self.empty:
            return
        painter = QPainter(viewport)
        painter.setPen(self.palette().color(QPalette.ColorRole.Text))
        flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
        painter.drawText(viewport.rect().adjusted(24, 12, -24, -12), int(flags), self.empty)
        painter.end()

    def _want(self) -> None:
        """Ask for the pictures in sight, then for those below them."""
        first, end = self.in_sight()
        ahead = min(end + round(AHEAD * (end - first)), len(self.cells.rows))
        self._thumbnails.want(self.cells.cells(np.arange(first, ahead)))

    def redraw(self) -> None:
        """Draw what is in sight anew."""
        viewport = self.viewport()
        if viewport is not None:
            viewport.update()


def _is_ours(event: QKeyEvent) -> bool:
    """Whether a key does something here that the window may do too."""
    return bool(_act_of(event)) or event.matches(QKeySequence.StandardKey.SelectAll)


def _act_of(event: QKeyEvent) -> str:
    """What a key stands for; empty for a key that is not ours."""
    for name, key in STANDARD.items():
        if event.matches(key):
            return name
    if event.modifiers() & ~(Qt.KeyboardModifier.KeypadModifier | Qt.KeyboardModifier.ShiftModifier):
        return ""  # Shift is needed for digits on some keyboards
    typed = event.text().lower()
    return typed if len(typed) == 1 and typed in "0123456789" else LETTERS.get(typed, "")
