"""One view of the map: canvas, legend, a line that tells what happens, and a card of the cell under the pointer.

It follows the session (study, selection, hover, gate, population, axes, colours) and changes nothing but the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QSplitter, QVBoxLayout, QWidget

from napari_dinobloom.explore.gates.base import Gate, GateError, Mask, column
from napari_dinobloom.ui.gating import Gating, gating_of
from napari_dinobloom.ui.map import colouring, handles
from napari_dinobloom.ui.map.canvas import GateShape, MapCanvas
from napari_dinobloom.ui.map.card import Card
from napari_dinobloom.ui.map.hand import DRAWN, Hand
from napari_dinobloom.ui.map.ink import DARK, LIGHT
from napari_dinobloom.ui.map.legend import WIDEST, Legend
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import measure_title, text, tip

MOST_RINGS = 5_000
"""Selected cells that get a ring."""
OF_MAP = "umap_"
ABOVE = 3
"""Pixels between a gate and its name."""
LABEL = (60, 20)
"""Room in pixels that the name of a gate needs at the edges of the canvas."""


class MapView(QWidget):
    """Cells on two axes with their gates.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its theme is followed.
    session : Session
        What is shown and chosen.
    open_cell : callable
        Opens the image of a cell, given its id.
    """

    def __init__(
        self, viewer: Any, session: Session, open_cell: Callable[[str], None], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self.session, self._open = viewer, session, open_cell
        self.gating: Gating = gating_of(session)
        self.table = pd.DataFrame()
        self.drawable: Mask = np.zeros(0, bool)
        self.counted: Mask = np.zeros(0, bool)
        self._drawn: Mask = self.drawable  # as the canvas has it
        self._places: npt.NDArray[np.float32] = np.zeros((0, 2), np.float32)
        self._shown_axes: tuple[object, ...] = ()
        self._stand_in: tuple[str, ...] = ()  # axes that were taken as there was no map
        self._colouring = colouring.Colouring(np.zeros(0, np.uint16), np.ones((1, 4), np.float32))
        self.canvas = MapCanvas()
        self.card = Card(self.canvas)
        self.legend = Legend()
        self.legend.toggled.connect(self._recolour)
        self.status = QLabel()
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.status.setWordWrap(True)
        self.status.setMinimumHeight(2 * self.status.fontMetrics().lineSpacing())
        self.empty = self._empty()
        split = QSplitter(Qt.Orientation.Horizontal)
        split.addWidget(self.canvas)
        split.addWidget(self.legend)
        split.setStretchFactor(0, 1)
        split.splitterMoved.connect(self._on_handle)
        self._split, self._by_hand = split, False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.empty)
        layout.addWidget(split, 1)
        layout.addWidget(self.status)
        self._soon = QTimer(self)  # one act changes the tree and the chosen gate: gates are drawn once for both
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.refresh_gates)
        self.hand = Hand(self, self._on_tool)
        self.canvas.pointer = self.hand
        self._slots = {
            "study": self.reload,
            "revision": self.reload,
            "axes": self.refresh_axes,
            "colour_by": self.refresh_colours,
            "population": self.refresh_population,
            "gate": self._on_gate,
            "gates_revision": self._on_gates,
            "selected": self._ring,
            "hover": self._point_out,
        }
        for name, slot in self._slots.items():
            getattr(session.events, name).connect(slot)
        viewer.events.theme.connect(self._on_theme)
        self.tool_changed: Callable[[], None] = lambda: None
        self._on_theme()
        self.reload()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Leave two thirds of the width to the map, and more where the legend needs less."""
        super().resizeEvent(event)
        widest = min(self.width() // 3, WIDEST)
        self.legend.setMaximumWidth(widest)
        if not self._by_hand or self._split.sizes()[1] > widest:  # Qt leaves empty what a part may not take
            self._split.setSizes([self.width() - widest, widest])

    def _on_handle(self, *_: int) -> None:
        """The width of the legend was chosen."""
        self._by_hand = True

    def _empty(self) -> QWidget:
        """What stands in place of the map as long as there is none."""
        line, button = QLabel(text("map.empty")), QPushButton(text("map.open"))
        line.setWordWrap(True)
        line.setAlignment(Qt.AlignmentFlag.AlignCenter)
        button.setToolTip(tip("map.open"))
        button.clicked.connect(self._ask_for_study)
        empty = QWidget()
        column = QVBoxLayout(empty)
        column.addStretch(1)
        column.addWidget(line)
        column.addWidget(button, 0, Qt.AlignmentFlag.AlignCenter)
        column.addStretch(1)
        return empty

    def _ask_for_study(self) -> None:
        """Open a study that the user chooses; its layers come into the viewer, and the map with them."""
        folder = QFileDialog.getExistingDirectory(self, text("map.open"))
        if folder:
            self._viewer.open(folder, plugin="napari-dinobloom")

    def detach(self) -> None:
        """Stop listening to session and viewer, which live on; may be called when Qt has taken the widgets away."""
        for name, slot in self._slots.items():
            getattr(self.session.events, name).disconnect(slot, missing_ok=True)
        self._viewer.events.theme.disconnect(self._on_theme)
        self.canvas.let_go()

    @property
    def axes(self) -> tuple[str, str]:
        """Columns of x and y."""
        return self.session.axes

    @property
    def visible(self) -> Mask:
        """Cells that are drawn: of the population, with a place, their category switched on."""
        placed = np.isfinite(self._places).all(axis=1)
        seen: Mask = self.drawable & placed & self._colouring.seen(self.legend.hidden)
        return seen

    @property
    def places(self) -> npt.NDArray[np.float32]:
        """Where the cells lie on the axes, (n, 2); NaN for those without a place."""
        return self._places

    @property
    def colours(self) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float32]]:
        """Code of each cell, (n,), and colour of each code, (k, 4); without opacity where it is switched off."""
        return self._colouring.codes, self._colouring.without(self.legend.hidden)

    def rows_in_sight(self) -> npt.NDArray[np.intp]:
        """Rows of the visible cells within the part of the plane that is in view."""
        x0, y0, x1, y1 = self.canvas.in_view
        with np.errstate(invalid="ignore"):
            inside = (self._places >= (x0, y0)).all(axis=1) & (self._places <= (x1, y1)).all(axis=1)
        return np.flatnonzero(inside & self.visible)

    def say(self, line: str) -> None:
        """Show one line below the map."""
        self.status.setText(line)

    # From the session

    def reload(self, _event: object = None) -> None:
        """Read the table anew; the view stays where it is as long as axes and study are the same."""
        study = self.session.study
        there = study is not None and bool(len(self.gating.table))
        self.empty.setVisible(not there)
        self._split.setVisible(there)
        self.table = self.gating.table if there else pd.DataFrame()
        self.card.read_from(study)
        if there:
            self._choose_axes()
            self.refresh_population()
        else:
            self._shown_axes = ()

    def refresh_population(self, _event: object = None) -> None:
        """Show the cells of the population, and its gates."""
        if not len(self.table):
            return
        n, everyone = len(self.table), np.ones(len(self.table), bool)
        lost = _flag(self.table, "deleted", n) | _flag(self.table, "gone", n)
        within = self.gating.masks().get(self.session.population, everyone)
        self.drawable = within & ~lost
        self.counted = self.drawable & ~_flag(self.table, "excluded", n)
        self.refresh_axes()

    def refresh_axes(self, _event: object = None) -> None:
        """Put the cells on the axes of the session."""
        if not len(self.table):
            return
        try:
            values = [column(self.table, axis, text("map.title")) for axis in self.axes]
        except GateError as error:
            self.say(str(error))
            return
        places = np.column_stack(values).astype(np.float32)
        shown = (self.session.study, self.axes, self.table.attrs.get("projection"))
        same = shown == self._shown_axes and np.array_equal(places, self._places, equal_nan=True)
        if same and np.array_equal(self.drawable, self._drawn):  # only what is known of the cells has changed
            self.refresh_colours()
            self.refresh_gates()
            return
        self._places, self._drawn = places, self.drawable
        self.canvas.set_cells(self._places, self.drawable)
        on_map = all(axis.startswith(OF_MAP) for axis in self.axes)
        self.canvas.set_axes(None if on_map else tuple(map(measure_title, self.axes)), equal=on_map)  # type: ignore[arg-type]
        self.refresh_colours()
        if shown != self._shown_axes:
            self._shown_axes = shown
            self.canvas.fit()
        self.refresh_gates()
        self._ring()

    def refresh_colours(self, _event: object = None) -> None:
        """Colour the cells by what the session says."""
        if len(self.table):
            colours = self._coloured(self.session.colour_by).counted_among(self.drawable)
            self._colouring = colours.recoloured(self.canvas.ink.seen)
            self.legend.fill(self._colouring)
            self._recolour()

    def refresh_gates(self) -> None:
        """Draw the gates of the population that lie on these axes."""
        self.canvas.set_gates(self.gate_shapes())
        self._show_handles(self.shown_gates().get(self.session.gate))

    def gate_shapes(self) -> list[GateShape]:
        """The gates that are drawn, as they are drawn."""
        rect, shares, tree = self.canvas.in_view, self.gating.shares(), self.gating.tree
        (x0, y0, x1, y1), (wide, high) = rect, self.canvas.pixel
        inner = (x0, y0, x1, y1 - LABEL[1] * high)
        shapes = []
        for key, gate in self.shown_gates().items():
            lines = handles.outline(gate, self.axes, rect)
            label = f"{gate.name}  {shares[key]:.1f} %" if key in shares else gate.name
            x, y = handles.label_place(gate, self.axes, inner, LABEL[0] * wide)
            colour = tree[key].colour  # type: ignore[index]
            shapes.append(GateShape(lines, colour, label, (x, y + ABOVE * high), key == self.session.gate))
        return shapes

    def draw_draft(self, gate: Gate) -> None:
        """Show a gate as it would be while a corner of it is being dragged."""
        lines = handles.outline(gate, self.axes, self.canvas.in_view)
        breaks = [np.vstack([line, np.full((1, 2), np.nan)]) for line in lines]
        self.canvas.set_drawing(np.vstack(breaks), DRAWN)
        self._show_handles(gate)

    def shown_gates(self) -> dict[str, Gate]:
        """Gates that are drawn: below the population, on these axes, not hidden."""
        tree, top = self.gating.tree, self.session.population
        if tree is None:
            return {}
        below = tree.descendants(top) if top and top in tree else tree.keys
        return {k: tree[k].gate for k in below if not tree[k].hidden and handles.fits(tree[k].gate, self.axes)}

    # For the hand

    def nearest_cell(self, point: tuple[float, float], reach: float) -> int:
        """Row of the visible cell nearest to a point, within `reach` pixels; -1 for none."""
        if not len(self._places):
            return -1
        unit = np.array(self.canvas.pixel, np.float32) * reach
        with np.errstate(invalid="ignore"):
            dx, dy = (self._places[:, i] - np.float32(point[i]) for i in (0, 1))
            rows = np.flatnonzero((np.abs(dx) <= abs(unit[0])) & (np.abs(dy) <= abs(unit[1])))
        if not len(rows):
            return -1
        away = (dx[rows] / unit[0]) ** 2 + (dy[rows] / unit[1]) ** 2
        away[~self.visible_rows(rows)] = np.inf
        at = int(away.argmin())
        return int(rows[at]) if away[at] <= 1 else -1

    def visible_rows(self, rows: npt.NDArray[np.intp]) -> Mask:
        """Which of some rows are drawn."""
        table = self._colouring.without(self.legend.hidden)
        seen: Mask = self.drawable[rows] & (table[self._colouring.codes[rows], 3] > 0)
        return seen

    def hover(self, row: int) -> None:
        """Tell the session which cell is under the pointer."""
        cell = str(self.table.index[row]) if row >= 0 else ""
        if cell != self.session.hover:
            self.session.hover = cell

    def open_cell(self, row: int) -> None:
        """Open the image of a cell."""
        if row >= 0:
            self._open(str(self.table.index[row]))

    def next_name(self) -> str:
        """A name that no gate of the tree has."""
        tree = self.gating.tree
        names = set() if tree is None else {tree[key].gate.name for key in tree.keys}
        return next(name for i in range(1, 10_000) if (name := text("map.gate_name", number=i)) not in names)

    def of_what(self) -> str:
        """What shares are of."""
        tree, key = self.gating.tree, self.session.population
        return text("map.of_all") if not key or tree is None or key not in tree else tree.path(key)

    # Within

    def _choose_axes(self) -> None:
        """Axes that the table has: those of the session, else the map, else the first two measurements."""
        numbers = numeric_columns(self.table)
        mapped = [axis for axis in numbers if axis.startswith(OF_MAP)]
        waiting = self.session.axes == self._stand_in and len(mapped) > 1  # for a map, which is there now
        if set(self.session.axes) <= set(numbers) and not waiting:
            return
        first = mapped or numbers
        if len(first) > 1:
            self._stand_in = () if mapped else (first[0], first[1])
            with self.session.events.axes.blocked():
                self.session.axes = (first[0], first[1])

    def _coloured(self, by: str) -> colouring.Colouring:
        palette = {} if self.session.study is None else self.session.study.palette
        if by == colouring.DENSITY:
            return colouring.by_density(np.where(self.drawable[:, None], self._places, np.nan))
        return colouring.coloured(by, self.table, palette, self.gating.tree, self.gating.masks())

    def _recolour(self) -> None:
        self.canvas.set_colours(*self.colours)

    def _on_gates(self, _event: object = None) -> None:
        """The tree changed: gates, and what depends on their cells."""
        if self.session.population:
            self.refresh_population()
        elif self.session.colour_by == colouring.GATE:
            self.refresh_colours()
        self.canvas.set_drawing(np.zeros((0, 2)), DRAWN)
        self._soon.start()

    def _on_gate(self, _event: object = None) -> None:
        """Another gate was chosen: show its axes."""
        tree, key = self.gating.tree, self.session.gate
        if tree is not None and key in tree:
            parent, own = tree[key].parent, getattr(tree[key].gate, "axes", ())
            if self.session.population and self.session.population not in tree.ancestry(key):
                self.session.population = parent
            if len(own) == 2 and tuple(own) != self.axes and set(own) <= set(self.table.columns):
                self.session.axes = tuple(own)
        self._soon.start()

    def _show_handles(self, gate: Gate | None) -> None:
        tree, key = self.gating.tree, self.session.gate
        free = gate is not None and tree is not None and key in tree and not tree[key].locked
        found = handles.handles(gate, self.axes, self.canvas.in_view) if free and gate is not None else np.zeros((0, 2))
        self.canvas.mark("handles", found[:200])

    def _ring(self, _event: object = None) -> None:
        """Put rings around the selected cells."""
        self._mark("selected", self.session.selected[-MOST_RINGS:])

    def _point_out(self, _event: object = None) -> None:
        """Put a ring around the cell under the pointer, wherever that is, and show its card."""
        cell = self.session.hover
        self._mark("hover", (cell,) if cell else ())
        here = bool(cell) and self.canvas.underMouse()
        row = int(self.table.index.get_indexer(pd.Index([cell]))[0]) if here else -1
        self.card.show_cell(cell, self.table.iloc[row] if row >= 0 else None)

    def _mark(self, name: str, cells: tuple[str, ...]) -> None:
        if not (len(self.table) and cells):
            self.canvas.mark(name, np.zeros((0, 2), np.float32))
            return
        rows = self.table.index.get_indexer(pd.Index(cells, dtype=object))
        self.canvas.mark(name, self._places[rows[rows >= 0]])

    def _on_tool(self) -> None:
        self.canvas.native.setCursor(Qt.CursorShape.CrossCursor if self.hand.tool else Qt.CursorShape.ArrowCursor)
        self.tool_changed()

    def _on_theme(self, _event: object = None) -> None:
        from napari.utils.theme import get_theme

        background = get_theme(str(self._viewer.theme)).canvas.as_rgb_tuple()
        self.canvas.set_ink(LIGHT if sum(background[:3]) > 3 * 127 else DARK)
        if len(self.table):
            self.refresh_colours()
            self.refresh_gates()
            self._ring()
            self._point_out()


def numeric_columns(table: pd.DataFrame) -> list[str]:
    """Columns that cells can be placed by: those of the map first, then other coordinates, then measurements."""
    numbers = [str(name) for name, dtype in table.dtypes.items() if dtype.kind in "iuf"]
    return sorted(numbers, key=lambda name: (not name.startswith(OF_MAP), name[-2:-1] != "_"))


def _flag(table: pd.DataFrame, name: str, n: int) -> Mask:
    if name not in table:
        return np.zeros(n, bool)
    values = table[name]
    return np.asarray(values if values.dtype == bool else values.fillna(False), dtype=bool)
