"""The scatter canvas: cells as discs or, above 200,000, as densities; gates over them; pan and zoom.

It draws what it is given and says where the pointer is in the units of the axes; what that means is decided by its
`Hand`. While the view is moved no code of ours runs: everything lies on the graphics card in the units of the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget
from vispy import scene

from napari_dinobloom.explore.gates.base import Mask
from napari_dinobloom.ui.map.ink import DARK, Ink, rgba
from napari_dinobloom.ui.map.points import Points
from napari_dinobloom.ui.map.raster import Rect, density

MOST_POINTS = 200_000
"""Discs that are drawn; more cells in view are drawn as densities."""
RASTER = (512, 512)
SETTLED = 120
"""Milliseconds after the last movement until densities are drawn anew for what is in view."""
MARGIN = 0.1
"""Of the range of the cells on each side: room to draw around those at the rim, and for the names of gates."""

Point = tuple[float, float]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GateShape:
    """A gate as it is drawn.

    Attributes
    ----------
    lines : sequence of ndarray (k, 2)
        In the units of the axes.
    colour : str
        ``#rrggbb``.
    label : str
        Text at `place`.
    place : (float, float)
        Where the text stands.
    chosen : bool
        Drawn thicker.
    """

    lines: Sequence[npt.NDArray[np.float64]]
    colour: str
    label: str
    place: Point
    chosen: bool = False


class Pointer(Protocol):
    """What the canvas tells of the mouse and the keys; each method returns whether the canvas shall not pan."""

    def press(self, point: Point, *, adding: bool) -> bool:
        """Button pressed."""

    def move(self, point: Point, *, pressed: bool) -> None:
        """Pointer moved."""

    def release(self, point: Point, *, adding: bool, moved: bool) -> None:
        """Button released; `moved`: further than a click does."""

    def double(self, point: Point) -> None:
        """Button pressed twice."""

    def leave(self) -> None:
        """Pointer left the canvas."""

    def key(self, name: str) -> bool:
        """Key pressed; return whether it meant something."""


CLICK_RADIUS = 4
ORDER = ("raster", "points", "halo", "lines", "selected", "hover", "handles", "drawn", "labels")
"""What is drawn, the lowest first."""
WIDTHS = {"halo": 4.5, "lines": 1.8, "drawn": 2.0}
"""Of lines, in pixels."""
MANY_MARKS = 16
"""More rings or handles than this are smaller, so that the cells stay in sight."""


class MapCanvas(QWidget):
    """Cells on two axes.

    Attributes
    ----------
    pointer : Pointer or None
        Gets mouse and keys.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.pointer: Pointer | None = None
        self._ink = DARK
        self._places: Float32 = np.zeros((0, 2), np.float32)
        self._codes = np.zeros(0, np.uint16)
        self._table: Float32 = np.ones((1, 4), np.float32)
        self._drawable: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._rows: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._press: Point | None = None
        self._scene = scene.SceneCanvas(keys=None, show=False, parent=self, bgcolor=self._ink.paper)
        self._grid = self._scene.central_widget.add_grid(margin=0, spacing=0)
        self.view = self._grid.add_view(row=0, col=1)
        self.view.camera = scene.PanZoomCamera(aspect=1)
        self._axes = [self._axis("left", 0, 0, 64), self._axis("bottom", 1, 1, 28)]
        self.points = Points(parent=self.view.scene)
        self.points.order = ORDER.index("points")
        self._made: dict[str, Any] = {}
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(SETTLED)
        self._later.timeout.connect(self._fill)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        native: QWidget = self._scene.native
        native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        native.setMinimumSize(240, 200)
        layout.addWidget(native)
        self.setFocusProxy(native)
        self._listen()
        self.set_ink(DARK)

    def let_go(self) -> None:
        """Do nothing any more; may be called when Qt has taken the widget away, and its graphics memory with it."""
        self.pointer = None

    # What is drawn

    def set_ink(self, ink: Ink) -> None:
        """Draw with the colours of a theme."""
        self._ink = ink
        self._scene.bgcolor = ink.paper
        if "labels" in self._made:
            self._made["labels"].color = ink.text
        for axis in self._axes:
            axis.axis.text_color = axis.axis.axis_color = axis.axis.tick_color = ink.text
        self._scene.update()

    def set_cells(self, places: Float32, drawable: Mask) -> None:
        """Set where the cells lie, (n, 2) float32, and which may be drawn; codes of all are given next."""
        self._places = places
        rows = np.flatnonzero(drawable & np.isfinite(places).all(axis=1))
        # In the order of the table one slide would cover the other.
        self._drawable = np.random.default_rng(0).permutation(rows)
        self._rows = np.zeros(0, np.int64)
        self._codes = np.zeros(len(places), np.uint16)

    def set_axes(self, titles: tuple[str, str] | None, *, equal: bool) -> None:
        """Show axes with these titles, or none; `equal`: one unit is as long on both."""
        self.view.camera.aspect = 1 if equal else None
        for axis, title in zip(self._axes, (titles or ("", ""))[::-1], strict=True):
            axis.visible = titles is not None
            axis.axis.axis_label = title
        self._axes[0].width_max = 72 if titles else 1
        self._axes[1].height_max = 36 if titles else 1
        for axis in self._axes:  # vispy's grid minds new limits only of widgets that are put in anew
            self._grid.resize_widget(axis, 1, 1)

    def set_colours(self, codes: npt.NDArray[np.uint16], table: Float32) -> None:
        """Set the code of each cell, (n,), and the colour of each code, (k, 4)."""
        changed = codes is not self._codes
        self._codes, self._table = codes, table
        self.points.set_table(table)
        if changed or not self.points.visible:
            self._fill(codes_only=self.points.visible)

    def set_gates(self, shapes: Sequence[GateShape]) -> None:
        """Draw these gates over the cells."""
        positions, colours, joined = [np.zeros((0, 2))], [np.zeros((0, 4))], [np.zeros(0, bool)]
        for shape in shapes:
            for line in shape.lines:
                positions.append(line)
                colour = rgba(self._ink.seen(shape.colour), 1.0 if shape.chosen else 0.85)
                colours.append(np.tile(colour, (len(line), 1)))
                joined.append(np.arange(len(line)) < len(line) - 1)
        points, inks, connect = np.vstack(positions), np.vstack(colours), np.concatenate(joined)
        shown = len(points) > 1
        for name, painted in (("halo", np.array(rgba(self._ink.halo, 0.55))), ("lines", inks)):
            if visual := self._visual(name, visible=shown):
                visual.set_data(pos=points, color=painted, connect=connect)
        labelled = [shape for shape in shapes if shape.label]
        if labels := self._visual("labels", visible=bool(labelled)):
            labels.text = [shape.label for shape in labelled]
            labels.pos = np.array([(*shape.place, 0.0) for shape in labelled], np.float32)
        self._scene.update()

    def set_drawing(self, line: npt.NDArray[np.float64], colour: str) -> None:
        """Show the line of a region in the making; an empty one for none."""
        if drawn := self._visual("drawn", visible=len(line) > 1):
            known = np.isfinite(line[:, 0])
            connect = known & np.append(known[1:], False)
            drawn.set_data(pos=np.nan_to_num(line), color=rgba(colour, 1.0), connect=connect)
        self._scene.update()

    def mark(self, name: str, points: npt.NDArray[Any]) -> None:
        """Put rings ("selected", "hover") or squares ("handles") at some points, (k, 2)."""
        known = points[np.isfinite(points).all(axis=1)] if len(points) else points
        if visual := self._visual(name, visible=bool(len(known))):
            handle, many = name == "handles", name != "hover" and len(known) > MANY_MARKS
            face = rgba(self._ink.paper, 0.9) if handle else (0, 0, 0, 0)
            visual.set_data(
                np.asarray(known, np.float32),
                symbol="square" if handle else "disc",
                size={"selected": 9, "hover": 15, "handles": 9}[name] - 3 * many,
                edge_width=2 if name == "hover" else 1.5 - 0.5 * many,
                edge_color=self._ink.text,
                face_color=face,
            )
            visual.set_gl_state("translucent", depth_test=False)
        self._scene.update()

    def fit(self) -> None:
        """Move the view so that all cells are seen."""
        places = self._places[self._drawable]
        if not len(places):
            low, high = np.zeros(2), np.ones(2)
        else:
            low, high = places.min(axis=0).astype(float), places.max(axis=0).astype(float)
        margin = np.maximum((high - low) * MARGIN, np.maximum(np.abs(high), 1) * 1e-6)
        (x0, y0), (x1, y1) = low - margin, high + margin
        self.view.camera.rect = (x0, y0, x1 - x0, y1 - y0)
        self._fill()

    # What is seen

    @property
    def in_view(self) -> Rect:
        """What is in view: x0, y0, x1, y1."""
        width, height = self.view.size
        (x0, y1), (x1, y0) = self.to_axes((0, 0)), self.to_axes((width, height))
        return x0, y0, x1, y1

    @property
    def pixel(self) -> Point:
        """Width and height of a pixel in the units of the axes."""
        x0, y0, x1, y1 = self.in_view
        width, height = self.view.size
        return (x1 - x0) / max(1, width), (y1 - y0) / max(1, height)

    def to_axes(self, pixel: Sequence[float]) -> Point:
        """A point of the view, in pixels from its upper left corner, in the units of the axes."""
        found = self.view.camera.transform.imap([pixel[0], pixel[1]])
        return float(found[0]), float(found[1])

    def to_pixel(self, point: Sequence[float]) -> Point:
        """A point of the axes in pixels of the canvas."""
        found = self.view.camera.transform.map([point[0], point[1]])
        left, top = self.view.pos
        return float(found[0] + left), float(found[1] + top)

    @property
    def ink(self) -> Ink:
        """Colours of the theme."""
        return self._ink

    @property
    def look(self) -> tuple[float, float]:
        """Diameter in pixels and opacity of the discs."""
        return _look(len(self._rows))

    @property
    def native(self) -> QWidget:
        """The widget that gets mouse and keys."""
        widget: QWidget = self._scene.native
        return widget

    @property
    def drawn_rows(self) -> npt.NDArray[np.int64]:
        """Rows of the cells that are drawn as discs; none while densities are drawn."""
        return self._rows if self.points.visible else np.zeros(0, np.int64)

    def picture(self) -> npt.NDArray[np.uint8]:
        """What is on the canvas, (Y, X, 3) uint8."""
        return np.ascontiguousarray(self._scene.render(alpha=False))

    # Within

    def _visual(self, name: str, *, visible: bool) -> Any:
        """Show or hide a visual, made when it is shown first; return it, None where it is hidden."""
        if visible and name not in self._made:
            self._made[name] = self._new(name)
            self._made[name].order = ORDER.index(name)
        if name in self._made:
            self._made[name].visible = visible
        return self._made[name] if visible else None

    def _new(self, name: str) -> Any:
        """Make a visual: each takes some ten milliseconds, in which no window is drawn."""
        place, visuals = self.view.scene, scene.visuals
        if name == "labels":
            return visuals.Text(parent=place, font_size=8, bold=True, anchor_y="top", color=self._ink.text)
        if name == "raster":
            made = visuals.Image(np.zeros((2, 2, 4), np.float32), parent=place, method="subdivide")
        elif name in WIDTHS:
            made = visuals.Line(np.zeros((2, 2)), width=WIDTHS[name], parent=place, method="gl", antialias=True)
        else:
            return visuals.Markers(parent=place)
        made.set_gl_state("translucent", depth_test=False)
        return made

    def _axis(self, side: str, row: int, col: int, size: int) -> Any:
        look = {"tick_font_size": 7, "font_size": 8, "axis_width": 1, "tick_width": 1}
        axis = scene.AxisWidget(orientation=side, axis_label_margin=size - 12, **look)
        self._grid.add_widget(axis, row=row, col=col)
        axis.link_view(self.view)
        return axis

    def _fill(self, *, codes_only: bool = False) -> None:
        """Draw the cells as discs, or as densities where too many are in view."""
        rows = self._drawable
        if len(rows) > MOST_POINTS:
            x0, y0, x1, y1 = self.in_view
            places = self._places[rows]
            inside = (places[:, 0] >= x0) & (places[:, 0] <= x1) & (places[:, 1] >= y0) & (places[:, 1] <= y1)
            rows = rows[inside]
            codes_only = False
        dense = len(rows) > MOST_POINTS
        self._visual("raster", visible=dense)
        self.points.visible = not dense
        if dense:
            self._draw_densities(rows)
        else:
            if not codes_only or len(rows) != len(self._rows):
                self.points.set_places(self._places[rows])
                self.points.set_look(*_look(len(rows)))
            self._rows = rows
            self.points.set_codes(self._codes[rows])
        self._scene.update()

    def _draw_densities(self, rows: npt.NDArray[np.int64]) -> None:
        rect = self.in_view
        picture = density(self._places[rows], self._codes[rows], self._table, rect, RASTER)
        raster = self._made["raster"]
        raster.set_data(picture)
        width, height = (rect[2] - rect[0]) / RASTER[1], (rect[3] - rect[1]) / RASTER[0]
        raster.transform = scene.transforms.STTransform(scale=(width, height), translate=rect[:2])

    def _listen(self) -> None:
        events = self._scene.events
        for name in ("mouse_press", "mouse_move", "mouse_release", "mouse_double_click", "key_press"):
            getattr(events, name).connect(getattr(self, f"_on_{name}"), position="first")
        self.view.scene.transform.changed.connect(self._on_view)
        self.view.camera.transform.changed.connect(self._on_view)

    def _on_view(self, _event: object = None) -> None:
        """Too many cells for discs: when the view rests, look which are in it."""
        if len(self._drawable) > MOST_POINTS:
            self._later.start()

    def _at(self, event: Any) -> Point:
        left, top = self.view.pos
        return self.to_axes((event.pos[0] - left, event.pos[1] - top))

    def _on_mouse_press(self, event: Any) -> None:
        self.native.setFocus()
        if event.button != 1 or self.pointer is None:
            return
        self._press = (float(event.pos[0]), float(event.pos[1]))
        held = self.pointer.press(self._at(event), adding="Shift" in event.modifiers)
        self.view.camera.interactive = not held

    def _on_mouse_move(self, event: Any) -> None:
        if self.pointer is not None:
            self.pointer.move(self._at(event), pressed=self._press is not None)

    def _on_mouse_release(self, event: Any) -> None:
        if event.button != 1 or self.pointer is None or self._press is None:
            return
        moved = max(abs(event.pos[i] - self._press[i]) for i in (0, 1)) > CLICK_RADIUS
        self._press = None
        self.pointer.release(self._at(event), adding="Shift" in event.modifiers, moved=moved)
        self.view.camera.interactive = True

    def _on_mouse_double_click(self, event: Any) -> None:
        if event.button == 1 and self.pointer is not None:
            self.pointer.double(self._at(event))

    def _on_key_press(self, event: Any) -> None:
        if self.pointer is not None and event.key is not None:
            held = sorted(m.name for m in event.modifiers)
            held = [] if held == ["Shift"] else held  # a capital letter is the same tool
            event.handled = self.pointer.key("+".join([*held, str(event.key.name)]))

    def leaveEvent(self, event: Any) -> None:
        """Tell the pointer that it is gone."""
        if self.pointer is not None:
            self.pointer.leave()
        super().leaveEvent(event)


def _look(count: int) -> tuple[float, float]:
    """Diameter and opacity of discs for a number of them, so that few are seen and many do not run together."""
    size = float(np.clip(9.0 - 1.5 * np.log10(max(count, 1)), 2.0, 8.0))
    return size, float(np.clip(1.25 - 0.14 * np.log10(max(count, 1)), 0.45, 0.95))
