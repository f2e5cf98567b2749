"""Shares of the classes of one cell as bars; a click on a class chooses it."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QProgressBar, QPushButton, QWidget

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.gate_model import swatch

MOST, LEAST = 6, 0.005
"""Classes that are shown, and the share that one has to have."""


class ClassBars(QWidget):
    """A button with the name of each class, and beside it the bar of its share.

    Attributes
    ----------
    chosen : Signal
        The class that was clicked: str.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip(tip("classify.bars"))
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(0, 1)
        self._grid.setColumnStretch(1, 1)
        self.buttons: list[QPushButton] = []
        self.bars: list[QProgressBar] = []
        self._names: list[str] = []

    def show_shares(self, shares: Mapping[str, float], palette: Mapping[str, str], why: str = "") -> None:
        """Show shares from 0 to 1 by class, the first ones that count; with a reason why none can be chosen now."""
        self._names = [name for name, share in shares.items() if share >= LEAST][:MOST]
        while len(self.buttons) < len(self._names):
            self._add()
        for at, (button, bar) in enumerate(zip(self.buttons, self.bars, strict=True)):
            shown = at < len(self._names)
            button.setVisible(shown)
            bar.setVisible(shown)
            if not shown:
                continue
            name = self._names[at]
            title, share = describe(name).title, float(shares[name])
            button.setText(title)
            button.setIcon(swatch(palette.get(name) or describe(name).colour))
            button.setEnabled(not why)
            button.setToolTip(why or text("classify.bar", title=title))
            bar.setValue(round(1000 * share))
            bar.setFormat(f"{100 * share:.0f} %")
            bar.setAccessibleName(f"{title}: {100 * share:.0f} %")

    def _add(self) -> None:
        """One more row."""
        at = len(self.buttons)
        button, bar = QPushButton(), QProgressBar()
        button.setStyleSheet("text-align: left")
        button.clicked.connect(lambda _on=False, at=at: self.chosen.emit(self._names[at]))
        bar.setRange(0, 1000)
        bar.setAlignment(Qt.AlignmentFlag.AlignCenter)
        bar.setMinimumWidth(60)
        self._grid.addWidget(button, at, 0)
        self._grid.addWidget(bar, at, 1)
        self.buttons.append(button)
        self.bars.append(bar)
