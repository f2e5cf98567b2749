"""The rows of controls above the gallery: which cells, in which order, how large; who reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSlider,
    QToolButton,
    QWidget,
)

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.io.journal import user
from napari_dinobloom.ui.gallery.choice import KINDS, Choice
from napari_dinobloom.ui.gallery.sheet import ATTENTION
from napari_dinobloom.ui.gallery.thumbnails import SIDE
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip

SIDES = (56, 72, 96, 128, 176, 224)
"""Pixels of a thumbnail that can be chosen."""


class ChoiceBar(QWidget):
    """Which cells are shown, in which order and size.

    Signals
    -------
    chosen : Choice
        Other cells are wanted.
    sorted_by : (str, bool)
        Another order is wanted: its key, and whether it is turned round.
    resized : int
        Thumbnails of another size are wanted: pixels.
    updated
        What belongs to the choice now is wanted.
    """

    chosen = Signal(object)
    sorted_by = Signal(str, bool)
    resized = Signal(int)
    updated = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.show_ = narrow_combo("gallery.show")
        self.sort = narrow_combo("gallery.sort")
        self.turn = QToolButton()
        self.turn.setCheckable(True)
        self.turn.setArrowType(Qt.ArrowType.DownArrow)
        self.turn.setToolTip(tip("gallery.turn"))
        self.turn.setAccessibleName(text("gallery.turn"))
        self.side = QSlider(Qt.Orientation.Horizontal)
        self.side.setRange(0, len(SIDES) - 1)
        self.side.setValue(SIDES.index(SIDE))
        self.side.setPageStep(1)
        self.side.setToolTip(tip("gallery.size"))
        self.side.setAccessibleName(text("gallery.size"))
        self.side.setMinimumWidth(60)
        self.update_ = QPushButton(text("gallery.update"))
        self.update_.setToolTip(tip("gallery.update"))
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        rows: dict[str, tuple[QWidget, ...]] = {
            "show": (self.show_, self.update_),
            "sort": (self.sort, self.turn, self.side),
        }
        for row, (key, parts) in enumerate(rows.items()):
            grid.addWidget(QLabel(text(f"gallery.{key}")), row, 0)
            line = QHBoxLayout()
            for part in parts:
                line.addWidget(part, 1 if isinstance(part, QComboBox) else 0)
            grid.addLayout(line, row, 1)
        self.show_.currentIndexChanged.connect(self._on_show)
        self.sort.currentIndexChanged.connect(self._on_sort)
        self.turn.toggled.connect(self._on_sort)
        self.side.valueChanged.connect(lambda at: self.resized.emit(SIDES[at]))
        self.update_.clicked.connect(self.updated)

    def fill(self, classes: Mapping[str, tuple[int, int]], gate: str, keys: Sequence[str], choice: Choice) -> None:
        """Offer the classes that occur, with their counts, and the orders that there are."""
        with QSignalBlocker(self.show_), QSignalBlocker(self.sort):
            self.show_.clear()
            for kind in KINDS:
                named = text("gallery.show.gate_named", name=gate) if kind == "gate" and gate else ""
                self.show_.addItem(named or text(f"gallery.show.{kind}"), Choice(kind))
            self.show_.insertSeparator(self.show_.count())
            names = [*classes, *([choice.name] if choice.kind == "class" and choice.name not in classes else [])]
            for name in names:
                count = classes.get(name, (0, 0))[0]
                self.show_.addItem(f"{describe(name).title} ({count})", Choice("class", name))
            places = [at for at in range(self.show_.count()) if self.show_.itemData(at) == choice]
            self.show_.setCurrentIndex(places[0] if places else 0)
            before = self.sort.currentData()
            self.sort.clear()
            for key in keys:
                self.sort.addItem(_order(key), key)
            self.sort.setCurrentIndex(max(self.sort.findData(before), 0))

    def take(self, sort: object, turned: object, side: object) -> None:
        """Choose an order and a size, where they are offered."""
        if isinstance(sort, str) and (at := self.sort.findData(sort)) >= 0:
            self.sort.setCurrentIndex(at)
        if isinstance(turned, bool):
            self.turn.setChecked(turned)
        if isinstance(side, int) and side in SIDES:
            self.side.setValue(SIDES.index(side))

    def zoom(self, steps: int) -> None:
        """Make thumbnails larger or smaller."""
        self.side.setValue(self.side.value() + steps)

    def _on_show(self, at: int) -> None:
        """Other cells were chosen."""
        choice = self.show_.itemData(at)
        if isinstance(choice, Choice):
            self.chosen.emit(choice)

    def _on_sort(self, _event: object = None) -> None:
        """Another order was chosen."""
        self.turn.setArrowType(Qt.ArrowType.UpArrow if self.turn.isChecked() else Qt.ArrowType.DownArrow)
        self.sorted_by.emit(str(self.sort.currentData() or "class"), self.turn.isChecked())


class ReaderBar(QWidget):
    """Who names cells here, and whether what others said is hidden.

    Parameters
    ----------
    session : Session
        Its `reader` and `blind` are set and followed.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.reader = QLineEdit(session.reader)
        self.reader.setPlaceholderText(user())
        self.reader.setMaxLength(80)
        self.reader.setToolTip(tip("gallery.reader"))
        self.blind = QCheckBox(text("gallery.blind"))
        self.blind.setToolTip(tip("gallery.blind"))
        self.blind.setChecked(session.blind)
        label = QLabel(text("gallery.reader"))
        label.setBuddy(self.reader)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(label)
        row.addWidget(self.reader, 1)
        row.addWidget(self.blind)
        self.reader.editingFinished.connect(self._on_reader)
        self.blind.toggled.connect(self._on_blind)
        session.events.reader.connect(self._show)
        session.events.blind.connect(self._show)

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.reader.disconnect(self._show, missing_ok=True)
        self._session.events.blind.disconnect(self._show, missing_ok=True)

    def _on_reader(self) -> None:
        """Another person reads."""
        self._session.reader = " ".join(self.reader.text().split())

    def _on_blind(self, on: bool) -> None:
        """Labels of others are to be hidden, or shown."""
        self._session.blind = on

    def _show(self, _event: object = None) -> None:
        """Show what the session has."""
        if self.reader.text() != self._session.reader:
            self.reader.setText(self._session.reader)
        self.blind.setChecked(self._session.blind)


def narrow_combo(key: str) -> QComboBox:
    """A combo box with its name and tooltip, that may become narrow."""
    combo = QComboBox()
    combo.setToolTip(tip(key))
    combo.setAccessibleName(text(key))
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(6)
    return combo


def _order(key: str) -> str:
    """Name of an order for people."""
    if key.startswith(ATTENTION):
        return key.replace("_", " ").strip().capitalize()
    return text(f"gallery.sort.{key}")
