"""The row of tools above the map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QHBoxLayout, QToolButton, QWidget

from napari_dinobloom.ui.map.hand import KEYS
from napari_dinobloom.ui.map.icons import ACT_DRAWINGS, TOOL_DRAWINGS
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.tool_icons import SIDE, icon


class Toolbar(QWidget):
    """Buttons of the tools and of what acts at once.

    Parameters
    ----------
    take : callable
        Takes a tool into the hand.
    acts : dict
        Name of an act of `ACT_DRAWINGS` to what it does.
    """

    def __init__(
        self, take: Callable[[str], None], acts: dict[str, Callable[[], None]], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.buttons: dict[str, QToolButton] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(1)
        self._drawings = TOOL_DRAWINGS | ACT_DRAWINGS
        for name in self._drawings:
            if name == next(iter(ACT_DRAWINGS)):
                row.addStretch(1)
            button = QToolButton()
            button.setIconSize(QSize(SIDE, SIDE))
            button.setFixedSize(SIDE + 10, SIDE + 10)
            button.setCheckable(name in TOOL_DRAWINGS)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # a click leaves the focus, and so the keys, on the map
            key = f"map.tool.{name or 'pointer'}"
            button.setAccessibleName(text(key))
            keys = ", ".join(k for k, tool in KEYS.items() if tool == name)
            button.setToolTip(f"{tip(key)[:-1]} ({keys})." if name in TOOL_DRAWINGS else tip(key))
            button.clicked.connect(partial(take, name) if name in TOOL_DRAWINGS else acts[name])
            row.addWidget(button)
            self.buttons[name] = button
        # napari's style shows a pressed button like any other
        self.setStyleSheet("QToolButton:checked { background: palette(highlight); border-radius: 3px; }")

    def show_tool(self, tool: str) -> None:
        """Press the button of the tool in the hand."""
        for name in TOOL_DRAWINGS:
            self.buttons[name].setChecked(name == tool)

    def changeEvent(self, event: QEvent | None) -> None:
        """Draw the icons in the colour of the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            colour = self.palette().windowText().color()
            for name, button in self.buttons.items():
                button.setIcon(icon(self._drawings[name], colour, self.devicePixelRatioF()))
