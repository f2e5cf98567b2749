"""The gates of the session's study: their tree with live figures, what can be done to them, and what is in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QPoint, QSize, Qt
from qtpy.QtGui import QAction, QColor
from qtpy.QtWidgets import (
    QColorDialog,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import QSignalDebouncer

from napari_dinobloom.ui import gate_files
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.gate_compare import GateCompare
from napari_dinobloom.ui.widgets.gate_details import GateDetails
from napari_dinobloom.ui.widgets.gate_model import NAME, GateModel
from napari_dinobloom.ui.widgets.gate_tree_view import GateTreeView
from napari_dinobloom.ui.widgets.tool_icons import DRAWINGS, SIDE, icon, menu_button

BUTTONS = ("delete", "undo", "redo")
MENU = (
    ("rename", "colour", "hide", "lock", "delete"),
    ("and", "or", "not"),
    ("suggest", "compare"),
    ("csv", "json", "fcs"),
    ("import", "copy"),
)
"""Acts of the menu, with a line between the groups."""
OF_ONE = ("rename", "colour", "hide", "lock")
OF_ALL_GATES = ("compare", "csv", "json", "fcs", "copy")
LATER_MS = 120
"""Details are counted when nothing has changed for so long, so that a gate that is dragged stays smooth."""


class GatePanel(QWidget):
    """Tree, buttons, menu and details.

    Parameters
    ----------
    session : Session
        Its study's gates are shown; its `gate` is the chosen one.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session, self._gating = session, gating_of(session)
        self.title = QLabel(text("gates.title"))
        self.title.setStyleSheet("font-weight: bold")
        self.model = GateModel(self._gating, self)
        self.tree = GateTreeView(self.model, session, self.act)
        self.tree.setToolTip("")
        self.tree.customContextMenuRequested.connect(self._open_menu)
        self.empty = QLabel()
        self.empty.setWordWrap(True)
        self.empty.setTextFormat(Qt.TextFormat.PlainText)
        self.first = QPushButton(text("gates.act.suggest"))
        self.first.clicked.connect(lambda: self.act("suggest"))
        self.details = GateDetails()
        self.actions_ = {name: self._action(name) for group in MENU for name in group}
        self.menu = self._make_menu()
        self.buttons = {name: self._button(name) for name in BUTTONS}
        self.more = menu_button("gates.more", self.menu)
        self.compared: GateCompare | None = None
        self._later = QSignalDebouncer(parent=self)
        self._later.setTimeout(LATER_MS)
        self._later.triggered.connect(self.refresh_details)
        self._cells = QSignalDebouncer(parent=self)
        self._cells.setTimeout(LATER_MS)
        self._cells.triggered.connect(self.refresh)
        self._lay_out()
        chosen = self.tree.selectionModel()
        if chosen is not None:
            chosen.selectionChanged.connect(self._enable)
        self._slots: dict[str, Callable[[], None]] = {
            "study": self.refresh,
            "gates_revision": self.refresh,
            "revision": self._on_cells,
            "gate": self._on_gate,
            "job": self._on_job,
        }
        for name, slot in self._slots.items():
            getattr(session.events, name).connect(slot)
        self.refresh()

    def _action(self, name: str) -> QAction:
        action = QAction(text(f"gates.act.{name}"), self)
        action.setToolTip(tip(f"gates.act.{name}"))
        action.triggered.connect(lambda _checked=False: self.act(name))
        return action

    def _make_menu(self) -> QMenu:
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        for at, group in enumerate(MENU):
            if at:
                menu.addSeparator()
            for name in group:
                menu.addAction(self.actions_[name])
        menu.aboutToShow.connect(self._enable)
        return menu

    def _button(self, name: str) -> QToolButton:
        button = QToolButton()
        button.setIconSize(QSize(SIDE, SIDE))
        button.setFixedSize(SIDE + 12, SIDE + 12)
        button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        button.setAccessibleName(text(f"gates.act.{name}"))
        button.clicked.connect(lambda: self.act(name))
        return button

    def _lay_out(self) -> None:
        """Title and buttons above, tree and details below with a handle between."""
        row = QHBoxLayout()
        row.setSpacing(2)
        row.addWidget(self.title)
        row.addStretch(1)
        for button in self.buttons.values():
            row.addWidget(button)
        row.addWidget(self.more)
        split = QSplitter(Qt.Orientation.Vertical)
        split.addWidget(self.tree)
        split.addWidget(self.details)
        split.setStretchFactor(0, 1)
        split.setStretchFactor(1, 1)
        split.setSizes([150, 150])
        self._split = split
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.empty)
        column.addWidget(self.first, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(split, 1)
        column.addStretch(0)
        self.setMinimumWidth(330)

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        for name, slot in self._slots.items():
            getattr(self._session.events, name).disconnect(slot, missing_ok=True)

    # From the session

    def refresh(self, _event: object = None) -> None:
        """Show the tree as it is; the details follow."""
        self.model.refresh()
        self.tree.follow()
        tree = self._gating.tree
        self._split.setVisible(bool(tree))
        for part in (self.empty, self.first):
            part.setVisible(not tree)
        self.empty.setText(self._gating.why_not("add") or text("gates.empty"))
        self._enable()
        self._later.throttle()

    def refresh_details(self) -> None:
        """Count what is in the chosen gate, if that is in sight."""
        if self.details.isVisible():
            study = self._session.study
            self.details.fill(self._gating.tables(), self._session.gate, {} if study is None else study.palette)

    def _on_cells(self, _event: object = None) -> None:
        self._cells.throttle()

    def _on_job(self, _event: object = None) -> None:
        """A job began or ended: until it ends no gate can be changed."""
        self.model.refresh()
        self._enable()

    def _on_gate(self, _event: object = None) -> None:
        self.tree.follow()
        self._enable()
        self._later.throttle()

    # Acts

    def why_not(self, name: str) -> str:
        """Why an act cannot be done now, in words; empty when it can."""
        keys, gating = self.tree.keys, self._gating
        if name in ("undo", "redo", "suggest"):
            return gating.why_not(name)
        if name in OF_ALL_GATES:
            if not gating.tree:
                return text("gates.why.none")
            job = None if name == "copy" else self._session.job
            return "" if job is None else text("run.why.busy", job=job.title)
        if why := gating.why_not("add"):
            return why
        if name == "import":
            return ""
        if name in ("and", "or") and len(keys) < 2:
            return text("gates.why.select_two")
        if (name in OF_ONE or name == "not") and len(keys) != 1:
            return text("gates.why.select_one")
        if name == "delete" and not keys:
            return text("gates.why.choose")
        if name not in (*OF_ONE, "delete"):
            return ""
        act = "recolour" if name == "colour" else name
        return next((why for key in keys if (why := gating.why_not(act, key))), "")

    def act(self, name: str) -> None:
        """Do what a button, a key or the menu stands for; nothing where it cannot be done."""
        if self.why_not(name):
            return
        keys, gating = self.tree.keys, self._gating
        if name in ("undo", "redo", "suggest"):
            getattr(gating, name)()
        elif name == "delete":
            gating.delete(*keys)
        elif name in ("and", "or", "not"):
            gating.combine(name, keys)  # type: ignore[arg-type]
        elif name == "compare":
            self.compared = GateCompare(self._session, self)
            self.compared.show()
        elif name in OF_ONE:
            self._act_on(name, keys[0])
        else:
            self._ask(name)

    def _act_on(self, name: str, key: str) -> None:
        """Acts on one gate."""
        tree = self._gating.tree
        if tree is None:
            return
        if name == "rename":
            self.tree.edit(self.model.index_of(key, NAME))
        elif name == "hide":
            self._gating.hide(key, not tree[key].hidden)
        elif name == "lock":
            self._gating.lock(key, not tree[key].locked)
        else:
            chosen = QColorDialog.getColor(QColor(tree[key].colour), self, text("gates.act.colour"))
            if chosen.isValid():
                self._gating.recolour(key, chosen.name())

    def _ask(self, name: str) -> None:
        """Ask for a file or folder and write, read or copy."""
        title = text(f"gates.act.{name}")
        if name in ("csv", "copy"):
            path = QFileDialog.getExistingDirectory(self, title)
        elif name == "import":
            path, _ = QFileDialog.getOpenFileName(self, title, "", "JSON (*.json)")
        else:
            path, _ = QFileDialog.getSaveFileName(self, title, f"gates.{name}", f"{name.upper()} (*.{name})")
        if not path:
            return
        if name == "copy":
            gate_files.copy(self._session, Path(path))
        elif name == "import":
            gate_files.read(self._session, Path(path))
        else:
            gate_files.export(self._session, name, Path(path))  # type: ignore[arg-type]

    # Looks

    def _enable(self, *_: Any) -> None:
        """Enable what makes sense, and say why of the rest."""
        controls: list[tuple[str, Any]] = [*self.actions_.items(), *self.buttons.items(), ("suggest", self.first)]
        reasons = {name: self.why_not(name) for name in dict.fromkeys(name for name, _ in controls)}
        for name, control in controls:
            why = reasons[name]
            control.setEnabled(not why)
            control.setToolTip(f"{text(f'gates.act.{name}')}: {why}" if why else tip(f"gates.act.{name}"))

    def _open_menu(self, place: QPoint) -> None:
        viewport = self.tree.viewport()
        if viewport is not None:
            self.menu.popup(viewport.mapToGlobal(place))

    def showEvent(self, event: Any) -> None:
        """Count the details that were not counted while nobody saw them."""
        super().showEvent(event)
        self._later.throttle()

    def changeEvent(self, event: QEvent | None) -> None:
        """Draw the icons in the colour of the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            colour = self.empty.palette().windowText().color()
            for name, button in self.buttons.items():
                button.setIcon(icon(DRAWINGS[name], colour, self.devicePixelRatioF()))
