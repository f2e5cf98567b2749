"""The list of classes beside the gallery: key, colour, name, counts; its order is that of the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import QModelIndex, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPalette, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from napari_dinobloom.cells.taxonomy import CLASSES, UNCLASSIFIED, describe
from napari_dinobloom.ui.gallery.class_keys import KEYS, MOST
from napari_dinobloom.ui.texts import text, tip

NAME = Qt.ItemDataRole.UserRole
COUNTS = Qt.ItemDataRole.UserRole + 1
COLOUR = Qt.ItemDataRole.UserRole + 2


class ClassList(QWidget):
    """Classes in the order of their keys, with a field for more of them.

    Signals
    -------
    assigned : str
        The selected cells are to get this class.
    edited
        The list has other classes or another order.
    """

    assigned = Signal(str)
    edited = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.list = QListWidget()
        self.list.setToolTip(tip("gallery.classes"))
        self.list.setAccessibleName(text("gallery.classes"))
        self.list.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setItemDelegate(_LineDelegate(self.list))
        self.more = QComboBox()
        self.more.setEditable(True)
        self.more.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.more.setToolTip(tip("gallery.more"))
        self.more.setAccessibleName(text("gallery.more"))
        self.more.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        line = self.more.lineEdit()
        if line is not None:
            line.setPlaceholderText(text("gallery.more"))
            line.returnPressed.connect(self._on_assign_other)
        self.assign = QPushButton(text("gallery.assign"))
        self.add = QPushButton(text("gallery.add"))
        self.remove = QPushButton(text("gallery.remove"))
        for key, button in (("assign", self.assign), ("add", self.add), ("remove", self.remove)):
            button.setToolTip(tip(f"gallery.{key}"))
        self._lay_out()
        self.list.itemActivated.connect(lambda item: self.assigned.emit(item.data(NAME)))
        for signal in (self.list.model().rowsMoved, self.list.model().rowsRemoved):  # type: ignore[union-attr]
            signal.connect(self._on_edited)
        self.assign.clicked.connect(self._on_assign_other)
        self.add.clicked.connect(self._on_add)
        self.remove.clicked.connect(self._on_remove)
        self.colours: Mapping[str, str] = {}
        self._filling = False

    def _lay_out(self) -> None:
        """List, and the field for other classes with its buttons."""
        buttons = QHBoxLayout()
        for button in (self.assign, self.add, self.remove):
            buttons.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.list, 1)
        column.addWidget(self.more)
        column.addLayout(buttons)
        self.list.setMinimumHeight(3 * (self.fontMetrics().height() + 8))

    def names(self) -> list[str]:
        """Classes in their order; the first nine have a key."""
        return [str(self.list.item(row).data(NAME)) for row in range(self.list.count())]  # type: ignore[union-attr]

    def fill(self, names: Sequence[str], palette: Mapping[str, str]) -> None:
        """Show these classes."""
        self.colours = palette
        self._filling = True
        self.list.clear()
        for name in names:
            self.list.addItem(_item(name, palette))
        self._filling = False
        self._offer(palette)

    def count(self, tally: Mapping[str, tuple[int, int]]) -> None:
        """Show how many cells each class has, and how many of them are reviewed."""
        for row in range(self.list.count()):
            item = self.list.item(row)
            if item is None:
                continue
            counts = tally.get(item.data(NAME), (0, 0))
            if item.data(COUNTS) != counts:
                item.setData(COUNTS, counts)
            key = str(row + 1) if row < KEYS else ""
            title = describe(item.data(NAME)).title
            item.setData(
                Qt.ItemDataRole.AccessibleTextRole,
                text("gallery.class_line", key=key, title=title, seen=counts[1], count=counts[0]),
            )
        self.list.viewport().update()  # type: ignore[union-attr]

    def _offer(self, palette: Mapping[str, str]) -> None:
        """Offer the classes that are not in the list."""
        typed = self.more.currentText()
        known = [*palette, *(known.name for known in CLASSES)]
        others = [name for name in dict.fromkeys(known) if name not in (*self.names(), UNCLASSIFIED)]
        self.more.clear()
        for name in sorted(others, key=lambda name: describe(name).title):
            self.more.addItem(describe(name).title, name)
        self.more.setCurrentIndex(-1)
        self.more.setEditText(typed)

    def other(self) -> str:
        """Class in the field: a known one by its title, or a new name; empty for none."""
        typed = " ".join(self.more.currentText().split())
        at = self.more.findText(typed, Qt.MatchFlag.MatchFixedString)
        if at >= 0:
            return str(self.more.itemData(at))
        listed = {describe(name).title.casefold(): name for name in self.names()}
        return listed.get(typed.casefold(), typed)

    def put(self, name: str) -> None:
        """Add a class at the end of the list, unless it is there."""
        if name and name not in self.names() and self.list.count() < MOST:
            self.list.addItem(_item(name, self.colours))
            self._offer(self.colours)
            self.more.setEditText("")
            self.edited.emit()

    def _on_assign_other(self) -> None:
        """Give the selected cells the class in the field."""
        if name := self.other():
            self.assigned.emit(name)

    def _on_add(self) -> None:
        """Put the class in the field on the list."""
        self.put(self.other())

    def _on_remove(self) -> None:
        """Take the chosen class off the list; cells keep it."""
        row = self.list.currentRow()
        if row >= 0:
            self.list.takeItem(row)

    def _on_edited(self, *_where: Any) -> None:
        """The list was edited by a person."""
        if not self._filling:
            self.edited.emit()


class _LineDelegate(QStyledItemDelegate):
    """Draws a line of the list: key, square of the colour, name, counts at the right."""

    def sizeHint(self, option: QStyleOptionViewItem, _index: QModelIndex) -> QSize:
        """Height of a line."""
        return QSize(120, option.fontMetrics.height() + 8)

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw one line."""
        if painter is None:
            return
        painter.save()
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        if chosen:
            painter.fillRect(option.rect, option.palette.color(QPalette.ColorRole.Highlight))
        role = QPalette.ColorRole.HighlightedText if chosen else QPalette.ColorRole.Text
        ink = option.palette.color(role)
        line = option.rect.adjusted(6, 0, -6, 0)
        size = option.fontMetrics.height()
        middle = line.y() + (line.height() - size) // 2
        key = QRect(line.x(), middle, size, size)
        if index.row() < KEYS:
            painter.setPen(QPen(ink, 1))
            painter.drawRoundedRect(key, 3, 3)
            painter.drawText(key, int(Qt.AlignmentFlag.AlignCenter), str(index.row() + 1))
        swatch = QRect(key.right() + 8, middle + 2, size - 4, size - 4)
        painter.fillRect(swatch.adjusted(-1, -1, 1, 1), QColor("#c0c0c0"))
        painter.fillRect(swatch, QColor(index.data(COLOUR)))
        every, seen = index.data(COUNTS) or (0, 0)
        figures = f"{seen} / {every}" if every else "–"
        painter.setPen(ink)
        flags = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        painter.drawText(line, flags, figures)
        room = line.right() - option.fontMetrics.horizontalAdvance(figures) - 8 - swatch.right() - 8
        title = option.fontMetrics.elidedText(str(index.data()), Qt.TextElideMode.ElideRight, room)
        area = QRect(swatch.right() + 8, line.y(), room, line.height())
        painter.drawText(area, int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter), title)
        painter.restore()


def _item(name: str, palette: Mapping[str, str]) -> QListWidgetItem:
    """One class of the list."""
    known = describe(name)
    item = QListWidgetItem(known.title)
    item.setData(NAME, name)
    item.setData(COLOUR, palette.get(name) or known.colour)
    item.setData(COUNTS, (0, 0))
    return item
