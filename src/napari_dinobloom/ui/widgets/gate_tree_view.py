"""The list of gates on the screen: chosen by mouse and keys, renamed in place, dragged below one another."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QItemSelectionModel, QPoint, Qt
from qtpy.QtGui import QKeyEvent, QKeySequence, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeView, QWidget

from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.frame_table import HEADER_LOOK, fit_first
from napari_dinobloom.ui.widgets.gate_model import NAME, GateModel

KEYS: dict[str, QKeySequence | QKeySequence.StandardKey] = {
    "delete": QKeySequence.StandardKey.Delete,
    "undo": QKeySequence.StandardKey.Undo,
    "redo": QKeySequence.StandardKey.Redo,
    "hide": QKeySequence("H"),
    "lock": QKeySequence("L"),
    "colour": QKeySequence("C"),
}
"""What keys do while the focus is in the list; F2 renames."""

EMPTY_MARK = "QTreeView::indicator:unchecked {border: 1px solid #8a8a8a; border-radius: 2px; width: 10px; height: 10px}"
"""A check mark that is off, as it would be dark on dark."""

LEAST_NAME = 110
"""Width of the names, pixels."""


class GateTreeView(QTreeView):
    """Shows a `GateModel` and keeps its current row the session's gate.

    Parameters
    ----------
    model : GateModel
        The gates.
    session : Session
        Its `gate` is followed and set.
    act : callable
        Does what a key stands for, by its name in `KEYS`.
    """

    def __init__(
        self, model: GateModel, session: Session, act: Callable[[str], None], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._gates, self._session, self._act = model, session, act
        self._closed: set[str] = set()
        self._following = False
        self.setModel(model)
        self.setAccessibleName(text("gates.title"))
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed | QAbstractItemView.EditTrigger.DoubleClicked)
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.setDropIndicatorShown(True)
        self.setUniformRowHeights(True)
        self.setExpandsOnDoubleClick(False)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setMinimumHeight(90)
        self.setStyleSheet(EMPTY_MARK)
        header = QHeaderView(Qt.Orientation.Horizontal)
        self.setHeader(header)
        header.setStyleSheet(HEADER_LOOK)
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Interactive)
        header.setMinimumSectionSize(24)
        self.collapsed.connect(lambda index: self._closed.add(model.key_of(index)))
        self.expanded.connect(lambda index: self._closed.discard(model.key_of(index)))
        model.modelReset.connect(self._restore)
        model.dataChanged.connect(lambda *_: fit_first(self, LEAST_NAME))
        chosen = self.selectionModel()
        if chosen is not None:
            chosen.currentChanged.connect(self._on_current)

    @property
    def keys(self) -> list[str]:
        """Keys of the selected gates, as the list has them from top to bottom."""
        chosen = self.selectionModel()
        rows = [] if chosen is None else chosen.selectedRows(NAME)
        return [self._gates.key_of(index) for index in sorted(rows, key=lambda index: self.visualRect(index).top())]

    def follow(self) -> None:
        """Make the session's gate the current row."""
        if self._following:
            return
        index = self._gates.index_of(self._session.gate, NAME)
        if self._gates.key_of(self.currentIndex()) == self._session.gate and (
            not index.isValid() or self._session.gate in self.keys
        ):
            return
        self._following = True
        chosen = self.selectionModel()
        if chosen is not None and index.isValid():
            flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
            chosen.setCurrentIndex(index, flags)
            self.scrollTo(index)
        elif chosen is not None:
            chosen.clear()
        self._following = False

    def _on_current(self, current: object, _before: object) -> None:
        key = self._gates.key_of(current)  # type: ignore[arg-type]
        if not self._following and key:
            self._following = True  # what is selected with it is not known yet
            self._session.gate = key
            self._following = False

    def _restore(self) -> None:
        """Open again what was open before the model was made anew, new gates too."""
        self._following = True
        closed = set(self._closed)
        self.expandAll()
        for key in closed:
            index = self._gates.index_of(key)
            if index.isValid() and self._gates.rowCount(index):
                self.collapse(index)
        self._closed = closed
        self._following = False
        fit_first(self, LEAST_NAME)
        self.follow()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Give the names the room that is left."""
        super().resizeEvent(event)
        fit_first(self, LEAST_NAME)

    def menu_place(self) -> QPoint:
        """Where a menu that was asked for by a key opens."""
        return self.visualRect(self.currentIndex()).bottomLeft()

    def event(self, event: QEvent | None) -> bool:
        """Claim our keys while the focus is here, before the window takes them for its menus."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.ShortcutOverride and _act_of(event):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Do what one of our keys stands for."""
        name = _act_of(event) if event is not None else ""
        if name:
            self._act(name)
        else:
            super().keyPressEvent(event)


def _act_of(event: QKeyEvent) -> str:
    """What a key stands for; empty for a key that is not ours."""
    pressed = QKeySequence(event.keyCombination())
    for name, key in KEYS.items():
        if event.matches(key) if isinstance(key, QKeySequence.StandardKey) else pressed == key:
            return name
    return ""
