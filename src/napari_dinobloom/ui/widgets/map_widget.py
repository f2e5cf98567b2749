"""The Map and gates window: cells on two axes, gates drawn on them, and the tree of gates with its figures."""

from __future__ import annotations

from pathlib import Path

import napari
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QAction
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from napari_dinobloom.ui import map_job
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.map import export
from napari_dinobloom.ui.map.colouring import CATEGORIES, CLASS, DENSITY, GATE
from napari_dinobloom.ui.map.toolbar import Toolbar
from napari_dinobloom.ui.map.view import MapView, numeric_columns
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import measure_title, text, tip
from napari_dinobloom.ui.widgets.column import DockedWidget
from napari_dinobloom.ui.widgets.gate_panel import GatePanel
from napari_dinobloom.ui.widgets.tool_icons import menu_button

FITS = {
    "map.fit": {"map_method": "umap", "restandardise": ""},
    "map.fit_even": {"map_method": "umap", "restandardise": "slide"},
    "map.fit_pca": {"map_method": "pca", "restandardise": ""},
}
"""Maps that are offered, and their settings."""


NARROWEST, WIDEST = 430, 640
"""Pixels of width that the window needs, and that it asks for where the screen is wide."""


class MapWidget(DockedWidget):
    """Map, tools, choices of axes and colours, and the tree of gates.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); all state lies in its session.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session_of(napari_viewer)
        self._gating = gating_of(self._session)
        self._picker = Picker.of(napari_viewer, self._session)
        self._follower = Follower.of(napari_viewer, self._session)
        self.view = MapView(napari_viewer, self._session, self._follower.open_cell)
        acts = {"fit": self.view.canvas.fit, "copy": self.copy, "save": self.save}
        self.tools = Toolbar(self.view.hand.take, acts)
        self.view.tool_changed = lambda: self.tools.show_tool(self.view.hand.tool)
        self.tools.show_tool("")
        self.boxes = {name: _box(f"map.{name}") for name in ("x", "y", "colour", "population")}
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.aboutToShow.connect(self._offer_maps)
        self.maps = menu_button("map.maps", menu)
        self.gates = GatePanel(self._session)
        self.disclaimer = QLabel(text("disclaimer"))
        self.disclaimer.setStyleSheet("font-weight: bold")
        self._lay_out()
        for name, box in self.boxes.items():
            box.activated.connect(lambda _at, name=name: self._choose(name))
        slots = {
            "study": self.refresh,
            "revision": self.refresh,
            "gates_revision": self.refresh,
            "axes": self._show_choices,
            "colour_by": self._show_choices,
            "population": self._show_choices,
            "job": self._refresh_maps,
        }
        events = self._session.events
        for name, slot in slots.items():
            getattr(events, name).connect(slot)
        self.at_the_end(
            *(lambda n=name, s=slot: getattr(events, n).disconnect(s, missing_ok=True) for name, slot in slots.items()),
            *(part.detach for part in (self.view, self.gates, self._picker, self._follower)),
        )
        self.setMinimumWidth(NARROWEST)
        self.refresh()

    def sizeHint(self) -> QSize:
        """As wide as a map is read well, yet at most a third of the screen, of which the image needs its part."""
        screen = self.screen()
        third = WIDEST if screen is None else screen.availableGeometry().width() // 3
        return QSize(min(max(third, NARROWEST), WIDEST), 860)

    def _lay_out(self) -> None:
        """Choices, tools and map above, gates below, a handle between."""
        upper = QWidget()
        column = QVBoxLayout(upper)
        column.setContentsMargins(0, 0, 0, 0)
        choices = QGridLayout()
        for at, name in enumerate(self.boxes):
            label = QLabel(text(f"map.{name}"))
            label.setBuddy(self.boxes[name])
            choices.addWidget(label, at // 2, 2 * (at % 2))
            choices.addWidget(self.boxes[name], at // 2, 2 * (at % 2) + 1)
        choices.setColumnStretch(1, 1)
        choices.setColumnStretch(3, 1)
        column.addLayout(choices)
        tools = QHBoxLayout()
        tools.addWidget(self.tools, 1)
        tools.addWidget(self.maps)
        column.addLayout(tools)
        column.addWidget(self.view, 1)
        split = QSplitter(Qt.Orientation.Vertical)
        split.addWidget(upper)
        split.addWidget(self.gates)
        split.setStretchFactor(0, 2)
        split.setStretchFactor(1, 1)
        split.setSizes([520, 260])
        layout = QVBoxLayout(self)
        layout.addWidget(split, 1)
        layout.addWidget(self.disclaimer)

    def refresh(self, _event: object = None) -> None:
        """Offer what the table and the tree have."""
        table, tree = self._gating.table, self._gating.tree
        numbers = numeric_columns(table)
        for name in ("x", "y"):
            _fill(self.boxes[name], [(axis, measure_title(axis)) for axis in numbers])
        named = [(one, measure_title(one)) for one in CATEGORIES if one in table]
        special = [(one, text(f"map.colour.{one}")) for one in (CLASS, GATE, DENSITY)]
        _fill(self.boxes["colour"], [*special, *named, *((axis, measure_title(axis)) for axis in numbers)])
        gates = [] if tree is None else [(key, tree.path(key)) for key in tree.keys]
        _fill(self.boxes["population"], [("", text("map.everyone")), *gates])
        for box in self.boxes.values():
            box.setEnabled(bool(len(table)))
        self._refresh_maps()
        self._show_choices()

    def _refresh_maps(self, _event: object = None) -> None:
        """Let a map be fitted when that can be, and say why not otherwise."""
        why = map_job.why_not(self._session)
        self.maps.setEnabled(not why)
        self.maps.setToolTip(why or tip("map.maps"))

    def _offer_maps(self) -> None:
        """Fill the menu: new maps, and those that the study keeps."""
        from napari_dinobloom.pipeline.maps import stored_maps

        menu, session = self.maps.menu(), self._session
        if menu is None or session.study is None:
            return
        menu.clear()
        for key, asked in FITS.items():
            action = QAction(text(key), menu)
            action.setToolTip(tip("map.fit_even" if asked["restandardise"] else "map.maps"))
            action.triggered.connect(lambda _on, asked=asked: map_job.start_refit(session, **asked))
            menu.addAction(action)
        menu.addSeparator()
        for one in stored_maps(session.study):
            named = {"kind": one.kind.upper(), "cells": one.cells, "gates": one.gates, "hash": one.hash[:8]}
            action = QAction(text("map.kept", **named), menu)
            action.setCheckable(True)
            action.setChecked(one.active)
            action.setEnabled(not one.active)
            action.triggered.connect(lambda _on, key=one.hash: map_job.start_use(session, key))
            menu.addAction(action)

    def copy(self) -> None:
        """Copy the map into the clipboard."""
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setPixmap(export.pixmap_of(self.view))
            self.view.say(text("map.copied"))

    def save(self) -> None:
        """Ask for a file and write the map into it."""
        kinds = "PNG (*.png);;SVG (*.svg)"
        path, _ = QFileDialog.getSaveFileName(self, text("map.save_title"), "map.png", kinds)
        if path:
            self.view.say(export.write(self.view, Path(path)))

    def _show_choices(self, _event: object = None) -> None:
        session = self._session
        chosen = {"x": session.axes[0], "y": session.axes[1], "colour": session.colour_by}
        for name, value in {**chosen, "population": session.population}.items():
            self.boxes[name].setCurrentIndex(max(0, self.boxes[name].findData(value)))

    def _choose(self, name: str) -> None:
        """Another axis, colour or population was chosen by hand."""
        value = str(self.boxes[name].currentData())
        if name == "colour":
            self._session.colour_by = value
        elif name == "population":
            self._session.population = value
        else:
            x, y = self._session.axes
            other = y if name == "x" else x
            if value == other:  # both axes change places
                self._session.axes = (y, x)
            else:
                self._session.axes = (value, y) if name == "x" else (x, value)


def _box(key: str) -> QComboBox:
    box = QComboBox()
    box.setToolTip(tip(key))
    box.setAccessibleName(text(key))
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    return box


def _fill(box: QComboBox, entries: list[tuple[str, str]]) -> None:
    """Offer (value, title) pairs; nothing happens when they are those of before."""
    if [(box.itemData(i), box.itemText(i)) for i in range(box.count())] == entries:
        return
    box.clear()
    for value, title in entries:
        box.addItem(title, value)
