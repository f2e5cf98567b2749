"""The buttons for what keys do in the gallery, and the line that counts what is reviewed."""

from __future__ import annotations

from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_dinobloom.ui.gallery.delegate import REVIEWED
from napari_dinobloom.ui.gallery.naming import ACTS, Naming
from napari_dinobloom.ui.texts import text, tip

COLUMNS = 3


class ActsBar(QWidget):
    """A button for each act, with its key in the tooltip, and how much of what is shown has been reviewed.

    Parameters
    ----------
    naming : Naming
        Does the acts.
    """

    def __init__(self, naming: Naming, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._naming = naming
        self.buttons = {act: QPushButton(text(f"gallery.{act}")) for act in ACTS}
        self.reviewed = QLabel()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.bar.setStyleSheet(f"QProgressBar::chunk {{ background-color: {REVIEWED.name()} }}")
        self.bar.setAccessibleName(text("gallery.review"))
        grid = QGridLayout()
        grid.setSpacing(4)
        for at, (act, button) in enumerate(self.buttons.items()):
            button.clicked.connect(lambda _on, act=act: naming.do(act))
            grid.addWidget(button, at // COLUMNS, at % COLUMNS)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        review = QHBoxLayout()
        review.addWidget(self.reviewed)
        review.addWidget(self.bar, 1)
        column.addLayout(review)
        column.addLayout(grid)

    def count(self, seen: int, every: int) -> None:
        """Show how many of the cells on show are reviewed."""
        self.reviewed.setText(text("gallery.reviewed", seen=seen, count=every))
        self.bar.setUpdatesEnabled(False)  # else Qt draws all that waits to be drawn in the window here and now
        self.bar.setRange(0, max(every, 1))
        self.bar.setValue(seen)
        self.bar.setUpdatesEnabled(True)
        self.setVisible(every > 0)

    def refresh(self) -> None:
        """Enable what can be done now, and say why the rest cannot."""
        for act, button in self.buttons.items():
            why = self._naming.why_not(act)
            button.setEnabled(not why)
            button.setToolTip(why or tip(f"gallery.{act}"))
