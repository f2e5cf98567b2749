"""What the mouse and the keys do on the map: choose cells, draw gates, drag their corners."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore.gates.base import Gate, GateError, Mask
from napari_dinobloom.ui.map import handles
from napari_dinobloom.ui.map.drawing import DRAGGED, Drawing, Point, Tool
from napari_dinobloom.ui.texts import text

if TYPE_CHECKING:
    from napari_dinobloom.ui.map.view import MapView

KEYS: dict[str, Tool | str] = {
    "R": "rectangle",
    "P": "polygon",
    "L": "lasso",
    "E": "ellipse",
    "Q": "quadrant",
    "X": "range_x",
    "Y": "range_y",
    "S": "select",
    "V": "",
    "Escape": "",
}
"""Keys of the tools; "" is the pointer."""

NEAR = 8.0
"""Pixels within which a cell, a line or a handle is meant."""
DRAWN = "#ffb000"


class Hand:
    """The tool in use on one map.

    Parameters
    ----------
    view : MapView
        Its canvas is drawn on; its gating is told.
    changed : callable
        Called when another tool is in the hand.
    """

    def __init__(self, view: MapView, changed: Callable[[], None]) -> None:
        self.view = view
        self.tool: Tool | str = ""
        self._changed = changed
        self._drawing: Drawing | None = None
        self._handle: int | None = None
        self._draft: Gate | None = None

    def take(self, tool: Tool | str) -> None:
        """Take a tool into the hand, "" for the pointer; what was in the making is dropped."""
        self._drop()
        self.tool = tool
        self.view.say(text(f"map.help.{tool or 'pointer'}"))
        self._changed()

    # Mouse

    def press(self, point: Point, *, adding: bool) -> bool:
        """Begin to draw, or take a handle of the chosen gate."""
        if self.tool:
            return self._press_tool(point)
        gate = self._chosen()
        if gate is not None and not adding:
            self._handle = self._nearest(handles.handles(gate, self.view.axes, self.view.canvas.in_view), point)
            self._draft = gate if self._handle is not None else None
        return self._handle is not None

    def move(self, point: Point, *, pressed: bool) -> None:
        """Go on drawing or dragging, or look which cell is under the pointer."""
        if self._drawing is not None:
            if pressed or self._drawing.tool == "polygon":
                self._drawing.move(point)
                self._show_drawing()
        elif self._handle is not None:
            self._drag(point)
        elif not pressed:
            self.view.hover(self.view.nearest_cell(point, NEAR))

    def release(self, point: Point, *, adding: bool, moved: bool) -> None:
        """Finish what was dragged, or select the cell that was clicked."""
        if self._drawing is not None:
            if self._drawing.tool in DRAGGED and self._drawing.release(point):
                self._finish()
        elif self._handle is not None:
            draft, self._draft, self._handle = self._draft, None, None
            if moved and draft is not None:
                self.view.gating.change(self.view.session.gate, draft)
            self.view.refresh_gates()
        elif not moved and not self.tool:
            self._click(point, adding)

    def double(self, point: Point) -> None:
        """Close a polygon, or open the image of the cell."""
        if self._drawing is not None and self._drawing.tool == "polygon":
            self._close()
        elif not self.tool:
            self.view.open_cell(self.view.nearest_cell(point, NEAR))

    def leave(self) -> None:
        """No cell is under the pointer any more."""
        self.view.hover(-1)

    def key(self, name: str) -> bool:
        """Do what a key means while the map has the focus."""
        if name in ("Enter", "Return") and self._drawing is not None:
            self._close()
        elif name == "Escape" and self._drawing is not None:
            self._drop()
        elif name in KEYS:
            self.take(KEYS[name])
        elif name in ("F", "Home"):
            self.view.canvas.fit()
        elif name in ("Delete", "Backspace") and self.view.session.gate:
            self.view.gating.delete(self.view.session.gate)
        elif name == "Control+Z":
            self.view.gating.undo()
        elif name in ("Control+Y", "Control+Shift+Z"):
            self.view.gating.redo()
        else:
            return False
        return True

    # Within

    def _press_tool(self, point: Point) -> bool:
        if why := self.view.gating.why_not("add") if self.tool != "select" else "":
            self.view.say(why)
            return True
        if self._drawing is None:
            pixel = self.view.canvas.pixel
            self._drawing = Drawing(self.tool, self.view.axes, (NEAR / 2 * pixel[0], NEAR / 2 * pixel[1]))  # type: ignore[arg-type]
        finished = self._drawing.press(point)
        self._show_drawing()
        if finished:
            self._finish()
        return True

    def _close(self) -> None:
        if self._drawing is not None and self._drawing.close():
            self._finish()

    def _drop(self) -> None:
        self._drawing, self._handle, self._draft = None, None, None
        self.view.canvas.set_drawing(np.zeros((0, 2)), DRAWN)

    def _finish(self) -> None:
        """Make a gate, four of them, or a selection of what was drawn."""
        drawing = self._drawing
        self._drop()
        if drawing is None:
            return
        gating = self.view.gating
        if drawing.tool == "quadrant":
            gating.add_all(drawing.four(text("map.quadrant_name")))
            return
        gate = drawing.gate(self.view.next_name())
        if gate is None:
            self.view.say(text("map.too_small"))
        elif drawing.tool == "select":
            self._select(gate)
        else:
            gating.add(gate)

    def _select(self, region: Gate) -> None:
        """Select the cells in a region that can be seen."""
        inside = self._inside(region)
        seen = inside & self.view.visible
        rows = np.flatnonzero(seen)
        ids = self.view.table.index.to_numpy()[rows]
        self.view.session.select(*map(str, ids))
        hidden = int(inside.sum()) - len(rows)
        self.view.say(text("map.selected_hidden" if hidden else "map.selected", count=len(rows), hidden=hidden))

    def _inside(self, region: Gate) -> Mask:
        """Cells that may be drawn, of the parent where there is one, within a region."""
        return region.apply(self.view.table) & self.view.drawable

    def _click(self, point: Point, adding: bool) -> None:
        row = self.view.nearest_cell(point, NEAR)
        if row >= 0:
            cell = str(self.view.table.index[row])
            others = tuple(one for one in self.view.session.selected if one != cell) if adding else ()
            leaves = adding and cell in self.view.session.selected
            self.view.session.select(*others, *(() if leaves else (cell,)))
            return
        key = self._gate_at(point)
        if key:
            self.view.session.gate = key
        elif not adding:
            self.view.session.select()

    def _gate_at(self, point: Point) -> str:
        """The shown gate whose line is under a point; "" for none."""
        rect, unit = self.view.canvas.in_view, np.array(self.view.canvas.pixel)
        best, found = NEAR, ""
        for key, gate in self.view.shown_gates().items():
            for line in handles.outline(gate, self.view.axes, rect):
                away = _distance(line / unit, np.array(point) / unit)
                if away < best:
                    best, found = away, key
        return found

    def _nearest(self, points: npt.NDArray[np.float64], point: Point) -> int | None:
        """The point that is within reach, if any."""
        if not len(points):
            return None
        away = np.abs((points - point) / np.array(self.view.canvas.pixel)).max(axis=1)
        away[np.isnan(away)] = np.inf
        at = int(away.argmin())
        return at if away[at] <= NEAR else None

    def _chosen(self) -> Gate | None:
        """The chosen gate if its corners can be dragged here."""
        view = self.view
        gate = view.shown_gates().get(view.session.gate)
        return None if gate is None or view.gating.tree is None or view.gating.tree[view.session.gate].locked else gate

    def _drag(self, point: Point) -> None:
        if self._draft is None or self._handle is None:
            return
        try:
            self._draft = handles.dragged(self._draft, self.view.axes, self._handle, point)
        except GateError:
            return  # it would enclose nothing: stays as it was
        self.view.draw_draft(self._draft)
        self._tell(self._draft)

    def _show_drawing(self) -> None:
        if self._drawing is None:
            return
        self.view.canvas.set_drawing(self._drawing.line(), DRAWN)
        gate = None if self._drawing.tool == "quadrant" else self._drawing.gate("-")
        if gate is not None:
            self._tell(gate)

    def _tell(self, gate: Gate) -> None:
        """Say how many cells are in a region in the making."""
        n = int((self._inside(gate) & self.view.counted).sum())
        of = int(self.view.counted.sum())
        share = 100 * n / of if of else 0.0
        self.view.say(text("map.count", n=n, percent=share, of=self.view.of_what()))


def _distance(line: npt.NDArray[np.float64], point: npt.NDArray[np.float64]) -> float:
    """Least distance of a point to a line of straight parts, (k, 2)."""
    begin, step = line[:-1], np.diff(line, axis=0)
    length = np.maximum((step**2).sum(axis=1), 1e-300)
    along = np.clip(((point - begin) * step).sum(axis=1) / length, 0, 1)
    return float(np.sqrt(((begin + along[:, None] * step - point) ** 2).sum(axis=1)).min())
