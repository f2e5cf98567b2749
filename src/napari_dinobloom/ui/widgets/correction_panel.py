"""The correction tools: one row of buttons that are enabled when they make sense, and a line that says what to do."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_dinobloom.ui.canvas_tool import CanvasTool
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.repainting import Repainting
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.tool_icons import DRAWINGS, SIDE, icon

HELD = ("add", "box", "split")
"""Tools that are taken into the hand; the others act at once."""

KEYS = {
    "leave": QKeySequence.StandardKey.Cancel,
    "delete": QKeySequence.StandardKey.Delete,
    "undo": QKeySequence.StandardKey.Undo,
    "redo": QKeySequence.StandardKey.Redo,
}
"""What keys do while the focus is in the panel; ``leave`` puts a tool down."""


class CorrectionPanel(QWidget):
    """Buttons for every act, a line of help, and two buttons while a cell is under the brush.

    Its keys (Delete, undo, redo, Escape) act only while it has the focus.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Where cells are corrected.
    session : Session
        Its study is corrected.
    """

    def __init__(self, viewer: Any, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._session = viewer, session
        self._correction = Correction(viewer, session)
        self.title = QLabel(text("edit.title"))
        self.title.setStyleSheet("font-weight: bold")
        self.buttons = {name: self._button(name) for name in DRAWINGS}
        self.help = QLabel()
        self.help.setWordWrap(True)
        self.help.setTextFormat(Qt.TextFormat.PlainText)
        self.help.setMinimumHeight(2 * self.help.fontMetrics().lineSpacing())
        self.apply = QPushButton(text("edit.apply"))
        self.discard = QPushButton(text("edit.discard"))
        self.tool = CanvasTool(viewer, self._correction, self.refresh)
        self.painting = Repainting(viewer, self._correction, self.refresh)
        self._lay_out()
        self._listen(True)
        self.refresh()

    def _button(self, name: str) -> QToolButton:
        """A button with an icon for one act."""
        button = QToolButton()
        button.setIconSize(QSize(SIDE, SIDE))
        button.setFixedSize(SIDE + 12, SIDE + 12)
        button.setCheckable(name in HELD)
        button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # so that a click brings the keys here
        button.setAccessibleName(text(f"edit.{name}"))
        button.clicked.connect(lambda: self._press(name))
        return button

    def _lay_out(self) -> None:
        """Title, row of tools, help, and the two buttons of the brush."""
        row = QHBoxLayout()
        row.setSpacing(2)
        for name, button in self.buttons.items():
            if name == "undo":
                row.addStretch(1)
            row.addWidget(button)
        brush = QHBoxLayout()
        for key, control in (("edit.apply", self.apply), ("edit.discard", self.discard)):
            control.setToolTip(tip(key))
            brush.addWidget(control)
        self.apply.clicked.connect(self.painting.apply)
        self.discard.clicked.connect(self.painting.discard)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.title)
        column.addLayout(row)
        column.addWidget(self.help)
        column.addLayout(brush)

    def event(self, event: QEvent | None) -> bool:
        """Claim our keys while the focus is in this panel, before the window takes them for its menus."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.ShortcutOverride and _act_of(event):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Do what one of our keys stands for; others go on to the window."""
        name = _act_of(event) if event is not None else ""
        if name == "leave":
            self.tool.leave()
        elif name:
            self.buttons[name].click()
        else:
            super().keyPressEvent(event)

    def _listen(self, on: bool) -> None:
        """Follow the session and the layers, or stop doing so."""
        here, there = self._session.events, self._viewer.layers.events
        for signal in (here.study, here.selected, here.job, here.revision):
            if on:
                signal.connect(self.refresh)
            else:
                signal.disconnect(self.refresh, missing_ok=True)
        for emitter in (there.inserted, there.removed):
            (emitter.connect if on else emitter.disconnect)(self.refresh)
        if on:
            here.study.connect(self.painting.discard)  # what is painted belongs to the study that was open
        else:
            here.study.disconnect(self.painting.discard, missing_ok=True)

    def detach(self) -> None:
        """Put tools down and stop listening to session and viewer, which live on."""
        self._listen(False)
        self.tool.detach()
        self.painting.detach()

    def changeEvent(self, event: QEvent | None) -> None:
        """Draw the icons in the colour of the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            self._draw_icons()

    def _draw_icons(self) -> None:
        """Draw all icons in the colour of the text beside them."""
        colour = self.help.palette().windowText().color()
        for name, button in self.buttons.items():
            button.setIcon(icon(DRAWINGS[name], colour, self.devicePixelRatioF()))

    def why_not(self, act: str) -> str:
        """Why an act cannot be done now, in words; empty when it can."""
        return text("edit.why.painting") if self.painting.active else self._correction.why_not(act)

    def refresh(self, _event: object = None) -> None:
        """Enable what makes sense, say why of the rest, and what to do next."""
        if self.tool.tool and self._session.job is None and self.why_not(self.tool.tool):
            self.tool.leave()  # but it stays in the hand while an act in a large field is under way
            return  # leaving comes back here
        for name, button in self.buttons.items():
            why = self.why_not(name)
            button.setEnabled(not why)
            button.setToolTip(f"{text(f'edit.{name}')}: {why}" if why else tip(f"edit.{name}"))
            if name in HELD:
                button.setChecked(self.tool.tool == name)
        back = self._correction.all_excluded
        if not self.why_not("exclude") and back:
            self.buttons["exclude"].setToolTip(tip("edit.include"))
        for control in (self.apply, self.discard):
            control.setVisible(self.painting.active)
        self.help.setText(self._advice())

    def _advice(self) -> str:
        """What to do next."""
        if self.painting.active:
            return text("edit.help.repaint")
        if self.tool.tool:
            return text(f"edit.help.{self.tool.tool}")
        if why := self._correction.why_not("add"):
            return why
        count = len(self._session.selected)
        return text("edit.selected", count=count) if count else text("edit.help.select")

    def _press(self, name: str) -> None:
        """Take a tool, put it down again, or act at once."""
        if name in HELD:
            self.tool.take("" if self.tool.tool == name else name)  # type: ignore[arg-type]
            self.refresh()
            return
        self.tool.leave()
        if name == "repaint":
            study, chosen = self._session.study, self._session.selected
            if study is not None and len(chosen) == 1:
                self.painting.begin(study, chosen[0])
        else:
            getattr(self._correction, name)()


def _act_of(event: QKeyEvent) -> str:
    """What a key stands for; empty for a key that is not ours."""
    return next((name for name, key in KEYS.items() if event.matches(key)), "")
