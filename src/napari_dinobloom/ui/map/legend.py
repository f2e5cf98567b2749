"""The legend of the map: what the colours mean, how many cells have each, and switches that hide them."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QImage, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from napari_dinobloom.ui.map.colouring import STEPS, Colouring, scale_table
from napari_dinobloom.ui.texts import text, tip

SWATCH = 11
WIDEST = 230
"""Pixels that it gets where there is room; longer names are shortened in the middle."""
HIGH = 12
"""Of the scale, pixels."""
KEY = Qt.ItemDataRole.UserRole
FLAGS = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsSelectable


class Legend(QWidget):
    """Lines with a check mark each, or the ends of a scale.

    Attributes
    ----------
    hidden : frozenset of str
        Keys of the categories that are switched off.
    """

    toggled = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.hidden: frozenset[str] = frozenset()
        self.list = QListWidget()
        self.list.setToolTip(tip("map.legend"))
        self.list.setAccessibleName(text("map.legend"))
        self.list.setIconSize(QSize(SWATCH, SWATCH))
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.itemChanged.connect(self._on_item)
        self.list.itemDoubleClicked.connect(self._only)
        self.scale, self.low, self.high = QLabel(), QLabel(), QLabel()
        self.scale.setPixmap(_bar())
        self.scale.setScaledContents(True)
        self.scale.setFixedHeight(HIGH)
        self.scale.setMinimumWidth(STEPS // 4)  # else as wide as its picture
        ends = QHBoxLayout()
        ends.addWidget(self.low)
        ends.addStretch(1)
        ends.addWidget(self.high)
        self._scale = QWidget()
        column = QVBoxLayout(self._scale)
        column.setContentsMargins(2, 2, 2, 2)
        column.addWidget(self.scale)
        column.addLayout(ends)
        self.all = QPushButton(text("map.show_all"))
        self.all.setToolTip(tip("map.show_all"))
        self.all.clicked.connect(self.show_all)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self._scale)
        layout.addWidget(self.list, 1000)  # as high as its lines, if there is room
        layout.addWidget(self.all)
        layout.addStretch(1)

    def fill(self, colouring: Colouring) -> None:
        """Show the lines of a colouring; categories that are still there stay switched off."""
        keys = {entry.key for entry in colouring.entries}
        self.hidden = self.hidden & keys
        categories = bool(colouring.entries)
        self.list.setVisible(categories)
        self.all.setVisible(categories)
        self._scale.setVisible(colouring.limits is not None)
        self.setVisible(categories or colouring.limits is not None)
        if colouring.limits is not None:
            self.low.setText(f"{colouring.limits[0]:.4g}")
            self.high.setText(f"{colouring.limits[1]:.4g}")
        self.list.blockSignals(True)
        if list(self._items()) != [entry.key for entry in colouring.entries]:
            self.list.clear()
            for entry in colouring.entries:
                item = QListWidgetItem()
                item.setData(KEY, entry.key)
                item.setFlags(FLAGS)
                self.list.addItem(item)
        for item, entry in zip(self._items().values(), colouring.entries, strict=True):
            item.setText(f"{entry.title}  {entry.count:,}")
            item.setToolTip(text("map.legend_line", title=entry.title, count=entry.count))
            item.setIcon(_swatch(entry.colour))
            item.setCheckState(Qt.CheckState.Unchecked if entry.key in self.hidden else Qt.CheckState.Checked)
        self.list.blockSignals(False)
        self.list.setMaximumHeight(self.list.sizeHintForRow(0) * self.list.count() + 2 * self.list.frameWidth() + 4)
        self.all.setEnabled(bool(self.hidden))

    def show_all(self) -> None:
        """Switch everything on again."""
        self._hide(frozenset())

    def _on_item(self, item: QListWidgetItem) -> None:
        key = str(item.data(KEY))
        off = item.checkState() == Qt.CheckState.Unchecked
        self._hide(self.hidden | {key} if off else self.hidden - {key})

    def _only(self, item: QListWidgetItem) -> None:
        """Show this category alone."""
        self._hide(frozenset(self._items()) - {str(item.data(KEY))})

    def _items(self) -> dict[str, QListWidgetItem]:
        """The lines by their key."""
        items = [self.list.item(at) for at in range(self.list.count())]
        return {str(item.data(KEY)): item for item in items if item is not None}

    def _hide(self, hidden: frozenset[str]) -> None:
        if hidden == self.hidden:
            return
        self.hidden = hidden
        self.list.blockSignals(True)
        for key, item in self._items().items():
            item.setCheckState(Qt.CheckState.Unchecked if key in hidden else Qt.CheckState.Checked)
        self.list.blockSignals(False)
        self.all.setEnabled(bool(hidden))
        self.toggled.emit()


def _swatch(colour: str) -> QIcon:
    pixmap = QPixmap(SWATCH, SWATCH)
    pixmap.fill(QColor(colour))
    return QIcon(pixmap)


def _bar() -> QPixmap:
    """The scale as a strip; of one pixel of height Qt would make none when it makes it narrower."""
    line = (scale_table()[:STEPS, :3] * 255).astype(np.uint8)
    pixels: Any = np.repeat(line[None], HIGH, axis=0)
    return QPixmap.fromImage(QImage(pixels.tobytes(), STEPS, HIGH, 3 * STEPS, QImage.Format.Format_RGB888))
